"""Vendors that work on audio in jobs: an upload, a job, polls, the result, and its deletion at the vendor.

Guarantees: a job's id is handed over as soon as the vendor has told it, before anything waits for the result;
polling never sends audio; a poll that fails says nothing about the job, unless the vendor knows no such job.
"""

from __future__ import annotations

import asyncio
import dataclasses
import re
import time
from enum import Enum, auto
from typing import TYPE_CHECKING, Any, Protocol

from dropscribe.core.errors import (
    AmbiguousFailure,
    ProviderError,
    ProviderUnusable,
    RuleRejected,
    TemporaryFailure,
)
from dropscribe.files.crashpoint import reached
from dropscribe.providers.answers import ErrorBody, TooLarge, error_of, is_html, parse_json
from dropscribe.providers.base import Unfinished
from dropscribe.providers.cleaning import cleaned
from dropscribe.providers.transport.http import Upload
from dropscribe.providers.vendor import HttpProvider, Vendor, VendorDefaults

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dropscribe.config.model import ProviderConfig
    from dropscribe.core.requests.params import ParamValue
    from dropscribe.files.audio import AudioFile
    from dropscribe.providers.transport.http import Answer
    from dropscribe.providers.vendor import Params
    from dropscribe.transcripts.model import Transcript

FIRST_POLL_SECONDS = 2.0
LONGEST_POLL_SECONDS = 60.0

JOB_SECONDS = 86400.0
"""A job that the vendor has not finished after a day counts as an attempt without an answer."""

_JOB_ID = re.compile(r"[A-Za-z0-9_.:-]{1,256}")
_GONE = frozenset({404, 410})


class Progress(Enum):
    """State of a job at the vendor."""

    WORKING = auto()
    DONE = auto()
    FAILED = auto()


class JobVendor(Vendor, Protocol):
    """A vendor with jobs. ``upload`` sends the audio; ``transcript`` reads the document with the result."""

    @property
    def creates_in_upload(self) -> bool:
        """Whether the upload creates the job, so that it may be paid for."""

    @property
    def poll_every_seconds(self) -> float:
        """The least time between two polls of a job; 0 where the vendor asks for none."""

    def create(self, uploaded: Mapping[str, Any], params: Params) -> Upload | None:
        """The request for a job on what was uploaded; None where the upload has created the job."""

    def job_id(self, created: Mapping[str, Any]) -> str | None:
        """The job's id in the answer that created it; None where it has none."""

    def poll_url(self, job_id: str) -> str:
        """URL of the job's state."""

    def progress(self, polled: Mapping[str, Any]) -> Progress | None:
        """State in a poll's answer; None if it is not a documented one."""

    def job_failure(self, polled: Mapping[str, Any]) -> ErrorBody:
        """Error of a failed job."""

    def result_url(self, job_id: str) -> str | None:
        """URL of the result; None if the poll's answer holds the result."""

    def deletions(self, job_id: str) -> tuple[str, ...]:
        """URLs to delete: the job, and what was uploaded for it."""


