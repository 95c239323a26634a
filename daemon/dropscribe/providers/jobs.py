"""Vendors that work on audio in jobs: an upload, a job, polls, the result, and its deletion at the vendor.

As in :mod:`dropscribe.providers.vendor`, a vendor only builds requests and reads answers.

Guarantees: a job's id is handed over as soon as the vendor has told it, before anything waits for the result;
polling never sends audio; a poll that fails says nothing about the job, unless the vendor knows no such job.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import time
from dataclasses import dataclass
from enum import Enum, auto
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import quote

from dropscribe.core.errors import AmbiguousFailure, ProviderError, ProviderUnusable, TemporaryFailure
from dropscribe.files.crashpoint import reached
from dropscribe.providers import values
from dropscribe.providers.answers import TooLarge, error_of, is_html, parse_json
from dropscribe.providers.base import Unfinished
from dropscribe.providers.statuses import Kind
from dropscribe.providers.transport.http import Upload
from dropscribe.providers.vendor import HttpProvider, Vendor, form_upload, json_request, nested

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from dropscribe.config.model import ProviderConfig
    from dropscribe.core.requests.params import ParamValue
    from dropscribe.files.audio import AudioFile
    from dropscribe.providers.answers import ErrorBody
    from dropscribe.providers.statuses import Table
    from dropscribe.providers.transport.http import Answer
    from dropscribe.providers.vendor import Params
    from dropscribe.transcripts.model import Transcript

FIRST_POLL_SECONDS = 2.0
LONGEST_POLL_SECONDS = 60.0

JOB_SECONDS = 86400.0
"""A job that the vendor has not finished after a day counts as an attempt without an answer."""

UNUSABLE_SECONDS = 600.0
"""A key or a path that is refused for so long is not a passing fault: polling within a request ends then."""

NO_RESULT = "no_result"
"""The code of a poll that found no result of a job that is done."""

SERVER_ERROR = "server_error"
"""The code for a job that failed by the vendor's own fault; the file is sent again."""

_LONGEST_ID = 256
_GONE = frozenset({404, 410})


class _StateUnknown(AmbiguousFailure):
    """Raised when polls fail for too long; the job may be finished, so that it is not deleted."""


class Progress(Enum):
    """State of a job at the vendor."""

    WORKING = auto()
    DONE = auto()
    FAILED = auto()
    LOST = auto()  # deleted or expired: there will be no result, though it may have been paid for


@dataclass(frozen=True, slots=True)
class JobApi:
    """The parts of a vendor's API in which most vendors with jobs differ.

    Attributes:
        upload: The path that takes the audio.
        form_field: The field with the audio, where the upload is a form; "" where the body is the audio.
        file_name: The file's field in the upload's answer, and in the request for a job.
        jobs: The path of the jobs: a POST creates one; a GET or DELETE with its id asks for or deletes one.
        working, done, failed, lost: The values of a job's ``status``.
    """

    upload: str
    jobs: str
    form_field: str = ""
    file_name: tuple[str, str] = ("", "")
    working: frozenset[str] = frozenset({"queued", "processing"})
    done: str = "completed"
    failed: frozenset[str] = frozenset({"error"})
    lost: frozenset[str] = frozenset()


