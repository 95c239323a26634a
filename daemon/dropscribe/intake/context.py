"""Context shared by the parts of one inbox."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from dropscribe.files.mounts import MountCache
    from dropscribe.intake.job_sink import JobSink


@dataclass(frozen=True, slots=True)
class InboxContext:
    """One inbox.

    Attributes:
        folder: Name of the folder rule.
        root: The inbox, absolute.
        note_progress: Called when the file system has answered, so that a long step is told from one that
        hangs.
    """

    folder: str
    root: bytes
    queue: JobSink
    mounts: MountCache
    note_progress: Callable[[], None]

    @staticmethod
    def wall() -> float:
        """Unix seconds: for ``received_at``, and to tell whether a folder has just changed."""
        return time.time()
