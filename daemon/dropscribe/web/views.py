"""What the templates show, made from the status document and from rows. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from dropscribe.core.budget import BUDGET_CODE
from dropscribe.core.model import JobState
from dropscribe.reports.wording import (
    bytes_words,
    clock_words,
    duration_words,
    moment_words,
    one_line,
    plural,
)
from dropscribe.transcripts.document import path_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from dropscribe.core.model import Attempt
    from dropscribe.queue.sql.file_list import ListedFile

_UNSURE = 0.5
"""Words of less confidence are underlined."""
_MOST_TURN_WORDS = 120
_PAUSE_SECONDS = 2.0
_SENTENCE_ENDS = (".", "?", "!", "\u3002", "\uff1f", "\uff01")
_TONES = {"done": "good", "failed": "bad", "transcribing": "warn", "publishing": "warn"}
_WAITING = ("settling", "queued", "deferred", "held", "publishing", "blocked")


@dataclass(frozen=True, slots=True)
class Moment:
    """A time for a ``<time>`` element: the machine's form and words without the reader's zone."""

    iso: str
    text: str

    @classmethod
    def at(cls, unix_seconds: float) -> Moment:
        """The moment at *unix_seconds*."""
        return cls(datetime.fromtimestamp(unix_seconds, UTC).isoformat(), moment_words(unix_seconds))

    @classmethod
    def of(cls, text: str | None) -> Moment | None:
        """The moment that an ISO 8601 text names, or None."""
        return cls.at(datetime.fromisoformat(text).timestamp()) if text else None


@dataclass(frozen=True, slots=True)
class FileRow:
    """One file in a list."""

    id: int
    name: str
    folder: str
    state: str
    tone: str
    provider: str
    at: Moment
    words: str


def file_row(job: ListedFile, now: float) -> FileRow:
    """The row of one job."""
    state = {JobState.TRANSCRIBED: "publishing", JobState.REJECTED: "publishing"}.get(job.state, job.state)
    words = ": ".join(part for part in (job.code, one_line(job.reason)) if part)
    if job.state is JobState.QUEUED and job.due_at > now:
        words = f"tried again in {duration_words(job.due_at - now)}" + (f" ({words})" if words else "")
    return FileRow(
        id=job.id,
        name=path_text(job.path),
        folder=job.folder,
        state=str(state),
        tone=_TONES.get(str(state), ""),
        provider=job.provider,
        at=Moment.at(job.ended_at or job.received_at),
        words=words,
    )


@dataclass(frozen=True, slots=True)
class Trouble:
    """One thing that is wrong, and what can be done about it on this page."""

    words: str
    since: Moment | None = None
    next_try: Moment | None = None
    action: str = ""
    label: str = ""


@dataclass(frozen=True, slots=True)
class BudgetBar:
    """How much of a budget is spent."""

    words: str
    percent: int
    tone: str


@dataclass(frozen=True, slots=True)
class FolderPanel:
    """One folder of the overview."""

    name: str
    inbox: str
    waiting: int
    in_flight: int
    done: int
    failed: int
    words: str
    budgets: list[BudgetBar]


@dataclass(frozen=True, slots=True)
class ProviderPanel:
    """One provider of the overview."""

    name: str
    state: str
    tone: str
    words: str
    budgets: list[BudgetBar]


@dataclass(slots=True)
class Overview:
    """The first page."""

    sentence: str
    tone: str
    troubles: list[Trouble]
    folders: list[FolderPanel]
    providers: list[ProviderPanel]
    in_flight: list[FileRow] = field(default_factory=list)
    waiting: list[FileRow] = field(default_factory=list)
    done: list[FileRow] = field(default_factory=list)
    failed: list[FileRow] = field(default_factory=list)
    today: str = ""


def overview(document: Mapping[str, Any], inboxes: Mapping[str, str]) -> Overview:
    """The first page of the status *document*, without its lists of files.

    Args:
        document: As ``status --json`` prints it.
        inboxes: Folder → its inbox, for people.
    """
    troubles = list(_troubles(document))
    waiting = sum(sum(folder[key] for key in _WAITING) for folder in document["folders"].values())
    busy = sum(folder["transcribing"] for folder in document["folders"].values())
    if troubles:
        sentence, tone = "dropscribe is running, but something needs a look.", "bad"
    elif busy or waiting:
        parts = [f"{plural(busy, 'file')} in flight"] if busy else []
        parts += [f"{plural(waiting, 'file')} waiting"] if waiting else []
        sentence, tone = f"Working: {', '.join(parts)}.", "warn"
    else:
        sentence, tone = "All is done; nothing waits.", "good"
    return Overview(
        sentence=sentence,
        tone=tone,
        troubles=troubles,
        folders=[
            _folder(name, folder, inboxes.get(name, "")) for name, folder in document["folders"].items()
        ],
        providers=[_provider(name, provider) for name, provider in document["providers"].items()],
    )


def _troubles(document: Mapping[str, Any]) -> Iterator[Trouble]:
    if document["trouble"]:
        yield Trouble(f"{one_line(document['trouble'])}: nothing is sent meanwhile")
    for name, provider in document["providers"].items():
        if provider["state"] == "held":
            is_budget = provider["code"] == BUDGET_CODE
            yield Trouble(
                f"Provider {name} is held: {one_line(provider['reason'] or '')}",
                since=Moment.of(provider["since"]),
                next_try=Moment.of(provider["next_probe"]),
                action="" if is_budget else f"/providers/{name}/try",
                label="Try now",
            )
    for name, folder in document["folders"].items():
        yield from _folder_troubles(name, folder)


def _folder_troubles(name: str, folder: Mapping[str, Any]) -> Iterator[Trouble]:
    if not folder["available"]:
        yield Trouble(
            f"The inbox of {name} is unavailable: {one_line(folder['reason'] or 'it is not there')}"
        )
    elif folder["reason"]:
        yield Trouble(f"Folder {name} takes nothing new: {one_line(folder['reason'])}")
    if hold := folder["hold"]:
        yield Trouble(
            f"Folder {name} is held: {one_line(hold['reason'])}",
            since=Moment.of(hold["since"]),
            next_try=Moment.of(hold["next_probe"]),
            action="" if hold["code"] == BUDGET_CODE else f"/folders/{name}/try",
            label="Try now",
        )
    if folder["blocked"]:
        yield Trouble(f"{plural(folder['blocked'], 'file')} of {name} may not be read")
    if folder["backlog"]:
        words = f"{plural(folder['backlog'], 'file')} of {name} wait from before the first start"
        yield Trouble(words, action=f"/folders/{name}/release", label="Release them")


def _folder(name: str, folder: Mapping[str, Any], inbox: str) -> FolderPanel:
    waiting = {key: folder[key] for key in _WAITING if folder[key]}
    words = ", ".join(f"{number} {key}" for key, number in waiting.items())
    if folder["oldest_waiting"] is not None and waiting:
        words += f"; the oldest for {duration_words(folder['oldest_waiting'])}"
    return FolderPanel(
        name=name,
        inbox=inbox,
        waiting=sum(waiting.values()),
        in_flight=folder["transcribing"],
        done=folder["done"],
        failed=folder["failed"],
        words=words,
        budgets=_budgets(folder["budget"]),
    )


def _provider(name: str, provider: Mapping[str, Any]) -> ProviderPanel:
    held = provider["state"] == "held"
    words = one_line(provider["reason"] or "") if held else f"{provider['in_flight']} in flight"
    return ProviderPanel(
        name, provider["state"], "bad" if held else "good", words, _budgets(provider["budget"])
    )


def _budgets(budget: Mapping[str, Any] | None) -> list[BudgetBar]:
    bars = []
    for period, account in (budget or {}).items():
        if not account:
            continue
        share = account["spent"] / account["limit"] if account["limit"] else 1.0
        unit = "" if account["unit"] == "money" else f" {account['unit']}"
        spent = f"{account['spent']:.2f} of {account['limit']:.2f}{unit}"
        words = f"{spent} spent {'today' if period == 'per_day' else 'this month'}"
        tone = "spent" if share >= 1 else "low" if share >= 0.8 else ""
        bars.append(BudgetBar(words, min(100, round(100 * share)), tone))
    return bars


# A file -------------------------------------------------------------------------------------------


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
    """What is known of a recording and its transcript, for people."""
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


# The chart ----------------------------------------------------------------------------------------


_BAR_STEP, _BAR_WIDTH, _BAR_HEIGHT = 40, 28, 80


@dataclass(frozen=True, slots=True)
class Bar:
    """One day of the chart, in the units of its SVG."""

    day: str
    label: str
    x: int
    done_y: float
    done_height: float
    failed_y: float
    failed_height: float
    words: str


@dataclass(frozen=True, slots=True)
class Chart:
    """Files a day."""

    bars: list[Bar]
    width: int
    words: str


def chart_of(days: Sequence[tuple[str, int, int]]) -> Chart:
    """The chart of (day as YYYY-MM-DD, done, failed), oldest first."""
    most = max([done + failed for _, done, failed in days] + [1])
    bars = []
    for number, (day, done, failed) in enumerate(days):
        done_height, failed_height = _BAR_HEIGHT * done / most, _BAR_HEIGHT * failed / most
        bars.append(
            Bar(
                day=day,
                label=day[8:],
                x=number * _BAR_STEP + (_BAR_STEP - _BAR_WIDTH) // 2,
                done_y=_BAR_HEIGHT - done_height,
                done_height=done_height,
                failed_y=_BAR_HEIGHT - done_height - failed_height,
                failed_height=failed_height,
                words=f"{day}: {done} done, {failed} failed",
            )
        )
    total = sum(done + failed for _, done, failed in days)
    return Chart(bars, max(1, len(days)) * _BAR_STEP, f"{plural(total, 'file')} in {len(days)} days")
