"""Whether the state directory's disk has room for an answer."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

STATE_RESERVE_BYTES = 4 * 1024 * 1024
"""Room that must be free on the state directory's disk before anything is paid for."""


def trouble_of_disk(state_dir: Path) -> str | None:
    """Why nothing may be paid for now, or None."""
    disk = os.statvfs(state_dir)
    if disk.f_bavail * disk.f_frsize >= STATE_RESERVE_BYTES:
        return None
    return f"the disk of the state directory is full: {state_dir}"
