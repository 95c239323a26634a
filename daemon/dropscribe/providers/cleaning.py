"""Cleans providers' answers: masks secrets, removes control characters, bounds numbers and lists.

Guarantees: pure. The size of the documents and sidecars made of a cleaned transcript is at most some twenty
times that of the answer, which providers.http bounds.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from dropscribe.core.text.printing import one_line, plain_text
from dropscribe.transcripts.model import Segment, Word

if TYPE_CHECKING:
    from dropscribe.providers.redaction import Redactor
    from dropscribe.transcripts.model import Transcript

MOST_WORDS = 500_000
"""Some 50 hours of speech."""
MOST_SEGMENTS = 100_000
WORD_CHARACTERS = 1_000
LABEL_CHARACTERS = 100
"""Of a speaker's label, a language, a model's name: each label is repeated with every word and cue."""
MOST_SECONDS = 1e7
"""Four months; a later time is not one."""

TOO_MUCH = "answer_truncated"
"""The warning where words, segments or a text were cut."""


def cleaned(transcript: Transcript, redactor: Redactor) -> Transcript:
    """*transcript* as it may be stored, printed and rendered."""
    words = tuple(_word(word, redactor) for word in transcript.words[:MOST_WORDS])
    segments = tuple(_segment(segment, redactor) for segment in transcript.segments[:MOST_SEGMENTS])
    is_cut = len(words) < len(transcript.words) or len(segments) < len(transcript.segments)
    return dataclasses.replace(
        transcript,
        text=plain_text(redactor.text(transcript.text)),
        language=_label(transcript.language, redactor),
        duration=_seconds(transcript.duration),
        segments=segments,
        words=words,
        attributes=redactor.value(transcript.attributes),
        warnings=(*transcript.warnings, TOO_MUCH) if is_cut else transcript.warnings,
        model=_label(transcript.model, redactor),
        raw=redactor.value(transcript.raw),
    )


def _word(word: Word, redactor: Redactor) -> Word:
    text = plain_text(redactor.text(word.word))[:WORD_CHARACTERS]
    start, end = _seconds(word.start), _seconds(word.end)
    return Word(text, start, end, word.confidence, _label(word.speaker, redactor))


def _segment(segment: Segment, redactor: Redactor) -> Segment:
    text = plain_text(redactor.text(segment.text))
    start, end = _seconds(segment.start), _seconds(segment.end)
    return Segment(text, start, end, _label(segment.speaker, redactor), segment.confidence)


def _label(text: str | None, redactor: Redactor) -> str | None:
    if text is None:
        return None
    return one_line(plain_text(redactor.text(text)))[:LABEL_CHARACTERS] or None


def _seconds(value: float | None) -> float | None:
    return value if value is None or value <= MOST_SECONDS else None
