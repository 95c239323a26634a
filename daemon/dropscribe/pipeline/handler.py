"""The queue's two callbacks: one attempt at a job, and the publishing of its result.

Guarantees: both are safe to call again from any point. Once an answer exists nothing is sent again.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from dropscribe.core.model import AttemptEnd, Job, JobState, Outcome, Retry, Withdrawn
from dropscribe.core.retry import MAX_INTERNAL_ERRORS
from dropscribe.files.mounts import require_mount
from dropscribe.intake.inboxes import Inboxes
from dropscribe.pipeline.attempts import Attempts
from dropscribe.pipeline.budgets import Budgets
from dropscribe.pipeline.claims import Claim, RuntimeConfig
from dropscribe.pipeline.disk_threads import DiskThreads, PlaceChecks
from dropscribe.pipeline.failures import Failures, HoldPolicy
from dropscribe.pipeline.publisher import Publisher
from dropscribe.pipeline.results import Results
from dropscribe.queue.engine import Engine
from dropscribe.service.reporter import Reporter


class Handler:
    """See :data:`dropscribe.queue.model.AttemptJob` and :data:`~dropscribe.queue.model.PublishJob`.

    Attributes:
        runtime: Replaced whole at a reload; a call keeps the value that it began with.
        budgets: The caller audits them at the start, at each reload and when a day begins.
        checks: Folders that take no files. A reload reopens those of changed rules.
    """

    def __init__(
        self,
        runtime: RuntimeConfig,
        queue: Engine,
        intake: Inboxes,
        reporter: Reporter,
        *,
        token: str,
        jitter: Callable[[], float],
    ) -> None:
        self.runtime = runtime
        self._disks = disks = DiskThreads(queue)
        self.checks = PlaceChecks(queue, disks)
        self.budgets = Budgets(queue, reporter, disks)
        holds, results = HoldPolicy(queue, reporter), Results(queue, disks)
        failures = Failures(queue, holds, results, jitter)
        self.attempts = Attempts(
            queue, holds, intake, reporter, disks, self.checks, results, self.budgets, failures
        )
        self._publisher = Publisher(queue, intake, reporter, disks, results, token)
        for rule in runtime.config.folders.values():  # remembers their mounts from the start
            for folder in (rule.done, rule.failed):
                disks.of(rule.name).submit(require_mount, os.fsencode(folder))

    async def attempt(self, job: Job) -> Outcome:
        """Make one attempt to transcribe *job*."""
        claim = self._claim(job)
        if claim is None:
            reason = "its rule or its provider has left the config"
            # Jobs at such a provider are no longer polled.
            ended = AttemptEnd(0.0, code="provider_removed", reason=reason, ambiguous=True)
            return Retry(0.0, "reloaded", reason, ended if job.remote else None)
        if job.remote is None and (left_alone := claim.rule.patterns.reason_not_taken(job.path)):
            # The rule has changed since the file was queued: a drop by mistake can still be stopped.
            return Withdrawn(f"the rule no longer takes it: {left_alone}")
        return await self.attempts.make(claim)

    async def publish(self, job: Job) -> Outcome:
        """Write the files of *job*."""
        claim = self._claim(job)
        if claim is None:
            return Retry(0.0, "reloaded", "its rule has left the config")
        if job.state is JobState.TRANSCRIBED and job.internal_errors >= MAX_INTERNAL_ERRORS:
            return await self._publisher.reject(claim)
        return await self._publisher.publish(claim)

    def _claim(self, job: Job) -> Claim | None:
        """*job* under the current config; None where that has lost its rule or its provider."""
        rule = self.runtime.config.folders.get(job.folder)
        if rule is None or (job.result is None and job.provider not in rule.providers):
            return None
        return Claim(job, self.runtime, rule)

    def close(self) -> None:
        """Stop accepting calls on users' folders, without waiting for hanging ones."""
        self.checks.close()
        self._disks.close()
