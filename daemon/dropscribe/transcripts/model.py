"""A transcript as every provider must hand it over.

Times are seconds from the start of the audio; confidences are probabilities in 0..1; what is unknown
is None (CONTRACT.md §5).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Word:
    """One word, in the provider's order.

    Attributes:
        start: Seconds, or None where the provider does not time words.
        end: Seconds, never before *start*.
        confidence: Probability 0..1.
        speaker: "speaker_0" style label or the provider's own name.
    """

    word: str
    start: float | None = None
    end: float | None = None
    confidence: float | None = None
    speaker: str | None = None


@dataclass(frozen=True, slots=True)
class Segment:
    """A sentence, utterance or turn; ids are given when the document is made, 0-based."""

    text: str
    start: float | None = None
    end: float | None = None
    speaker: str | None = None
    confidence: float | None = None


@dataclass(frozen=True, slots=True)
class Transcript:
    """One provider's answer, normalised.

    Attributes:
        text: The whole text; "" is a result, not a failure.
        language: As the provider names it, ISO 639-1 where it can be told, or None.
        duration: Length of the audio in seconds, or None.
        attributes: What else the provider said of the recording (gender, emotions).
        warnings: Stable words ("empty_transcript"); the caller may add its own.
        model: The model that answered, or None.
        request_id: The provider's id of the request, or None.
        raw: The provider's answer, untouched, as parsed JSON.
    """

    text: str
    language: str | None = None
    duration: float | None = None
    segments: tuple[Segment, ...] = ()
    words: tuple[Word, ...] = ()
    attributes: dict[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    model: str | None = None
    request_id: str | None = None
    raw: Any = None