class JobVendorDefaults(VendorDefaults):
    """The parts that most vendors with jobs share."""

    creates_in_upload = False
    poll_every_seconds = 0.0

    def job_failure(self, polled: Mapping[str, Any]) -> ErrorBody:
        """As in the body of an error."""
        return error_of(polled)

    def result_url(self, job_id: str) -> str | None:  # noqa: ARG002 - see JobVendor
        """In the poll's answer."""
        return None


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
            answer = await self._accepted("POST", request)
            created = self._object(answer)
        if words := self._jobs.failure(created):
            raise self._classifier.failure_in_success(answer, words)
        job_id = self._jobs.job_id(created)
        if job_id is None or not _JOB_ID.fullmatch(job_id):
            raise self._classifier.bad_answer(answer, "a job without an id")
        reached("job_created")
        return job_id

    def poll_seconds(self, age_seconds: float) -> float:
        """See :class:`dropscribe.providers.base.JobProvider`."""
        return max(self._jobs.poll_every_seconds, poll_seconds(age_seconds))

    async def poll_job(self, job_id: str, params: Mapping[str, ParamValue]) -> Transcript | Unfinished:
        """See :class:`dropscribe.providers.base.JobProvider`."""
        found = await self._fetched(self._jobs.poll_url(job_id))
        if isinstance(found, Unfinished):
            return found
        answer, polled = found
        match self._jobs.progress(polled):
            case Progress.WORKING:
                return Unfinished()
            case Progress.FAILED:
                raise self._classifier.failed_job(answer, self._jobs.job_failure(polled))
            case None:
                return Unfinished(TemporaryFailure("bad_answer", "a job in no documented state"))
        url = self._jobs.result_url(job_id)
        if url is not None:
            found = await self._fetched(url)
            if isinstance(found, Unfinished):
                return found
            answer, polled = found
        sent = self._jobs.params(params)
        return await asyncio.to_thread(self._result, answer, polled, sent, job_id)

    async def delete_job(self, job_id: str) -> None:
        """See :class:`dropscribe.providers.base.JobProvider`."""
        for url in self._jobs.deletions(job_id):
            answer = await self._request("DELETE", Upload(url, {}), self._timeout_seconds)
            if answer.status // 100 != 2 and answer.status not in _GONE:
                raise self._classifier.error(answer)

    async def transcribe(self, audio: AudioFile, params: Mapping[str, ParamValue]) -> Transcript:
        """Start a job and wait for it here: for commands, and for the pieces of a recording."""
        job_id = await self.start_job(audio, params)
        began = time.monotonic()
        while True:
            await asyncio.sleep(self.poll_seconds(time.monotonic() - began))
            found = await self.poll_job(job_id, params)
            if not isinstance(found, Unfinished):
                break
            if isinstance(found.error, ProviderUnusable) or time.monotonic() - began > JOB_SECONDS:
                raise AmbiguousFailure("job_unfinished", str(found.error or "the provider has not finished"))
        try:
            await self.delete_job(job_id)
        except ProviderError as error:
            return dataclasses.replace(found, warnings=(*found.warnings, f"not_deleted: {error.code}"))
        return found

    async def _uploaded(self, audio: AudioFile, params: Params) -> tuple[Answer, dict[str, Any]]:
        upload = self._jobs.upload(audio, params)
        try:
            answer = await self._accepted("POST", upload)
            return answer, self._object(answer)
        except AmbiguousFailure as error:
            if self._jobs.creates_in_upload:
                raise
            # What is only uploaded costs nothing.
            raise TemporaryFailure(
                error.code, error.reason, status=error.status, request_id=error.request_id
            ) from error

    async def _accepted(self, method: str, request: Upload) -> Answer:
        answer = await self._request(method, request, self._timeout_seconds)
        if answer.status // 100 != 2:
            raise self._classifier.error(answer)
        return answer

    async def _fetched(self, url: str) -> tuple[Answer, dict[str, Any]] | Unfinished:
        """A document about a job, or why it could not be had now.

        Raises:
            AmbiguousFailure: The vendor knows no such job (any more).
        """
        try:
            answer = await self._request("GET", Upload(url, {}), self._timeout_seconds)
            if answer.status in _GONE and not is_html(answer):
                lost = "the provider knows no such job any more"
                raise AmbiguousFailure("job_lost", lost, status=answer.status)
            if answer.status // 100 != 2:
                return Unfinished(self._classifier.error(answer))
            return answer, self._object(answer)
        except ProviderError as error:
            if error.code == "job_lost":
                raise
            return Unfinished(error)

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

    def _result(self, answer: Answer, parsed: dict[str, Any], params: Params, job_id: str) -> Transcript:
        transcript = self._jobs.transcript(parsed, params, job_id)
        if transcript is None:
            raise self._classifier.bad_answer(answer, self._jobs.no_text(parsed))
        return cleaned(transcript, self._redactor)


def poll_seconds(age_seconds: float) -> float:
    """The wait before the next poll of a job that is *age_seconds* old: a tenth of its age."""
    return min(max(FIRST_POLL_SECONDS, age_seconds / 10), LONGEST_POLL_SECONDS)


def uploaded_as(uploaded: Mapping[str, Any], name: str) -> str:
    """The file's name from an upload's answer; without it there is no job, and nothing is paid for.

    Raises:
        TemporaryFailure: It is missing.
    """
    found = uploaded.get(name)
    if not isinstance(found, str) or not found:
        raise TemporaryFailure("bad_answer", f"an upload without {name}")
    return found


def nested(params: Params) -> dict[str, Any]:
    """*params* as a JSON object: names with dots as nested objects, an empty list left out.

    Raises:
        RuleRejected: One name is both a value and an object.
    """
    found: dict[str, Any] = {}
    for name, value in params.items():
        if value == []:
            continue
        *outer, last = name.split(".")
        place = found
        for part in outer:
            inner = place.setdefault(part, {})
            if not isinstance(inner, dict):
                raise RuleRejected("bad_parameter", f"{name}: {part} has a value of its own already")
            place = inner
        place[last] = value
    return found
