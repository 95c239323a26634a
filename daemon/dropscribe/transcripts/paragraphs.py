"""A transcript in paragraphs: a new one at each change of speaker and at long pauses. Pure."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from dropscribe.core.text.printing import one_line
from dropscribe.transcripts.line_breaks import joined

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

PAUSE_SECONDS = 2.0
"""A longer pause ends a paragraph."""

LONG_PARAGRAPH = 700
"""Characters after which the end of a sentence and a breath end a paragraph as well."""

BREATH_SECONDS = 0.3
VERY_LONG_PARAGRAPH = 1500
"""Characters after which the end of a sentence alone ends a paragraph."""

SENTENCE_ENDS = (".", "!", "?", "…", "。", "！", "？")  # noqa: RUF001 - these are the full-width marks


_Timed = tuple[float, float, str | None]
_start = itemgetter(0)


@dataclass(frozen=True, slots=True)
class Paragraph:
    """Text of one speaker without a long pause in it.

    Attributes:
        text: One line of printable characters.
        start: Seconds from the start of the audio, or None where nothing is timed.
        speaker: None if no speaker is named.
    """

    text: str
    start: float | None
    speaker: str | None


@dataclass(frozen=True, slots=True)
class _Piece:
    text: str
    start: float | None
    end: float | None
    speaker: str | None


def paragraphs_of(document: Mapping[str, Any]) -> list[Paragraph]:
    """The paragraphs of a ``dropscribe.transcript/1`` document, in the provider's order."""
    pieces = [piece for piece in _pieces(document) if piece.text]
    if not pieces:
        blocks = (one_line(block) for block in document["text"].replace("\r\n", "\n").split("\n\n"))
        return [Paragraph(block, None, None) for block in blocks if block]
    groups: list[list[_Piece]] = []
    length = 0
    for piece in pieces:
        if not groups or _breaks(groups[-1][-1], piece, length):
            groups.append([])
            length = 0
        groups[-1].append(piece)
        length += len(piece.text) + 1
    return [Paragraph(_text(group), group[0].start, group[0].speaker) for group in groups]


def _text(group: Sequence[_Piece]) -> str:
    return joined(piece.text for piece in group)


def _pieces(document: Mapping[str, Any]) -> Iterator[_Piece]:
    """The segments, or the words where only these name the speakers or are there at all."""
    segments, words = document["segments"], document["words"]
    are_named = any(item["speaker"] is not None for item in segments)
    if not segments or (not are_named and any(word["speaker"] is not None for word in words)):
        for word in words:
            yield _Piece(one_line(word["word"]), word["start"], word["end"], word["speaker"])
        return
    timed = sorted(
        ((word["start"], word["end"], word["speaker"]) for word in words if _has_times(word)),
        key=_start,
    )
    for segment in segments:
        start, end = _spoken_span(segment, timed)
        yield _Piece(one_line(segment["text"]), start, end, segment["speaker"])


def may_be_one_voice(speaker: str | None, other: str | None) -> bool:
    """Whether two speaker labels may mean one person; None is an unknown speaker."""
    return speaker == other or speaker is None or other is None


def _has_times(item: Mapping[str, Any]) -> bool:
    return item["start"] is not None and item["end"] is not None


def _spoken_span(segment: Mapping[str, Any], timed: Sequence[_Timed]) -> tuple[float | None, float | None]:
    """The times of a segment's words: some engines let a segment last until the next one begins."""
    start, end = segment["start"], segment["end"]
    if start is None or end is None:
        return start, end
    within = timed[bisect_left(timed, start, key=_start) : bisect_left(timed, end, key=_start)]
    own = [word for word in within if may_be_one_voice(word[2], segment["speaker"])]
    return (own[0][0], max(last for _, last, _ in own)) if own else (start, end)


def _breaks(last: _Piece, piece: _Piece, length: int) -> bool:
    if piece.speaker != last.speaker:
        return True
    ends_sentence = last.text.endswith(SENTENCE_ENDS)
    if piece.start is None or last.end is None:
        return ends_sentence and length >= VERY_LONG_PARAGRAPH
    pause = piece.start - last.end
    if pause >= PAUSE_SECONDS:
        return True
    longest = LONG_PARAGRAPH if pause >= BREATH_SECONDS else VERY_LONG_PARAGRAPH
    return ends_sentence and length >= longest
