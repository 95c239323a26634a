"""The values that the queue exchanges with the code above it: callbacks, plan, statistics."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import tzinfo

from dropscribe.config.model import Config
from dropscribe.core.budget import Account, Budget
from dropscribe.core.model import Hold, Job, Outcome, Scope, ScopeKind
from dropscribe.core.retry import RetryLimits

AttemptJob = Callable[[Job], Awaitable[Outcome]]
"""Makes one attempt to transcribe a claimed job, which holds a slot of its provider.

Safe to call again from any point. It raises nothing but CancelledError on purpose; any other exception is
a bug, and the attempt counts as failed.

A provider may work on the audio by itself: the call returns :class:`~dropscribe.core.model.AtProvider` with
the provider's job id, which is stored before the next call. The job then holds no slot, and is polled, also
after a restart: the call has :attr:`Job.remote` set, must not upload, and returns AtProvider again while
there is no answer. ResultStored, Withdrawn, or a Retry with an attempt end the remote job.
"""

MOST_REMOTE_JOBS = 100  # Files that a provider works on by itself at once at most
POLLING_SLOTS = 16  # Polls at once at most
PublishJob = Callable[[Job], Awaitable[Outcome]]
"""Writes the files of a job with a stored result, which holds no slot of a provider.

Safe to call again from any point, because it checks the files on disk before each step; it raises as above.
"""


@dataclass(frozen=True, slots=True)
class ProviderLimits:
    """The most attempts in flight, starts a minute, and jobs that the provider works on by itself."""

    provider: str
    slots: int
    requests_per_minute: float | None = None
    remote_jobs: int = MOST_REMOTE_JOBS


_LATE_SECONDS = 1.0
"""A provider counts requests as they arrive; one may be on its way this much longer than a later one."""


def rate_window(requests_per_minute: float) -> tuple[int, float]:
    """(requests, seconds): so many may begin in that time, which is longer for fewer than one a minute."""
    return max(1, int(requests_per_minute)), 60.0 / min(1.0, requests_per_minute) + _LATE_SECONDS


@dataclass(frozen=True, slots=True)
class Pause:
    """A provider asked for a break (Retry-After, 429, 503); afterwards one job probes it. Unix seconds."""

    provider: str
    since: float
    until: float

    def is_long_at(self, now: float) -> bool:
        """Whether it lasts, and is so long in all that other providers of a list take its files meanwhile."""
        return self.until > now and self.until - self.since > LONG_PAUSE_SECONDS


def probes_at(hold: Hold, pause: Pause | None) -> float:
    """Unix seconds of a held provider's next probe: a pause of the provider delays it."""
    return max(hold.next_probe_at, pause.until) if pause else hold.next_probe_at


NOT_MOVABLE = "not_movable"
"""Code of a file that waits because it cannot be moved out of its sub-folder, or to its place."""

REOPENED = "writer"
"""Code of a file with a stored result that waits because a program has opened it for writing again."""

STUCK = "publishing"  # Cause to close a folder whose places refuse its files
HANGS = "hangs"  # Cause to close a folder whose disk does not answer
LONG_PAUSE_SECONDS = 120.0  # a limit per minute asks for less
LONGEST_PAUSE_SECONDS = 3600.0


@dataclass(frozen=True, slots=True)
class Plan:
    """The folders and providers that the engine may claim jobs for, replaced as a whole at a reload."""

    providers: Mapping[str, ProviderLimits]
    chains: Mapping[str, Sequence[str]]  # Folder → its providers in order; folders not in here are left alone
    strict_order: Collection[str] = ()  # Folders whose jobs wait for their first provider, held or not
    budgets: Mapping[Scope, Budget] = field(default_factory=dict)
    zone: tzinfo | None = None  # Time zone of the days and months of budgets; None is the system's
    away: Collection[str] = ()  # Folders whose mounts this node of a cluster does not have
    # Retry limits, for jobs that a crash or a bug interrupted.
    retry: RetryLimits = field(default_factory=RetryLimits)


def build_plan(config: Config) -> Plan:
    """The folders, providers and budgets of *config*."""
    # The charge to a budget is known only with the answer: no more files wait for theirs than have slots.
    budgeted = {name for name, provider in config.providers.items() if provider.budget is not None}
    budgeted.update(name for rule in config.folders.values() if rule.budget for name in rule.providers)
    limits = {}
    for name, provider in config.providers.items():
        slots = provider.concurrency
        remote_jobs = slots if name in budgeted else MOST_REMOTE_JOBS
        limits[name] = ProviderLimits(name, slots, provider.requests_per_minute, remote_jobs)
    chains = {name: rule.providers for name, rule in config.folders.items()}
    strict_order = frozenset(name for name, rule in config.folders.items() if rule.fallback == "refused")
    parts = ((ScopeKind.PROVIDER, config.providers), (ScopeKind.FOLDER, config.folders))
    scopes = [(Scope(kind, name), part.budget) for kind, named in parts for name, part in named.items()]
    budgets = {scope: budget for scope, budget in scopes if budget is not None}
    away = [name for name, rule in config.folders.items() if config.queue and not config.queue.serves(rule)]
    return Plan(limits, chains, strict_order, budgets, config.time_zone, away, config.retry)


@dataclass(frozen=True, slots=True)
class CachedResult:
    """An answer of the result cache, with the rule of the file that was transcribed."""

    document: bytes  # The transcript's whole JSON document
    folder: str
    filed: bytes | None  # Where that file's audio was put, absolute; None while that is not known (any more)
    kept_at: float  # Unix seconds when it arrived


@dataclass(frozen=True, slots=True)
class FolderStats:
    """Counts of one folder's jobs by state and cause of waiting; each live job is counted once."""

    queued: int = 0
    transcribing: int = 0
    deferred: int = 0
    held: int = 0
    publishing: int = 0
    done: int = 0
    failed: int = 0
    oldest_received_at: float | None = None
    maybe_paid_twice: int = 0  # Attempts so far whose answer may have been paid for and was lost
    suspect: int = 0  # Done so far with a warning that speaks against the transcript's text
    backlog: int = 0  # Of the held ones, those that wait for ``dropscribe release``
    at_provider: int = 0  # Uploaded; the provider works on them and is polled
    at_provider_since: float | None = None  # Unix seconds, of the oldest of those
    stuck: int = 0  # Those that cannot be moved, each of them counted above too
    stuck_reason: str = ""  # Of one of them, with the path and the remedy


SILENT_SECONDS = 25.0
"""A node or a procrastinate worker without a heartbeat for this long, five of them, is silent."""


@dataclass(frozen=True, slots=True)
class NodeStats:
    """One node of a cluster, as its row says. Times are Unix seconds by the server's clock."""

    name: str
    host: str
    role: str
    version: str
    started_at: float
    beat_at: float
    in_flight: int

    def is_silent(self, now: float) -> bool:
        """Whether its last heartbeat is too old; *now* by the server's clock."""
        return now - self.beat_at > SILENT_SECONDS


@dataclass(frozen=True, slots=True)
class Stats:
    """The whole queue at one instant."""

    folders: Mapping[str, FolderStats]
    holds: Sequence[Hold]
    in_flight: Mapping[str, int] = field(default_factory=dict)  # Attempts under way by provider, on all nodes
    accounts: Sequence[Account] = ()
    nodes: Sequence[NodeStats] | None = None  # None for the embedded engine
    pauses: Mapping[str, Pause] = field(default_factory=dict)
    # Live jobs of rules that the config no longer has, by folder.
    removed: Mapping[str, int] = field(default_factory=dict)
