"""Jobs' side of the inboxes, on the embedded engine."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from dropscribe.files.crashpoint import reached
from dropscribe.queue.sql import intake_queries

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from dropscribe.core.model import LiveRow, NewJob, Submitted
    from dropscribe.queue.sql.database import Connection, Database


class EmbeddedIntake:
    """Files that arrive, move or disappear.

    A cluster's is :class:`~dropscribe.queue.cluster.intake.ClusterIntake`.
    """

    def __init__(self, store: Database) -> None:
        self._store = store
        self._renamed: dict[str, str] = {}  # read and written in the database's thread

    def submit(self, jobs: Sequence[NewJob]) -> list[Submitted]:
        """Add settled files; idempotent while a file's job lives. Blocks; not for the event loop.

        A file whose job has ended is a new generation. Durable when it returns.

        Raises:
            StoreError: Nothing was added.
        """
        submitted = self._store.call(lambda db: intake_queries.submit(db, self._by_name(jobs))).result()
        reached("submitted")
        return submitted

    def _by_name(self, jobs: Sequence[NewJob]) -> Sequence[NewJob]:
        if not self._renamed:
            return jobs
        return [replace(job, folder=self._renamed.get(job.folder, job.folder)) for job in jobs]

    def rename_folders(self, db: Connection, renamed: Mapping[str, str], folders: Collection[str]) -> None:
        """Give the live jobs of renamed rules, old → new name, to the new names, now and when more come.

        The thread of an old rule may submit until it has ended.

        Args:
            folders: All rules by name.
        """
        names = {old: renamed.get(new, new) for old, new in self._renamed.items()} | dict(renamed)
        self._renamed = {old: new for old, new in names.items() if old not in folders}
        intake_queries.rename_folders(db, renamed)

    def live(self, db: Connection, folder: str, directory: bytes) -> Iterable[LiveRow]:
        """The live jobs of one directory."""
        return intake_queries.read_live(db, folder, directory)

    def moved_device(self, db: Connection, folder: str, directory: bytes, device: int) -> None:
        """Update the device number of a directory that was mounted anew."""
        intake_queries.set_device(db, folder, directory, device)
