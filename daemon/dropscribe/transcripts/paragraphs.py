"""A transcript in paragraphs: a new one at each change of speaker and at long pauses. Pure."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any, TypeVar

from dropscribe.core.text.printing import one_line
from dropscribe.transcripts.line_breaks import joined
from dropscribe.transcripts.model import Segment

PAUSE_SECONDS = 2.0  # a longer pause ends a paragraph
LONG_PARAGRAPH = 700  # characters after which the end of a sentence and a breath end a paragraph as well
BREATH_SECONDS = 0.3
VERY_LONG_PARAGRAPH = 1500  # characters after which the end of a sentence alone ends a paragraph
_MOST_OTHER_WORDS = 100  # in the time of one segment, those of others
# Latin; Chinese and Japanese; Arabic and Urdu; Hindi and its neighbours; Armenian; Amharic; Burmese; Khmer.
SENTENCE_ENDS = (*".!?…", *"。！？", *"؟۔", *"।॥", "։", *"።፧", "။", "។")  # noqa: RUF001


T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Paragraph:
    """Text of one speaker without a long pause in it."""

    text: str  # one line of printable characters
    start: float | None  # seconds from the start of the audio; None where nothing is timed
    speaker: str | None  # None if no speaker is named


def paragraphs_of(document: Mapping[str, Any]) -> list[Paragraph]:
    """The paragraphs of a ``dropscribe.transcript/1`` document, in the provider's order."""
    pieces = [piece for piece in _pieces(document) if piece.text]
    if not pieces:
        blocks = (one_line(block) for block in document["text"].replace("\r\n", "\n").split("\n\n"))
        return [Paragraph(block, None, None) for block in blocks if block]
    return [
        Paragraph(joined(piece.text for piece in run), run[0].start, run[0].speaker)
        for run in split_runs(pieces, _begins_paragraph)
    ]


def split_runs(items: Iterable[T], begins: Callable[[list[T], T], bool]) -> Iterator[list[T]]:
    """*items* in runs; *begins*, called with the run so far and the next item, is true where a run ends."""
    run: list[T] = []
    for item in items:
        if run and begins(run, item):
            yield run
            run = []
        run.append(item)
    if run:
        yield run


def _begins_paragraph(run: list[Segment], piece: Segment) -> bool:
    last = run[-1]
    pause = -math.inf if piece.start is None or last.end is None else piece.start - last.end
    if piece.speaker != last.speaker or pause >= PAUSE_SECONDS:
        return True
    longest = LONG_PARAGRAPH if pause >= BREATH_SECONDS else VERY_LONG_PARAGRAPH
    return last.text.endswith(SENTENCE_ENDS) and sum(len(each.text) + 1 for each in run) >= longest


def _pieces(document: Mapping[str, Any]) -> Iterator[Segment]:
    """The segments, or the words where only these name the speakers or are there at all."""
    segments, words = document["segments"], document["words"]
    are_named, words_are = (any(item["speaker"] is not None for item in each) for each in (segments, words))
    if not segments or (words_are and not are_named):
        for word in words:
            yield Segment(one_line(word["word"]), word["start"], word["end"], word["speaker"])
        return
    timed = sorted(filter(has_times, words), key=itemgetter("start"))
    for segment in segments:
        start, end = _spoken_span(segment, timed)
        yield Segment(one_line(segment["text"]), start, end, segment["speaker"])


def may_be_one_voice(speaker: str | None, other: str | None) -> bool:
    """Whether two speaker labels may mean one person; None is an unknown speaker."""
    return speaker == other or speaker is None or other is None


def objects_in(document: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
    """The objects in a list of a document that another program may have written; [] if it is no list."""
    value = document.get(key)
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def has_times(item: Mapping[str, Any]) -> bool:
    """Whether a segment or a word has both times."""
    return item["start"] is not None and item["end"] is not None


def words_within(
    words: Sequence[T], span: tuple[float, float], text: str, start: Callable[[T], float]
) -> Sequence[T]:
    """Those of *words*, which are in the order of their *start*, that begin in the *span* of a segment.

    There are none if they are far more than the words of its *text* and of others who speak meanwhile: then
    the times are wrong, as where all words and segments have the same, and a long answer would take hours.
    """
    first, past = (bisect_left(words, time, key=start) for time in span)
    return words[first:past] if past - first <= len(text) + _MOST_OTHER_WORDS else ()


def _spoken_span(
    segment: Mapping[str, Any], timed: Sequence[Mapping[str, Any]]
) -> tuple[float | None, float | None]:
    """The times of a segment's words: some engines let a segment last until the next one begins."""
    start, end = segment["start"], segment["end"]
    if start is None or end is None:
        return start, end
    within = words_within(timed, (start, end), segment["text"], itemgetter("start"))
    own = [word for word in within if may_be_one_voice(word["speaker"], segment["speaker"])]
    return (own[0]["start"], max(word["end"] for word in own)) if own else (start, end)
