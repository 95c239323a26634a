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
from enum import Enum
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import quote

from dropscribe.core.errors import AmbiguousFailure, ProviderError, ProviderUnusable, TemporaryFailure
from dropscribe.files.crashpoint import reached
from dropscribe.providers import values
from dropscribe.providers.answers import ErrorBody, error_of, is_html
from dropscribe.providers.base import Unfinished
from dropscribe.providers.statuses import Kind, Table
from dropscribe.providers.transport.requests import Upload, form_request, json_request, nested
from dropscribe.providers.vendor import HttpProvider, Params, Vendor

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from dropscribe.config.model import ProviderConfig
    from dropscribe.core.requests.params import ParamValue
    from dropscribe.files.audio import AudioFile
    from dropscribe.providers.transport.http import Answer
    from dropscribe.providers.values import Item
    from dropscribe.transcripts.model import Transcript

    _Document = tuple[Answer, dict[str, Any]]  # the dict is the JSON object in the answer

FIRST_POLL_SECONDS = 2.0
LONGEST_POLL_SECONDS = 60.0

JOB_SECONDS = 86400.0
"""A job that the vendor has not finished after a day counts as an attempt without an answer."""

UNUSABLE_SECONDS = 600.0
"""A key or a path that is refused for so long is not a passing fault: polling within a request ends then."""

