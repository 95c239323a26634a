"""``dropscribe schema``: the config's JSON Schema."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

from dropscribe.cli import exit_codes
from dropscribe.config.describe.schema import json_schema

if TYPE_CHECKING:
    import argparse


def execute(_options: argparse.Namespace) -> int:
    """To standard output."""
    sys.stdout.write(json.dumps(json_schema(), indent=2) + "\n")
    return exit_codes.OK
