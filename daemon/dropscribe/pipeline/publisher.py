"""Publishes stored results as files, with retries on errors of the disk."""

from __future__ import annotations

import contextlib
import errno
import os
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import structlog

from dropscribe.core.errors import AudioChanged, AudioError, AudioMissing, PublishError
from dropscribe.core.model import AttemptEnd, Job, Outcome, Published, ResultStored, Retry, Withdrawn
from dropscribe.core.naming import is_within
from dropscribe.core.retry import INTERNAL_ERROR, INTERNAL_ERROR_WORDS, backoff_seconds
from dropscribe.core.text.printing import path_text
from dropscribe.files.audio import find_content, has_left
from dropscribe.intake.inboxes import Inboxes
from dropscribe.pipeline.claims import Claim
from dropscribe.pipeline.disk_threads import DiskThreads, FolderHangs, error_words
from dropscribe.pipeline.failures import Streaks
from dropscribe.pipeline.rendering import RenderError, content_of
from dropscribe.pipeline.results import Results
from dropscribe.publish.filing import is_only_in_inbox, publish, publish_together, withdraw
from dropscribe.publish.places import OF_ONE_PLACE, PlaceRefused, check_places
from dropscribe.publish.publication import CopyNeeded, NameTaken, PublishRequest, ReopenedForWriting
from dropscribe.queue.engine import Engine
from dropscribe.queue.model import NOT_MOVABLE, REOPENED, STUCK
from dropscribe.queue.sql import result_rows
from dropscribe.service.reporter import Reporter
from dropscribe.transcripts.document import doubts_of, is_error, renamed_document

log = structlog.get_logger()

MOST_ROUNDS = 100  # rounds of taken names and changed times before the file waits again
WRITER_WAIT_SECONDS = 1.0

LONGEST_WAIT_SECONDS = 15.0  # longest wait of a stored result after there is room again
LONGEST_OWN_WAIT_SECONDS = 300.0
"""Longest wait of a stored result that cannot be put in place while others of its rule can."""

MOST_ABSENCES = 6
"""After this many searches, over a minute, a recording is neither in its inbox nor at its destination."""

MISSING_WAIT_SECONDS = 2.0

_OF_ONE_PLACE = frozenset(errno.errorcode[number] for number in OF_ONE_PLACE)

_ODD = re.compile(rb'[^ -~]|[<>:"|?*\\]|[. ](?:/|$)|(?:^|/)(?i:aux|con|nul|prn|com\d|lpt\d)(?:[./]|$)')
"""What file systems of Windows may refuse in a name; all but ASCII where mounted without utf8."""

_OF_ODD_NAMES = frozenset({"EINVAL", "ENOENT"})  # of the kernel's and ntfs-3g; of exfat-fuse


