"""ElevenLabs Scribe: a multipart form with all parameters but one (docs/design/providers.md)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dropscribe.providers import values
from dropscribe.providers.statuses import Kind
from dropscribe.providers.transport.forms import fields_of, multipart_of_fields, with_query
from dropscribe.providers.transport.http import Upload
from dropscribe.providers.turns import by_time, segments_of
from dropscribe.providers.vendor import Vendor, form_upload
from dropscribe.transcripts.model import Transcript, Word

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from dropscribe.files.audio import AudioFile
    from dropscribe.providers.statuses import Table
    from dropscribe.providers.vendor import Params

ERRORS: Table = {
    (401, "quota_exceeded"): Kind.UNUSABLE,
    (400, "quota_exceeded"): Kind.UNUSABLE,
    (400, "invalid_api_key"): Kind.UNUSABLE,
    (400, "invalid_parameters"): Kind.RULE,
    (429, "too_many_concurrent_requests"): Kind.SLOW_DOWN,
    (429, "system_busy"): Kind.SLOW_DOWN,
}

_QUERY = ("enable_logging",)
"""Parameters that the API takes in the query; all others are fields of the form."""


class ElevenLabs(Vendor):
    """Scribe's API; see :class:`dropscribe.providers.vendor.Vendor`."""

    type = "elevenlabs"
    host = "https://api.elevenlabs.io"
    path = "/v1/speech-to-text"
    key_header = "xi-api-key: {key}"
    errors = ERRORS

    def upload(self, audio: AudioFile, params: Params) -> Upload:
        """A form with the file at its end."""
        return form_upload(self._at(params), audio, fields_of(_fields(params)))

    def link(self, url: str, params: Params) -> Upload:
        """ElevenLabs fetches the audio itself."""
        content_type, body = multipart_of_fields([*fields_of(_fields(params)), ("source_url", url)])
        return Upload(self._at(params), {"Content-Type": content_type}, before=body)

    def transcript(self, parsed: dict[str, Any], params: Params, request_id: str | None) -> Transcript | None:
        """Times are seconds, `logprob` is a natural logarithm; a channel has its own transcript."""
        channels = values.objects(parsed.get("transcripts")) or [parsed]
        names = [f"channel_{number}" for number in range(len(channels))] if len(channels) > 1 else [None]
        words = by_time(*map(_words, channels, names))
        text = values.told_text(values.text_lines(each.get("text") for each in channels), parts=words)
        if text is None:
            return None
        return Transcript(
            text=text,
            language=values.language(
                *(channel.get("language_code") for channel in channels), params.get("language_code")
            ),
            duration=values.duration(parsed.get("audio_duration_secs")),
            segments=segments_of(words),
            words=words,
            model=values.word_or_none(params.get("model_id")),
            request_id=values.word_or_none(parsed.get("transcription_id")) or request_id,
            raw=parsed,
        )

    def _at(self, params: Params) -> str:
        return with_query(self.url, {name: params[name] for name in _QUERY if name in params})


def _fields(params: Params) -> Params:
    return {name: value for name, value in params.items() if name not in _QUERY}


def _words(channel: Mapping[str, Any], name: str | None) -> Iterator[Word]:
    for item in values.objects(channel.get("words")):
        if item.get("type", "word") == "spacing":
            continue
        start, end = values.span(item.get("start"), item.get("end"))
        confidence = values.probability_of_log(item.get("logprob"))
        speaker = values.speaker_label(item.get("speaker_id")) or name
        yield Word(values.text_of(item.get("text")), start, end, confidence, speaker)
