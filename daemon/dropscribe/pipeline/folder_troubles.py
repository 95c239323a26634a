"""Folders that take no files: closed until they do, and the waits of results that belong there."""

from __future__ import annotations

import asyncio
import errno
import itertools
import os
import re
from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

import structlog

from dropscribe.core.errors import AudioError
from dropscribe.core.model import Retry, Withdrawn
from dropscribe.core.retry import backoff_seconds
from dropscribe.core.text.printing import path_text
from dropscribe.files.content import has_left
from dropscribe.pipeline.disk_threads import FolderHangs, error_words
from dropscribe.pipeline.failures import Streaks
from dropscribe.publish.places import OF_ONE_PLACE, PlaceRefused, check_places
from dropscribe.queue.model import NOT_MOVABLE, STUCK

if TYPE_CHECKING:
    from dropscribe.core.errors import PublishError
    from dropscribe.core.model import Job, Outcome
    from dropscribe.intake.inboxes import Inboxes
    from dropscribe.pipeline.disk_threads import DiskThreads
    from dropscribe.pipeline.results import Results
    from dropscribe.pipeline.runtime_config import Claim
    from dropscribe.queue.engine import Engine

log = structlog.get_logger()

LONGEST_WAIT_SECONDS = 15.0  # longest wait of a stored result after there is room again
LONGEST_OWN_WAIT_SECONDS = 300.0
"""Longest wait of a stored result that cannot be put in place while others of its rule can."""

MOST_ABSENCES = 6
"""After this many searches, over a minute, a recording is neither in its inbox nor at its destination.

Where inodes are stable, one complete listing of the inbox proves it.
"""

MISSING_WAIT_SECONDS = 2.0

FIRST_CHECK_SECONDS = 1.0
LONGEST_CHECK_SECONDS = 15.0  # longest wait between two checks of a folder that takes no files
_UNWRITABLE = "unwritable"

_OF_ONE_PLACE = frozenset(errno.errorcode[number] for number in OF_ONE_PLACE)

_ODD = re.compile(rb'[\x00-\x1f<>:"|?*\\]|[. ](?:/|$)')
"""Characters that Windows file systems allow in no name and refuse with EINVAL."""


@dataclass(slots=True)
class PlaceChecks:
    """Closes folders that take no files, and opens them when a check finds a way for files."""

    queue: Engine
    disks: DiskThreads
    _checks: dict[str, asyncio.Task[None]] = field(default_factory=dict)

    def close_until_writable(self, claim: Claim, reason: str) -> None:
        """Have nothing of a job's folder claimed until its files could be published.

        ``status`` shows *reason*, and then those of later checks.
        """
        folder = claim.job.folder
        self.queue.folders.close(folder, _UNWRITABLE, reason)
        if folder not in self._checks:
            self._checks[folder] = asyncio.create_task(self._check_until_writable(claim))

    async def _check_until_writable(self, claim: Claim) -> None:
        folder = claim.job.folder
        check = partial(check_places, claim.inbox, os.fsencode(claim.rule.done), claim.job.path)
        for count in itertools.count(1):
            await asyncio.sleep(backoff_seconds(FIRST_CHECK_SECONDS, count, LONGEST_CHECK_SECONDS))
            try:
                await self.disks.run(folder, check)
            except FolderHangs:
                continue
            except OSError as error:
                if isinstance(error, PlaceRefused) and not error.is_of_rule:
                    break
                self.queue.folders.close(folder, _UNWRITABLE, error_words(error))
            except AudioError:  # its file has gone: the next one shows whether the trouble is over
                break
            except Exception:
                log.exception("folder.not_checked", folder=folder)
                break
            else:
                log.info("folder.writable", folder=folder)
                break
        self.reopen(folder)

    def reopen(self, folder: str) -> None:
        """End :meth:`close_until_writable`; the next file is checked anew."""
        if check := self._checks.pop(folder, None):
            check.cancel()
            self.queue.folders.open(folder, _UNWRITABLE)

    def close(self) -> None:
        """Check nothing more."""
        for check in self._checks.values():
            check.cancel()


