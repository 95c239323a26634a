"""Runs the callbacks of one job and records their outcomes; the same for both engines."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import structlog

from dropscribe.core.errors import StoreError
from dropscribe.core.model import AtProvider, AttemptEnd, Job, Outcome, ResultStored, Retry, Withdrawn
from dropscribe.core.retry import INTERNAL_ERROR, INTERNAL_ERROR_WORDS, backoff_seconds
from dropscribe.files.crashpoint import reached
from dropscribe.queue.admission import Admission
from dropscribe.queue.model import AttemptJob, PublishJob
from dropscribe.queue.sql import transactions
from dropscribe.queue.sql.rows import LateTransitionError

log = structlog.get_logger()


class JobRunner:
    """Runs jobs that a dispatcher has claimed and added to the jobs in flight."""

    def __init__(self, admission: Admission, attempt: AttemptJob, publish: PublishJob) -> None:
        self._admission = admission
        self._database = admission.database
        self._attempt = attempt
        self._publish = publish

    async def run(self, job: Job) -> Outcome | None:
        """One call of the callback, recorded; the job is not in flight any more when it returns.

        Returns the outcome; None where the job was ended or taken over meanwhile.
        """
        try:
            outcome = await self._call(job)
            await self._record(job, outcome)
        except LateTransitionError as error:
            # The intake has ended the row meanwhile (a slow disk published a file missing in a listing), or
            # another node has taken it over from this one, which was thought dead.
            log.warning("job.late", folder=job.folder, path=job.path, reason=str(error))
            return None
        except asyncio.CancelledError:
            await asyncio.shield(self._hand_back(job))
            raise
        finally:
            self._admission.in_flight.remove(job)
        return outcome

    async def _hand_back(self, job: Job) -> None:
        """Requeue an attempt that the daemon's end interrupted; make a publication or a poll due again."""
        write = transactions.requeue_interrupted
        if job.result is not None or job.remote is not None:
            write = transactions.set_due
        try:
            await self._database.store.do(lambda db: write(db, job, self._database.now()))
        except (StoreError, LateTransitionError) as error:
            log.debug("job.not_handed_back", folder=job.folder, path=job.path, reason=str(error))

    async def _call(self, job: Job) -> Outcome:
        try:
            return await (self._attempt(job) if job.result is None else self._publish(job))
        except (StoreError, LateTransitionError):
            raise
        except Exception:
            # A bug must not lose the file nor stop the others. Its count ends the job after a few times.
            log.exception("job.bug", folder=job.folder, path=job.path)
            ended = AttemptEnd(0.0, code=INTERNAL_ERROR, reason=INTERNAL_ERROR_WORDS, internal=True)
            retry, count = self._admission.plan.retry, job.internal_errors + 1
            wait_seconds = backoff_seconds(retry.first_seconds, count, retry.max_seconds)
            return Retry(wait_seconds, INTERNAL_ERROR, INTERNAL_ERROR_WORDS, ended, wait_seconds)

    async def _record(self, job: Job, outcome: Outcome) -> None:
        in_flight, plan = self._admission.in_flight, self._admission.plan
        if job.result is None:
            self._admission.rates.end_pause(job.provider)
        if isinstance(outcome, ResultStored):
            in_flight.at_provider.pop(job.id, None)
            return
        await self._database.do(lambda db: transactions.record(db, plan, job, outcome, self._database.now()))
        if isinstance(outcome, AtProvider):
            in_flight.at_provider[job.id] = job.provider
            reached("job_stored")
            if job.folder not in self._admission.plan.chains:  # a reload took its rule away, or renamed it
                await self._admission.recount_at_provider()
        elif not isinstance(outcome, Retry) or outcome.ends_attempt:
            in_flight.at_provider.pop(job.id, None)
        if isinstance(outcome, Withdrawn):
            log.info("job.withdrawn", folder=job.folder, path=job.path, reason=outcome.reason)
        reached("ended")


def log_interrupted(jobs: Sequence[Job]) -> None:
    """Log one line for each requeued job: its attempt may have been paid for."""
    for job in jobs:
        log.warning("attempt.interrupted", folder=job.folder, path=job.path, crashes=job.crashes + 1)


def log_abandoned(jobs: Sequence[Job]) -> None:
    """Log one line for each job that was at a provider which has left the config: it is sent again."""
    for job in jobs:
        log.warning("job.provider_removed", folder=job.folder, path=job.path, provider=job.provider)
