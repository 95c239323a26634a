"""Subtitle cues from a transcript document.

Guarantees: pure; a cue's text is one line of printable characters and fits the lines of the layout (a word
longer than a line stays whole; Chinese and Japanese are broken between characters); no two cues overlap, none
is longer than the layout allows, and each stays on long enough to be read where the next one leaves room:
0.8 s at least, 21 characters a second at most.

Cues follow the segments. Segments that are too long are cut into cues of about equal length, rather at
the end of a sentence, at a pause or at a comma than elsewhere, and cues of a single word are avoided.
The times are those of the words, where the words can be told apart in the segment's text; otherwise the
segment's time is divided in proportion to the length of the text. Words without segments are grouped the
same way.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, replace
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from dropscribe.core.text.printing import one_line
from dropscribe.transcripts.line_breaks import joined, pieces_of, wrapped
from dropscribe.transcripts.paragraphs import (
    SENTENCE_ENDS,
    has_times,
    may_be_one_voice,
    split_runs,
    words_within,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from dropscribe.transcripts.line_breaks import Piece
    from dropscribe.transcripts.render import Layout

PAUSE_SECONDS = 0.8
LONG_PAUSE_SECONDS = 1.5  # a longer pause always ends a cue
SHORTEST_SECONDS = 0.8
CHARACTERS_PER_SECOND = 21.0  # characters a second: the usual limit of subtitle editors for adult readers
_CLAUSE_ENDS = (",", ";", ":", "，", "、", "；")  # noqa: RUF001 - these are the full-width marks

_start = attrgetter("start")

# The costs of a division into cues; one cue more or less is 1.
_CUT_IN_CLAUSE = 0.6
_CUT_AT_CLAUSE = 0.3
_ACROSS_PAUSE = 0.8
_ACROSS_SEGMENTS = 2.2
_ONE_WORD = 2.0


@dataclass(frozen=True, slots=True)
class Cue:
    """One subtitle; times in seconds from the start of the audio."""

    start: float
    end: float
    text: str
    speaker: str | None = None


@dataclass(frozen=True, slots=True)
class _Token:
    """One word of the text; in Chinese and Japanese one character."""

    joint: str  # the text between it and the token before, in one cue
    text: str
    start: float
    end: float
    segment: Cue  # its own; without text where there are only words
    is_timed: bool  # whether start and end are the word's own

    @property
    def ends_sentence(self) -> bool:
        return self.text.endswith(SENTENCE_ENDS)


def is_timed(document: Mapping[str, Any]) -> bool:
    """Whether a ``dropscribe.transcript/1`` document has a timed text, so that it has cues."""
    parts = (("words", "word"), ("segments", "text"))
    return any(has_times(item) and one_line(item[key]) for name, key in parts for item in document[name])


def cues_of(document: Mapping[str, Any], layout: Layout) -> list[Cue]:
    """The cues of a ``dropscribe.transcript/1`` document; [] where nothing is timed."""
    words = sorted(_timed(document["words"], "word"), key=_start)
    if segments := sorted(_timed(document["segments"], "text"), key=_start):
        tokens = [_tokens(after, before, words) for before, after in _with_before(segments)]
    else:
        voices = {word.speaker: Cue(0.0, 0.0, "", word.speaker) for word in words}
        tokens = [
            _spread([word], pieces_of(word.text, before.text), voices[word.speaker], is_timed=True)
            for before, word in _with_before(words)
        ]
    runs = split_runs(itertools.chain.from_iterable(tokens), _begins_run)
    return _laid_out([cue for run in runs for cue in _divided(run, layout)], layout)


def lines_of(text: str, layout: Layout) -> list[str]:
    """*text* in lines of a cue, all about equally long; a word longer than a line stays whole."""
    lines = wrapped(text, layout.line_characters) if text else []
    if not 1 < len(lines) <= layout.cue_lines:
        return lines
    # The narrowest width that still makes so many lines is the one that makes them equal.
    narrow = (wrapped(text, width) for width in range(len(text) // len(lines), layout.line_characters))
    return next((balanced for balanced in narrow if len(balanced) == len(lines)), lines)


def named(speaker: str | None, text: str) -> str:
    """*text* after the speaker's name where it is known."""
    return text if speaker is None else f"{one_line(speaker)}: {text}"


