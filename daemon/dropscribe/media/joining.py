"""One transcript of the answers to a recording's pieces and channels.

Guarantees: pure; all times count from the start of the recording; parts without an answer are named.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any, TypeVar

from dropscribe.native.decoder import Source
from dropscribe.native.recording import Piece
from dropscribe.providers.words import by_time, segments_of, words_of_each
from dropscribe.transcripts.line_breaks import joined
from dropscribe.transcripts.model import Missing, Segment, Transcript, Word
from dropscribe.transcripts.paragraphs import split_runs

Item = TypeVar("Item", Segment, Word)

MISSING_AUDIO = "missing_audio"
# Warning: each piece has its own speaker labels; part_1_speaker_0 may or may not be part_2_speaker_0.
SPEAKERS_APART = "speakers_per_piece"
TURN_PAUSE_SECONDS = 1.0  # in a call, a pause of this length ends a speaker's turn


@dataclass(frozen=True, slots=True)
class Answered:
    """The result of one piece."""

    piece: Piece
    source: Source  # The track or channel that it is a piece of
    # The provider's, its times from the piece's start; None where it refused the piece.
    answer: Transcript | None
    code: str = ""  # The refusal's code; else ""

    @property
    def sent_seconds(self) -> float:
        """Length of its sound."""
        return self.piece.end - self.piece.start - sum(jump for _, jump in self.piece.jumps)

    @property
    def told(self) -> Transcript:
        """The answer; an empty one for a refusal."""
        return self.answer or Transcript("")


def join(parts: Sequence[Answered], seconds: float, warnings: Sequence[str] = ()) -> Transcript:
    """The transcript of a recording of *seconds*, with the decoder's *warnings*.

    *parts* are source after source, each in the order of time; at least one has an answer.
    """
    heard = [part for part in parts if part.answer is not None]
    is_split = any(part.source.speaker is not None for part in parts)
    if len(parts) == 1 and not is_split:
        return _only(heard[0], seconds, warnings)
    numbered = not is_split and len(heard) > 1 and any(map(_has_speakers, heard))
    moved = [_moved(part, number, numbered=numbered) for number, part in enumerate(heard, 1)]
    if is_split:
        segments = by_time(*(each.segments for each in moved))
        words = by_time(*(each.words for each in moved))
        text = "\n".join(segment.text.strip() for segment in segments)
    else:
        segments = tuple(chain.from_iterable(each.segments for each in moved))
        words = tuple(chain.from_iterable(each.words for each in moved))
        text = joined(filter(None, (each.text.strip() for each in moved)))
    missing = _missing(parts)
    found = [warning for each in moved for warning in each.warnings if warning != "empty_transcript"]
    found += [*warnings, *([SPEAKERS_APART] if numbered else []), *([MISSING_AUDIO] if missing else [])]
    return Transcript(
        text=text,
        language=_first(each.language for each in moved),
        duration=seconds,
        sent_seconds=sum(part.sent_seconds for part in heard),
        segments=segments,
        words=words,
        attributes={key: value for each in reversed(moved) for key, value in each.attributes.items()},
        warnings=tuple(dict.fromkeys(found)),
        missing=missing,
        model=_first(each.model for each in moved),
        request_id=_first(each.request_id for each in moved),
        raw={"pieces": [_raw(part) for part in parts]},
    )


def _first(values: Iterable[str | None]) -> str | None:
    return next(filter(None, values), None)


def _only(part: Answered, seconds: float, warnings: Sequence[str]) -> Transcript:
    """The answer to a recording that was sent in one piece."""
    told = tuple(dict.fromkeys([*part.told.warnings, *warnings]))
    if not part.piece.start and not part.piece.jumps:
        return replace(part.told, warnings=told)
    moved = _moved(part, 1, numbered=False)
    return replace(moved, warnings=told, duration=seconds, sent_seconds=part.sent_seconds)


def _has_speakers(part: Answered) -> bool:
    items: list[Segment | Word] = [*part.told.segments, *part.told.words]
    return any(item.speaker is not None for item in items)


def _moved(part: Answered, number: int, *, numbered: bool) -> Transcript:
    """The part's answer with times from the recording's start; *numbered* adds the part to speaker labels."""

    def moved(item: Item) -> Item:
        own = f"part_{number}_{item.speaker}" if numbered and item.speaker is not None else item.speaker
        start = _later(item.start, part)
        end = _later(item.end, part, is_end=item.start != item.end)
        return replace(item, start=start, end=end, speaker=part.source.speaker or own)

    words, segments = tuple(map(moved, part.told.words)), tuple(map(moved, part.told.segments))
    if part.source.speaker is not None:
        segments = tuple(_turns(segments, words)) or _turns_of_words(words, part)
    return replace(part.told, words=words, segments=segments)


def _later(time: float | None, part: Answered, *, is_end: bool = False) -> float | None:
    """*time* on the recording's clock; an end at a jump of the clock is before it, a start is behind it."""
    if time is None:
        return None
    jumped = sum(jump for at, jump in part.piece.jumps if time > at or (time == at and not is_end))
    return min(part.piece.start + time + jumped, part.piece.end)


def _turns_of_words(words: Sequence[Word], part: Answered) -> tuple[Segment, ...]:
    """Turns of a provider without segments; without timed words one turn a piece, so that channels alternate.

    Their text is the answer's, which has the punctuation, where it can be told which word is which.
    """
    text = part.told.text
    tokens = text.split()
    if not tokens:
        return ()
    whole = Segment(text.strip(), part.piece.start, part.piece.end, part.source.speaker)
    if len(tokens) == len(words) and all(map(_is_timed, words)):
        return tuple(_cut_at_pauses(whole, words, tokens))
    are_all = _letters(text) == _letters("".join(word.word for word in words))
    return segments_of(words) if are_all and any(map(_is_timed, words)) else (whole,)


def _letters(text: str) -> str:
    return "".join(filter(str.isalnum, text)).casefold()


def _is_timed(word: Word) -> bool:
    return word.start is not None and word.end is not None


def _turns(segments: Sequence[Segment], words: Sequence[Word]) -> Iterator[Segment]:
    """*segments*, cut where their speaker pauses: the other one may have spoken there."""
    for segment, own in zip(segments, words_of_each(segments, filter(_is_timed, words)), strict=True):
        tokens = segment.text.split()
        yield from _cut_at_pauses(segment, own, tokens) if len(own) == len(tokens) else [segment]


def _cut_at_pauses(segment: Segment, words: Sequence[Word], tokens: Sequence[str]) -> Iterator[Segment]:
    for run in split_runs(zip(words, tokens, strict=True), _begins_turn):
        text = " ".join(token for _, token in run)
        yield replace(segment, text=text, start=run[0][0].start, end=run[-1][0].end)


def _begins_turn(run: Sequence[tuple[Word, str]], following: tuple[Word, str]) -> bool:
    return (following[0].start or 0.0) - (run[-1][0].end or 0.0) >= TURN_PAUSE_SECONDS


def _missing(parts: Sequence[Answered]) -> tuple[Missing, ...]:
    refused = (Missing(part.piece.start, part.piece.end, part.code) for part in parts if part.answer is None)
    return tuple(sorted(dict.fromkeys(refused), key=lambda gap: (gap.start, gap.end)))


def _raw(part: Answered) -> dict[str, Any]:
    return {
        "start": round(part.piece.start, 3),
        "end": round(part.piece.end, 3),
        "track": part.source.track,
        "channel": part.source.channel,
        "code": part.code or None,
        "request_id": part.told.request_id,
        "raw": part.told.raw,
    }
