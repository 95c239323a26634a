"""The queue's two callbacks: one attempt at a job, and the publishing of its result.

Guarantees: both are safe to call again from any point. A bug ends neither the daemon nor its neighbours'
work: before an upload it costs a few tries, after one it is a failure of that attempt, and once an answer
exists nothing is sent again.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import structlog

from dropscribe.core.backoff import backoff_seconds
from dropscribe.core.errors import StoreError
from dropscribe.core.model import AttemptEnd, Retry
from dropscribe.core.retry import INTERNAL_ERROR, INTERNAL_ERROR_WORDS
from dropscribe.queue.sql.rows import LateTransitionError

if TYPE_CHECKING:
    from dropscribe.core.model import Job, Outcome
    from dropscribe.pipeline.attempts import Attempts
    from dropscribe.pipeline.failures import Failures
    from dropscribe.pipeline.publisher import Publisher
    from dropscribe.pipeline.runtime_config import RuntimeConfig

log = structlog.get_logger()

TRIES_WITH_A_BUG = 3
"""A file that meets a bug before anything is sent is tried so often in one run of the daemon."""


@dataclass(slots=True)
class Handler:
    """See :data:`dropscribe.queue.engine.AttemptJob` and :data:`~dropscribe.queue.engine.PublishJob`.

    Attributes:
        runtime: Replaced whole at a reload; a call keeps the value that it began with.
    """

    runtime: RuntimeConfig
    attempts: Attempts
    failures: Failures
    publisher: Publisher
    _bugs: Counter[int] = field(default_factory=Counter)

    async def attempt(self, job: Job) -> Outcome:
        """Make one attempt to transcribe *job*."""
        runtime = self.runtime
        if not runtime.serves(job):
            return Retry(0.0, "reloaded", "its rule or its provider has left the config")
        try:
            outcome = await self.attempts.make(job, runtime)
        except (StoreError, LateTransitionError):
            raise
        except Exception as error:  # noqa: BLE001  # a bug; it is logged
            return await self._met_bug(job, runtime, error)
        self._bugs.pop(job.id, None)
        return self._without_lost_provider(job, outcome)

    async def publish(self, job: Job) -> Outcome:
        """Write the files of *job*."""
        runtime = self.runtime
        if not runtime.serves(job):
            return Retry(0.0, "reloaded", "its rule has left the config")
        try:
            outcome = await self.publisher.publish(job, runtime)
        except (StoreError, LateTransitionError):
            raise
        except Exception as error:  # noqa: BLE001  # a bug; it is logged
            return self._wait_after_bug(job, runtime, error)
        self._bugs.pop(job.id, None)
        return outcome

    def _without_lost_provider(self, job: Job, outcome: Outcome) -> Outcome:
        """A file does not wait for a provider that a reload took from its rule during the attempt."""
        if not isinstance(outcome, Retry) or not outcome.assigned_provider:
            return outcome
        rule = self.runtime.config.folders.get(job.folder)
        if rule is None or outcome.assigned_provider in rule.providers:
            return outcome
        return replace(outcome, assigned_provider="")

    async def _met_bug(self, job: Job, runtime: RuntimeConfig, error: Exception) -> Outcome:
        """Nothing was sent, or the attempt has been told of already."""
        retry = self._wait_after_bug(job, runtime, error)
        if self._bugs[job.id] < TRIES_WITH_A_BUG:
            return retry
        ended = AttemptEnd(0.0, code=INTERNAL_ERROR, reason=INTERNAL_ERROR_WORDS, counted=False)
        return await self.failures.reject(job, runtime, INTERNAL_ERROR, INTERNAL_ERROR_WORDS, ended)

    def _wait_after_bug(self, job: Job, runtime: RuntimeConfig, error: Exception) -> Retry:
        log.error("job.bug", folder=job.folder, path=job.path, exc_info=error)
        self._bugs[job.id] += 1
        limits = runtime.limits
        wait_seconds = backoff_seconds(limits.first_seconds, self._bugs[job.id], limits.max_seconds)
        return Retry(wait_seconds, INTERNAL_ERROR, INTERNAL_ERROR_WORDS)
