"""A transcript as every provider must hand it over.

Times are seconds from the start of the audio, and no end is before its start; confidences are probabilities
in 0..1; unknown values are None.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Word:
    """One word, in the provider's order; the speaker is a "speaker_0" style label or the provider's name."""

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
class Missing:
    """A part of a recording that no answer covers; the code is why its provider refused it."""

    start: float
    end: float
    code: str


@dataclass(frozen=True, slots=True)
class Transcript:
    """One provider's answer, normalised."""

    text: str  # "" is a result, not a failure
    language: str | None = None  # a BCP 47 tag; as the provider names it where it is unknown here
    duration: float | None = None  # length of the audio
    sent_seconds: float | None = field(default=None, kw_only=True)  # sent and answered, if not the duration
    segments: tuple[Segment, ...] = ()
    words: tuple[Word, ...] = ()
    attributes: dict[str, Any] = field(default_factory=dict)  # other facts from the provider (gender)
    warnings: tuple[str, ...] = ()  # stable words ("empty_transcript"); the caller may add its own
    missing: tuple[Missing, ...] = ()  # parts that the provider refused; with the warning "missing_audio"
    model: str | None = None
    request_id: str | None = None  # the provider's
    raw: Any = None  # the provider's answer, untouched, as parsed JSON


def parse_transcript(fields: Mapping[str, Any]) -> Transcript:
    """The transcript whose ``dataclasses.asdict`` is *fields*; fields with defaults may be left out.

    Raises:
        KeyError, TypeError: *fields* is something else.
    """
    parsed = {
        **fields,
        "segments": tuple(Segment(**item) for item in fields["segments"]),
        "words": tuple(Word(**item) for item in fields["words"]),
        "warnings": tuple(fields["warnings"]),
        "missing": tuple(Missing(**item) for item in fields.get("missing", ())),
    }
    return Transcript(**parsed)