@dataclass(slots=True)
class Publisher:
    """Publishes stored results; closes a folder that takes no files, and counts the tries of a job."""

    queue: Engine
    intake: Inboxes
    reporter: Reporter
    disks: DiskThreads
    results: Results
    token: str  # distinguishes hidden names of this store's jobs from those of others
    _refusals: Counter[int] = field(default_factory=Counter)
    _absences: Counter[int] = field(default_factory=Counter)
    _unexplained: Streaks = field(default_factory=Streaks)
    _closed_by: set[int] = field(default_factory=set)
    """Ids of the jobs that have closed their folders as STUCK."""

    async def publish(self, claim: Claim) -> Outcome:
        """One try to put a job's files in place."""
        for _ in range(MOST_ROUNDS):
            try:
                await self.results.load(claim)
                await self._correct_names(claim)
                filed = await self._put(claim)
            except NameTaken:
                await self._rename(claim, content_of(claim.result))
            except AudioChanged as error:
                if ended := await self._refresh(claim, error):
                    return ended
            except RenderError:
                log.exception("job.bug", folder=claim.job.folder, path=claim.job.path)
                return await self.reject(claim)
            except (AudioError, ReopenedForWriting, PublishError) as error:
                if not isinstance(error, PublishError) or not await self._leave_old_place(claim):
                    return await self._not_filed(claim, error)
            else:
                return self._filed(claim, filed)
        return Retry(WRITER_WAIT_SECONDS, "changed", "it or its place in done changes again and again")

    async def reject(self, claim: Claim) -> ResultStored:
        """Fail a job whose stored answer cannot be published: sending it again would cost again."""
        ended = AttemptEnd(0.0, code=INTERNAL_ERROR, reason=INTERNAL_ERROR_WORDS, counted=False)
        return await self.results.reject(
            claim, INTERNAL_ERROR, INTERNAL_ERROR_WORDS, ended, claim.result.sha256
        )

    async def _not_filed(
        self, claim: Claim, error: AudioError | ReopenedForWriting | PublishError
    ) -> Outcome:
        match error:
            case PublishError():
                return await self._refused(claim, error)
            case ReopenedForWriting():
                self._end(claim.job)
                return Retry(WRITER_WAIT_SECONDS, REOPENED, "it has been opened for writing again")
            case AudioMissing():
                return await self._missing(claim, error.reason)
            case _:
                return self._withdrawn(claim.job, str(error))

    async def _correct_names(self, claim: Claim) -> None:
        """Choose other names for a row with names outside its folders, and for a file renamed in flight."""
        job, rule, document = claim.job, claim.rule, content_of(claim.result)
        names = claim.result.output_names
        # A row may have no names; that of a shared database may have a place outside its rule's folders.
        is_own = claim.config.queue is None or is_within(names, [*map(os.fsencode, (rule.done, rule.failed))])
        if not names.audio or not is_own:
            log.warning("file.place_refused", folder=job.folder, path=job.path)
            await self._rename(claim, document)
        old_path = None if is_error(document) else document["source"]["path"]
        if old_path not in {None, path_text(job.path)}:
            request = replace(self._request(claim), path=old_path.encode("utf-8", "surrogateescape"))
            await self.disks.run_long(job.folder, partial(withdraw, request))
            await self._rename(claim, renamed_document(document, job.path, rule.recorded_at))

    async def _leave_old_place(self, claim: Claim) -> bool:
        """Choose other names if the folder that refuses the job's files is not its rule's any more.

        Not where its audio may stand there already.
        """
        job, rule, request = claim.job, claim.rule, self._request(claim)
        if claim.result.output_names.root in map(os.fsencode, (rule.done, rule.failed)):
            return False
        if not await self.disks.run_long(job.folder, partial(is_only_in_inbox, request)):
            return False
        with contextlib.suppress(PublishError):
            await self.disks.run_long(job.folder, partial(withdraw, request))
        await self._rename(claim, content_of(claim.result))
        return True

    async def _rename(self, claim: Claim, document: Mapping[str, Any]) -> None:
        await self.results.store(claim, document, claim.result.sha256, AttemptEnd(0.0))

    async def _refresh(self, claim: Claim, error: AudioChanged) -> Outcome | None:
        """Take the file's new time or inode, if it still has the bytes that were sent; else the outcome."""
        job, ctimes_ns = claim.job, self.results.ctimes_ns
        size_bytes = job.snapshot.size_bytes
        find = partial(find_content, claim.inbox, job.path, size_bytes, claim.result.sha256)
        found = await self.disks.run_long(job.folder, find, size_bytes)
        if found.is_forbidden and ctimes_ns.pop(job.id, None) is not None:
            return None  # a chmod alone changes ctime too; size, time and inode are compared again
        if (snapshot := found.snapshot) is not None:
            ctimes_ns[job.id] = snapshot.ctime_ns
            refreshed = await self.queue.database.do(
                lambda db: result_rows.refresh_snapshot(db, job, snapshot)
            )
            if refreshed is None:
                return self._withdrawn(job, str(error))
            claim.job = refreshed
            return None
        if job.stable_inodes and found.inode != job.snapshot.inode:
            return await self._missing(claim, str(error))
        return self._withdrawn(job, str(error))

    def _request(self, claim: Claim) -> PublishRequest:
        job, result = claim.job, claim.result
        return PublishRequest(
            inbox=claim.inbox,
            path=job.path,
            snapshot=job.snapshot,
            stable_inodes=job.stable_inodes,
            sha256=result.sha256,
            output_names=result.output_names,
            files=result.files or (),
            token=f"{self.token}-{job.id}",
            ignores_writers=claim.rule.settle_ignores_writers,
            # A file without a digest cannot be hashed again; ctime means little on network file systems.
            ctime_ns=self.results.ctimes_ns.get(job.id) if job.stable_inodes and result.sha256 else None,
        )

    async def _put(self, claim: Claim) -> bytes:
        job, request = claim.job, self._request(claim)
        try:
            return await self.disks.run_each(job.folder, publish_together, request, gives_up=False)
        except CopyNeeded:
            copy = partial(publish, request)
            size_bytes = job.snapshot.size_bytes + request.companion_bytes
            return await self.disks.run_long(job.folder, copy, size_bytes)

    def _filed(self, claim: Claim, filed: bytes) -> Published:
        job, document = claim.job, content_of(claim.result)
        self._end(job)
        self._unexplained.clear(job.folder)
        self.results.ctimes_ns.pop(job.id, None)
        self.reporter.filed(job, filed, document, claim.result.output_names)
        if is_error(document):
            return Published(filed)
        return Published(filed, bool(doubts_of(document)), document["duration"] or 0.0)

    def _end(self, job: Job) -> None:
        """Reopen the folder, because its trouble may be over; the next job tests that."""
        self._refusals.pop(job.id, None)
        self._closed_by.discard(job.id)
        self._absences.pop(job.id, None)
        self.queue.folders.open(job.folder, STUCK)

    async def _refused(self, claim: Claim, error: PublishError) -> Retry:
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
        is_of_name = error.code in {"ENAMETOOLONG", "EILSEQ"}
        if is_of_name or (error.code in _OF_ODD_NAMES and _ODD.search(job.path)):
            words = f"cannot hold the name {os.fsdecode(job.path)!r} ({error.reason}); rename it in the inbox"
            return False, f"{path_text(error.path)}: {words}"  # such a file must not stop the others
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
        return self._unexplained.add((job.folder,), job.id), reason

    async def _missing(self, claim: Claim, reason: str) -> Outcome:
        """The audio is missing: renamed (which the intake notices), removed, or hidden by its mount."""
        job = claim.job
        self._absences[job.id] += 1
        is_gone = self._absences[job.id] >= MOST_ABSENCES
        if not is_gone and job.stable_inodes:  # one complete listing proves that no name in the inbox has it
            is_gone = await self.disks.run_long(job.folder, partial(has_left, claim.inbox, job.snapshot))
        if is_gone:
            return self._withdrawn(job, reason)
        self.intake.look_again(job.folder)
        longest_seconds = MISSING_WAIT_SECONDS * 2.0**MOST_ABSENCES
        wait_seconds = backoff_seconds(MISSING_WAIT_SECONDS, self._absences[job.id], longest_seconds)
        return Retry(wait_seconds, "missing", f"{reason}; the inbox is being listed")

    def _withdrawn(self, job: Job, reason: str) -> Withdrawn:
        """Another recording has the path: discard the transcript; the intake takes the new file."""
        self.intake.look_again(job.folder, job.path)
        self._end(job)
        self.results.ctimes_ns.pop(job.id, None)
        return Withdrawn(reason)
