"""When a provider or a rule is held, and when it goes on (CONTRACT.md §1.5, §3).

An account's trouble is not a file's trouble: its files stay in the inbox, one of them probes at
``hold.first`` doubling to ``hold.max``, and the first good answer lets the others go.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from dropscribe.core.model import Hold, Scope, ScopeKind
from dropscribe.core.retry import next_hold_seconds

if TYPE_CHECKING:
    from dropscribe.core.errors import ProviderError
    from dropscribe.core.model import Job
    from dropscribe.pipeline.observer import Observer
    from dropscribe.queue.engine import Engine

FILES_IN_A_ROW = 3
"""So many different files in a row, with no success between, are no accident (CONTRACT.md §1.5, §3)."""


class Streaks:
    """Different files that failed alike in a row; the key says what is alike."""

    def __init__(self) -> None:
        self._jobs: dict[tuple[str, ...], set[int]] = {}

    def add(self, key: tuple[str, ...], job_id: int) -> bool:
        """Whether *job_id* is the one that makes it too many."""
        jobs = self._jobs.setdefault(key, set())
        jobs.add(job_id)
        return len(jobs) >= FILES_IN_A_ROW

    def clear(self, *prefix: str) -> None:
        """Forget every streak whose key begins with *prefix*."""
        for key in [key for key in self._jobs if key[: len(prefix)] == prefix]:
            del self._jobs[key]


class Holds:
    """Counts what fails in a row, holds, probes and releases.

    Args:
        first_seconds: The config's ``hold.first``.
        max_seconds: The config's ``hold.max``.
    """

    def __init__(self, queue: Engine, observer: Observer, first_seconds: float, max_seconds: float) -> None:
        self._queue = queue
        self._observer = observer
        self.first_seconds = first_seconds
        self.max_seconds = max_seconds
        self._outages = Streaks()
        self._refusals = Streaks()

    async def hold(self, kind: ScopeKind, name: str, error: ProviderError) -> None:
        """Hold *name*, or lengthen its hold after a failed probe."""
        scope = Scope(kind, name)
        now = time.time()
        held = self._queue.hold_of(scope)
        if held and now < held.next_probe_at:
            return  # it was in flight when the hold began: no probe, no news
        wait_seconds = next_hold_seconds(
            held.wait_seconds if held else None, self.first_seconds, self.max_seconds
        )
        hold = Hold(
            scope,
            error.code,
            error.reason,
            held.since if held else now,
            now + wait_seconds,
            wait_seconds,
        )
        await self._queue.pause(hold)
        if held is None:
            self._observer.held(hold)

    async def succeeded(self, job: Job) -> None:
        """The provider took a file of this folder: nothing of either is held any more."""
        await self.answered(job)
        self._refusals.clear(job.folder, job.provider)
        await self._release(Scope(ScopeKind.FOLDER, job.folder))

    async def answered(self, job: Job) -> None:
        """The provider gave a verdict on a file, so it is there and takes the key."""
        self._outages.clear(job.provider)
        await self._release(Scope(ScopeKind.PROVIDER, job.provider))

    async def out_of_order(self, job: Job, error: ProviderError) -> bool:
        """No connection, 5xx, 429: whether the provider is held (now or already)."""
        scope = Scope(ScopeKind.PROVIDER, job.provider)
        if self._queue.hold_of(scope) or self._outages.add((job.provider,), job.id):
            await self.hold(scope.kind, scope.name, error)
            return True
        return False

    async def refused(self, job: Job, error: ProviderError) -> bool:
        """A refusal that could be the file's or the rule's fault: whether the rule is held."""
        alike = (job.folder, job.provider, str(error.status), error.code)
        scope = Scope(ScopeKind.FOLDER, job.folder)
        if self._queue.hold_of(scope) or self._refusals.add(alike, job.id):
            await self.hold(scope.kind, scope.name, error)
            return True
        return False

    async def _release(self, scope: Scope) -> None:
        if self._queue.hold_of(scope) is None:
            return
        hold = await self._queue.resume(scope)
        if hold is not None:
            self._observer.released(hold)
