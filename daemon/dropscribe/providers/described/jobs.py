"""Jobs at an API that the config describes by `poll`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin

import jmespath

from dropscribe.core.errors import TemporaryFailure
from dropscribe.providers.answers import error_of
from dropscribe.providers.described.answer import found
from dropscribe.providers.described.api import DescribedApi
from dropscribe.providers.jobs import JobVendor, Progress
from dropscribe.providers.vendor import json_request, nested

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dropscribe.config.model import ProviderConfig
    from dropscribe.files.audio import AudioFile
    from dropscribe.providers.answers import ErrorBody
    from dropscribe.providers.transport.http import Upload
    from dropscribe.providers.vendor import Params


class DescribedJobs(DescribedApi, JobVendor):
    """The API of *config*; see :class:`dropscribe.providers.jobs.JobVendor`."""

    def __init__(self, config: ProviderConfig) -> None:
        super().__init__(config)
        poll = config.poll
        assert poll is not None  # noqa: S101 - described.api.build
        self._poll = poll
        self._id, self._state = jmespath.compile(poll.id), jmespath.compile(poll.state)
        self._uploaded = jmespath.compile(poll.create.audio) if poll.create else None
        self.creates_in_upload = poll.create is None
        self.poll_every_seconds = poll.every_seconds

    def upload(self, audio: AudioFile, params: Params) -> Upload:
        """As in one request; `params` go with the request that creates the job."""
        return super().upload(audio, params if self._poll.create is None else {})

    def create(self, uploaded: Mapping[str, Any], params: Params) -> Upload | None:
        """The parameters and the upload's name as JSON."""
        if self._poll.create is None or self._uploaded is None:
            return None
        name = _word(found(self._uploaded, uploaded))
        if not name:
            raise TemporaryFailure("bad_answer", f"an upload without '{self._poll.create.audio}'")
        body = nested({**params, self._poll.create.field: name})
        return json_request(self._at(self._poll.create.url), body)

    def job_id(self, created: Mapping[str, Any]) -> str | None:
        """Id that `poll.id` finds, if any."""
        return _word(found(self._id, created))

    def poll_url(self, job_id: str) -> str:
        """The job."""
        return self._at(self._poll.url, job_id)

    def progress(self, polled: Mapping[str, Any]) -> Progress | None:
        """A state that the config does not name is one of a job that goes on."""
        state = _word(found(self._state, polled))
        if state in self._poll.done:
            return Progress.DONE
        if state in self._poll.failed:
            return Progress.FAILED
        return Progress.WORKING if state else None

    def job_failure(self, polled: Mapping[str, Any]) -> ErrorBody:
        """Error of the text that `answer.error` finds, else of the body."""
        said = self._reader.error(polled)
        return error_of({"message": said} if said else polled)

    def result_url(self, job_id: str) -> str | None:
        """URL of the result by the config; None if the poll's answer holds the result."""
        return self._at(self._poll.result, job_id) if self._poll.result else None

    def deletions(self, job_id: str) -> tuple[str, ...]:
        """The job, if the config says where."""
        return (self._at(self._poll.delete, job_id),) if self._poll.delete else ()

    def _at(self, place: str, job_id: str = "") -> str:
        return urljoin(self.url, place.replace("{id}", job_id))


def _word(value: Any) -> str | None:
    """A text, a number or a truth value as the config would write it; None for anything else."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, str | int) and str(value) else None
