"""Subtitle cues from a transcript document.

Guarantees: pure; a cue's text is one line of printable characters, and fits two lines of 42 (a word longer
than a line stays whole); no two cues overlap, none is longer than 7 s, and each stays on long enough to be
read where the next one leaves room: 0.8 s at least, 21 characters a second at most.

Cues follow the segments. A segment too long to read at once is cut along the times of its words, where
the words can be told apart in its text, else by the length of its text; words alone are grouped the same way.
"""

from __future__ import annotations

import textwrap
from bisect import bisect_left
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from dropscribe.core.printing import one_line

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

LINE_CHARACTERS = 42
CUE_LINES = 2
CUE_SECONDS = 7.0
PAUSE_SECONDS = 0.8
SHORTEST_SECONDS = 0.8
CHARACTERS_PER_SECOND = 21.0
"""What subtitle editors call the reading speed that adults keep up with."""

_SENTENCE_ENDS = (".", "!", "?", "…", "。", "！", "？")  # noqa: RUF001 - these are the full-width marks


@dataclass(frozen=True, slots=True)
class Cue:
    """One subtitle; times in seconds from the start of the audio."""

    start: float
    end: float
    text: str
    speaker: str | None = None

    @property
    def spoken(self) -> str:
        """The text, after the speaker's name where it is known."""
        return self.text if self.speaker is None else f"{one_line(self.speaker)}: {self.text}"


def cues_of(document: Mapping[str, Any]) -> list[Cue]:
    """The cues of a ``dropscribe.transcript/1`` document; [] where nothing is timed."""
    words = [_cue(word, "word") for word in document["words"] if _is_timed(word)]
    segments = [_cue(segment, "text") for segment in document["segments"] if _is_timed(segment)]
    words.sort(key=_start)
    if not segments:
        return _laid_out(_grouped([word for word in words if word.text]))
    starts = [word.start for word in words]
    return _laid_out(piece for cue in segments if cue.text for piece in _readable(cue, words, starts))


def lines_of(text: str) -> list[str]:
    """*text* in lines of a cue, two of them about equally long; a word longer than a line stays whole."""
    lines = _wrapped(text, LINE_CHARACTERS)
    if len(lines) != CUE_LINES:
        return lines
    # The narrowest width that still makes two lines is the one that makes them equal.
    narrow = (_wrapped(text, width) for width in range((len(text) + 1) // 2, LINE_CHARACTERS))
    return next((balanced for balanced in narrow if len(balanced) == CUE_LINES), lines)


def _wrapped(text: str, width: int) -> list[str]:
    return textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False)


def _laid_out(cues: Iterable[Cue]) -> list[Cue]:
    """In the order of time, none over another, each on long enough to be read where there is room."""
    ordered = sorted(cues, key=_start)
    laid: list[Cue] = []
    for number, cue in enumerate(ordered):
        start = max(cue.start, laid[-1].end) if laid else cue.start
        needed = max(SHORTEST_SECONDS, len(cue.spoken) / CHARACTERS_PER_SECOND)
        end = min(max(cue.end, start + needed), start + CUE_SECONDS)
        if number + 1 < len(ordered):
            # Two who speak at once: the first keeps its shortest time, the other comes that much later.
            end = min(end, max(ordered[number + 1].start, start + SHORTEST_SECONDS))
        laid.append(replace(cue, start=start, end=end))
    return laid


def _start(cue: Cue) -> float:
    return cue.start


def _is_timed(item: Mapping[str, Any]) -> bool:
    return item["start"] is not None and item["end"] is not None


def _cue(item: Mapping[str, Any], key: str) -> Cue:
    start, end = float(item["start"]), float(item["end"])
    return Cue(start, end if end > start else start + SHORTEST_SECONDS, one_line(item[key]), item["speaker"])


def _readable(cue: Cue, words: Sequence[Cue], starts: Sequence[float]) -> list[Cue]:
    if cue.end - cue.start <= CUE_SECONDS and len(lines_of(cue.spoken)) <= CUE_LINES:
        return [cue]
    own = words[bisect_left(starts, cue.start) : bisect_left(starts, cue.end)]
    tokens = cue.text.split()
    if not own or len(own) != len(tokens):
        return _spread(cue, tokens)
    # The segment's tokens, not the words: some providers' words lack the punctuation.
    timed = [Cue(word.start, word.end, token, cue.speaker) for word, token in zip(own, tokens, strict=True)]
    return list(_grouped(timed))


def _spread(cue: Cue, tokens: Sequence[str]) -> list[Cue]:
    """*cue* in readable parts, its time given out by the length of the text: all that is known of it."""
    texts: list[str] = []
    for token in tokens:
        longer = f"{texts[-1]} {token}" if texts else token
        if texts and len(lines_of(replace(cue, text=longer).spoken)) <= CUE_LINES:
            texts[-1] = longer
        else:
            texts.append(token)
    total = sum(map(len, texts))
    parts: list[Cue] = []
    start = cue.start
    for text in texts:
        end = start + (cue.end - cue.start) * len(text) / total
        parts.append(Cue(start, end, text, cue.speaker))
        start = end
    return parts


def _grouped(words: Sequence[Cue]) -> Iterator[Cue]:
    group: list[Cue] = []
    for word in words:
        if group and _breaks(group, word):
            yield _joined(group)
            group = []
        group.append(word)
    if group:
        yield _joined(group)


def _breaks(group: Sequence[Cue], word: Cue) -> bool:
    last = group[-1]
    return (
        word.end - group[0].start > CUE_SECONDS
        or word.start - last.end > PAUSE_SECONDS
        or word.speaker != last.speaker
        or last.text.endswith(_SENTENCE_ENDS)
        or len(lines_of(_joined([*group, word]).spoken)) > CUE_LINES
    )


def _joined(group: Sequence[Cue]) -> Cue:
    end = max(item.end for item in group)
    return Cue(group[0].start, end, " ".join(item.text for item in group), group[0].speaker)
