"""Soniox, async: a file in a form, a job on it, its transcript fetched (docs/design/providers.md)."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from dropscribe.providers import values
from dropscribe.providers.answers import error_of
from dropscribe.providers.formats import media_type, upload_name
from dropscribe.providers.jobs import JobProvider, JobVendorDefaults, Progress, nested, uploaded_as
from dropscribe.providers.params import effective_params
from dropscribe.providers.statuses import Kind
from dropscribe.providers.transport.forms import multipart
from dropscribe.providers.transport.http import Upload
from dropscribe.providers.turns import segments_of
from dropscribe.transcripts.model import Transcript, Word

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dropscribe.config.model import ProviderConfig
    from dropscribe.core.requests.params import ParamValue
    from dropscribe.files.audio import AudioFile
    from dropscribe.providers.answers import ErrorBody
    from dropscribe.providers.base import Provider
    from dropscribe.providers.statuses import Table
    from dropscribe.providers.vendor import Params

URL = "https://api.soniox.com"

ERRORS: Table = {(None, "internal_error"): Kind.TEMPORARY}

_MILLISECONDS = 0.001
_PROGRESS = {
    "queued": Progress.WORKING,
    "processing": Progress.WORKING,
    "completed": Progress.DONE,
    "error": Progress.FAILED,
}


def build(config: ProviderConfig) -> Provider:
    """A provider for *config*."""
    return JobProvider(config, Soniox(config.url or URL))


class Soniox(JobVendorDefaults):
    """Soniox's API; see :class:`dropscribe.providers.jobs.JobVendor`."""

    errors = ERRORS

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")

    def params(self, given: Mapping[str, ParamValue]) -> Params:
        """With the current model; the language is found where no hint is given."""
        return effective_params("soniox", given)

    def upload(self, audio: AudioFile, params: Params) -> Upload:  # noqa: ARG002 - see Vendor
        """A form with the file alone."""
        form = multipart(
            [],
            filename=upload_name(audio.suffix, audio.head),
            content_type=media_type(audio.suffix, audio.head),
        )
        headers = {"Content-Type": form.content_type}
        return Upload(f"{self.url}/v1/files", headers, audio, form.before, form.after)

    def create(self, uploaded: Mapping[str, Any], params: Params) -> Upload | None:
        """The parameters as JSON; names with dots become nested objects."""
        body = {"file_id": uploaded_as(uploaded, "id"), **nested(params)}
        headers = {"Content-Type": "application/json"}
        return Upload(f"{self.url}/v1/transcriptions", headers, before=json.dumps(body).encode())

    def job_id(self, created: Mapping[str, Any]) -> str | None:
        """The transcription's id."""
        return values.word_or_none(created.get("id"))

    def poll_url(self, job_id: str) -> str:
        """The transcription without its text."""
        return f"{self.url}/v1/transcriptions/{job_id}"

    def progress(self, polled: Mapping[str, Any]) -> Progress | None:
        """By the transcription's status."""
        return _PROGRESS.get(values.text_of(polled.get("status")))

    def job_failure(self, polled: Mapping[str, Any]) -> ErrorBody:
        """The error's type and words."""
        said = error_of({"message": polled.get("error_message"), "type": polled.get("error_type")})
        return replace(said, code=said.code or next(iter(said.signs), ""))

    def result_url(self, job_id: str) -> str | None:
        """The text has a document of its own."""
        return f"{self.poll_url(job_id)}/transcript"

    def transcript(self, parsed: dict[str, Any], params: Params, request_id: str | None) -> Transcript | None:
        """Tokens are parts of words: a leading space begins one. Times are milliseconds."""
        text = parsed.get("text")
        if not isinstance(text, str):
            return None
        tokens = values.objects(parsed.get("tokens"))
        words = _words(tokens)
        told = [token.get("language") for token in tokens[:1]]
        hints = params.get("language_hints")
        return Transcript(
            text=text.strip(),
            language=values.language(*told, *(hints if isinstance(hints, list) else ())),
            segments=segments_of(words),
            words=words,
            model=values.word_or_none(params.get("model")),
            request_id=request_id,
            raw=parsed,
        )

    def deletions(self, job_id: str) -> tuple[str, ...]:
        """The transcription; its file goes with it."""
        return (self.poll_url(job_id),)

    def probe(self) -> tuple[str, str]:
        """The list of models."""
        return "GET", f"{self.url}/v1/models"


def _words(tokens: list[Mapping[str, Any]]) -> tuple[Word, ...]:
    groups: list[list[Mapping[str, Any]]] = []
    for token in tokens:
        text = values.text_of(token.get("text"))
        if not groups or text[:1].isspace() or token.get("speaker") != groups[-1][-1].get("speaker"):
            groups.append([])
        groups[-1].append(token)
    return tuple(word for group in groups if (word := _word(group)).word)


def _word(tokens: list[Mapping[str, Any]]) -> Word:
    start, end = values.span(tokens[0].get("start_ms"), tokens[-1].get("end_ms"), _MILLISECONDS)
    confidence = values.mean([values.probability(token.get("confidence")) for token in tokens])
    text = "".join(values.text_of(token.get("text")) for token in tokens).strip()
    return Word(text, start, end, confidence, values.speaker_label(tokens[0].get("speaker")))
