"""Context shared by the parts of one inbox, and the queue as they see it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from dropscribe.config.model import FolderRule
    from dropscribe.core.model import LiveRow, NewJob, Submitted
    from dropscribe.core.rules import Taking
    from dropscribe.files.mounts import MountCache


class JobSink(Protocol):
    """The queue as an inbox's thread sees it; every call blocks. Paths are relative to the rule's inbox."""

    def submit(self, jobs: Sequence[NewJob]) -> list[Submitted]:
        """Hand over settled files; durable when it returns, idempotent while their jobs live.

        Raises:
            StoreError: Nothing was taken; the files are handed over again later.
        """

    def relocate(self, job: NewJob, old_path: bytes) -> None:
        """Store the new path of a live job; *job* has the identity and the new path of its file."""

    def live(self, folder: str, directory: bytes) -> Iterable[LiveRow]:
        """Live jobs with a file directly in *directory*; b"" for the inbox itself."""

    def directories(self, folder: str) -> Iterable[bytes]:
        """The distinct directories of live jobs."""

    def withdraw(self, folder: str, paths: list[bytes], reason: str) -> None:
        """The files are gone: end their jobs, except those in flight and those with a stored result."""

    def moved_device(self, folder: str, directory: bytes, device: int) -> None:
        """The files of *directory* were found under another device number: their mount was mounted anew."""

    def close_thread(self) -> None:
        """The calling thread ends: close its own database connection."""


@dataclass(frozen=True, slots=True)
class InboxContext:
    """One inbox.

    Attributes:
        root: The inbox, absolute.
        taking: The names that are taken and entered.
        note_progress: Called when the file system has answered, so that a long step is distinguished from a
            hanging one.
    """

    rule: FolderRule
    root: bytes
    taking: Taking
    queue: JobSink
    mounts: MountCache
    note_progress: Callable[[], None]
