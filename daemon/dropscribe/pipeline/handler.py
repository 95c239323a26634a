"""The queue's two callbacks: one attempt at a job, and the publishing of its result.

Guarantees: both are safe to call again from any point. Once an answer exists nothing is sent again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from dropscribe.core.model import AttemptEnd, JobState, ResultStored, Retry, Withdrawn
from dropscribe.core.retry import MAX_INTERNAL_ERRORS

if TYPE_CHECKING:
    from dropscribe.core.model import Job, Outcome
    from dropscribe.pipeline.attempts import Attempts
    from dropscribe.pipeline.publisher import Publisher
    from dropscribe.pipeline.runtime_config import RuntimeConfig


@dataclass(slots=True)
class Handler:
    """See :data:`dropscribe.queue.model.AttemptJob` and :data:`~dropscribe.queue.model.PublishJob`.

    Attributes:
        runtime: Replaced whole at a reload; a call keeps the value that it began with.
    """

    runtime: RuntimeConfig
    attempts: Attempts
    publisher: Publisher

    async def attempt(self, job: Job) -> Outcome:
        """Make one attempt to transcribe *job*."""
        runtime = self.runtime
        if not runtime.serves(job):
            reason = "its rule or its provider has left the config"
            # Jobs at such a provider are no longer polled.
            ended = AttemptEnd(0.0, code="provider_removed", reason=reason, ambiguous=True)
            return Retry(0.0, "reloaded", reason, ended if job.remote else None)
        if job.remote is None and (left_alone := runtime.rule(job.folder).taking.reason_not_taken(job.path)):
            # The rule has changed since the file was queued: a drop by mistake can still be stopped.
            return Withdrawn(f"the rule no longer takes it: {left_alone}")
        return await self.attempts.make(job, runtime)

    async def publish(self, job: Job) -> Outcome:
        """Write the files of *job*."""
        runtime = self.runtime
        if not runtime.serves(job):
            return Retry(0.0, "reloaded", "its rule has left the config")
        if job.state is JobState.TRANSCRIBED and job.internal_errors >= MAX_INTERNAL_ERRORS:
            return ResultStored(await self.publisher.reject(job, runtime))
        return await self.publisher.publish(job, runtime)
