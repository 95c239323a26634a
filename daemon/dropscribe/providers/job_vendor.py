"""Interface of one vendor's API for jobs.

As in :mod:`dropscribe.providers.vendor`, a vendor only builds requests and reads answers. Most differ in data
alone, which is a :class:`JobApi`; a vendor overrides the methods for the rest.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from dropscribe.core.errors import RuleRejected, TemporaryFailure
from dropscribe.providers import values
from dropscribe.providers.answers import ErrorBody, error_of
from dropscribe.providers.statuses import Kind, Table
from dropscribe.providers.transport.http import Upload
from dropscribe.providers.vendor import Vendor, VendorDefaults, form_upload, json_request

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from dropscribe.files.audio import AudioFile
    from dropscribe.providers.vendor import Params

SERVER_ERROR = "server_error"
"""The code for a job that failed by the vendor's own fault; the file is sent again."""


class Progress(Enum):
    """State of a job at the vendor."""

    WORKING = auto()
    DONE = auto()
    FAILED = auto()
    LOST = auto()  # deleted or expired: there will be no result, though it may have been paid for


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

    def seconds(self, polled: Mapping[str, Any]) -> float | None:
        """The recording's length, where a poll's answer tells it and the result does not."""

    def result_url(self, job_id: str) -> str | None:
        """URL of the result; None if the poll's answer holds the result."""

    def deletions(self, job_id: str) -> tuple[str, ...]:
        """URLs to delete: the job, and what was uploaded for it."""

    def unused_upload(self, uploaded: Mapping[str, Any]) -> str | None:
        """The URL to delete where no job was created on an upload; None where the vendor has none."""


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


class JobVendorDefaults(VendorDefaults):
    """The parts that most vendors with jobs share."""

    creates_in_upload = False
    poll_every_seconds = 0.0

    def job_failure(self, polled: Mapping[str, Any]) -> ErrorBody:
        """As in the body of an error."""
        return error_of(polled)

    def seconds(self, polled: Mapping[str, Any]) -> float | None:  # noqa: ARG002 - see JobVendor
        """Told by the result."""
        return None

    def result_url(self, job_id: str) -> str | None:  # noqa: ARG002 - see JobVendor
        """In the poll's answer."""
        return None

    def unused_upload(self, uploaded: Mapping[str, Any]) -> str | None:  # noqa: ARG002 - see JobVendor
        """It cannot be deleted."""
        return None


class JobApiVendor(JobVendorDefaults):
    """A vendor whose API differs from others in its :class:`JobApi`, and in the methods that it overrides."""

    api: ClassVar[JobApi]
    errors: Table = {(None, SERVER_ERROR): Kind.TEMPORARY}  # noqa: RUF012 - never changed

    def __init__(self, url: str) -> None:
        super().__init__(url.rstrip("/"))

    def upload(self, audio: AudioFile, params: Params) -> Upload:
        """The audio as it is, or in a form."""
        url = self.url + self.api.upload
        if not self.api.form_field:
            return Upload(url, {"Content-Type": "application/octet-stream"}, audio)
        return form_upload(url, audio, self.form_fields(params), field=self.api.form_field)

    def form_fields(self, params: Params) -> Iterable[tuple[str, str]]:  # noqa: ARG002
        """No field beside the audio."""
        return ()

    def create(self, uploaded: Mapping[str, Any], params: Params) -> Upload | None:
        """The parameters as JSON; names with dots become nested objects."""
        answered, asked = self.api.file_name
        body = {asked: _uploaded_as(uploaded, answered), **nested(params)}
        return json_request(self.url + self.api.jobs, body)

    def job_id(self, created: Mapping[str, Any]) -> str | None:
        """Called ``id``."""
        return values.word_or_none(created.get("id"))

    def poll_url(self, job_id: str) -> str:
        """The job itself."""
        return f"{self.url}{self.api.jobs}/{job_id}"

    def progress(self, polled: Mapping[str, Any]) -> Progress | None:
        """By the job's ``status``."""
        status = values.text_of(polled.get("status"))
        if status == self.api.done:
            return Progress.DONE
        meanings = {
            Progress.WORKING: self.api.working,
            Progress.FAILED: self.api.failed,
            Progress.LOST: self.api.lost,
        }
        return next((progress for progress, words in meanings.items() if status in words), None)

    def deletions(self, job_id: str) -> tuple[str, ...]:
        """The job; the uploaded file goes with it."""
        return (self.poll_url(job_id),)

    def probe(self) -> tuple[str, str]:
        """The list of jobs, of which one is asked for."""
        return "GET", f"{self.url}{self.api.jobs}?limit=1"


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


def _uploaded_as(uploaded: Mapping[str, Any], name: str) -> str:
    """The file's name from an upload's answer; without it there is no job, and nothing is paid for.

    Raises:
        TemporaryFailure: It is missing.
    """
    found = uploaded.get(name)
    if not isinstance(found, str) or not found:
        raise TemporaryFailure("bad_answer", f"an upload without {name}")
    return found
