"""A transcript in sentences with their times, as the index keeps it. Pure."""

from __future__ import annotations

import html
import json
import re
import sqlite3
import unicodedata
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dropscribe.core.compression import unpacked
from dropscribe.core.text.printing import one_line
from dropscribe.search.words import Phrase, folded_words, may_hold
from dropscribe.transcripts.paragraphs import PAUSE_SECONDS, SENTENCE_ENDS, objects_in, split_runs

MOST_PASSAGE_WORDS = 40
LATEST_SECONDS = 1e7  # Later times are ignored
# Of one transcript's passages, uncompressed: more than any transcript has.
MOST_PACKED_BYTES = 256 * 1024 * 1024
_SENTENCE_END = re.compile(rf"(?<=[{''.join(SENTENCE_ENDS)}])\s+")
_CUE_TIMES = re.compile(r"(?:(\d{1,3}):)?(\d\d):(\d\d)[.,]\d+ -->.*")
_VTT_TAG = re.compile(r"<[^<>]*>")
_NOTE_HEAD = re.compile(r"\*\*(?:(?:(\d+):)?(\d+):(\d\d))?(?:[^*\\]|\\.)*\*\* ")
_CUE_SIGNS = re.compile(r"WEBVTT.*|\d+|")


class UnusableIndex(sqlite3.DatabaseError):
    """Raised for passages in an index that are damaged, or that another program has written."""


@dataclass(slots=True)
class Passage:
    """A sentence, or a part of one."""

    text: str  # One line, in NFC
    starts: list[float] = field(default_factory=list)  # Seconds: of each word, or one for the whole, or none

    def start_at(self, letter: int) -> float | None:
        """Begin of the word at that letter of the text, in seconds; None if nothing is timed."""
        number = self.text.count(" ", 0, letter)
        return self.starts[min(number, len(self.starts) - 1)] if self.starts else None


def passages_of(document: Mapping[str, Any]) -> list[Passage]:
    """The passages of a transcript's document: from words where they are timed, else segments, else text."""
    words = [word for word in objects_in(document, "words") if _is_time(word.get("start"))]
    if words:
        return list(_of_words(words))
    segments = objects_in(document, "segments")
    if not segments:
        return passages_of_text(str(document.get("text") or ""))
    return [
        Passage(sentence, [float(segment["start"])] if _is_time(segment.get("start")) else [])
        for segment in segments
        for sentence in _sentences(str(segment.get("text") or ""))
    ]


def passages_of_text(text: str) -> list[Passage]:
    """The passages of a plain text, a note or subtitles, whose times are taken over."""
    if text.startswith("---\ntitle: "):
        return list(_of_note(text))
    passages: list[Passage] = []
    starts: list[float] = []
    is_vtt = text.startswith("WEBVTT")
    for line in text.splitlines():
        if match := _CUE_TIMES.fullmatch(line.strip()):
            starts = [_seconds(match)]
        elif not _CUE_SIGNS.fullmatch(line.strip()):
            shown = html.unescape(_VTT_TAG.sub("", line)) if is_vtt else line
            passages += [Passage(sentence, starts) for sentence in _sentences(shown)]
    return passages


def _of_note(text: str) -> Iterator[Passage]:
    """The paragraphs of a Markdown note, without its facts, its title and its warnings."""
    for line in text.partition("\n---\n")[2].splitlines():
        if line.startswith(("#", ">")):
            continue
        head = _NOTE_HEAD.match(line)
        starts = [_seconds(head)] if head and head[2] else []
        said = re.sub(r"\\(.)", r"\1", line[head.end() if head else 0 :])
        yield from (Passage(sentence, starts) for sentence in _sentences(said))


def _seconds(match: re.Match[str]) -> float:
    hours, minutes, seconds = (int(part or 0) for part in match.groups())
    return 3600.0 * hours + 60 * minutes + seconds


def _is_time(value: object) -> bool:
    return isinstance(value, int | float) and 0 <= value <= LATEST_SECONDS


def _sentences(text: str) -> Iterator[str]:
    for sentence in _SENTENCE_END.split(_plain(text)):
        parts = sentence.split(" ")
        for number in range(0, len(parts), MOST_PASSAGE_WORDS):
            if part := " ".join(parts[number : number + MOST_PASSAGE_WORDS]):
                yield part


def _plain(text: str) -> str:
    return unicodedata.normalize("NFC", one_line(text))


def _of_words(words: Sequence[Mapping[str, Any]]) -> Iterator[Passage]:
    for run in split_runs(words, _begins_passage):
        parts = [(part, round(float(word["start"]), 2)) for word in run for part in _text_of(word).split()]
        if parts:
            yield Passage(" ".join(part for part, _ in parts), [start for _, start in parts])


def _text_of(word: Mapping[str, Any]) -> str:
    return _plain(str(word.get("word", "")))


def _begins_passage(run: Sequence[Mapping[str, Any]], word: Mapping[str, Any]) -> bool:
    last = run[-1]
    pause = word["start"] - (last["end"] if _is_time(last.get("end")) else last["start"])
    is_cut = len(run) >= MOST_PASSAGE_WORDS or word.get("speaker") != last.get("speaker")
    return is_cut or pause >= PAUSE_SECONDS or _text_of(last).endswith(SENTENCE_ENDS)


def end_of_phrase(phrase: Phrase, passages: Sequence[Passage], number: int) -> int:
    """Past the last passage that *phrase* goes to where it begins at the end of passage *number*.

    That is *number* + 1 where the phrase does not go beyond its passage.
    """
    if len(phrase) > 1 and may_hold(passages[number].text, [phrase]):
        words = tuple(folded_words(passages[number].text))
        for count in range(1, len(phrase)):  # words of the phrase in passage *number*
            if words[-count:] != phrase[:count]:
                continue
            end, rest = number + 1, phrase[count:]
            following: list[str] = []
            while len(following) < len(rest) and end < len(passages):
                following += folded_words(passages[end].text)
                end += 1
            if tuple(following[: len(rest)]) == rest:
                return end
    return number + 1


def pack(passages: Sequence[Passage]) -> bytes:
    """The form in which an index keeps passages."""
    return zlib.compress(json.dumps([[passage.text, passage.starts] for passage in passages]).encode(), 1)


def unpack(packed: bytes) -> list[Passage]:
    """Inverse of :func:`pack`; raises UnusableIndex."""
    try:
        found = json.loads(unpacked(packed, MOST_PACKED_BYTES))
    except (ValueError, RecursionError) as error:
        raise UnusableIndex(f"{error}; the index is made anew") from error
    match found:
        case [*items] if all(map(_is_passage, items)):
            return [Passage(text, starts) for text, starts in items]
    raise UnusableIndex("it holds no passages; the index is made anew")


def _is_passage(value: object) -> bool:
    match value:
        case [str(), [*starts]]:
            return all(map(_is_time, starts))
    return False
