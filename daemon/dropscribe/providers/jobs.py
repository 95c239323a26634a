"""Vendors that work on audio in jobs: an upload, a job, polls, the result, and its deletion at the vendor.

Guarantees: a job's id is handed over as soon as the vendor has told it, before anything waits for the result;
polling never sends audio; a poll that fails says nothing about the job, unless the vendor knows no such job.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import re
import time
from typing import TYPE_CHECKING, Any

from dropscribe.core.errors import AmbiguousFailure, ProviderError, ProviderUnusable, TemporaryFailure
from dropscribe.files.crashpoint import reached
from dropscribe.providers.answers import TooLarge, is_html, parse_json
from dropscribe.providers.base import Unfinished
from dropscribe.providers.job_vendor import Progress
from dropscribe.providers.transport.http import Upload
from dropscribe.providers.vendor import HttpProvider

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dropscribe.config.model import ProviderConfig
    from dropscribe.core.requests.params import ParamValue
    from dropscribe.files.audio import AudioFile
    from dropscribe.providers.job_vendor import JobVendor
    from dropscribe.providers.transport.http import Answer
    from dropscribe.providers.vendor import Params
    from dropscribe.transcripts.model import Transcript

FIRST_POLL_SECONDS = 2.0
LONGEST_POLL_SECONDS = 60.0

JOB_SECONDS = 86400.0
"""A job that the vendor has not finished after a day counts as an attempt without an answer."""

_JOB_ID = re.compile(r"[A-Za-z0-9_.:-]{1,256}")
_GONE = frozenset({404, 410})


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
            case Progress.LOST:
                raise _lost(answer)
            case None:
                return Unfinished(TemporaryFailure("bad_answer", "a job in no documented state"))
        parsed = polled
        if url := self._jobs.result_url(job_id):
            # The job is there: a result that is not found is not there yet.
            found = await self._fetched(url, gone=frozenset({410}))
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
        for url in self._jobs.deletions(job_id):
            answer = await self._request("DELETE", Upload(url, {}), self._timeout_seconds)
            if answer.status // 100 != 2 and answer.status not in _GONE:
                raise self._classifier.error(answer)

    async def transcribe(self, audio: AudioFile, params: Mapping[str, ParamValue]) -> Transcript:
        """Start a job and wait for it here: for commands, and for the pieces of a recording."""
        job_id = await self.start_job(audio, params)
        try:
            transcript = await self._finished(job_id, params)
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
        began = time.monotonic()
        while True:
            await asyncio.sleep(self.poll_seconds(time.monotonic() - began))
            found = await self.poll_job(job_id, params)
            if not isinstance(found, Unfinished):
                return found
            if isinstance(found.error, ProviderUnusable) or time.monotonic() - began > JOB_SECONDS:
                raise AmbiguousFailure("job_unfinished", str(found.error or "the provider has not finished"))

    async def _uploaded(self, audio: AudioFile, params: Params) -> tuple[Answer, dict[str, Any]]:
        upload = self._jobs.upload(audio, params)
        try:
            answer = await self._accepted(upload, self._timeout_seconds)
            return answer, self._object(answer)
        except AmbiguousFailure as error:
            if self._jobs.creates_in_upload:
                raise
            # What is only uploaded costs nothing.
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

    async def _fetched(
        self, url: str, gone: frozenset[int] = _GONE
    ) -> tuple[Answer, dict[str, Any]] | Unfinished:
        """A document about a job, or why it could not be had now.

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


def _lost(answer: Answer) -> AmbiguousFailure:
    return AmbiguousFailure("job_lost", "the provider knows no such job any more", status=answer.status)


def poll_seconds(age_seconds: float) -> float:
    """The wait before the next poll of a job that is *age_seconds* old: a tenth of its age."""
    return min(max(FIRST_POLL_SECONDS, age_seconds / 10), LONGEST_POLL_SECONDS)
