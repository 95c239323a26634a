"""AssemblyAI, pre-recorded: octets up, a job on their URL, its document polled (docs/design/providers.md)."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from dropscribe.providers import values
from dropscribe.providers.answers import error_of
from dropscribe.providers.jobs import JobProvider, JobVendorDefaults, Progress, nested, uploaded_as
from dropscribe.providers.params import effective_params
from dropscribe.providers.statuses import Kind
from dropscribe.providers.transport.http import Upload
from dropscribe.transcripts.model import Segment, Transcript, Word

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dropscribe.config.model import ProviderConfig
    from dropscribe.core.requests.params import ParamValue
    from dropscribe.files.audio import AudioFile
    from dropscribe.providers.answers import ErrorBody
    from dropscribe.providers.base import Provider
    from dropscribe.providers.statuses import Table
    from dropscribe.providers.vendor import Params

URL = "https://api.assemblyai.com"

ERRORS: Table = {(None, "server_error"): Kind.TEMPORARY}

_MILLISECONDS = 0.001
_PROGRESS = {
    "queued": Progress.WORKING,
    "processing": Progress.WORKING,
    "completed": Progress.DONE,
    "error": Progress.FAILED,
}
_SERVER_WORDS = ("internal server error", "server error", "please try again", "resubmit")


def build(config: ProviderConfig) -> Provider:
    """A provider for *config*."""
    return JobProvider(config, AssemblyAI(config.url or URL))


class AssemblyAI(JobVendorDefaults):
    """AssemblyAI's API; see :class:`dropscribe.providers.jobs.JobVendor`."""

    errors = ERRORS

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")

    def authorization(self, key: str) -> dict[str, str]:
        """The key alone, without a scheme."""
        return {"Authorization": key}

    def params(self, given: Mapping[str, ParamValue]) -> Params:
        """With the two models of the documents; the language is detected where none is given."""
        return effective_params("assemblyai", given)

    def upload(self, audio: AudioFile, params: Params) -> Upload:  # noqa: ARG002 - see Vendor
        """The audio as it is."""
        return Upload(f"{self.url}/v2/upload", {"Content-Type": "application/octet-stream"}, audio)

    def create(self, uploaded: Mapping[str, Any], params: Params) -> Upload | None:
        """The parameters as JSON; names with dots become nested objects."""
        body = {"audio_url": uploaded_as(uploaded, "upload_url"), **nested(params)}
        headers = {"Content-Type": "application/json"}
        return Upload(f"{self.url}/v2/transcript", headers, before=json.dumps(body).encode())

    def job_id(self, created: Mapping[str, Any]) -> str | None:
        """The transcript's id."""
        return values.word_or_none(created.get("id"))

    def poll_url(self, job_id: str) -> str:
        """The transcript itself."""
        return f"{self.url}/v2/transcript/{job_id}"

    def progress(self, polled: Mapping[str, Any]) -> Progress | None:
        """By the transcript's status."""
        return _PROGRESS.get(values.text_of(polled.get("status")))

    def job_failure(self, polled: Mapping[str, Any]) -> ErrorBody:
        """Words alone: AssemblyAI asks for the same file again where its own servers failed."""
        said = error_of({"error": polled.get("error")})
        if any(words in said.message.lower() for words in _SERVER_WORDS):
            return replace(said, code="server_error", signs=("server_error",))
        return said

    def transcript(self, parsed: dict[str, Any], params: Params, request_id: str | None) -> Transcript | None:
        """Times of words are milliseconds, the duration is seconds; silence has null for text and words."""
        text = parsed.get("text")
        if text is not None and not isinstance(text, str):
            return None
        words = tuple(_word(item) for item in values.objects(parsed.get("words")))
        turns = tuple(_segment(item) for item in values.objects(parsed.get("utterances")))
        return Transcript(
            text=text or "",
            language=values.language(parsed.get("language_code"), params.get("language_code")),
            duration=values.seconds(parsed.get("audio_duration")),
            segments=turns or _whole(text, words),
            words=words,
            model=values.word_or_none(parsed.get("speech_model_used", parsed.get("speech_model"))),
            request_id=request_id,
            raw=parsed,
        )

    def deletions(self, job_id: str) -> tuple[str, ...]:
        """The transcript; the uploaded file goes with it."""
        return (self.poll_url(job_id),)

    def probe(self) -> tuple[str, str]:
        """The list of transcripts, of which one is asked for."""
        return "GET", f"{self.url}/v2/transcript?limit=1"


def _word(item: Mapping[str, Any]) -> Word:
    start, end = values.span(item.get("start"), item.get("end"), _MILLISECONDS)
    speaker = values.speaker_label(item.get("speaker"))
    return Word(
        values.text_of(item.get("text")), start, end, values.probability(item.get("confidence")), speaker
    )


def _segment(item: Mapping[str, Any]) -> Segment:
    start, end = values.span(item.get("start"), item.get("end"), _MILLISECONDS)
    speaker = values.speaker_label(item.get("speaker"))
    return Segment(
        values.text_of(item.get("text")), start, end, speaker, values.probability(item.get("confidence"))
    )


def _whole(text: str | None, words: tuple[Word, ...]) -> tuple[Segment, ...]:
    """One segment where speakers were not asked for: the answer has no utterances then."""
    if not text or not words:
        return ()
    confidence = values.mean([word.confidence for word in words])
    return (Segment(text, words[0].start, words[-1].end, None, confidence),)