class JobVendor(Vendor):
    """A vendor with jobs; it differs from others in its :class:`JobApi` and in the methods that it overrides.

    ``upload`` sends the audio; ``transcript`` reads the document with the result. Methods that make URLs
    get a job's id percent-encoded.

    Attributes:
        creates_in_upload: Whether the upload creates the job, so that it may be paid for.
        poll_every_seconds: The least time between two polls of a job; 0 where the vendor asks for none.
    """

    api: ClassVar[JobApi]
    errors: Table = {(None, SERVER_ERROR): Kind.TEMPORARY}  # noqa: RUF012 - never changed
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
        url = self.url + self.api.upload
        if not self.api.form_field:
            return Upload(url, {"Content-Type": "application/octet-stream"}, audio)
        return form_upload(url, audio, self.form_fields(params), field=self.api.form_field)

    def form_fields(self, params: Params) -> Iterable[tuple[str, str]]:  # noqa: ARG002
        """Fields of the upload's form beside the audio."""
        return ()

    def create(self, uploaded: Mapping[str, Any], params: Params) -> Upload | None:
        """The request for a job on the upload; None where the upload has created the job."""
        answered, asked = self.api.file_name
        body = {asked: _uploaded_as(uploaded, answered), **nested(params)}
        return json_request(self.url + self.api.jobs, body)

    def job_id(self, created: Mapping[str, Any]) -> str | None:
        """The job's id in the answer that created it; None where it has none."""
        return values.word_or_none(created.get("id"))

    def no_job_id(self, created: Mapping[str, Any]) -> str:  # noqa: ARG002
        """A message for an answer that creates a job and has no id."""
        return "a job without an id"

    def poll_url(self, job_id: str) -> str:
        """URL of the job's state."""
        return f"{self.url}{self.api.jobs}/{job_id}"

    def progress(self, polled: Mapping[str, Any]) -> Progress | None:
        """State in a poll's answer; None if it is not a documented one."""
        status = values.text_of(polled.get("status"))
        if status == self.api.done:
            return Progress.DONE
        meanings = {
            Progress.WORKING: self.api.working,
            Progress.FAILED: self.api.failed,
            Progress.LOST: self.api.lost,
        }
        return next((progress for progress, words in meanings.items() if status in words), None)

    def job_failure(self, polled: Mapping[str, Any]) -> ErrorBody:
        """Error of a failed job."""
        return error_of(polled)

    def seconds(self, polled: Mapping[str, Any]) -> float | None:  # noqa: ARG002
        """The recording's length, where a poll's answer tells it and the result does not."""
        return None

    def result_url(self, job_id: str) -> str | None:  # noqa: ARG002
        """URL of the result; None if the poll's answer holds the result."""
        return None

    def deletions(self, job_id: str) -> tuple[str, ...]:
        """URLs to delete: the job, and its upload where that is not deleted with it."""
        return (self.poll_url(job_id),)

    def unused_upload(self, uploaded: Mapping[str, Any]) -> str | None:  # noqa: ARG002
        """The URL to delete where no job was created on an upload; None where the vendor has none."""
        return None

    def probe(self) -> tuple[str, str]:
        """The list of jobs, limited to one."""
        return "GET", f"{self.url}{self.api.jobs}?limit=1"


def _uploaded_as(uploaded: Mapping[str, Any], name: str) -> str:
    """The file's name from an upload's answer; without it there is no job, and nothing is paid for.

    Raises:
        TemporaryFailure: It is missing.
    """
    found = uploaded.get(name)
    if not isinstance(found, str) or not found:
        raise TemporaryFailure("bad_answer", f"an upload without {name}")
    return found


