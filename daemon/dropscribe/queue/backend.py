"""Protocols of the parts that differ between one machine and a cluster: dispatcher and intake."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from dropscribe.core.model import LiveRow, NewJob, Scope, Submitted
    from dropscribe.queue.job_runner import JobRunner
    from dropscribe.queue.model import Plan
    from dropscribe.queue.sql.database import Connection


class Dispatcher(Protocol):
    """Claims jobs that may start now and runs them, never more than there are slots.

    It looks at the queue, and at plan, holds and closed folders, whenever
    :attr:`Signals.wake <dropscribe.queue.signals.Signals.wake>` is set.

    Attributes:
        runs_jobs: Whether this process runs jobs, or only submits them.
    """

    runs_jobs: bool

    async def run(self, runner: JobRunner) -> None:
        """Recover interrupted jobs, then claim and run jobs until cancelled."""

    async def drain(self, grace_seconds: float) -> None:
        """Claim nothing more; wait until the jobs in flight have ended, *grace_seconds* at most."""

    def is_alive(self) -> bool:
        """Whether it has looked at the queue lately."""

    async def is_busy_elsewhere(self) -> bool:
        """Whether jobs are in flight on other nodes."""

    async def wait_for_turn(self, provider: str) -> None:
        """Wait until *provider*'s rate allows one more request, and count it."""

    async def next_starts(self) -> Mapping[str, float]:
        """Unix seconds until which a pause or its rate limit stops a provider's next request, by provider."""

    def void_claims(self, db: Connection, scope: Scope) -> None:
        """In the transaction of a hold: revoke dispatched jobs of *scope* that have not begun."""

    def void_stale_claims(self, db: Connection, plan: Plan) -> None:
        """Revoke dispatched jobs that have not begun and whose providers *plan* does not have."""


class JobIntake(Protocol):
    """The jobs' side of the inboxes."""

    def submit(self, jobs: Sequence[NewJob]) -> list[Submitted]:
        """Add settled files; idempotent while a file's job lives. Blocks; not for the event loop.

        A file whose job has ended is a new generation. Durable when it returns.

        Raises:
            StoreError: Nothing was added.
        """

    def withdraw(
        self, db: Connection, folder: str, places: list[tuple[bytes, bytes]], reason: str
    ) -> list[tuple[bytes, bytes]]:
        """End waiting jobs whose files are gone; returns the places of those that ended."""

    def rename_folders(self, db: Connection, renamed: Mapping[str, str], folders: Collection[str]) -> None:
        """Give the live jobs of renamed rules, old → new name, to the new names, now and when more come.

        Args:
            folders: All rules by name.
        """

    def live(self, db: Connection, folder: str, directory: bytes) -> Iterable[LiveRow]:
        """The live jobs of one directory."""

    def moved_device(self, db: Connection, folder: str, directory: bytes, device: int) -> None:
        """Update the device number of a directory that was mounted anew."""
