"""The interface of the queue, which every engine implements.

The engine owns claims, leases, holds and the state of every job. It calls :data:`AttemptJob` and
:data:`PublishJob`, because distributed engines run a claim loop of their own. No code above this
interface knows which engine runs.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from dropscribe.core.model import (
    Attempt,
    AttemptEnd,
    FileSnapshot,
    Hold,
    Job,
    NewJob,
    Outcome,
    Scope,
    StoredResult,
    Submitted,
)

if TYPE_CHECKING:
    from datetime import tzinfo

    from dropscribe.core.bookings import AnswerKey, Booking
    from dropscribe.core.budget import Account
    from dropscribe.core.limits import Budget
    from dropscribe.queue.cluster.nodes import NodeStats

AttemptJob = Callable[[Job], Awaitable[Outcome]]
"""Makes one attempt to transcribe a claimed job, which holds a slot of its provider.

Safe to call again from any point. It raises nothing but CancelledError on purpose; any other exception is
a bug, and the attempt counts as failed.

Polled jobs: where the provider takes the audio and works on it by itself, the call returns
:class:`~dropscribe.core.model.AtProvider` with the provider's job id. The engine stores the id durably before
the next call, frees the slot, and calls again at the time of the next poll with :attr:`Job.remote` set, also
after a restart. Such a call holds no slot, must not upload, and returns AtProvider again while there is no
answer; a Retry without an attempt polls later too. ResultStored, Withdrawn, or a Retry with an attempt end
the remote job. At most ``POLLING_SLOTS`` polls run at once, and at most ``ProviderLimits.remote_jobs`` jobs
are at one provider.
"""

POLLING_SLOTS = 16

PublishJob = Callable[[Job], Awaitable[Outcome]]
"""Writes the files of a job with a stored result, which holds no slot of a provider.

