"""Smallest AI Pulse, pre-recorded: raw bytes up, parameters in the query (docs/design/providers.md)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dropscribe.providers import values
from dropscribe.providers.answers import HAS_DETAILS, HAS_ERRORS
from dropscribe.providers.statuses import Kind
from dropscribe.providers.vendor import QueryVendor
from dropscribe.transcripts.model import Segment, Transcript, Word

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dropscribe.core.requests.params import ParamValue
    from dropscribe.providers.statuses import Table
    from dropscribe.providers.vendor import Params

ERRORS: Table = {
    (400, "language_not_enabled_in_region"): Kind.RULE,
    (400, HAS_DETAILS): Kind.RULE,
    (400, HAS_ERRORS): Kind.REJECTED,
    (None, "nosuchkey"): Kind.TEMPORARY,
}

_ATTRIBUTES = ("gender", "emotions", "age")


class Pulse(QueryVendor):
    """Pulse's API; see :class:`dropscribe.providers.vendor.Vendor`."""

    type = "pulse"
    host = "https://waves-api.smallest.ai/api/v1/pulse/get_text"
    errors = ERRORS

    def transcript(self, parsed: dict[str, Any], params: Params, request_id: str | None) -> Transcript | None:
        """Times are seconds, confidences probabilities; `text` is an older name of `transcription`."""
        words = tuple(_word(item) for item in values.objects(parsed.get("words")))
        segments = tuple(_segment(item, words) for item in values.objects(parsed.get("utterances")))
        text = values.told_text(parsed.get("transcription"), parsed.get("text"), parts=segments or words)
        if text is None:
            return None
        return Transcript(
            text=text,
            language=_language(parsed, params),
            duration=_duration(parsed),
            segments=segments,
            words=words,
            attributes={key: parsed[key] for key in _ATTRIBUTES if parsed.get(key) is not None},
            model=values.word_or_none(params.get("model")),
            request_id=request_id,
            raw=parsed,
        )


def _duration(parsed: Mapping[str, Any]) -> float | None:
    duration = values.duration(values.mapping(parsed.get("metadata")).get("duration"))
    return values.duration(parsed.get("audio_length")) if duration is None else duration


def _language(parsed: Mapping[str, Any], params: Mapping[str, ParamValue]) -> str | None:
    listed = parsed.get("languages")
    first = listed[0] if isinstance(listed, list) and listed else None
    return values.language(parsed.get("language"), first, params.get("language"))


def _word(item: Mapping[str, Any]) -> Word:
    start, end = values.span(item.get("start"), item.get("end"))
    word = values.text_of(values.first_of(item, "word", "text"))
    confidence = values.probability(item.get("confidence"))
    return Word(word, start, end, confidence, values.speaker_label(item.get("speaker")))


def _segment(item: Mapping[str, Any], words: tuple[Word, ...]) -> Segment:
    start, end = values.span(item.get("start"), item.get("end"))
    return Segment(
        values.text_of(item.get("text")),
        start,
        end,
        values.speaker_label(item.get("speaker")),
        _confidence(start, end, words),
    )


def _confidence(start: float | None, end: float | None, words: tuple[Word, ...]) -> float | None:
    if start is None or end is None:
        return None
    return values.mean(
        [word.confidence for word in words if word.start is not None and start <= word.start < end]
    )