NO_RESULT = "no_result"  # the code of a poll that found no result of a job that is done
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

    ``upload`` sends the audio; ``transcript`` reads the document with the result. Methods that make URLs
    get a job's id percent-encoded.

    Attributes:
        upload_path: Takes the audio.
        jobs_path: A POST creates a job; a GET or DELETE with a job's id asks for it or deletes it.
        form_field: The field with the audio, where the upload is a form; "" where the body is the audio.
        file_name: The file's field in the upload's answer, and in the request for a job.
        working, done, failed, lost: The values of a job's ``status``.
        creates_in_upload: Whether the upload creates the job, so that it may be paid for.
        poll_every_seconds: The least time between two polls of a job; 0 where the vendor asks for none.
    """

    upload_path: ClassVar[str]
    jobs_path: ClassVar[str]
    form_field = ""
    file_name: tuple[str, str] = ("", "")
    working: tuple[str, ...] = ("queued", "processing")
    done: tuple[str, ...] = ("completed",)
    failed: tuple[str, ...] = ("error",)
    lost: tuple[str, ...] = ()
    errors: Table = {(None, SERVER_ERROR): Kind.TEMPORARY}
    creates_in_upload = False
    poll_every_seconds = 0.0

    def __init__(self, config: ProviderConfig) -> None:
        super().__init__(config)
        self.url = self.url.rstrip("/")

    @classmethod
    def build(cls, config: ProviderConfig) -> JobProvider:
        """The provider of *config* at this vendor."""
        return JobProvider(config, cls(config))

    def upload(self, audio: AudioFile, params: Params) -> Upload:
        """The audio as it is, or in a form."""
        url = self.url + self.upload_path
        if not self.form_field:
            return Upload(url, {"Content-Type": "application/octet-stream"}, audio)
        return form_request(url, self.form_fields(params), audio, field=self.form_field)

    def form_fields(self, params: Params) -> Iterable[tuple[str, str]]:  # noqa: ARG002
        """Fields of the upload's form beside the audio."""
        return ()

    def create(self, uploaded: Item, params: Params) -> Upload:
        """The request for a job on the upload; not called where the upload creates the job.

        Raises:
            BadAnswer: The upload has no name; without it there is no job, and nothing is paid for.
        """
        answered, asked = self.file_name
        name = uploaded.get(answered)
        if not isinstance(name, str) or not name:
            raise values.BadAnswer(f"an upload without {answered}")
        return json_request(self.url + self.jobs_path, {asked: name, **nested(params)})

    def job_id(self, created: Item) -> str:
        """The job's id in the answer that created it.

        Raises:
            BadAnswer: It has none.
        """
        if (found := values.word_or_none(created.get("id"))) is None:
            raise values.BadAnswer("a job without an id")
        return found

    def poll_url(self, job_id: str) -> str:
        """URL of the job's state."""
        return f"{self.url}{self.jobs_path}/{job_id}"

    def progress(self, polled: Item) -> Progress | None:
        """State in a poll's answer; None if it is not a documented one."""
        status = values.text_of(polled.get("status"))
        return next((progress for progress in Progress if status in getattr(self, progress.value)), None)

    def job_failure(self, polled: Item) -> ErrorBody:
        """Error of a failed job."""
        return error_of(polled)

    def seconds(self, polled: Item) -> float | None:  # noqa: ARG002
        """The recording's length, where a poll's answer tells it and the result does not."""
        return None

    def result_url(self, job_id: str) -> str | None:  # noqa: ARG002
        """URL of the result; None if the poll's answer holds the result."""
        return None

    def deletions(self, job_id: str) -> tuple[str, ...]:
        """URLs to delete: the job, and its upload where that is not deleted with it."""
        return (self.poll_url(job_id),)

    def unused_upload(self, uploaded: Item) -> str | None:  # noqa: ARG002
        """The URL to delete where no job was created on an upload; None where the vendor has none."""
        return None

    def probe(self) -> tuple[str, str]:
        """The list of jobs, limited to one."""
        return "GET", f"{self.url}{self.jobs_path}?limit=1"


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
        found = await self._fetched(self.vendor.poll_url(_quoted(job_id)))
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
                reason = "a job in no documented state"
                return Unfinished(TemporaryFailure("bad_answer", reason, status=answer.status))
        if url := self.vendor.result_url(_quoted(job_id)):
            found = await self._fetched(url, is_result=True)
            if isinstance(found, Unfinished):
                return found
        sent = self.vendor.params(params)
        transcript = await asyncio.to_thread(self._transcript, *found, sent, job_id)
        if transcript.duration is None:
            return dataclasses.replace(transcript, duration=self.vendor.seconds(polled))
        return transcript

    async def delete_job(self, job_id: str) -> None:
        """See :class:`dropscribe.providers.base.JobProvider`."""
        for url in self.vendor.deletions(_quoted(job_id)):
            answer = await self._request("DELETE", Upload(url), self._timeout_seconds)
            if answer.status // 100 != 2 and answer.status not in {404, 410}:
                raise self._classifier.error(answer)

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
            if now - usable_at < UNUSABLE_SECONDS and now - began <= JOB_SECONDS:
                continue
            if error is None:
                raise AmbiguousFailure("job_unfinished", "the provider has not finished")
            raise _StateUnknown("job_unfinished", f"{error}; job {job_id} is left at the provider")

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
            if url := self.vendor.unused_upload(uploaded):
                with contextlib.suppress(ProviderError):
                    await self._request("DELETE", Upload(url), self._timeout_seconds)
            raise

    async def _fetched(self, url: str, *, is_result: bool = False) -> _Document | Unfinished:
        """A document about a job, or the error that prevents reading it now.

        Args:
            is_result: The job is done: a result that is not found is not there yet.

        Raises:
            AmbiguousFailure: The vendor does not have it any more.
        """
        try:
            answer = await self._request("GET", Upload(url), self._timeout_seconds)
            if answer.status // 100 == 2:
                return answer, self._object(answer)
        except ProviderError as failure:
            return Unfinished(failure)
        error = self._classifier.error(answer)
        if is_result and answer.status == 404:
            reason = f"the result is not there yet: {error.reason}"
            return Unfinished(TemporaryFailure(NO_RESULT, reason, status=404, request_id=error.request_id))
        if answer.status in {404, 410} and not is_html(answer):
            raise _lost(answer)
        return Unfinished(error)


def _quoted(job_id: str) -> str:
    """*job_id* as one segment of a URL's path, or as a value of its query."""
    return quote(job_id, safe=":")


def _lost(answer: Answer) -> AmbiguousFailure:
    return AmbiguousFailure("job_lost", "the provider knows no such job any more", status=answer.status)
