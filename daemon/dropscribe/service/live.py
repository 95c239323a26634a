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
        descriptor = os.open(temp, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(json.dumps(live))
        os.replace(temp, state_dir / LIVE_NAME)


def read_live(state_dir: Path) -> dict[str, Any]:
    """What a daemon wrote last; {} where none has."""
    try:
        live = json.loads((state_dir / LIVE_NAME).read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return live if isinstance(live, dict) else {}
