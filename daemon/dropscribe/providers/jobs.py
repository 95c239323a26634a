"""Vendors that work on audio in jobs: an upload, a job, polls, the result, and its deletion at the vendor.

As in :mod:`dropscribe.providers.vendor`, a vendor only builds requests and reads answers.

Guarantees: a job's id is handed over as soon as the vendor has told it, before anything waits for the result;
polling never sends audio; a poll that fails says nothing about the job, unless the vendor knows no such job.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import re
import time
from collections.abc import Mapping
from enum import Enum
from typing import Any
from urllib.parse import quote

from dropscribe.config.model import ProviderConfig
from dropscribe.core.errors import AmbiguousFailure, ProviderError, ProviderUnusable, TemporaryFailure
from dropscribe.core.requests.params import ParamValue
from dropscribe.files.audio import AudioFile
from dropscribe.files.crashpoint import reached
from dropscribe.providers import values
from dropscribe.providers.answers import ErrorBody, error_of, is_html
from dropscribe.providers.base import Unfinished
from dropscribe.providers.statuses import Kind, Table
from dropscribe.providers.transport.http import ANSWER_TOO_LARGE, Answer
from dropscribe.providers.transport.requests import Upload, json_request
from dropscribe.providers.values import Item, Params
from dropscribe.providers.vendor import HttpProvider, Vendor
from dropscribe.transcripts.model import Transcript

_Document = tuple[Answer, dict[str, Any]]  # the dict is the JSON object in the answer

FIRST_POLL_SECONDS = 2.0
LONGEST_POLL_SECONDS = 60.0

JOB_SECONDS = 86400.0
"""A job that the vendor has not finished after a day counts as an attempt without an answer."""

UNUSABLE_SECONDS = 600.0
"""A key or a path that is refused for so long is not a passing fault: polling within a request ends then."""

NO_RESULT = "no_result"  # the code of a poll that found no result of a job that is done
UNNAMED_STATE = "unnamed_state"  # the code of a state that the config of `type: http` has to name
SERVER_ERROR = "server_error"
"""The code for a job that failed by the vendor's own fault; the file is sent again."""

_USABLE_ID = re.compile(r"(?!\.{1,2}$)[ -~]{1,256}")  # a URL's segment "." or ".." is another path


class _StateUnknown(AmbiguousFailure):
    """Raised when polls fail for too long; the job may be finished, so that it is not deleted."""


class Progress(Enum):
    """State of a job at the vendor; its value names the attribute of JobVendor with the vendor's words."""

    WORKING = "working"
    DONE = "done"
    FAILED = "failed"
    LOST = "lost"  # deleted or expired: there will be no result, though it may have been paid for


class JobVendor(Vendor):
    """A vendor with jobs; it differs from others in its attributes and in the methods that it overrides.

    ``upload`` sends the audio; ``transcript`` reads the document with the result. Paths have the places
    ``{jobs}`` and ``{id}``, see :meth:`at`, and fields are places in answers, see :meth:`told`; "" is none.
    """

    upload_path = ""  # A POST takes the audio
    jobs_path = ""  # A POST creates a job
    job_path = "{jobs}/{id}"  # A GET asks for the job's state
    result_path = ""  # The result, where it is not in the answer with the state
    delete_path = "{jobs}/{id}"  # A DELETE deletes the job
    # A DELETE deletes an upload, with or without a job; "" where it goes with its job
    delete_upload_path = ""
    probe_path = "{jobs}?limit=1"  # A GET that costs nothing and proves the key
    # The file's field in the upload's answer, and in the request for a job
    file_name: tuple[str, str] = ("", "")
    id_field = "id"  # The job's id, in the answer that created it
    state_field = "status"  # The job's state, in the answer to a poll; its values follow
    working: tuple[str, ...] = ("queued", "processing")
    done: tuple[str, ...] = ("completed",)
    failed: tuple[str, ...] = ("error",)
    lost: tuple[str, ...] = ()
    # The field of a finished job's state with the recording's length, where the result has none, and the
    # factor that makes it seconds
    length_field = ("", 1.0)
    errors: Table = {(None, SERVER_ERROR): Kind.TEMPORARY}
    creates_in_upload = False  # Whether the upload creates the job, so that it may be paid for
    poll_every_seconds = 0.0  # The least time between two polls of a job; 0 where the vendor asks for none

    def __init__(self, config: ProviderConfig) -> None:
        super().__init__(config)
        self._base = self.url.rstrip("/")
        if self.upload_path:
            self.url = self._base + self.upload_path

    @classmethod
    def build(cls, config: ProviderConfig) -> JobProvider:
        """The provider of *config* at this vendor."""
        return JobProvider(config, cls(config))

    def at(self, path: str, name: str = "") -> str:
        """URL at *path*, with the *name* of a job or an upload in its place ``{id}``."""
        return self._base + path.replace("{jobs}", self.jobs_path).replace("{id}", quoted(name))

    def told(self, answer: Item, place: str) -> str:
        """The text at *place*, a field or several with dots between them, in an answer; "" for none."""
        *outer, last = place.split(".")
        for name in outer:
            answer = values.mapping(answer.get(name))
        return values.stripped(answer.get(last))

    def upload(self, audio: AudioFile, params: Params) -> Upload:
        """The audio; *params* are in the request that creates the job, if that is another one."""
        return super().upload(audio, params if self.creates_in_upload else {})

    def create(self, uploaded: Item, params: Params) -> Upload:
        """The request for a job on the upload, if that has not created it; BadAnswer if it has no name."""
        answered, asked = self.file_name
        if not (name := self.told(uploaded, answered)):
            raise values.BadAnswer(f"an upload without '{answered}'")
        return json_request(self.at(self.jobs_path), {**params, asked: name})

    def job_id(self, created: Item) -> str:
        """The job's id in the answer that created it; raises BadAnswer if it has none."""
        if not (found := self.told(created, self.id_field)):
            raise values.BadAnswer(f"a job without an id at '{self.id_field}'; {values.names_in(created)}")
        return found

    def progress(self, polled: Item) -> Progress | None:
        """State in a poll's answer; None if it is not a documented one."""
        state = self.told(polled, self.state_field)
        return next((progress for progress in Progress if state in getattr(self, progress.value)), None)

    def state_error(self, answer: Answer, polled: Item) -> ProviderError:  # noqa: ARG002
        """The error of a state that :meth:`progress` does not know."""
        return TemporaryFailure("bad_answer", "a job in no documented state", status=answer.status)

    def job_failure(self, polled: Item) -> ErrorBody:
        """Error of a failed job."""
        return error_of(polled)

    def probe(self) -> tuple[str, str]:
        """By default the list of jobs, limited to one."""
        return "GET", self.at(self.probe_path)


