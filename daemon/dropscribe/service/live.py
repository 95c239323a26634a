"""What only the running daemon knows, written down for ``status`` and ``why``.

A small file in the state directory, replaced whole, never synced: memory for readers, not truth. It
holds which inboxes are there and how they are watched, and what settling files wait for.
"""

from __future__ import annotations

import contextlib
import json
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

LIVE_NAME = "live.json"


def write_live(state_dir: Path, live: Mapping[str, Any]) -> None:
    """Replace the file; a full disk is no reason to stop."""
    temp = state_dir / f".{LIVE_NAME}.tmp"
    with contextlib.suppress(OSError):
        temp.write_text(json.dumps(live), "utf-8")
        os.replace(temp, state_dir / LIVE_NAME)


def read_live(state_dir: Path) -> dict[str, Any]:
    """What a daemon wrote last; {} where none has."""
    try:
        live = json.loads((state_dir / LIVE_NAME).read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return live if isinstance(live, dict) else {}
