"""Jobs' side of the inboxes, on both engines: files that arrive, move or disappear."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from dropscribe.files.crashpoint import reached
from dropscribe.queue.sql import intake_queries
from dropscribe.queue.sql.rows import split_path

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from dropscribe.core.model import LiveRow, NewJob, Submitted
    from dropscribe.queue.admission import Admission
    from dropscribe.queue.cluster.store import ClusterStore
    from dropscribe.queue.sql.database import Connection, Database

ENOUGH_ROWS = 200  # after this many new rows a cluster's planner collects its statistics once


class EmbeddedIntake:
    """The intake of one machine's queue."""

    def __init__(self, store: Database) -> None:
        self._store = store
        self._renamed: dict[str, str] = {}  # read and written in the database's thread

    def submit(self, jobs: Sequence[NewJob]) -> list[Submitted]:
        """Add settled files; idempotent while a file's job lives. Blocks; not for the event loop.

        A file whose job has ended is a new generation. Durable when it returns; with a StoreError nothing was
        added.
        """
        # A clock may have been set back since a file was first seen, and it is due when it was received.
        now = self._store.now()
        jobs = [replace(job, received_at=now) if job.received_at > now else job for job in jobs]
        submitted = self._store.call(lambda db: intake_queries.submit(db, self._by_name(jobs))).result()
        reached("submitted")
        return submitted

    def _by_name(self, jobs: Sequence[NewJob]) -> Sequence[NewJob]:
        if not self._renamed:
            return jobs
        return [replace(job, folder=self._renamed.get(job.folder, job.folder)) for job in jobs]

    def rename_folders(self, db: Connection, inboxes: Mapping[str, str]) -> None:
        """Give the live jobs of rules to those that have their inboxes now, and when more come.

        The thread of a rule that has left may submit until it has ended. *inboxes* are those of all rules.
        """
        moved = intake_queries.note_inboxes(db, inboxes)
        names = {old: moved.get(new, new) for old, new in self._renamed.items()} | dict(moved)
        self._renamed = {old: new for old, new in names.items() if old not in inboxes}
        intake_queries.rename_folders(db, moved, moved.keys() - inboxes.keys())

    def live(self, db: Connection, folder: str, directory: bytes) -> Iterable[LiveRow]:
        """The live jobs of one directory."""
        return intake_queries.read_live(db, folder, directory)

    def moved_device(self, db: Connection, folder: str, directory: bytes, device: int) -> None:
        """Update the device number of a directory that was mounted anew."""
        intake_queries.set_device(db, folder, directory, device)


class ClusterIntake:
    """The same on a node of a cluster, where inodes and devices differ from mount to mount."""

    def __init__(self, admission: Admission, store: ClusterStore) -> None:
        from dropscribe.queue.cluster.ticket_rows import issue_tickets  # noqa: PLC0415  # of an extra

        self._admission = admission
        self._store = store
        self._issue_tickets = issue_tickets
        self._devices: dict[tuple[str, bytes], int] = {}
        self._new_rows = 0

    def submit(self, jobs: Sequence[NewJob]) -> list[Submitted]:
        """Add settled files, and issue their tickets in the same transaction."""
        now, ahead_seconds = self._store.now(), self._store.clock_ahead_seconds
        new = []
        for job in jobs:
            received_at = min(now, job.received_at + ahead_seconds)
            new.append(replace(job, stable_inodes=False, received_at=received_at))
            self._devices[job.folder, split_path(job.path)[0]] = job.snapshot.device

        def write(db: Connection) -> list[Submitted]:
            submitted = intake_queries.submit(db, new)
            if new_rows := sum(each.is_new for each in submitted):
                self._issue_tickets(db, self._admission, self._store.now())
                self._new_rows += new_rows
                if self._new_rows >= ENOUGH_ROWS > self._new_rows - new_rows:
                    # Autovacuum comes later, or is off. Without statistics PostgreSQL takes all indexes that
                    # begin with the folder for equally good, and may read all live rows for each file.
                    db.execute("ANALYZE jobs")
            return submitted

        submitted = self._store.call(write).result()
        reached("submitted")
        return submitted

    def rename_folders(self, db: Connection, inboxes: Mapping[str, str]) -> None:
        """Does nothing: other nodes may still have the rule under its old name."""

    def live(self, db: Connection, folder: str, directory: bytes) -> Iterable[LiveRow]:
        """The live jobs of one directory. Device numbers are each node's own, and remembered here."""
        device = self._devices.get((folder, directory), 0)
        rows = intake_queries.read_live(db, folder, directory)
        return (row._replace(device=device) for row in rows)

    def moved_device(self, _: Connection, folder: str, directory: bytes, device: int) -> None:
        """Remember the device number of a directory that was mounted anew."""
        self._devices[folder, directory] = device