class JobProvider(HttpProvider):
    """One account at a vendor with jobs; see :class:`dropscribe.providers.base.JobProvider`."""

    vendor: JobVendor

    async def start_job(self, audio: AudioFile, params: Mapping[str, ParamValue]) -> str:
        """See :class:`dropscribe.providers.base.JobProvider`."""
        self._check_size(audio)
        sent = self.vendor.params(params)
        answer, created = await self._uploaded(audio, sent)
        reached("uploaded")
        if not self.vendor.creates_in_upload:
            answer, created = await self._created(created, sent)
        if words := self.vendor.failure(created):
            raise self._classifier.failure_in_success(answer, words)
        try:
            job_id = self.vendor.job_id(created)
        except values.BadAnswer as error:
            raise self._classifier.bad_answer(answer, str(error)) from None
        if not _USABLE_ID.fullmatch(job_id):
            raise self._classifier.bad_answer(answer, "a job with an id that no URL can carry")
        reached("job_created")
        return job_id

    def poll_seconds(self, age_seconds: float) -> float:
        """See :class:`dropscribe.providers.base.JobProvider`: a tenth of the job's age, within bounds."""
        tenth = min(max(FIRST_POLL_SECONDS, age_seconds / 10), LONGEST_POLL_SECONDS)
        return max(self.vendor.poll_every_seconds, tenth)

    async def poll_job(self, job_id: str, params: Mapping[str, ParamValue]) -> Transcript | Unfinished:
        """See :class:`dropscribe.providers.base.JobProvider`."""
        found = await self._fetched(self.vendor.job_path, job_id)
        if isinstance(found, Unfinished):
            return found
        answer, polled = found
        match self.vendor.progress(polled):
            case Progress.WORKING:
                return Unfinished()
            case Progress.FAILED:
                raise self._classifier.failed_job(answer, self.vendor.job_failure(polled))
            case Progress.LOST:
                raise _lost(answer)
            case None:
                return Unfinished(self.vendor.state_error(answer, polled))
        if self.vendor.result_path:
            found = await self._fetched(self.vendor.result_path, job_id, is_result=True)
            if isinstance(found, Unfinished):
                return found
        sent = self.vendor.params(params)
        transcript = await asyncio.to_thread(self._transcript, *found, sent, job_id)
        if transcript.duration is None:
            name, scale = self.vendor.length_field
            return dataclasses.replace(transcript, duration=values.duration(polled.get(name), scale=scale))
        return transcript

    async def delete_job(self, job_id: str) -> None:
        """See :class:`dropscribe.providers.base.JobProvider`."""
        if not self.vendor.delete_path:
            return
        if upload := await self._upload_of(job_id):  # first, because the job alone names it
            await self._delete(self.vendor.delete_upload_path, upload)
        await self._delete(self.vendor.delete_path, job_id)

    async def transcribe(self, audio: AudioFile, params: Mapping[str, ParamValue]) -> Transcript:
        """Start a job and wait for it here: for commands, and for the pieces of a recording."""
        job_id = await self.start_job(audio, params)
        try:
            transcript = await self._finished(job_id, params)
        except _StateUnknown:
            raise
        except ProviderError:
            with contextlib.suppress(ProviderError):
                await self.delete_job(job_id)
            raise
        try:
            await self.delete_job(job_id)
        except ProviderError as error:
            warning = f"not_deleted: {error.code}"
            return dataclasses.replace(transcript, warnings=(*transcript.warnings, warning))
        return transcript

    async def _finished(self, job_id: str, params: Mapping[str, ParamValue]) -> Transcript:
        began = usable_at = time.monotonic()
        asked_seconds = 0.0  # The wait that the last poll's answer asked for
        while True:
            await asyncio.sleep(max(asked_seconds, self.poll_seconds(time.monotonic() - began)))
            found = await self.poll_job(job_id, params)
            if not isinstance(found, Unfinished):
                return found
            now, error = time.monotonic(), found.error
            asked_seconds = getattr(error, "retry_after_seconds", None) or 0.0
            if not isinstance(error, ProviderUnusable) and (error is None or error.code != NO_RESULT):
                usable_at = now
            is_described = error is None or error.code != UNNAMED_STATE
            if is_described and now - usable_at < UNUSABLE_SECONDS and now - began <= JOB_SECONDS:
                continue
            if error is None:
                raise AmbiguousFailure("job_unfinished", "the provider has not finished")
            raise _StateUnknown("job_unfinished", f"{error}; job {job_id} is left at the provider")

    async def _upload_of(self, job_id: str) -> str:
        """The name of a job's upload, where that is deleted apart; "" if the job is gone."""
        if not self.vendor.delete_upload_path:
            return ""
        try:
            found = await self._fetched(self.vendor.job_path, job_id)
        except AmbiguousFailure:
            return ""
        if isinstance(found, Unfinished):
            raise found.error or TemporaryFailure("bad_answer", "no answer about the job")
        return self.vendor.told(found[1], self.vendor.file_name[1])

    async def _delete(self, path: str, name: str) -> None:
        """Delete a job or an upload; one that is gone already is no error."""
        url = Upload(self.vendor.at(path, name))
        answer = await self._http.send("DELETE", url, timeout_seconds=self._timeout_seconds)
        if answer.status // 100 != 2 and answer.status not in {404, 410}:
            raise self._classifier.error(answer)

    async def _posted(self, request: Upload) -> _Document:
        answer = await self._accepted(request, self._timeout_seconds)
        return answer, self._object(answer)

    async def _uploaded(self, audio: AudioFile, params: Params) -> _Document:
        try:
            return await self._posted(self.vendor.upload(audio, params))
        except AmbiguousFailure as error:
            if self.vendor.creates_in_upload:
                raise
            # An upload without a job costs nothing.
            raise TemporaryFailure(
                error.code, error.reason, status=error.status, request_id=error.request_id
            ) from error

    async def _created(self, uploaded: Item, params: Params) -> _Document:
        try:
            return await self._posted(self.vendor.create(uploaded, params))
        except values.BadAnswer as error:
            raise TemporaryFailure("bad_answer", str(error)) from None
        except AmbiguousFailure:
            raise  # there may be a job on the upload
        except ProviderError:
            name = self.vendor.told(uploaded, self.vendor.file_name[0])
            if name and self.vendor.delete_upload_path:
                with contextlib.suppress(ProviderError):
                    await self._delete(self.vendor.delete_upload_path, name)
            raise

    async def _fetched(self, path: str, job_id: str, *, is_result: bool = False) -> _Document | Unfinished:
        """A document about a job, or the error that prevents reading it now.

        With *is_result* the job is done: a result that is not found is not there yet. Raises AmbiguousFailure
        if the vendor does not have the document any more, AudioRejected if it is too large to be read.
        """
        url = Upload(self.vendor.at(path, job_id))
        try:
            answer = await self._http.send("GET", url, timeout_seconds=self._timeout_seconds)
            if answer.status // 100 == 2:
                return answer, self._object(answer)
        except ProviderError as failure:
            if failure.code == ANSWER_TOO_LARGE:
                raise  # and so would be the answer to the next poll
            return Unfinished(failure)
        error = self._classifier.error(answer)
        if is_result and answer.status == 404:
            reason = f"the result is not there yet: {error.reason}"
            return Unfinished(TemporaryFailure(NO_RESULT, reason, status=404, request_id=error.request_id))
        if answer.status in {404, 410} and not is_html(answer):
            raise _lost(answer)
        return Unfinished(error)


def quoted(name: str) -> str:
    """*name* as one segment of a URL's path, or as a value of its query."""
    return quote(name, safe=":")


def _lost(answer: Answer) -> AmbiguousFailure:
    return AmbiguousFailure("job_lost", "the provider knows no such job any more", status=answer.status)
