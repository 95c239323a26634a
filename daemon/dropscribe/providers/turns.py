"""Segments for answers that have words only: cut where the speaker changes, after a sentence, at a pause."""

from __future__ import annotations

import math
from dataclasses import replace
from operator import itemgetter
from typing import TYPE_CHECKING, TypeVar

from dropscribe.providers import values
from dropscribe.transcripts.line_breaks import joined
from dropscribe.transcripts.model import Segment, Word

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from dropscribe.transcripts.model import Transcript

Item = TypeVar("Item", Segment, Word)

PAUSE_SECONDS = 1.0
SENTENCE_ENDS = (".", "?", "!", "。", "？", "！", "؟", "।")  # noqa: RUF001 - of other scripts


def segments_of(words: Iterable[Word], joint: str = " ") -> tuple[Segment, ...]:
    """The segments of *words*, which are in order.

    Args:
        joint: The text between two words; a space is left out between Chinese and Japanese ones.
    """
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


def by_time(*runs: Iterable[Item]) -> tuple[Item, ...]:
    """Words or segments of several *runs* (channels, pieces) in the order in which they are said.

    An untimed item stays behind the one before it in its run; a run without any times comes last.
    """
    timed = [pair for run in runs for pair in _with_times(tuple(run))]
    return tuple(item for _, item in sorted(timed, key=itemgetter(0)))


def _with_times(run: Sequence[Item]) -> Iterator[tuple[float, Item]]:
    time = next((item.start for item in run if item.start is not None), math.inf)
    for item in run:
        time = time if item.start is None else item.start
        yield time, item


def _continues(last: Word, word: Word) -> bool:
    if last.speaker != word.speaker or last.word.rstrip().endswith(SENTENCE_ENDS):
        return False
    return last.end is None or word.start is None or word.start - last.end < PAUSE_SECONDS


def _segment(words: Sequence[Word], joint: str) -> Segment:
    texts = [text for word in words if (text := word.word.strip())]
    text = joined(texts) if joint == " " else joint.join(texts)
    confidence = values.mean([word.confidence for word in words])
    return Segment(text, words[0].start, words[-1].end, words[0].speaker, confidence)
