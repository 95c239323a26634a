"""whisper-asr-webservice on a server of one's own: a form with the file alone (docs/design/providers.md)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit, urlunsplit

from dropscribe.providers import values
from dropscribe.providers.transport.forms import with_query
from dropscribe.providers.vendor import Vendor, form_upload
from dropscribe.transcripts.model import Segment, Transcript, Word

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dropscribe.files.audio import AudioFile
    from dropscribe.providers.transport.http import Answer, Upload
    from dropscribe.providers.vendor import Params

_TEXT_OUTPUTS = {"txt", "vtt", "srt", "tsv"}


class WhisperAsr(Vendor):
    """The service's API; see :class:`dropscribe.providers.vendor.Vendor`.

    It needs no key; a configured one is sent as a bearer token, for a proxy in front of it.
    """

    type = "whisper-asr"
    path = "/asr"

    def upload(self, audio: AudioFile, params: Params) -> Upload:
        """A form with the file; the parameters are in the query."""
        return form_upload(with_query(self.url, params), audio, field="audio_file")

    def wants_text(self, params: Params) -> bool:
        """Whether the user chose an output that is plain text."""
        return params.get("output") in _TEXT_OUTPUTS

    def transcript(self, parsed: dict[str, Any], params: Params, request_id: str | None) -> Transcript | None:
        """Times are seconds; whisperX has no `text` and calls a probability `score`."""
        items = values.objects(parsed.get("segments"))
        told = parsed.get("text")
        if not isinstance(told, str) and not isinstance(parsed.get("segments"), list):
            return None
        return Transcript(
            text=values.text_of(told),
            language=values.language(parsed.get("language"), params.get("language")),
            segments=tuple(map(_segment, items)),
            words=tuple(_word(word, item) for item in items for word in values.objects(item.get("words"))),
            request_id=request_id,
            raw=parsed,
        )

    def probe(self) -> tuple[str, str]:
        """The description of its API."""
        parts = urlsplit(self.url)
        return "GET", urlunsplit(parts._replace(path=f"{parts.path.removesuffix(self.path)}/openapi.json"))

    def probed(self, answer: Answer) -> str | None:
        """A key is only asked for by a proxy in front of it."""
        return f"answers (HTTP {answer.status})" if answer.status // 100 == 2 else None


def _segment(item: Mapping[str, Any]) -> Segment:
    start, end = values.span(item.get("start"), item.get("end"))
    words = [_word(word, item) for word in values.objects(item.get("words"))]
    confidence = values.mean([word.confidence for word in words])
    if confidence is None:
        confidence = values.probability_of_log(item.get("avg_logprob"))
    return Segment(
        values.text_of(item.get("text")).strip(),
        start,
        end,
        values.speaker_label(item.get("speaker")),
        confidence,
    )


def _word(item: Mapping[str, Any], segment: Mapping[str, Any]) -> Word:
    start, end = values.span(item.get("start"), item.get("end"))
    confidence = values.probability(values.first_of(item, "probability", "score"))
    speaker = values.speaker_label(item.get("speaker")) or values.speaker_label(segment.get("speaker"))
    return Word(values.text_of(item.get("word")).strip(), start, end, confidence, speaker)
