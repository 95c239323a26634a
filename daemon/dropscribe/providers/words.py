"""Words and segments of an answer: read from its items, made of words, put in order."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from operator import itemgetter
from typing import Any, TypeVar

from dropscribe.providers import values
from dropscribe.transcripts.line_breaks import joined
from dropscribe.transcripts.model import Segment, Transcript, Word
from dropscribe.transcripts.paragraphs import SENTENCE_ENDS, split_runs, words_within

_Part = TypeVar("_Part", Segment, Word)

PAUSE_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Reading:
    """The fields in which an answer has its words or segments; of several the first with a value counts."""

    text: tuple[str, ...] = ("text",)
    times: tuple[str, str] = ("start", "end")  # The start, and the end or, with *has_lengths*, the length
    has_lengths: bool = False
    scale: float = 1.0  # Makes the times seconds
    confidence: tuple[str, ...] = ("confidence",)
    probability: Callable[[Any], float | None] = values.probability  # Makes a probability of a confidence
    speaker: tuple[str, ...] = ("speaker",)
    said: Callable[[Any], str] = values.text_of  # Makes a string of a text
    # Reads a segment's ``words``, whose mean confidence counts where it has none
    inner: Reading | None = None

    def words(self, items: Any, speaker: str | None = None) -> tuple[Word, ...]:
        """The words in a list of *items*; *speaker* speaks those that name none."""
        return tuple(self.word(item, speaker) for item in values.objects(items))

    def segments(self, items: Any) -> tuple[Segment, ...]:
        """The segments in a list of *items*."""
        return tuple(map(self.segment, values.objects(items)))

    def words_within(self, items: Sequence[values.Item], segments: Sequence[Segment]) -> tuple[Word, ...]:
        """The ``words`` of each of *items*, of which *segments* were read and told the speakers."""
        pairs = zip(items, segments, strict=True)
        spoken = (self.words(item.get("words"), segment.speaker) for item, segment in pairs)
        return tuple(chain.from_iterable(spoken))

    def word(self, item: values.Item, speaker: str | None) -> Word:
        """The word in *item*; *speaker* speaks it if it names none."""
        return Word(self._text(item), *self.span(item), self._confidence(item), self._label(item) or speaker)

    def segment(self, item: values.Item, speaker: str | None = None) -> Segment:
        """The segment in *item*."""
        confidence = self._confidence(item)
        if confidence is None and self.inner is not None:
            confidence = mean_confidence(self.inner.words(item.get("words")))
        return Segment(self._text(item), *self.span(item), self._label(item) or speaker, confidence)

    def span(self, item: values.Item) -> tuple[float | None, float | None]:
        """Start and end of *item* in seconds."""
        start, end = map(item.get, self.times)
        if self.has_lengths:
            start, length = map(values.number, (start, end))
            end = None if start is None or length is None else start + length
        return values.span(start, end, self.scale)

    def _text(self, item: values.Item) -> str:
        return next(filter(None, map(self.said, map(item.get, self.text))), "")

    def _confidence(self, item: values.Item) -> float | None:
        return self.probability(values.first_of(item, *self.confidence))

    def _label(self, item: values.Item) -> str | None:
        return values.speaker_label(values.first_of(item, *self.speaker))


def mean_confidence(words: Iterable[Word]) -> float | None:
    """The mean of the words' known confidences."""
    return values.mean(word.confidence for word in words)


def words_of_each(segments: Iterable[Segment], words: Iterable[Word]) -> Iterator[list[Word]]:
    """The *words* that begin in each of *segments*, in the order of time; none in an untimed one."""
    timed = sorted(((word.start, word) for word in words if word.start is not None), key=itemgetter(0))
    for segment in segments:
        if segment.start is None or segment.end is None:
            yield []
            continue
        span = segment.start, segment.end
        yield [word for _, word in words_within(timed, span, segment.text, itemgetter(0))]


def segments_of(words: Iterable[Word], joint: str = " ") -> tuple[Segment, ...]:
    """Segments of *words*, cut where the speaker changes, after a sentence, at a pause, where time goes back.

    *joint* is the text between two words; a space is left out between Chinese and Japanese ones.
    """
    return tuple(_segment(run, joint) for run in split_runs(words, _begins_segment))


def _begins_segment(run: Sequence[Word], word: Word) -> bool:
    last = run[-1]
    if last.speaker != word.speaker or last.word.rstrip().endswith(SENTENCE_ENDS):
        return True
    if word.start is None:
        return False
    is_after_pause = last.end is not None and word.start - last.end >= PAUSE_SECONDS
    # Back in time are the words of another channel.
    return is_after_pause or (last.start is not None and last.start - word.start >= PAUSE_SECONDS)


def _segment(words: Sequence[Word], joint: str) -> Segment:
    texts = [text for word in words if (text := word.word.strip())]
    text = joined(texts) if joint == " " else joint.join(texts)
    start, end = values.span(words[0].start, words[-1].end)
    return Segment(text, start, end, words[0].speaker, mean_confidence(words))


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


def by_time(*runs: Iterable[_Part]) -> tuple[_Part, ...]:
    """Words or segments of several *runs* (channels, pieces) in the order in which they are said.

    An untimed item stays behind the one before it in its run; a run without any times comes last.
    """
    timed = [pair for run in runs for pair in _with_times(tuple(run))]
    return tuple(item for _, item in sorted(timed, key=itemgetter(0)))


def _with_times(run: Sequence[_Part]) -> Iterator[tuple[float, _Part]]:
    time = next((item.start for item in run if item.start is not None), math.inf)
    for item in run:
        time = time if item.start is None else item.start
        yield time, item
