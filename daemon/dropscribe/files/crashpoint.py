"""Named points between durable steps, where a test may kill the process.

Off unless ``DROPSCRIBE_CRASH_AT=name`` (or ``name:3`` for the third time) was in the environment at
start. Then reaching the point is SIGKILL: no clean-up runs, as in a power cut.
"""

from __future__ import annotations

import os
import signal

_name, _, _count = os.environ.get("DROPSCRIBE_CRASH_AT", "").partition(":")
_left = int(_count or 1)

POINTS = (
    "submitted",
    "claimed",
    "answered",
    "kept",
    "sidecar_written",
    "sidecar_linked",
    "sidecars_synced",
    "copied",
    "copy_linked",
    "copy_verified",
    "copy_set_aside",
    "audio_moved",
    "published",
    "ended",
)
"""All points of a file's usual path, in order; ``cop…`` are reached if done is on another file system."""

SIDE_POINTS = ("recovered", "held", "taken_back", "error_removed")
"""Points that a file reaches only in special cases: a start after a crash, a held provider, a name taken at
the last moment, a failed file that was moved back."""

COMPANION_POINTS = ("companion_linked", "companion_removed")
"""Further points of a file with companions, beside those in POINTS."""

REMOTE_POINTS = ("uploaded", "job_created", "job_stored", "job_deleted")
"""Further points of a file that a provider processes as a remote job, beside those in POINTS."""


def reached(name: str) -> None:
    """Die here if a test asked for it."""
    global _left  # noqa: PLW0603  # the count of one process's life
    if name != _name:
        return
    _left -= 1
    if _left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