class JobProvider(HttpProvider):
    """One account at a vendor with jobs; see :class:`dropscribe.providers.base.JobProvider`."""

    def __init__(self, config: ProviderConfig, vendor: JobVendor) -> None:
        super().__init__(config, vendor)
        self._jobs = vendor

    async def start_job(self, audio: AudioFile, params: Mapping[str, ParamValue]) -> str:
        """See :class:`dropscribe.providers.base.JobProvider`."""
        self.check_size(audio)
        sent = self._jobs.params(params)
        answer, created = await self._uploaded(audio, sent)
        reached("uploaded")
        request = self._jobs.create(created, sent)
        if request is not None:
            answer, created = await self._created(request, created)
        if words := self._jobs.failure(created):
            raise self._classifier.failure_in_success(answer, words)
        job_id = self._jobs.job_id(created)
        if job_id is None:
            raise self._classifier.bad_answer(answer, self._jobs.no_job_id(created))
        if not _is_usable(job_id):
            raise self._classifier.bad_answer(answer, "a job with an id that no URL can carry")
        reached("job_created")
        return job_id

    def poll_seconds(self, age_seconds: float) -> float:
        """See :class:`dropscribe.providers.base.JobProvider`."""
        return max(self._jobs.poll_every_seconds, poll_seconds(age_seconds))

    async def poll_job(self, job_id: str, params: Mapping[str, ParamValue]) -> Transcript | Unfinished:
        """See :class:`dropscribe.providers.base.JobProvider`."""
        found = await self._fetched(self._jobs.poll_url(_quoted(job_id)))
        if isinstance(found, Unfinished):
            return found
        answer, polled = found
        match self._jobs.progress(polled):
            case Progress.WORKING:
                return Unfinished()
            case Progress.FAILED:
                raise self._classifier.failed_job(answer, self._jobs.job_failure(polled))
            case Progress.LOST:
                raise _lost(answer)
            case None:
                reason = "a job in no documented state"
                return Unfinished(TemporaryFailure("bad_answer", reason, status=answer.status))
        parsed = polled
        if url := self._jobs.result_url(_quoted(job_id)):
            found = await self._result(url)
            if isinstance(found, Unfinished):
                return found
            answer, parsed = found
        transcript = await asyncio.to_thread(
            self._transcript, answer, parsed, self._jobs.params(params), job_id
        )
        if transcript.duration is None:
            return dataclasses.replace(transcript, duration=self._jobs.seconds(polled))
        return transcript

    async def delete_job(self, job_id: str) -> None:
        """See :class:`dropscribe.providers.base.JobProvider`."""
        for url in self._jobs.deletions(_quoted(job_id)):
            answer = await self._request("DELETE", Upload(url, {}), self._timeout_seconds)
            if answer.status // 100 != 2 and answer.status not in _GONE:
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
        while True:
            await asyncio.sleep(self.poll_seconds(time.monotonic() - began))
            found = await self.poll_job(job_id, params)
            if not isinstance(found, Unfinished):
                return found
            now, error = time.monotonic(), found.error
            if not isinstance(error, ProviderUnusable) and (error is None or error.code != NO_RESULT):
                usable_at = now
            if now - usable_at < UNUSABLE_SECONDS and now - began <= JOB_SECONDS:
                continue
            if error is None:
                raise AmbiguousFailure("job_unfinished", "the provider has not finished")
            raise _StateUnknown("job_unfinished", f"{error}; job {job_id} is left at the provider")

    async def _uploaded(self, audio: AudioFile, params: Params) -> tuple[Answer, dict[str, Any]]:
        upload = self._jobs.upload(audio, params)
        try:
            answer = await self._accepted(upload, self._timeout_seconds)
            return answer, self._object(answer)
        except AmbiguousFailure as error:
            if self._jobs.creates_in_upload:
                raise
            # An upload without a job costs nothing.
            raise TemporaryFailure(
                error.code, error.reason, status=error.status, request_id=error.request_id
            ) from error

    async def _created(self, request: Upload, uploaded: Mapping[str, Any]) -> tuple[Answer, dict[str, Any]]:
        try:
            answer = await self._accepted(request, self._timeout_seconds)
        except AmbiguousFailure:
            raise  # there may be a job on the upload
        except ProviderError:
            if url := self._jobs.unused_upload(uploaded):
                with contextlib.suppress(ProviderError):
                    await self._request("DELETE", Upload(url, {}), self._timeout_seconds)
            raise
        return answer, self._object(answer)

    async def _result(self, url: str) -> tuple[Answer, dict[str, Any]] | Unfinished:
        """The result of a job that is done: where it is not found, it is not there yet."""
        found = await self._fetched(url, gone=frozenset({410}))
        if isinstance(found, Unfinished) and (error := found.error) is not None and error.status == 404:
            reason = f"the result is not there yet: {error.reason}"
            return Unfinished(TemporaryFailure(NO_RESULT, reason, status=404, request_id=error.request_id))
        return found

    async def _fetched(
        self, url: str, gone: frozenset[int] = _GONE
    ) -> tuple[Answer, dict[str, Any]] | Unfinished:
        """A document about a job, or the error that prevents reading it now.

        Raises:
            AmbiguousFailure: The status is one of *gone*: the vendor does not have it any more.
        """
        try:
            answer = await self._request("GET", Upload(url, {}), self._timeout_seconds)
            if answer.status // 100 == 2:
                return answer, self._object(answer)
        except ProviderError as error:
            return Unfinished(error)
        if answer.status in gone and not is_html(answer):
            raise _lost(answer)
        return Unfinished(self._classifier.error(answer))

    def _object(self, answer: Answer) -> dict[str, Any]:
        try:
            parsed = parse_json(answer.body)
        except TooLarge as error:
            raise self._classifier.bad_answer(answer, str(error)) from None
        except ValueError:
            parsed = None
        if not isinstance(parsed, dict):
            raise self._classifier.bad_answer(answer, f"{len(answer.body)} bytes in place of a JSON object")
        return parsed


def _is_usable(job_id: str) -> bool:
    is_printable = job_id.isascii() and job_id.isprintable()
    return is_printable and 0 < len(job_id) <= _LONGEST_ID and job_id not in {".", ".."}


def _quoted(job_id: str) -> str:
    """*job_id* as one segment of a URL's path, or as a value of its query."""
    return quote(job_id, safe=":")


def _lost(answer: Answer) -> AmbiguousFailure:
    return AmbiguousFailure("job_lost", "the provider knows no such job any more", status=answer.status)


def poll_seconds(age_seconds: float) -> float:
    """The wait before the next poll of a job that is *age_seconds* old: a tenth of its age."""
    return min(max(FIRST_POLL_SECONDS, age_seconds / 10), LONGEST_POLL_SECONDS)