def _timed(items: Iterable[Mapping[str, Any]], key: str) -> list[Cue]:
    """The timed *items* that have a text, each with the text of its untimed neighbours.

    An untimed item, such as a number in whisperX's answers, belongs to the item before it; where that has
    another speaker or there is none, to the next one.
    """
    groups: list[tuple[Mapping[str, Any], list[str]]] = []
    waiting: list[str] = []
    for item in items:
        text, speaker = one_line(item[key]), item["speaker"]
        if not text:
            continue
        if has_times(item):
            groups.append((item, [*waiting, text]))
            waiting = []
        elif not waiting and groups and speaker in {None, groups[-1][0]["speaker"]}:
            groups[-1][1].append(text)
        else:
            waiting.append(text)
    if groups:
        groups[-1][1].extend(waiting)
    cues = []
    for item, texts in groups:
        start, end = float(item["start"]), float(item["end"])
        end = end if end > start else start + SHORTEST_SECONDS
        cues.append(Cue(start, end, joined(texts), item["speaker"]))
    return cues


def _with_before(cues: Sequence[Cue]) -> Iterator[tuple[Cue, Cue]]:
    """Each of *cues* after the one before it; nothing is before the first."""
    return itertools.pairwise([Cue(0.0, 0.0, ""), *cues])


def _tokens(segment: Cue, before: Cue, words: Sequence[Cue]) -> list[_Token]:
    """The segment's own tokens, not the words: some providers' words lack the punctuation."""
    pieces = pieces_of(segment.text, before.text)
    within = words_within(words, (segment.start, segment.end), segment.text, _start)
    voice = [word for word in within if may_be_one_voice(word.speaker, segment.speaker)]
    for own in (voice, within):
        if len(own) == len(pieces):
            pairs = zip(pieces, own, strict=True)
            return [_Token(*piece, word.start, word.end, segment, True) for piece, word in pairs]
        if _letters("".join(word.text for word in own)) == _letters(segment.text):
            return _spread(own, pieces, segment, is_timed=True)
    return _spread([segment], pieces, segment, is_timed=False)


def _letters(text: str) -> str:
    return text.replace(" ", "")


def _spread(spans: Sequence[Cue], pieces: Sequence[Piece], segment: Cue, *, is_timed: bool) -> list[_Token]:
    """Tokens of *pieces*, which are the text of *spans*, with as much of their time as of their letters."""
    moments: list[tuple[float, float]] = []  # start and end of each letter
    for span in spans:
        count = len(_letters(span.text))
        bounds = [span.start + (span.end - span.start) * number / count for number in range(count + 1)]
        moments += itertools.pairwise(bounds)
    ends = list(itertools.accumulate(len(piece.text) for piece in pieces))
    return [
        _Token(*piece, moments[first][0], moments[end - 1][1], segment, is_timed)
        for piece, first, end in zip(pieces, [0, *ends], ends, strict=False)
    ]


def _begins_run(run: Sequence[_Token], token: _Token) -> bool:
    """Whether *token* may not share a cue with *run*: another speaker, or after a long pause."""
    last = run[-1]
    longest_seconds = LONG_PAUSE_SECONDS if token.segment is last.segment else PAUSE_SECONDS
    return token.segment.speaker != last.segment.speaker or token.start - last.end > longest_seconds


