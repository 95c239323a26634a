"""Named points between durable steps, where a test may kill the process.

Off unless ``DROPSCRIBE_CRASH_AT=name`` (or ``name:3`` for the third time) was in the environment at
start. Then reaching the point is SIGKILL: no clean-up runs, as in a power cut.
"""

from __future__ import annotations

import os
import signal

_name, _, _count = os.environ.get("DROPSCRIBE_CRASH_AT", "").partition(":")
_left = int(_count or 1)


def reached(name: str) -> None:
    """Die here if a test asked for it."""
    global _left  # noqa: PLW0603  # the count of one process's life
    if name != _name:
        return
    _left -= 1
    if _left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
