"""Data for the templates, made from the status document and from rows. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple
from urllib.parse import quote

from dropscribe.core.text.printing import amount_words, duration_words, path_text, plural
from dropscribe.files.audio import AudioFile, Progress
from dropscribe.intake.pending import BLOCKED_WORDS, UNLISTABLE_WORDS
from dropscribe.queue.sql.history import ListedFile
from dropscribe.queue.sql.stats import Ended
from dropscribe.reports.troubles import Trouble, troubles_of
from dropscribe.reports.waiting import ListedState
from dropscribe.reports.wording import (
    bytes_words,
    clock_words,
    moment_words,
    next_request_at,
    printable_line,
    provider_word,
    reason_words,
    unix_time,
)
from dropscribe.search.finding import Sentence
from dropscribe.service.status import WAITING_STATES

_TONES = {"done": "good", "failed": "bad"} | dict.fromkeys(
    ("transcribing", "at_provider", "publishing"), "warn"
)


class Row(NamedTuple):
    """One file in a list; it has no id before it has a job."""

    id: int | None
    name: str
    folder: str
    state: str
    tone: str
    words: str
    provider: str = ""
    at: float | None = None
    percent: int | None = None


def file_row(job: ListedFile, state: ListedState, now: float, sending: AudioFile | None = None) -> Row:
    """The row of one job; *sending* is its recording, where an attempt is made now."""
    words = ": ".join(part for part in (state.code, printable_line(state.reason)) if part)
    if state.word == "deferred":
        words = f"tried again in {duration_words(job.due_at - now)}" + (f" ({words})" if words else "")
    words, percent = reason_words(job, words), None
    if sending is not None and job.at_provider_since is None:
        words, percent = progress_of(sending.progress)
    at, tone = job.ended_at or job.received_at, _TONES.get(state.word, "")
    return Row(job.id, path_text(job.path), job.folder, state.word, tone, words, job.provider, at, percent)


def inbox_row(folder: str, path: str, reason: str) -> Row:
    """The row of a file of an inbox that has no job yet, or of a folder there that cannot be listed."""
    is_blocked = reason.startswith((BLOCKED_WORDS, UNLISTABLE_WORDS))
    state, tone = ("blocked", "bad") if is_blocked else ("settling", "")
    return Row(None, path, folder, state, tone, printable_line(reason))


def progress_of(progress: Progress) -> tuple[str, int | None]:
    """Progress of an attempt in words, and in percent if that is known."""
    if progress.heard_seconds is not None:
        return f"heard up to {clock_words(progress.heard_seconds)}", None
    if progress.pieces > 1:
        return f"piece {progress.piece} of {progress.pieces}", 100 * progress.piece // progress.pieces
    if not progress.sent_bytes:
        return "", None
    if progress.sent_bytes >= progress.total_bytes:
        return "sent, waiting for the answer", 100
    share = f"{bytes_words(progress.sent_bytes)} of {bytes_words(progress.total_bytes)} sent"
    return share, 100 * progress.sent_bytes // progress.total_bytes


def overview(document: Mapping[str, Any], now: float) -> dict[str, Any]:
    """The first page of the *document* of ``status --json``, without its lists of files."""
    troubles = [(trouble, *_action(trouble), _list_of(trouble)) for trouble in troubles_of(document, now)]
    folders = [_folder(name, folder) for name, folder in document["folders"].items()]
    counts = [(sum(folder[key] for folder in folders), key) for key in ("in_flight", "waiting")]
    busy = ", ".join(f"{plural(number, 'file')} {key.replace('_', ' ')}" for number, key in counts if number)
    if troubles:
        sentence, tone = "dropscribe is running, but something needs attention.", "bad"
    elif busy:
        sentence, tone = f"Working: {busy}.", "warn"
    else:
        sentence, tone = "All files are done.", "good"
    return {
        "sentence": sentence,
        "tone": tone,
        "troubles": troubles,
        "folders": folders,
        "providers": [_provider(name, provider, now) for name, provider in document["providers"].items()],
    }


def _action(trouble: Trouble) -> tuple[str, str]:
    """Path and label of the form that helps against *trouble*; "" where there is none."""
    if trouble.held:
        return f"/{trouble.held.kind}s/{quote(trouble.held.name, safe='')}/try", "Try now"
    if trouble.files == "backlog":
        return f"/folders/{quote(trouble.folder, safe='')}/release", "Release them"
    return "", ""


def _list_of(trouble: Trouble) -> str:
    """Path of the list of the files with *trouble*, or ""."""
    waiting = dict.fromkeys(("blocked", "settling", "deferred"), "waiting")
    state = {**waiting, "failed": "failed"}.get(trouble.files)
    return f"/folders/{quote(trouble.folder, safe='')}?state={state}" if state else ""


def _folder(name: str, folder: Mapping[str, Any]) -> dict[str, Any]:
    waiting = {key: folder[key] for key in WAITING_STATES if folder[key]}
    words = [", ".join(f"{number} {key}" for key, number in waiting.items())] if waiting else []
    if folder["oldest_waiting"] is not None and waiting:
        words.append(f"the oldest for {duration_words(folder['oldest_waiting'])}")
    if folder["at_provider_since"]:
        since = moment_words(unix_time(folder["at_provider_since"]))
        words.append(f"{folder['at_provider']} waiting at the provider since {since}")
    if folder["suspect"]:
        words.append(f"{plural(folder['suspect'], 'doubtful transcript')} so far")
    return {
        **folder,
        "name": name,
        "waiting": sum(waiting.values()),
        # With the files that a provider works on by itself, as in the list of files in flight.
        "in_flight": folder["transcribing"] + folder["at_provider"],
        "words": "; ".join(words),
        "budgets": _budgets(folder["budget"]),
    }


def _provider(name: str, provider: Mapping[str, Any], now: float) -> dict[str, Any]:
    state, words = provider_word(provider), f"{provider['in_flight']} in flight"
    if state == "held":
        words = printable_line(provider["reason"] or "")
    elif state == "paused":
        words += f"; the next request goes {moment_words(unix_time(provider['paused_until']))}"
    elif next_at := next_request_at(provider, now):
        words += f"; its rate limit allows the next request {moment_words(next_at)}"
    tone = {"held": "bad", "paused": "warn"}.get(state, "good")
    budgets = _budgets(provider["budget"])
    return {"name": name, "state": state, "tone": tone, "words": words, "budgets": budgets}


def _budgets(budget: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    bars = []
    accounts = {period: account for period, account in (budget or {}).items() if account}
    for period, account in accounts.items():
        share = account["spent"] / account["limit"] if account["limit"] else 1.0
        unit = "" if account["unit"] == "money" else f" {account['unit']}"
        spent = f"{amount_words(account['spent'])} of {amount_words(account['limit'])}{unit}"
        words = f"{spent} spent {'today' if period == 'per_day' else 'this month'}"
        tone = "spent" if share >= 1 else "low" if share >= 0.8 else ""
        bars.append({"words": words, "percent": min(100, round(100 * share)), "tone": tone})
    return bars


def pieces_of(sentence: Sentence) -> Iterator[tuple[str, bool]]:
    """The sentence in pieces, and whether each was searched for."""
    last = 0
    for begin, end in sentence.spans:
        yield sentence.text[last:begin], False
        yield sentence.text[begin:end], True
        last = end
    yield sentence.text[last:], False


def chart_of(days: Sequence[tuple[str, Ended]]) -> dict[str, Any]:
    """The chart of (day as YYYY-MM-DD, how much ended on it), oldest first.

    Heights are shares of 1. The line, minutes of audio, is left out where no length is known.
    """
    most_files = max((day.done + day.failed for _, day in days), default=0) or 1
    most_seconds = max((day.seconds for _, day in days), default=0.0)
    total = Ended(*(sum(getattr(day, name) for _, day in days) for name in ("done", "failed", "seconds")))
    bars = [
        {
            "label": name[8:],
            "words": f"{name}: {_day_words(day)}",
            "done": day.done / most_files,
            "failed": day.failed / most_files,
            "audio": day.seconds / (most_seconds or 1),
        }
        for name, day in days
    ]
    words, today = f"{len(days)} days: {_day_words(total)}", _day_words(days[-1][1]) if days else ""
    return {"days": bars, "has_line": most_seconds > 0, "words": words, "today": today}


def _day_words(day: Ended) -> str:
    length = f", {duration_words(day.seconds)} of audio" if day.seconds else ""
    return f"{day.done} done, {day.failed} failed{length}"
