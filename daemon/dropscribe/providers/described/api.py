"""The vendor API of `type: http`, described in the config; by `poll`, one with jobs."""

from __future__ import annotations

import json
from secrets import token_hex
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin

import jmespath

from dropscribe.config.sections.http_api import AnswerKeys
from dropscribe.core.errors import TemporaryFailure
from dropscribe.providers.answers import error_of, parse_json
from dropscribe.providers.described.answer import AnswerReader, found, mapped, names_in
from dropscribe.providers.formats import media_type
from dropscribe.providers.jobs import JobVendor, Progress
from dropscribe.providers.statuses import Kind
from dropscribe.providers.transport.forms import fields_of, with_query
from dropscribe.providers.transport.http import Upload
from dropscribe.providers.vendor import Vendor, form_upload, json_request, nested

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dropscribe.config.model import ProviderConfig
    from dropscribe.config.sections.http_api import ErrorKeys
    from dropscribe.core.requests.params import ParamValue
    from dropscribe.files.audio import AudioFile
    from dropscribe.providers.answers import ErrorBody
    from dropscribe.providers.base import Provider
    from dropscribe.providers.statuses import Table
    from dropscribe.providers.transport.http import Answer
    from dropscribe.providers.vendor import Params
    from dropscribe.transcripts.model import Transcript

_KINDS = {"account": Kind.UNUSABLE, "file": Kind.REJECTED, "rule": Kind.RULE, "later": Kind.TEMPORARY}


def build(config: ProviderConfig) -> Provider:
    """A provider for *config*, whose url and answer the config requires."""
    return DescribedApi.build(config) if config.poll is None else DescribedJobs.build(config)


class DescribedApi(Vendor):
    """The API of *config*; see :class:`dropscribe.providers.vendor.Vendor`."""

    def __init__(self, config: ProviderConfig) -> None:
        super().__init__(config)
        self.url = config.url or ""
        self.errors = _table(config.errors)
        self._body = config.body
        self.key_header = config.key_header
        self._media_type = config.media_type
        self._file_field = config.file_field
        self._is_beside = config.body != "raw" and config.params_in == "form"
        self._keys = config.answer or AnswerKeys(text="text")
        self._reader = AnswerReader(self._keys)

    def params(self, given: Mapping[str, ParamValue]) -> Params:
        """The user's parameters, without defaults."""
        return dict(given)

    def upload(self, audio: AudioFile, params: Params) -> Upload:
        """The audio as the body, in a form, or in a JSON object."""
        beside = params if self._is_beside else {}
        url = with_query(self.url, {} if self._is_beside else params)
        kind = self._media_type or media_type(audio.suffix, audio.head)
        if self._body == "json":
            place = token_hex(16)  # nothing else in the object holds it
            before, after = (
                json.dumps(nested({**beside, self._file_field: place})).encode().split(place.encode())
            )
            return Upload(url, {"Content-Type": "application/json"}, audio, before, after, is_base64=True)
        if self._body == "raw":
            return Upload(url, {"Content-Type": kind}, audio)
        return form_upload(url, audio, fields_of(beside), field=self._file_field, kind=kind)

    def failure(self, parsed: dict[str, Any]) -> str | None:
        """Text that `answer.error` finds, if any."""
        return self._reader.error(parsed)

    def checked(self, parsed: dict[str, Any]) -> Mapping[str, Any]:
        """Without a `status` beside a text, and without an `error` where `answer.error` has its own place."""
        text = self._reader.text(parsed)
        if text is None or (not text.strip() and self._reader.text({}) is not None):
            return parsed  # a blank that the expression itself supplies says nothing
        ignored = {"status"} if text.strip() else set()
        if self._keys.error:
            ignored.add("error")
        return {name: value for name, value in parsed.items() if name not in ignored}

    def transcript(self, parsed: dict[str, Any], params: Params, request_id: str | None) -> Transcript | None:
        """Transcript of the values that the expressions find."""
        language, model = params.get("language"), params.get("model")
        return self._reader.transcript(parsed, language=language, model=model, request_id=request_id)

    def no_text(self, parsed: dict[str, Any]) -> str:
        """A message that names the expression for the text."""
        return self._reader.no_text(parsed)

    def probe(self) -> tuple[str, str]:
        """A request without audio, also where there are jobs."""
        return "POST", self.url

    def probed(self, answer: Answer) -> str | None:
        """Result of the probe, and the fields that the answer has already."""
        learned = super().probed(answer)
        try:
            parsed = parse_json(answer.body)
        except ValueError:
            return learned
        fields = [each.field for each in mapped(self._keys, parsed) if each.value is not None]
        return f"{learned}; its answer has {', '.join(fields)}" if learned and fields else learned


class DescribedJobs(DescribedApi, JobVendor):
    """The API of *config* with jobs, as its `poll` describes them."""

    def __init__(self, config: ProviderConfig) -> None:
        super().__init__(config)
        poll = config.poll
        assert poll is not None  # noqa: S101 - see build
        self._poll = poll
        self._id, self._state = jmespath.compile(poll.id), jmespath.compile(poll.state)
        self._uploaded = jmespath.compile(poll.create.audio) if poll.create else None
        self.creates_in_upload = poll.create is None
        self.poll_every_seconds = poll.every_seconds

    def upload(self, audio: AudioFile, params: Params) -> Upload:
        """The audio; `params` are in the request that creates the job, if that is another one."""
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

    def no_job_id(self, created: Mapping[str, Any]) -> str:
        """A message that names the expression for the id."""
        return f"a job without an id at '{self._poll.id}'; {names_in(created)}"

    def poll_url(self, job_id: str) -> str:
        """URL of the job's state, from the config."""
        return self._at(self._poll.url, job_id)

    def progress(self, polled: Mapping[str, Any]) -> Progress | None:
        """State of the job; one that the config does not name counts as working."""
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


def _table(keys: ErrorKeys | None) -> Table:
    rows: Table = {}
    for name, kind in _KINDS.items():
        for mark in getattr(keys, name, ()):
            rows[(mark, None) if isinstance(mark, int) else (None, mark.lower())] = kind
    return rows


def _word(value: Any) -> str | None:
    """A text, a number or a truth value as the config would write it; None for anything else."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, str | int) and str(value) else None