Safe to call again from any point: it looks at what is on disk before each step. Exceptions as above.
"""


@dataclass(frozen=True, slots=True)
class ProviderLimits:
    """One provider as the engine feeds it.

    Attributes:
        provider: Its name.
        slots: Attempts in flight at most; at least 1.
        requests_per_minute: Starts in any 60 seconds at most, or None.
        remote_jobs: Jobs that the provider works on by itself at most; they hold no slot.
    """

    provider: str
    slots: int
    requests_per_minute: float | None = None
    remote_jobs: int = 100


@dataclass(frozen=True, slots=True)
class Pause:
    """A provider asked to be left alone (Retry-After, 429, 503); afterwards one job probes it.

    Attributes:
        since: Unix seconds.
        until: Unix seconds; at most ``LONGEST_PAUSE_SECONDS`` after it was asked for.
    """

    provider: str
    since: float
    until: float


HANGS = "hangs"
"""Cause of :meth:`Engine.close_folder` for a folder whose disk does not answer."""

LONGEST_PAUSE_SECONDS = 3600.0


@dataclass(frozen=True, slots=True)
class Plan:
    """The folders and providers that the engine may claim jobs for, replaced as a whole at a reload.

    Attributes:
        providers: Their limits, by name.
        chains: Folder → its providers in order; folders not in here are left alone.
        strict_order: Folders whose jobs wait for their first provider, held or not.
        budgets: Of providers and folders that have one.
        zone: In which days and months turn; None is the system's.
        served: Folders whose mounts this node has; None is all.
    """

    providers: Mapping[str, ProviderLimits]
    chains: Mapping[str, Sequence[str]]
    strict_order: Collection[str] = ()
    budgets: Mapping[Scope, Budget] = field(default_factory=dict)
    zone: tzinfo | None = None
    served: Collection[str] | None = None


@dataclass(frozen=True, slots=True)
class CachedResult:
    """An answer of the ledger.

    Attributes:
        document: The transcript's whole JSON document, of the file that was transcribed.
        folder: That file's rule.
        filed: Where its audio was put, absolute; None while that is not known (any more).
        kept_at: Unix seconds when it arrived.
    """

    document: bytes
    folder: str
    filed: bytes | None
    kept_at: float


@dataclass(frozen=True, slots=True)
class FolderStats:
    """One folder's jobs by what they wait for; each live job is counted once.

    Attributes:
        oldest_received_at: Unix seconds, of the oldest live job, or None.
        maybe_paid_twice: Attempts so far whose answer may have been paid for and was lost.
        suspect: Done so far with a warning that speaks against the transcript's text.
        backlog: Of the held ones, those that wait for ``dropscribe release``.
        at_provider: Uploaded; the provider works on them and is polled.
    """

    queued: int = 0
    transcribing: int = 0
    deferred: int = 0
    held: int = 0
    publishing: int = 0
    done: int = 0
    failed: int = 0
    oldest_received_at: float | None = None
    maybe_paid_twice: int = 0
    suspect: int = 0
    backlog: int = 0
    at_provider: int = 0


@dataclass(frozen=True, slots=True)
class Stats:
    """The whole queue at one instant.

    Attributes:
        in_flight: Attempts under way by provider, on all nodes.
        nodes: Who takes part in the cluster; None for the embedded engine.
        pauses: By provider.
    """

    folders: Mapping[str, FolderStats]
    holds: Sequence[Hold]
    in_flight: Mapping[str, int] = field(default_factory=dict)
    accounts: Sequence[Account] = ()
    nodes: Sequence[NodeStats] | None = None
    pauses: Mapping[str, Pause] = field(default_factory=dict)


class Engine(Protocol):
    """A queue that survives crashes."""

    async def submit(self, jobs: Sequence[NewJob]) -> list[Submitted]:
        """Take settled files in; idempotent while a file's job lives.

        A file whose job has ended is a new generation. Durable when it returns.
        """
        ...

    async def run(self, plan: Plan, attempt: AttemptJob, publish: PublishJob) -> None:
        """Call *attempt* and *publish* for due jobs until cancelled; a free slot comes before a claim."""
        ...

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
        ...

    async def rename_outputs(self, job: Job, result: StoredResult) -> Job | None:
        """Replace the reserved names of a stored result; returns as :meth:`store_result`."""
        ...

    async def reject_result(self, job: Job, error: StoredResult) -> Job | None:
        """Replace a transcript that cannot be published by an error document; returns as above."""
        ...

    async def refresh_snapshot(self, job: Job, snapshot: FileSnapshot) -> Job | None:
        """Let a job with a stored result stand for the same recording under a new inode or time.

        Returns:
            The job; None where another job has begun with that state of the file.
        """
        ...

    async def find_result(self, key: AnswerKey, keep_seconds: float) -> CachedResult | None:
        """An answer of the ledger that is no older than *keep_seconds*."""
        ...

    async def check_budgets(self) -> Sequence[Account]:
        """Look at every budget; what is spent is fed nothing more until the day or month turns."""
        ...

    async def mark_once(self, mark: str) -> bool:
        """Whether *mark* was never told before, in this run or an earlier one."""
        ...

    async def pause(self, hold: Hold) -> None:
        """Hold a provider or folder; from ``next_probe_at`` on feed one job of it at a time."""
        ...

    async def resume(self, scope: Scope) -> Hold | None:
        """Release a hold; returns it, or None where there was none."""
        ...

    def hold_of(self, scope: Scope) -> Hold | None:
        """The hold of a provider or folder, if it is held."""
        ...

    def is_stopped(self, scope: Scope) -> bool:
        """Whether its budget is spent, and the day or month has not turned."""
        ...

    def pause_provider(self, provider: str, seconds: float) -> None:
        """Start nothing more at *provider* for *seconds*, an hour at most: it asked for it (429, 503)."""
        ...

    async def wait_for_turn(self, provider: str) -> None:
        """Wait until *provider*'s rate allows one more request of an attempt that runs, and count it."""
        ...

    def close_folder(self, folder: str, cause: str, reason: str) -> None:
        """Feed nothing more of *folder* until every *cause* has opened it again (inbox away, done full).

        Stored results are published all the same, because only trying shows whether the trouble is over;
        not so while the cause is :data:`HANGS`.

        On this node and in memory: it is found out anew after a start.
        """
        ...

    def open_folder(self, folder: str, cause: str) -> None:
        """The reverse of :meth:`close_folder`."""
        ...

    async def attempts(self, job: Job) -> list[Attempt]:
        """Every attempt of one job, oldest first."""
        ...

    async def stats(self) -> Stats:
        """Counts and holds."""
        ...
