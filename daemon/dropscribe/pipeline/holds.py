"""Holds a provider or rule whose failures are not the files' fault, and releases it.

While a hold lasts, its files stay in the inbox. One file at a time probes it, first after ``hold.first`` and
then less and less often, down to every ``hold.max``; the first good answer releases it.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from dropscribe.core.model import Hold, Scope, ScopeKind
from dropscribe.core.retry import next_hold_seconds

if TYPE_CHECKING:
    from dropscribe.core.errors import ProviderError
    from dropscribe.core.model import Job
    from dropscribe.pipeline.runtime_config import Claim
    from dropscribe.queue.engine import Engine
    from dropscribe.service.reporter import Reporter

FILES_IN_A_ROW = 3
"""This many different files in a row that fail alike, with no success between, hold a provider or a rule."""


class Streaks:
    """Different files in a row with the same failure, which the key identifies."""

    def __init__(self) -> None:
        self._jobs: dict[tuple[str, ...], set[int]] = {}

    def add(self, key: tuple[str, ...], job_id: int) -> bool:
        """Add one failure; returns whether ``FILES_IN_A_ROW`` different files have failed alike by now."""
        jobs = self._jobs.setdefault(key, set())
        jobs.add(job_id)
        return len(jobs) >= FILES_IN_A_ROW

    def clear(self, *prefix: str) -> None:
        """Forget every streak whose key begins with *prefix*."""
        for key in [key for key in self._jobs if key[: len(prefix)] == prefix]:
            del self._jobs[key]


@dataclass(slots=True)
class Holds:
    """Counts failures in a row; holds, probes and releases."""

    queue: Engine
    reporter: Reporter
    _outages: Streaks = field(default_factory=Streaks)
    _refusals: Streaks = field(default_factory=Streaks)

    async def hold(self, claim: Claim, kind: ScopeKind, error: ProviderError) -> None:
        """Hold the provider or folder of a job, or lengthen its hold after a failed probe."""
        scope, times, now = _scope_of(claim.job, kind), claim.config.hold, self.queue.now()
        held = self.queue.holds.get(scope)
        if held and now < held.next_probe_at:
            return  # it was in flight when the hold began, so it is no probe
        wait_seconds = next_hold_seconds(
            held.wait_seconds if held else None, times.first_seconds, times.max_seconds
        )
        since = held.since if held else now
        hold = Hold(scope, error.code, error.reason, since, now + wait_seconds, wait_seconds)
        await self.queue.holds.hold(hold)
        if held is None:
            self.reporter.held(hold)

    async def succeeded(self, job: Job) -> None:
        """The provider transcribed a file of this folder: release both."""
        await self.answered(job)
        self._refusals.clear(job.folder)
        await self._release(_scope_of(job, ScopeKind.FOLDER))

    async def answered(self, job: Job) -> None:
        """The provider gave a verdict on a file, so it is reachable and accepts the key."""
        self._outages.clear(job.provider)
        await self._release(_scope_of(job, ScopeKind.PROVIDER))

    async def out_of_order(self, claim: Claim, error: ProviderError) -> bool:
        """Count a failure of the provider (no connection, 5xx, 429); returns whether it is held."""
        job = claim.job
        is_held = self.queue.holds.get(_scope_of(job, ScopeKind.PROVIDER)) is not None
        if is_held or self._outages.add((job.provider,), job.id):
            await self.hold(claim, ScopeKind.PROVIDER, error)
            return True
        return False

    async def refused(self, claim: Claim, error: ProviderError) -> bool:
        """Weigh a refusal that could be the file's or the rule's fault.

        Returns:
            Whether the file waits for its rule. An early probe does not: the refusal may be its own, and the
            next probe is another file. At the longest interval between probes the rule is at fault, and no
            more of its files fail.
        """
        job = claim.job
        if hold := self.queue.holds.get(_scope_of(job, ScopeKind.FOLDER)):
            is_early = hold.wait_seconds < claim.config.hold.max_seconds
            is_early_probe = is_early and self.queue.now() >= hold.next_probe_at
            await self.hold(claim, ScopeKind.FOLDER, error)
            return not is_early_probe
        status, words = str(error.status), _words_of(job, error)
        alike = (job.folder, job.provider, claim.settings, status, error.code, words)
        if self._refusals.add(alike, job.id):
            await self.hold(claim, ScopeKind.FOLDER, error)
            return True
        return False

    async def _release(self, scope: Scope) -> None:
        if self.queue.holds.get(scope) is None:
            return
        hold = await self.queue.holds.release(scope)
        if hold is not None:
            self.reporter.released(hold)


def _scope_of(job: Job, kind: ScopeKind) -> Scope:
    return Scope(kind, job.provider if kind is ScopeKind.PROVIDER else job.folder)


def _words_of(job: Job, error: ProviderError) -> str:
    """The reason without parts that differ from file to file: the file's name, numbers and ids."""
    name = os.path.splitext(os.fsdecode(os.path.basename(job.path)))[0]
    words = re.findall(r"\w+", error.reason.replace(name, " ").lower())
    return " ".join(word for word in words if not any(letter.isdigit() for letter in word))
