"""The answers of OpenAI and of the servers that resemble it, normalised (docs/design/providers.md).

Guarantees: pure; a value that differs from OpenAI's documentation is read in its server's known sense, or
is unknown.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

from dropscribe.providers import values
from dropscribe.transcripts.model import Segment, Transcript, Word

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dropscribe.core.requests.params import ParamValue

_NANOSECONDS = 1e-9
_LONGEST_SECONDS = 1e6
"""No recording lasts 11 days: a larger time is LocalAI's nanoseconds."""


def transcript_of(
    parsed: dict[str, Any], params: Mapping[str, ParamValue], request_id: str | None
) -> Transcript | None:
    """The transcript in *parsed*, or None where there is no text, not even in segments."""
    items = values.objects(parsed.get("segments"))
    nested = [(word, item) for item in items for word in values.objects(item.get("words"))]
    flat = values.objects(parsed.get("words"))
    found = [(word, {}) for word in flat] if flat else nested
    text = values.told_text(parsed.get("text"), parts=items or flat)
    if text is None:
        return None
    scale = _scale(items, found)
    segments = tuple(_segment(item, scale) for item in items)
    return Transcript(
        text=text,
        language=_language(parsed, params),
        duration=_duration(parsed),
        segments=segments,
        words=tuple(_word(word, item, scale) for word, item in found),
        model=values.word_or_none(parsed.get("model")) or values.word_or_none(params.get("model")),
        request_id=request_id or _groq_id(parsed),
        raw=parsed,
    )


def _scale(items: list[Mapping[str, Any]], words: list[tuple[Mapping[str, Any], Mapping[str, Any]]]) -> float:
    ends = (values.number(item.get("end")) for item in itertools.chain(items, (word for word, _ in words)))
    return _NANOSECONDS if max((end or 0.0 for end in ends), default=0.0) > _LONGEST_SECONDS else 1.0


def _segment(item: Mapping[str, Any], scale: float) -> Segment:
    start, end = values.span(item.get("start"), item.get("end"), scale)
    confidence = values.probability_of_log(item.get("avg_logprob"))
    if confidence is None:
        words = values.objects(item.get("words"))
        confidence = values.mean([values.probability(word.get("probability")) for word in words])
    text = values.text_of(item.get("text")).strip()
    return Segment(text, start, end, _speaker(item), confidence)


def _word(item: Mapping[str, Any], segment: Mapping[str, Any], scale: float) -> Word:
    start, end = values.span(item.get("start"), item.get("end"), scale)
    confidence = values.probability(values.first_of(item, "probability", "confidence"))
    # whisper.cpp's are tokens: a leading space says where a word begins, so it stays.
    word = values.text_of(values.first_of(item, "word", "text"))
    return Word(word, start, end, confidence, _speaker(item) or _speaker(segment))


def _speaker(item: Mapping[str, Any]) -> str | None:
    # Mistral says speaker_id; whisper.cpp says "?" where it cannot tell.
    label = values.speaker_label(values.first_of(item, "speaker", "speaker_id"))
    return None if label == "?" else label


def _language(parsed: Mapping[str, Any], params: Mapping[str, ParamValue]) -> str | None:
    listed = parsed.get("languages")
    first = listed[0] if isinstance(listed, list) and listed else None
    told = (parsed.get("detected_language"), parsed.get("language"), first, params.get("language"))
    return values.language(*told)


def _duration(parsed: Mapping[str, Any]) -> float | None:
    # OpenAI's name in `usage`, then Mistral's.
    told = values.first_of(values.mapping(parsed.get("usage")), "seconds", "prompt_audio_seconds")
    duration = values.duration(parsed.get("duration"))
    return values.duration(told) if duration is None else duration


def _groq_id(parsed: Mapping[str, Any]) -> str | None:
    extra = parsed.get("x_groq")
    return values.word_or_none(extra.get("id")) if isinstance(extra, dict) else None
