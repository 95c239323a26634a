"""Results of attempts: stored before any file is touched, and found again for equal recordings."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dropscribe.files.crashpoint import reached
from dropscribe.queue.sql import attempt_rows, result_cache, result_rows, rows, transactions

if TYPE_CHECKING:
    from dropscribe.core.budget import AnswerKey, Booking
    from dropscribe.core.model import Attempt, AttemptEnd, FileSnapshot, Job, StoredResult
    from dropscribe.queue.model import CachedResult
    from dropscribe.queue.retrying_database import RetryingDatabase
    from dropscribe.queue.sql.database import Connection


class ResultStore:
    """Stores, replaces and finds results. Each call waits while the database cannot be written."""

    def __init__(self, database: RetryingDatabase) -> None:
        self._database = database

    async def store_result(
        self,
        job: Job,
        result: StoredResult,
        ended: AttemptEnd,
        *,
        rejected: bool,
        booking: Booking | None = None,
    ) -> Job | None:
        """Store the result of an attempt and reserve the names of its files, before any file is written.

        Args:
            rejected: The result is an error document: the file goes to ``failed``.
            booking: Cache entry and budget usage, written in the same transaction.

        Returns:
            The job in its new state; None when another live job has reserved one of the names.
        """

        def write(db: Connection) -> Job | None:
            moved = result_rows.store_result(db, job, result, ended, rejected=rejected)
            if moved is not None and booking is not None:
                transactions.book(db, job, result.document, booking, self._database.now())
            return moved

        try:
            moved = await self._database.do(write)
        except rows.LateTransitionError:
            moved = await self._find_stored(job, result)
            if moved is None:
                raise
        if moved is not None:
            reached("kept")
        return moved

    async def _find_stored(self, job: Job, result: StoredResult) -> Job | None:
        """The job as an earlier try has stored it: its commit was made and the confirmation was lost.

        It has the names of that try; the later try took them for another job's.
        """
        found = await self._database.do(
            lambda db: result_rows.jobs_with_result(db, "jobs.id = ? AND fence = ?", (job.id, job.fence))
        )
        if found and found[0].result is not None and found[0].result.document == result.document:
            return found[0]
        return None

    async def rename_outputs(self, job: Job, result: StoredResult) -> Job | None:
        """Replace the reserved names of a stored result; returns as :meth:`store_result`."""
        return await self._database.do(lambda db: result_rows.rename_outputs(db, job, result))

    async def reject_result(self, job: Job, error: StoredResult) -> Job | None:
        """Replace a transcript that cannot be published by an error document; returns as above."""
        return await self._database.do(lambda db: result_rows.reject_result(db, job, error))

    async def refresh_snapshot(self, job: Job, snapshot: FileSnapshot) -> Job | None:
        """Let a job with a stored result stand for the same recording under a new inode or time.

        Returns:
            The job; None where another job has begun with that state of the file.
        """
        return await self._database.do(lambda db: result_rows.refresh_snapshot(db, job, snapshot))

    async def find_result(self, key: AnswerKey, keep_seconds: float) -> CachedResult | None:
        """A cached answer that is no older than *keep_seconds*."""
        oldest = self._database.now() - keep_seconds
        return await self._database.do(lambda db: result_cache.read_answer(db, key, oldest))

    async def attempts(self, job: Job) -> list[Attempt]:
        """Every attempt of one job, oldest first."""
        return await self._database.do(lambda db: attempt_rows.read_attempts(db, job.id))
