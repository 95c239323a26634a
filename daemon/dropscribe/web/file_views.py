"""Content of one file's page: history, transcript in paragraphs, facts. Pure.

Anybody who may write to ``done`` may write transcripts: whatever one holds, it is shown or raises one of
ArithmeticError, AttributeError, TypeError and ValueError.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

from dropscribe.core.model import Attempt, JobState
from dropscribe.core.retry import REUSED
from dropscribe.queue.sql.history import JobRecord
from dropscribe.queue.sql.rows import TAKEN_BACK
from dropscribe.reports.wording import bytes_words, clock_words, outcome_words, printable_line
from dropscribe.transcripts.document import WARNING_WORDS
from dropscribe.transcripts.line_breaks import joint_of
from dropscribe.transcripts.paragraphs import PAUSE_SECONDS, SENTENCE_ENDS, objects_in, split_runs

_UNSURE = 0.5  # Words of less confidence are underlined
_MOST_TURN_WORDS = 120

_ENDED_STEPS = {
    JobState.DONE: ("It was filed with its transcripts.", "good"),
    JobState.FAILED: ("It went to failed.", "bad"),
}


def steps_of(record: JobRecord) -> Iterator[tuple[float, str, str]]:
    """The record of a job as a time line: time (Unix seconds), sentence and tone of each step."""
    yield record.received_at, "It arrived in the inbox.", ""
    for attempt in record.tries:
        yield attempt.at, *_attempt_words(attempt)
    if record.ended_at is None:
        return
    if record.state in _ENDED_STEPS:
        yield record.ended_at, *_ENDED_STEPS[record.state]
    elif record.reason == TAKEN_BACK:
        yield record.ended_at, f"It failed, and was {TAKEN_BACK} after that.", "bad"
    else:
        reason = printable_line(record.reason) or "the file was gone"
        yield record.ended_at, f"It was dropped from the queue: {reason}.", ""


def _attempt_words(attempt: Attempt) -> tuple[str, str]:
    if not attempt.code and attempt.seconds is None:
        return f"It is with {attempt.provider}.", "warn"
    status = f" (HTTP {attempt.status})" if attempt.status else ""
    took = f" after {attempt.seconds:.1f} s" if attempt.seconds else ""
    words = f"{attempt.provider}: {printable_line(outcome_words(attempt))}{status}{took}."
    return words, "good" if attempt.code in {"", REUSED} else "bad"


def turns_of(document: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The transcript as paragraphs, from words where any is timed, else from segments, else its text."""
    words = [word for word in objects_in(document, "words") if str(word.get("word") or "").strip()]
    if any(_seconds(word, "start") is not None for word in words):
        turns = [_turn(_first_timed(run), words=_words(run)) for run in split_runs(words, _begins_turn)]
    elif segments := objects_in(document, "segments"):
        turns = [_turn(segment, text=str(segment.get("text", "")).strip()) for segment in segments]
    else:
        text = str(document.get("text") or "")
        turns = [_turn({}, text=text)] if text else []
    gaps = [_turn(missing, gap=_gap_words(missing)) for missing in objects_in(document, "missing")]
    return sorted(turns + gaps, key=lambda turn: turn["start"] or 0.0) if gaps else turns


def _turn(
    item: Mapping[str, Any], *, text: str = "", words: Sequence[object] = (), gap: str = ""
) -> dict[str, Any]:
    """One paragraph, which begins with *item*: a turn, the words between two pauses, or a missing part."""
    start = _seconds(item, "start")
    return {
        "start": start,
        "clock": "" if start is None else clock_words(start),  # which refuses what is no time
        "speaker": str(item.get("speaker") or ""),
        "text": text,
        "words": words,
        "gap": gap,
    }


def _begins_turn(group: list[dict[str, Any]], word: dict[str, Any]) -> bool:
    last = group[-1]
    if word.get("speaker") != last.get("speaker"):
        return True
    if not str(last["word"]).rstrip().endswith(SENTENCE_ENDS):
        return False
    start, end = _seconds(word, "start"), _seconds(last, "end") or _seconds(last, "start")
    has_pause = start is not None and end is not None and start - end >= PAUSE_SECONDS
    return has_pause or len(group) >= _MOST_TURN_WORDS


def _first_timed(run: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    return next((word for word in run if _seconds(word, "start") is not None), run[0])


def _words(run: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The words of one paragraph, each with the space before it that its script has."""
    texts = [str(word["word"]).strip() for word in run]
    joints = ["", *(joint_of(before, text) for before, text in pairwise(texts))]
    return [_word(*parts) for parts in zip(run, joints, texts, strict=True)]


def _word(word: Mapping[str, Any], joint: str, text: str) -> dict[str, Any]:
    confidence = word.get("confidence")
    share = float(confidence) if isinstance(confidence, int | float) else 1.0
    return {
        "joint": joint,
        "text": text,
        "start": _seconds(word, "start"),
        "unsure": share < _UNSURE,
        "percent": round(100 * share),
    }


def _seconds(item: Mapping[str, Any], key: str) -> float | None:
    value = item.get(key)
    return float(value) if isinstance(value, int | float) else None


def _gap_words(missing: Mapping[str, Any]) -> str:
    start, end = (clock_words(float(missing.get(key) or 0.0)) for key in ("start", "end"))
    return printable_line(f"{start} to {end} is missing: {missing.get('code') or 'not transcribed'}")


def facts_of(document: Mapping[str, Any], size_bytes: int) -> list[tuple[str, str]]:
    """Names and values of facts about a recording and its transcript, for display."""
    length, provider = document.get("duration"), document.get("provider")
    provider = provider if isinstance(provider, dict) else {}
    facts = {
        "Size": bytes_words(size_bytes),
        "Length": clock_words(length) if isinstance(length, int | float) else "",
        "Language": document.get("language"),
        "Provider": provider.get("name"),
        "Model": provider.get("model"),
        "Speakers": ", ".join(str(name) for name in document.get("speakers") or ()),
        "Recorded": document.get("recorded_at"),
    }
    return [(name, printable_line(str(value))) for name, value in facts.items() if value]


def language_of(document: Mapping[str, Any]) -> str:
    """The transcript's language as a tag (BCP 47) for browsers and screen readers; "" where it is unknown."""
    language = str(document.get("language") or "")
    return language if re.fullmatch("[A-Za-z]{2,3}(-[A-Za-z0-9]{1,8})*", language) else ""


def warnings_of(document: Mapping[str, Any]) -> list[str]:
    """The doubts about a transcript, as text."""
    return [WARNING_WORDS.get(str(name), str(name)) for name in document.get("warnings") or ()]


def digest_in(document: Mapping[str, Any]) -> str:
    """The digest of the recording; "" where its transcript does not name one."""
    source = document.get("source")
    digest = source.get("sha256") if isinstance(source, dict) else None
    # It becomes a part of a path: anybody may have written "../.." there.
    return digest if isinstance(digest, str) and re.fullmatch("[0-9a-f]{64}", digest) else ""
