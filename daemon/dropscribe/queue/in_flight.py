"""The jobs in flight of this process."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from dropscribe.queue.sql.rows import LARGE_BYTES, SUSPECT_CRASHES

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Collection

    from dropscribe.core.model import Job
    from dropscribe.queue.signals import Signals


class InFlight:
    """Registry of attempts, polls and publications under way, in memory alone.

    Attributes:
        tasks: By job.
        uploads: Jobs that hold a slot of their provider.
        providers: Slots taken, by provider.
        folders: Jobs in flight by folder, publications among them.
        polling: Jobs at a provider that are being polled.
        publishing: Folders of jobs with a stored result, by job.
        suspects: Jobs that may be the cause of daemon crashes.
        at_provider: Jobs that providers work on by themselves, polled now or later: id → provider.
    """

    def __init__(self, signals: Signals) -> None:
        self.tasks: dict[int, asyncio.Task[None]] = {}
        self.uploads: dict[int, Job] = {}
        self.providers: Counter[str] = Counter()
        self.folders: Counter[str] = Counter()
        self.polling: set[int] = set()
        self.publishing: dict[int, str] = {}
        self.suspects: set[int] = set()
        self.at_provider: dict[int, str] = {}
        self._signals = signals

    def __len__(self) -> int:
        return len(self.tasks)

    def add(self, job: Job, task: asyncio.Task[None]) -> None:
        """Register an attempt, a poll or a publication of *job* that has begun."""
        self.tasks[job.id] = task
        self.folders[job.folder] += 1
        if job.result is not None:
            self.publishing[job.id] = job.folder
        elif job.remote is not None:
            self.polling.add(job.id)
        else:
            self.uploads[job.id] = job
            self.providers[job.provider] += 1
            if job.crashes >= SUSPECT_CRASHES:
                self.suspects.add(job.id)
        self._signals.tell_news()

    def remove(self, job: Job) -> None:
        """The reverse of :meth:`add`; wakes the dispatcher."""
        del self.tasks[job.id]
        self.folders[job.folder] -= 1
        self.publishing.pop(job.id, None)
        self.polling.discard(job.id)
        self.suspects.discard(job.id)
        if self.uploads.pop(job.id, None) is not None:
            self.providers[job.provider] -= 1
        self._signals.wake.set()
        self._signals.tell_news()

    def at(self, provider: str) -> int:
        """Attempts under way at *provider*."""
        return self.providers[provider]

    def tasks_at(self, provider: str) -> list[asyncio.Task[None]]:
        """Uploads and polls under way at *provider*."""
        jobs = {job_id for job_id, job in self.uploads.items() if job.provider == provider}
        jobs |= {job_id for job_id in self.polling if self.at_provider.get(job_id) == provider}
        return [self.tasks[job_id] for job_id in jobs]

    def uploads_by_folder(self, provider: str) -> Counter[str]:
        """Folder → its uploads to *provider* that are under way."""
        return Counter(job.folder for job in self.uploads.values() if job.provider == provider)

    def large_uploads(self, provider: str) -> int:
        """Large uploads to *provider* that are under way."""
        return sum(
            job.provider == provider and job.snapshot.size_bytes >= LARGE_BYTES
            for job in self.uploads.values()
        )

    def publications(self, hanging: Collection[str]) -> int:
        """Publications under way that hold a slot: those in *hanging* folders hold none."""
        return sum(folder not in hanging for folder in self.publishing.values())

    def is_busy(self, hanging: Collection[str]) -> bool:
        """Whether anything is in flight, other than publications in *hanging* folders."""
        return len(self.tasks) - len(self.publishing) + self.publications(hanging) > 0
