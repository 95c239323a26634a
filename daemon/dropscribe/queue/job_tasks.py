"""Tasks of claimed jobs, and the slots of polls and publications; the same for both engines."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence

from dropscribe.core.model import Job, Outcome, ResultStored, Retry
from dropscribe.files.crashpoint import reached
from dropscribe.queue.admission import Admission
from dropscribe.queue.model import POLLING_SLOTS
from dropscribe.queue.sql import claims

PUBLISHING_SLOTS = 128  # Jobs whose files are being written at once; a folder has half of them at most
_SEARCH_GAP_SECONDS = 1.0


class JobTasks:
    """Runs claimed jobs in tasks of *group* by calling *run*.

    Almost every result is published by a task that begins as soon as it is stored. A search for stored
    results finds those of an earlier run or of another node, those without a free publishing slot, and those
    whose disk was full. It is made once a second, when one that was deferred is due, and for a folder that
    had no slot when it gets one.
    """

    def __init__(
        self, admission: Admission, group: asyncio.TaskGroup, run: Callable[[Job], Awaitable[Outcome | None]]
    ) -> None:
        self._admission = admission
        self._group = group
        self._run = run
        self.search_at = 0.0  # monotonic
        self._without_room: set[str] = set()  # folders that had no slot for a further publication

    def limits(self) -> claims.Limits:
        """The most jobs that the next claim may take; begins a search, if it is time for one."""
        admission, in_flight, now = self._admission, self._admission.in_flight, time.monotonic()
        polls = POLLING_SLOTS - len(in_flight.polling) if in_flight.at_provider else 0
        rooms = admission.rooms(PUBLISHING_SLOTS)
        if now >= self.search_at:
            self.search_at = now + _SEARCH_GAP_SECONDS
            self._note_room()
        else:
            rooms = {folder: room for folder, room in rooms.items() if folder in self._without_room}
        self._without_room -= rooms.keys()
        publications = PUBLISHING_SLOTS - admission.publications() if rooms else 0
        # An attempt too: a row has its result before its attempt has ended in memory. 0 is no job.
        running = (0, *in_flight.tasks)
        folders = admission.folders_here(()) if polls else ()
        return claims.Limits(in_flight.suspects(), polls, publications, rooms, folders, running)

    def start(self, job: Job) -> None:
        """Begin the task of *job*, which holds the slot that it needs."""
        task = self._group.create_task(self.run(job), name=f"job {job.id}")
        self._admission.in_flight.add(job, task)

    def start_due(self, found: Sequence[Job]) -> None:
        """Poll or publish the jobs that a search has found, as far as there are slots by now."""
        for job in found:
            self._start_due(job)
        self._note_room()

    async def run(self, job: Job) -> None:
        """Run *job* in this task, which is in flight, and begin the publication of its result."""
        if job.result is None and job.remote is None:
            reached("claimed")
        outcome = await self._run(job)
        if isinstance(outcome, Retry) and job.state.has_result:
            self.search_at = min(self.search_at, time.monotonic() + outcome.after_seconds)
        if isinstance(outcome, ResultStored):
            self._start_due(outcome.job)

    def _start_due(self, job: Job) -> None:
        """Poll or publish *job*, unless it runs already, its folder is gone or hangs, or no slot is free."""
        in_flight = self._admission.in_flight
        if job.id in in_flight.tasks or job.folder not in self._admission.plan.chains:
            return
        if job.result is None:
            is_free = len(in_flight.polling) < POLLING_SLOTS
        elif not (is_free := job.folder in self._admission.rooms(PUBLISHING_SLOTS)):
            self._without_room.add(job.folder)
        if is_free:
            self.start(job)

    def _note_room(self) -> None:
        """Note the folders without room: they may have more stored results than a search has found."""
        rooms = self._admission.rooms(PUBLISHING_SLOTS)
        self._without_room |= self._admission.plan.chains.keys() - rooms.keys()
