"""Content of one file's page: history, transcript in paragraphs, facts. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dropscribe.core.model import JobState
from dropscribe.reports.wording import bytes_words, clock_words, one_line
from dropscribe.transcripts.document import WARNING_WORDS
from dropscribe.web.views import moment

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from dropscribe.core.model import Attempt
    from dropscribe.queue.sql.history import JobRecord

_UNSURE = 0.5
"""Words of less confidence are underlined."""
_MOST_TURN_WORDS = 120
_PAUSE_SECONDS = 2.0
_SENTENCE_ENDS = (".", "?", "!", "\u3002", "\uff1f", "\uff01")


_ENDED_STEPS = {
    JobState.DONE: ("It was filed with its transcripts.", "good"),
    JobState.FAILED: ("It went to failed.", "bad"),
}


def steps_of(record: JobRecord) -> Iterator[dict[str, Any]]:
    """The record of a job as a time line."""
    yield _step("It was seen in the inbox and settled.", record.received_at, "")
    for attempt in record.tries:
        yield _attempt_step(attempt)
    if record.ended_at is not None:
        words, tone = _ENDED_STEPS.get(record.state, ("It was dropped from the queue.", ""))
        yield _step(words, record.ended_at, tone)


def _step(words: str, at: float, tone: str) -> dict[str, Any]:
    return {"words": words, "at": moment(at), "tone": tone}


def _attempt_step(attempt: Attempt) -> dict[str, Any]:
    took = "" if attempt.seconds is None else f" after {attempt.seconds:.1f} s"
    if not attempt.code:
        words = f"{attempt.provider} answered{took}." if took else f"It is with {attempt.provider}."
        return _step(words, attempt.at, "good" if took else "warn")
    reason = f": {one_line(attempt.reason)}" if attempt.reason not in {"", attempt.code} else ""
    status = f" (HTTP {attempt.status})" if attempt.status else ""
    return _step(f"{attempt.provider}: {attempt.code}{reason}{status}{took}.", attempt.at, "bad")


def turns_of(document: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The transcript as paragraphs, from words where they are timed, else from segments, else its text."""
    words = [word for word in _dicts(document.get("words")) if isinstance(word.get("start"), int | float)]
    if words:
        turns = [_word_turn(group) for group in _grouped(words)]
    elif segments := _dicts(document.get("segments")):
        turns = [_segment_turn(segment) for segment in segments]
    else:
        text = str(document.get("text") or "")
        turns = [_turn(None, text=text)] if text else []
    gaps = [_gap_turn(missing) for missing in _dicts(document.get("missing"))]
    return sorted(turns + gaps, key=lambda turn: turn["start"] or 0.0) if gaps else turns


def _turn(
    start: float | None, *, speaker: str = "", text: str = "", words: Sequence[object] = (), gap: str = ""
) -> dict[str, Any]:
    """One paragraph: a speaker's turn, the words between two pauses, or a missing part."""
    clock = "" if start is None else clock_words(start)
    return {"start": start, "clock": clock, "speaker": speaker, "text": text, "words": words, "gap": gap}


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


def _word_turn(group: list[dict[str, Any]]) -> dict[str, Any]:
    words = [_word(word) for word in group]
    return _turn(words[0]["start"], speaker=str(group[0].get("speaker") or ""), words=words)


def _word(word: Mapping[str, Any]) -> dict[str, Any]:
    confidence = word.get("confidence")
    share = float(confidence) if isinstance(confidence, int | float) else 1.0
    return {
        "text": str(word.get("word", "")),
        "start": float(word["start"]),
        "unsure": share < _UNSURE,
        "percent": round(100 * share),
    }


def _segment_turn(segment: Mapping[str, Any]) -> dict[str, Any]:
    start = segment.get("start")
    return _turn(
        float(start) if isinstance(start, int | float) else None,
        speaker=str(segment.get("speaker") or ""),
        text=str(segment.get("text", "")).strip(),
    )


def _gap_turn(missing: Mapping[str, Any]) -> dict[str, Any]:
    start, end = float(missing.get("start") or 0.0), float(missing.get("end") or 0.0)
    reason = missing.get("code") or "not transcribed"
    return _turn(start, gap=one_line(f"{clock_words(start)} to {clock_words(end)} is missing: {reason}"))


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
    """The doubts about a transcript, as text."""
    return [WARNING_WORDS.get(str(name), str(name)) for name in (document or {}).get("warnings") or ()]


def sha256_of(document: Mapping[str, Any] | None) -> str:
    """The digest of the recording; "" where its transcript does not name it."""
    source = (document or {}).get("source")
    return str(source.get("sha256") or "") if isinstance(source, dict) else ""
