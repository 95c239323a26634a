"""``dropscribe schema``: prints the JSON Schema of the config or of a transcript."""

from __future__ import annotations

import argparse
import json
import sys
from importlib.resources import files

from dropscribe.config.describe import json_schema


def execute(options: argparse.Namespace) -> None:
    """Print the schema to standard output."""
    if options.transcript:
        schema = files("dropscribe.transcripts") / "schema" / "transcript.schema.json"
        sys.stdout.write(schema.read_text("utf-8"))
    else:
        sys.stdout.write(json.dumps(json_schema(), indent=2) + "\n")
