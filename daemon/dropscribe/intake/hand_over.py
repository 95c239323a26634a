"""Settled files → jobs in the queue.

Guarantees: a file's entry stays until the queue has stored its job durably, so that every file is counted
somewhere at any time. A file that the queue refuses waits alone, with its reason.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import structlog

from dropscribe.core.errors import StoreError
from dropscribe.core.settling import Cause
from dropscribe.intake.probe import OpenInbox

if TYPE_CHECKING:
    from dropscribe.core.model import FileSnapshot, NewJob, Submitted
    from dropscribe.intake.context import InboxContext
    from dropscribe.intake.pending import Entry, Pending

log = structlog.get_logger()


class HandOver:
    """Submits the settled files of one inbox."""

    def __init__(self, context: InboxContext, pending: Pending) -> None:
        self._context = context
        self._pending = pending
        self._store_is_well = True

    def submit(self, settled: list[tuple[NewJob, Entry]], now: float) -> None:
        """Hand over files; those that the queue does not take wait for the next try."""
        try:
            results = self._context.queue.submit([job for job, _ in settled])
        except StoreError as error:
            self._note_store(error.reason, now)
            for job, entry in settled:
                note = f"the queue cannot take it: {error.reason}"
                self._pending.postpone(job.path, entry, Cause.TROUBLE, note, now)
        except Exception as error:  # noqa: BLE001
            if len(settled) == 1:
                self._refuse(*settled[0], error, now)
                return
            for item in settled:  # one of them may be the cause and must not delay the others
                self.submit([item], now)
        else:
            self._note_store("", now)
            for (job, entry), result in zip(settled, results, strict=True):
                self._note_result(job, entry, result, now)

    def _refuse(self, job: NewJob, entry: Entry, error: Exception, now: float) -> None:
        if entry.cause is not Cause.REFUSED:
            log.error("file.refused", folder=self._context.folder, path=job.path, exc_info=error)
        self._pending.postpone(job.path, entry, Cause.REFUSED, str(error), now)

    def _note_store(self, reason: str, now: float) -> None:
        if reason and self._store_is_well:
            log.warning("inbox.handover_failed", folder=self._context.folder, reason=reason)
        elif not reason and not self._store_is_well:
            self._pending.look_again(Cause.TROUBLE, now)
        self._store_is_well = not reason

    def _note_result(self, job: NewJob, entry: Entry, result: Submitted, now: float) -> None:
        other = result.live_path
        if result.is_in_flight:
            note = "an earlier state of it is being transcribed"
            self._pending.postpone(job.path, entry, Cause.TWIN, note, now)
        elif result.is_new or other is None or other == job.path:
            self._pending.drop(job.path)
        elif self._is_same_file(other, job.snapshot):
            # A hard link of a file that has a job: taken when that job has ended.
            note = f"it is the same file as {os.fsdecode(other)!r}"
            self._pending.postpone(job.path, entry, Cause.TWIN, note, now)
        else:
            self._context.queue.relocate(job, other)
            self._pending.drop(job.path)

    def _is_same_file(self, path: bytes, snapshot: FileSnapshot) -> bool:
        try:
            with OpenInbox(self._context.root) as inbox:
                status = inbox.stat(path)
        except OSError:
            return False
        return status is not None and (status.st_dev, status.st_ino) == (snapshot.device, snapshot.inode)