def _divided(run: Sequence[_Token], layout: Layout) -> Iterator[Cue]:
    """*run* in cues, by the division that costs least."""
    prefix = len(named(run[0].segment.speaker, ""))
    room = max(1, layout.line_characters * layout.cue_lines - prefix)
    cheapest = [0.0] + [math.inf] * len(run)
    begins = [0] * (len(run) + 1)
    for first in range(len(run)):
        for last, length, crossed in _cues_from(run, first, prefix, layout):
            emptiness = 1 - min(1.0, length / room)
            cost = cheapest[first] + 1 + emptiness**2 + crossed + _end_cost(run, first, last)
            if cost < cheapest[last + 1]:
                cheapest[last + 1], begins[last + 1] = cost, first
    bounds = [len(run)]
    while bounds[-1]:
        bounds.append(begins[bounds[-1]])
    for first, end in itertools.pairwise(reversed(bounds)):
        yield _joined(run[first:end])


def _cues_from(
    run: Sequence[_Token], first: int, prefix: int, layout: Layout
) -> Iterator[tuple[int, int, float]]:
    """(last token, characters, cost of crossed breaks) of each cue from *first* on that has room and time."""
    length = -len(run[first].joint)
    lines, width, crossed = 1, prefix + length, 0.0
    for last in range(first, len(run)):
        token = run[last]
        length += len(token.joint) + len(token.text)
        width += len(token.joint) + len(token.text)
        if last > first:
            if width > layout.line_characters:
                lines, width = lines + 1, len(token.text)
            is_long = token.is_timed and token.end - run[first].start > layout.cue_seconds
            if lines > layout.cue_lines or is_long:
                return
            crossed += _break_cost(run[last - 1], token)
        yield last, length, crossed


def _break_cost(token: _Token, following: _Token) -> float:
    """The cost of a cue that goes on between the tokens: over the end of a segment, over a pause, or 0."""
    if following.segment is not token.segment:
        return _ACROSS_SEGMENTS
    return _ACROSS_PAUSE if following.start - token.end > PAUSE_SECONDS else 0.0


def _end_cost(run: Sequence[_Token], first: int, last: int) -> float:
    """The cost of a cue that begins with token *first* and ends with token *last*."""
    token = run[last]
    cost = _ONE_WORD if first == last and len(run) > 1 and not _is_sentence(run, first) else 0.0
    if last + 1 == len(run) or token.ends_sentence or _break_cost(token, run[last + 1]):
        return cost
    return cost + (_CUT_AT_CLAUSE if token.text.endswith(_CLAUSE_ENDS) else _CUT_IN_CLAUSE)


def _is_sentence(run: Sequence[_Token], number: int) -> bool:
    """Whether the token is a whole sentence ("Yes."), not the rest of one."""
    token = run[number]
    is_segment = token.text == token.segment.text and token.text[0].isupper()
    return token.ends_sentence and (number == 0 or run[number - 1].ends_sentence or is_segment)


def _joined(tokens: Sequence[_Token]) -> Cue:
    segment = tokens[0].segment
    text = "".join(token.joint + token.text for token in tokens).removeprefix(tokens[0].joint)
    if text == segment.text:
        return segment
    return Cue(tokens[0].start, max(token.end for token in tokens), text, segment.speaker)


def _laid_out(cues: Iterable[Cue], layout: Layout) -> list[Cue]:
    """*cues* in the order of time, none over another, each shown long enough to be read if there is room."""
    ordered = sorted(cues, key=_start)
    laid: list[Cue] = []
    for number, cue in enumerate(ordered):
        start = max(cue.start, laid[-1].end) if laid else cue.start
        needed = max(SHORTEST_SECONDS, len(named(cue.speaker, cue.text)) / CHARACTERS_PER_SECOND)
        end = min(max(cue.end, start + needed), start + layout.cue_seconds)
        if number + 1 < len(ordered):
            # Two speakers at once: the first cue keeps its shortest time, the other comes that much later.
            end = min(end, max(ordered[number + 1].start, start + SHORTEST_SECONDS))
        laid.append(replace(cue, start=start, end=end))
    return laid
