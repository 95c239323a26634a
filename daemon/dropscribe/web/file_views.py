"""Content of one file's page: history, transcript in paragraphs, facts. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dropscribe.reports.transcript_reader import WARNING_WORDS
from dropscribe.reports.wording import bytes_words, clock_words, one_line
from dropscribe.web.views import Moment

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from dropscribe.core.model import Attempt

_UNSURE = 0.5
"""Words of less confidence are underlined."""
_MOST_TURN_WORDS = 120
_PAUSE_SECONDS = 2.0
_SENTENCE_ENDS = (".", "?", "!", "\u3002", "\uff1f", "\uff01")


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a file's story."""

    words: str
    at: Moment
    tone: str


def steps_of(
    received_at: float, attempts: Sequence[Attempt], ended_at: float | None, state: str
) -> list[Step]:
    """The story of a job as a time line."""
    steps = [Step("It was seen in the inbox and settled.", Moment.at(received_at), "")]
    steps.extend(map(_attempt_step, attempts))
    if ended_at is not None:
        words = {"done": "It was filed with its transcripts.", "failed": "It went to failed."}
        tone = {"done": "good", "failed": "bad"}.get(state, "")
        steps.append(Step(words.get(state, "It was dropped from the queue."), Moment.at(ended_at), tone))
    return steps


def _attempt_step(attempt: Attempt) -> Step:
    took = "" if attempt.seconds is None else f" after {attempt.seconds:.1f} s"
    if not attempt.code:
        words = f"{attempt.provider} answered{took}." if took else f"It is with {attempt.provider}."
        return Step(words, Moment.at(attempt.at), "good" if took else "warn")
    reason = f": {one_line(attempt.reason)}" if attempt.reason not in {"", attempt.code} else ""
    status = f" (HTTP {attempt.status})" if attempt.status else ""
    return Step(f"{attempt.provider}: {attempt.code}{reason}{status}{took}.", Moment.at(attempt.at), "bad")


@dataclass(frozen=True, slots=True)
class WordView:
    """One word with its time, in seconds."""

    text: str
    start: float
    unsure: bool
    percent: int


@dataclass(frozen=True, slots=True)
class Turn:
    """One paragraph: a speaker's turn, or what is spoken between two pauses; or a gap that is missing."""

    speaker: str
    start: float | None
    clock: str
    text: str
    words: list[WordView]
    gap: str = ""


def turns_of(document: Mapping[str, Any]) -> list[Turn]:
    """The transcript as paragraphs, from words where they are timed, else from segments, else its text."""
    words = [word for word in _dicts(document.get("words")) if isinstance(word.get("start"), int | float)]
    if words:
        turns = [_word_turn(group) for group in _grouped(words)]
    elif segments := _dicts(document.get("segments")):
        turns = [_segment_turn(segment) for segment in segments]
    else:
        text = str(document.get("text") or "")
        turns = [Turn("", None, "", text, [])] if text else []
    gaps = [_gap_turn(missing) for missing in _dicts(document.get("missing"))]
    return sorted(turns + gaps, key=lambda turn: turn.start or 0.0) if gaps else turns


def _dicts(value: object) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _grouped(words: list[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    group: list[dict[str, Any]] = []
    for word in words:
        if group and _begins_turn(group, word):
            yield group
            group = []
        group.append(word)
    if group:
        yield group


def _begins_turn(group: list[dict[str, Any]], word: dict[str, Any]) -> bool:
    last = group[-1]
    if word.get("speaker") != last.get("speaker"):
        return True
    pause = word["start"] - (last.get("end") or last["start"])
    ends_sentence = str(last.get("word", "")).rstrip().endswith(_SENTENCE_ENDS)
    return bool(ends_sentence and (pause >= _PAUSE_SECONDS or len(group) >= _MOST_TURN_WORDS))


def _word_turn(group: list[dict[str, Any]]) -> Turn:
    words = [_word(word) for word in group]
    start = float(group[0]["start"])
    return Turn(str(group[0].get("speaker") or ""), start, clock_words(start), "", words)


def _word(word: Mapping[str, Any]) -> WordView:
    confidence = word.get("confidence")
    share = float(confidence) if isinstance(confidence, int | float) else 1.0
    return WordView(str(word.get("word", "")), float(word["start"]), share < _UNSURE, round(100 * share))


def _segment_turn(segment: Mapping[str, Any]) -> Turn:
    start = segment.get("start")
    start = float(start) if isinstance(start, int | float) else None
    clock = "" if start is None else clock_words(start)
    return Turn(str(segment.get("speaker") or ""), start, clock, str(segment.get("text", "")).strip(), [])


def _gap_turn(missing: Mapping[str, Any]) -> Turn:
    start, end = float(missing.get("start") or 0.0), float(missing.get("end") or 0.0)
    words = (
        f"{clock_words(start)} to {clock_words(end)} is missing: {missing.get('reason') or 'not transcribed'}"
    )
    return Turn("", start, clock_words(start), "", [], gap=one_line(words))


def facts_of(document: Mapping[str, Any] | None, size_bytes: int) -> list[tuple[str, str]]:
    """Names and values of facts about a recording and its transcript, for display."""
    facts = [("Size", bytes_words(size_bytes))]
    if document is None:
        return facts
    if isinstance(document.get("duration"), int | float):
        facts.append(("Length", clock_words(document["duration"])))
    provider = document.get("provider")
    provider = provider if isinstance(provider, dict) else {}
    for name, value in (
        ("Language", document.get("language")),
        ("Provider", provider.get("name")),
        ("Model", provider.get("model")),
        ("Speakers", ", ".join(str(name) for name in document.get("speakers") or ())),
        ("Recorded", document.get("recorded_at")),
    ):
        if value:
            facts.append((name, one_line(str(value))))
    return facts


def warnings_of(document: Mapping[str, Any] | None) -> list[str]:
    """What is doubtful about a transcript, as text."""
    return [WARNING_WORDS.get(str(name), str(name)) for name in (document or {}).get("warnings") or ()]


def sha256_of(document: Mapping[str, Any] | None) -> str:
    """The digest of the recording; "" where its transcript does not name it."""
    source = (document or {}).get("source")
    return str(source.get("sha256") or "") if isinstance(source, dict) else ""
