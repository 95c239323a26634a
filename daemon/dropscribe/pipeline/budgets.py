"""Charges the cost of answers, and reports budgets that run low or out.

Guarantees: a cost is written in the transaction that stores its answer, or before an answer to unknown bytes
is dropped; without a budget and a price nothing is charged; each warning is sent once in its day or month,
also across restarts.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from dropscribe.core.budget import Account, Spending, day_of, longest_plausible_seconds, stops_of
from dropscribe.core.errors import AudioError
from dropscribe.core.model import Hold, Scope, ScopeKind
from dropscribe.files.audio import AudioFile, open_beneath
from dropscribe.files.beneath import closing
from dropscribe.native.decoder import probe_seconds
from dropscribe.pipeline.claims import Claim
from dropscribe.pipeline.disk_threads import DiskThreads, FolderHangs
from dropscribe.queue.engine import Engine
from dropscribe.queue.sql.budget_usage import write_spending
from dropscribe.queue.sql.database import Connection
from dropscribe.service.reporter import Reporter
from dropscribe.transcripts.model import Transcript

LONGEST_SLEEP_SECONDS = 60.0  # longest delay before a clock that was set forward over midnight is noticed


@dataclass(slots=True)
class Budgets:
    """Charges answers, and audits the accounts whenever one may have changed."""

    queue: Engine
    reporter: Reporter
    disks: DiskThreads
    _stops: dict[Scope, Hold] = field(default_factory=dict)
    _audited_at: float = 0.0
    _turns_at: float | None = None

    async def charge(
        self, claim: Claim, transcript: Transcript, audio: AudioFile | None
    ) -> tuple[Spending, ...]:
        """The cost of an answer for its provider and its folder; *audio* is None where it is not open."""
        job, provider = claim.job, claim.provider_config
        if provider.price_per_minute is None and not provider.budget and not claim.rule.budget:
            return ()
        # Nothing was sent of a recording without any sound, with ``silence: skip``.
        if transcript.raw is None and "no_speech" in transcript.warnings:
            return ()
        seconds = await self._seconds(claim, transcript, audio)
        money = (seconds or 0.0) / 60 * (provider.price_per_minute or 0.0)
        day = day_of(self.queue.now(), claim.config.time_zone).isoformat()
        scopes = (Scope(ScopeKind.PROVIDER, job.provider), Scope(ScopeKind.FOLDER, job.folder))
        return tuple(Spending(scope, day, money, seconds) for scope in scopes)

    async def spend(self, spending: Sequence[Spending]) -> None:
        """Write the cost of an answer that is not stored, and audit the accounts that it is charged to."""

        def write(db: Connection) -> None:
            for each in spending:
                write_spending(db, each, self.queue.now())

        if spending:
            await self.queue.database.do(write)
            await self.audit()

    async def audit(self) -> None:
        """Stop scopes whose budget is spent, release those with a new period, and notify changes."""
        accounts = await self.queue.check_budgets()
        self._audited_at = self.queue.now()
        self._turns_at = min((account.turns_at for account in accounts), default=None)
        stops = {stop.scope: stop for stop in stops_of(accounts)}
        for account in accounts:
            if account.is_low and await self.queue.mark_once(_mark(account, "low")):
                self.reporter.budget_low(account)
        for scope in stops.keys() - self._stops.keys():
            spent = [each for each in accounts if each.scope == scope and each.is_spent]
            if any([await self.queue.mark_once(_mark(each, "spent")) for each in spent]):
                self.reporter.held(stops[scope])
        for scope in self._stops.keys() - stops.keys():
            self.reporter.released(self._stops[scope])
        self._stops = stops

    async def watch(self) -> None:
        """Audit at each turn of a day or month, and after the clock was set back, until cancelled."""
        while True:
            turns_at = math.inf if self._turns_at is None else self._turns_at
            await asyncio.sleep(max(0.01, min(LONGEST_SLEEP_SECONDS, turns_at - self.queue.now())))
            if self._turns_at is not None and not self._audited_at <= self.queue.now() < self._turns_at:
                await self.audit()

    async def _seconds(self, claim: Claim, transcript: Transcript, audio: AudioFile | None) -> float | None:
        """The length from the pieces sent, else from the provider, the last word, or the file's header."""
        if transcript.sent_seconds is not None:
            return transcript.sent_seconds
        job = claim.job
        longest = math.inf if claim.is_link else longest_plausible_seconds(job.snapshot.size_bytes)
        ends = [segment.end for segment in transcript.segments] + [word.end for word in transcript.words]
        latest = max((end for end in ends if end is not None), default=None)
        for seconds in (transcript.duration, latest):
            if seconds is not None and 0 <= seconds <= longest:
                return seconds

        def probe() -> float | None:
            if audio is not None:
                return probe_seconds(audio.fileno())
            with closing(open_beneath(claim.inbox, job.path)) as descriptor:
                return probe_seconds(descriptor)

        try:
            seconds = await self.disks.run_long(job.folder, probe, gives_up=True)
        except (AudioError, OSError, FolderHangs):
            return None
        return seconds if seconds is not None and 0 <= seconds <= longest else None


def _mark(account: Account, what: str) -> str:
    """Key of a notification that is sent once; a raised limit has a new key."""
    parts = (account.scope.kind, account.scope.name, account.period, account.begins_on.isoformat())
    return ":".join((*parts, str(account.limit), what))
