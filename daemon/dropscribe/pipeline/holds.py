"""Holds a provider or rule whose failures are not the files' fault, and releases it.

While a hold lasts, its files stay in the inbox. One file at a time probes it, first after ``hold.first`` and
then less and less often, down to every ``hold.max``; the first good answer releases it.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from dropscribe.core.model import Hold, Scope, ScopeKind
from dropscribe.core.retry import next_hold_seconds

if TYPE_CHECKING:
    from dropscribe.config.model import HoldConfig
    from dropscribe.core.errors import ProviderError
    from dropscribe.core.model import Job
    from dropscribe.pipeline.observer import Observer
    from dropscribe.queue.engine import Engine

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


class Holds:
    """Counts failures in a row; holds, probes and releases.

    The config's ``hold`` section comes with each call, so that a job keeps the config that it began with.
    """

    def __init__(self, queue: Engine, observer: Observer) -> None:
        self._queue = queue
        self._observer = observer
        self._outages = Streaks()
        self._refusals = Streaks()

    async def hold(self, kind: ScopeKind, name: str, error: ProviderError, times: HoldConfig) -> None:
        """Hold *name*, or lengthen its hold after a failed probe."""
        scope = Scope(kind, name)
        now = self._queue.now()
        held = self._queue.holds.get(scope)
        if held and now < held.next_probe_at:
            return  # it was in flight when the hold began, so it is no probe
        wait_seconds = next_hold_seconds(
            held.wait_seconds if held else None, times.first_seconds, times.max_seconds
        )
        hold = Hold(
            scope,
            error.code,
            error.reason,
            held.since if held else now,
            now + wait_seconds,
            wait_seconds,
        )
        await self._queue.holds.hold(hold)
        if held is None:
            self._observer.held(hold)

    async def succeeded(self, job: Job) -> None:
        """The provider transcribed a file of this folder: release both."""
        await self.answered(job)
        self._refusals.clear(job.folder)
        await self._release(Scope(ScopeKind.FOLDER, job.folder))

    async def answered(self, job: Job) -> None:
        """The provider gave a verdict on a file, so it is reachable and accepts the key."""
        self._outages.clear(job.provider)
        await self._release(Scope(ScopeKind.PROVIDER, job.provider))

    async def out_of_order(self, job: Job, error: ProviderError, times: HoldConfig) -> bool:
        """Count a failure of the provider (no connection, 5xx, 429); returns whether it is held."""
        scope = Scope(ScopeKind.PROVIDER, job.provider)
        if self._queue.holds.get(scope) or self._outages.add((job.provider,), job.id):
            await self.hold(scope.kind, scope.name, error, times)
            return True
        return False

    async def refused(self, job: Job, error: ProviderError, settings: str, times: HoldConfig) -> bool:
        """Weigh a refusal that could be the file's or the rule's fault.

        Args:
            settings: The digest of the parameters that were sent.

        Returns:
            Whether the file waits for its rule. An early probe does not: the refusal may be its own, and the
            next probe is another file. At the longest interval between probes the rule is at fault, and no
            more of its files fail.
        """
        scope = Scope(ScopeKind.FOLDER, job.folder)
        if hold := self._queue.holds.get(scope):
            is_early_probe = hold.wait_seconds < times.max_seconds and self._queue.now() >= hold.next_probe_at
            await self.hold(scope.kind, scope.name, error, times)
            return not is_early_probe
        alike = (job.folder, job.provider, settings, str(error.status), error.code, _words_of(job, error))
        if self._refusals.add(alike, job.id):
            await self.hold(scope.kind, scope.name, error, times)
            return True
        return False

    async def _release(self, scope: Scope) -> None:
        if self._queue.holds.get(scope) is None:
            return
        hold = await self._queue.holds.release(scope)
        if hold is not None:
            self._observer.released(hold)


def _words_of(job: Job, error: ProviderError) -> str:
    """The reason without parts that differ from file to file: the file's name, numbers and ids."""
    name = os.path.splitext(os.fsdecode(os.path.basename(job.path)))[0]
    words = re.findall(r"\w+", error.reason.replace(name, " ").lower())
    return " ".join(word for word in words if not any(letter.isdigit() for letter in word))
