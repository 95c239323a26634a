"""Segments for answers that have words only: cut where the speaker changes, after a sentence, at a pause."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from dropscribe.providers import values
from dropscribe.transcripts.line_breaks import joined
from dropscribe.transcripts.model import Segment

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from dropscribe.transcripts.model import Transcript, Word

PAUSE_SECONDS = 1.0
_SENTENCE_ENDS = (".", "?", "!", "。", "？", "！", "؟", "।")  # noqa: RUF001 - of other scripts


def segments_of(words: Iterable[Word], joint: str = " ") -> tuple[Segment, ...]:
    """The segments of *words*, which are in order; *joint* stands between two words."""
    found: list[list[Word]] = []
    for word in words:
        if found and _continues(found[-1][-1], word):
            found[-1].append(word)
        else:
            found.append([word])
    return tuple(_segment(each, joint) for each in found)


def with_text(transcript: Transcript) -> Transcript:
    """*transcript* with its text stripped; an empty one is made of its segments, or else of its words."""
    text = (
        transcript.text.strip()
        or _joined([segment.text for segment in transcript.segments])
        or _joined([word.word for word in transcript.words])
    )
    return replace(transcript, text=text)


def _joined(parts: Sequence[str]) -> str:
    if any(part[:1].isspace() for part in parts[1:]):  # tokens: a space begins a word
        return "".join(parts).strip()
    return joined(filter(None, map(str.strip, parts)))


def by_time(words: Iterable[Word]) -> tuple[Word, ...]:
    """*words* of several channels in the order in which they are said."""
    return tuple(sorted(words, key=lambda word: word.start or 0.0))


def _continues(last: Word, word: Word) -> bool:
    if last.speaker != word.speaker or last.word.rstrip().endswith(_SENTENCE_ENDS):
        return False
    return last.end is None or word.start is None or word.start - last.end < PAUSE_SECONDS


def _segment(words: Sequence[Word], joint: str) -> Segment:
    text = joint.join(word.word.strip() for word in words)
    confidence = values.mean([word.confidence for word in words])
    return Segment(text, words[0].start, words[-1].end, words[0].speaker, confidence)
