"""Writes the in-memory state of the running daemon to a file that ``status`` and ``why`` read.

The file is small, lies in the state directory, is replaced atomically and never synced: nothing depends on
it. It holds the inboxes, how each is watched, and the reason that each settling file waits for.
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
        descriptor = os.open(temp, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(json.dumps(live))
        os.replace(temp, state_dir / LIVE_NAME)


def read_live(state_dir: Path) -> dict[str, Any]:
    """The last state that a daemon wrote; {} if there is none."""
    try:
        live = json.loads((state_dir / LIVE_NAME).read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return live if isinstance(live, dict) else {}