@dataclass(slots=True)
class PublishTroubles:
    """Decides how long a result waits, whether its folder takes more uploads, and when its file is gone."""

    queue: Engine
    intake: Inboxes
    disks: DiskThreads
    results: Results
    _refusals: Counter[int] = field(default_factory=Counter)
    _absences: Counter[int] = field(default_factory=Counter)
    _puzzles: Streaks = field(default_factory=Streaks)
    _closed_by: set[int] = field(default_factory=set)
    """Ids of the jobs that have closed their folders as STUCK."""

    async def refused(self, claim: Claim, error: PublishError) -> Retry:
        """The file system refused to put a job's files in place: wait, and test what else it refuses."""
        job = claim.job
        self._refusals[job.id] += 1
        is_of_rule, reason = await self._scope_of(claim, error)
        if is_of_rule:
            self._closed_by.add(job.id)
            self.queue.folders.close(job.folder, STUCK, reason)
        elif job.id in self._closed_by:
            self._closed_by.discard(job.id)
            self.queue.folders.open(job.folder, STUCK)
        if self._refusals[job.id] == 1:
            log.warning("file.not_filed", folder=job.folder, path=job.path, code=error.code, reason=reason)
        longest_seconds = LONGEST_WAIT_SECONDS if is_of_rule else LONGEST_OWN_WAIT_SECONDS
        wait_seconds = backoff_seconds(1.0, self._refusals[job.id], longest_seconds)
        return Retry(wait_seconds, error.code if is_of_rule else NOT_MOVABLE, reason)

    async def _scope_of(self, claim: Claim, error: PublishError) -> tuple[bool, str]:
        """(whether *error* stops all files of the rule, its words)."""
        job, reason = claim.job, f"{path_text(error.path)}: {error.reason}"
        if _is_of_name(error, job.path):
            return False, reason
        if error.code not in _OF_ONE_PLACE:
            return True, reason
        check = partial(check_places, claim.inbox, claim.result.output_names.root, job.path)
        try:
            await self.disks.run(job.folder, check)
        except PlaceRefused as refused:
            return refused.is_of_rule, error_words(refused)
        except (OSError, FolderHangs):
            return True, reason
        except AudioError:
            return False, reason  # its folder has gone: no trouble of the others
        # Its folders look writable: the cause is hidden, and may be the rule's. No more are paid for then.
        return self._puzzles.add((job.folder,), job.id), reason

    def filed(self, job: Job) -> None:
        """The files of *job* are in place."""
        self.end(job)
        self._puzzles.clear(job.folder)

    def end(self, job: Job) -> None:
        """Reopen the folder, because its trouble may be over; the next job tests that."""
        self._refusals.pop(job.id, None)
        self._closed_by.discard(job.id)
        self._absences.pop(job.id, None)
        self.queue.folders.open(job.folder, STUCK)

    async def missing(self, claim: Claim, reason: str) -> Outcome:
        """The audio is missing: renamed (which the intake notices), removed, or hidden by its mount."""
        job = claim.job
        self._absences[job.id] += 1
        if self._absences[job.id] >= MOST_ABSENCES or await self._has_left(claim):
            return self.withdrawn(job, reason)
        self.intake.look_again(job.folder)
        longest_seconds = MISSING_WAIT_SECONDS * 2.0**MOST_ABSENCES
        wait_seconds = backoff_seconds(MISSING_WAIT_SECONDS, self._absences[job.id], longest_seconds)
        return Retry(wait_seconds, "missing", f"{reason}; the inbox is being listed")

    async def _has_left(self, claim: Claim) -> bool:
        """Whether it is certain that the audio is not in its inbox any more, under whatever name."""
        job, look = claim.job, partial(has_left, claim.inbox, claim.job.snapshot)
        return job.stable_inodes and await self.disks.run_long(job.folder, look)

    def withdrawn(self, job: Job, reason: str) -> Withdrawn:
        """Another recording has the path: discard the transcript; the intake takes the new file."""
        self.intake.look_again(job.folder, job.path)
        self.end(job)
        self.results.ctimes_ns.pop(job.id, None)
        return Withdrawn(reason)


def _is_of_name(error: PublishError, path: bytes) -> bool:
    """Whether ``done`` cannot store this name: such a file must not stop the others."""
    return error.code in {"ENAMETOOLONG", "EILSEQ"} or (error.code == "EINVAL" and bool(_ODD.search(path)))
