"""``dropscribe plan``: a dry run. Nothing is sent, nothing is changed, no queue is made."""

from __future__ import annotations

import json
import os
import sys
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from dropscribe.cli import exit_codes
from dropscribe.cli.options import read_config
from dropscribe.core.errors import AudioError
from dropscribe.core.model import JobState
from dropscribe.core.routing import BACKLOG
from dropscribe.core.text.printing import amount_words, path_text
from dropscribe.files.audio import open_beneath
from dropscribe.files.beneath import closing
from dropscribe.intake.state import BLOCKED_WORDS
from dropscribe.native.decoder import probe_seconds
from dropscribe.queue.sql import backlog
from dropscribe.queue.sql.history import read_live_states
from dropscribe.reports.file_reader import unsettled_words
from dropscribe.reports.inbox_reader import Found, unavailable_reason, walk_inbox
from dropscribe.reports.patience import LISTING_SECONDS, ask_disk
from dropscribe.reports.queue_reader import NOT_MOUNTED, view_queue
from dropscribe.reports.wording import bytes_words, clock_words, one_line, plural, render_table, time_words

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator, Sequence

    from dropscribe.config.model import Config, FolderRule
    from dropscribe.reports.queue_reader import QueueView

PLAN_SCHEMA = "dropscribe.plan/1"

MOST_OPENED = 2000
MOST_SECONDS = 30.0
"""Limits of one plan: files that are opened, and seconds; all other files are judged by name."""

_WAITS = "waits for 'dropscribe release' (backlog: ask)"


def execute(options: argparse.Namespace) -> int:
    """Print for each inbox the effect of a run."""
    config = read_config(options)
    prober = Prober()
    with view_queue(config) as view:
        plans = [plan_folder(config, rule, view, prober) for rule in config.folders.values()]
    if options.json:
        sys.stdout.write(json.dumps(plan_document(plans, prober)) + "\n")
    else:
        for part in render_plan(plans, prober):
            sys.stdout.write(part + "\n")
    return exit_codes.OK


@dataclass(slots=True)
class Prober:
    """Probes files within bounds: writers, completeness, duration."""

    opened: int = 0
    skipped: int = 0
    _began_at: float = field(default_factory=time.monotonic)

    def look(self, rule: FolderRule, path: bytes) -> tuple[str, float | None]:
        """(the reason why it would not be taken at once, or ""; seconds, or None)."""
        if self.opened >= MOST_OPENED or time.monotonic() - self._began_at > MOST_SECONDS:
            self.skipped += 1
            return "", None
        self.opened += 1
        try:
            reason = unsettled_words(rule, path)
            return reason or "", ask_disk(rule.inbox, lambda: _length(rule, path), seconds=LISTING_SECONDS)
        except AudioError as error:
            return BLOCKED_WORDS + error.reason, None
        except OSError as error:
            return error.strerror or str(error), None


def _length(rule: FolderRule, path: bytes) -> float | None:
    with closing(open_beneath(os.fsencode(rule.inbox), path)) as descriptor:
        return probe_seconds(descriptor)


@dataclass(frozen=True, slots=True)
class Line:
    """One name in an inbox.

    Attributes:
        state: ``new``, a live job's state, or ``not_taken``.
        reason: Why it is not taken, or not at once; "" where nothing stands in its way.
        seconds: Of audio; None where it is not known.
        is_sent: It will go to a provider, as far as can be told now.
    """

    path: bytes
    state: str
    reason: str = ""
    provider: str = ""
    size_bytes: int | None = None
    seconds: float | None = None
    is_sent: bool = False

    @property
    def is_taken(self) -> bool:
        """Whether the rule takes it, now or a little later."""
        return self.state != "not_taken"

    @property
    def words(self) -> str:
        """The file's state, with the reason, as one text."""
        if not self.is_taken:
            return f"left alone: {self.reason}"
        if self.state == "new":
            return self.reason or "would be taken"
        return f"{self.state}: {self.reason}" if self.reason else self.state


@dataclass(frozen=True, slots=True)
class Planned:
    """One folder's plan; *reason* says why its inbox cannot be listed.

    Attributes:
        totals: Sums over the files to send, by the keys of ``plan --json``; the cost is None without a price.
        is_not_mounted: Another node lists it.
    """

    rule: FolderRule
    reason: str | None
    lines: list[Line]
    totals: dict[str, Any]
    is_not_mounted: bool = False


def plan_folder(config: Config, rule: FolderRule, view: QueueView, prober: Prober) -> Planned:
    """Judge every name in the inbox."""
    if rule.name in view.not_mounted:
        totals = {**_totals(config, rule, []), "cost": None}
        return Planned(rule, NOT_MOUNTED, [], totals, is_not_mounted=True)
    reason = unavailable_reason(rule)
    states = read_live_states(view.db, rule.name) if view.db else {}
    lines = [] if reason else [_line(config, rule, found, states, view, prober) for found in walk_inbox(rule)]
    if rule.backlog == "ask" and backlog.is_first_start(view.db, rule.name):
        lines = [_as_backlog(line) for line in lines]
    return Planned(rule, reason, lines, _totals(config, rule, lines))


def _as_backlog(line: Line) -> Line:
    return replace(line, reason=line.reason or _WAITS) if line.is_sent else line


def _line(
    config: Config,
    rule: FolderRule,
    found: Found,
    states: dict[bytes, tuple[JobState, float, str]],
    view: QueueView,
    prober: Prober,
) -> Line:
    size_bytes = found.status.st_size if found.status and found.is_file else None
    if found.reason or size_bytes is None:
        return Line(found.path, "not_taken", found.reason or "it is no file", size_bytes=size_bytes)
    provider = _provider_for(config, rule, size_bytes)
    state = next((states[key] for key in found.identities() if key in states), None)
    reason, seconds = prober.look(rule, found.path)
    if forbidden := view.forbidden_words(rule.name, found.path):
        reason = BLOCKED_WORDS + forbidden
    limit_bytes = config.providers[provider].max_upload_bytes
    if state is not None:
        is_sent = state[0] in {JobState.QUEUED, JobState.TRANSCRIBING}
        words = _live_words(state, view.now)
        return Line(found.path, state[0].value, words, provider, size_bytes, seconds, is_sent)
    if limit_bytes is not None and size_bytes > limit_bytes and not rule.reads_media:
        words = f"larger than max_upload ({bytes_words(limit_bytes)}): it goes to failed, unsent"
        return Line(found.path, "new", words, provider, size_bytes, seconds)
    is_sent = size_bytes > 0 and not reason.startswith(BLOCKED_WORDS)
    return Line(found.path, "new", reason, provider, size_bytes, seconds, is_sent)


def _provider_for(config: Config, rule: FolderRule, size_bytes: int) -> str:
    """The rule's first provider; with a fallback from refusals, the first that takes so large a file."""
    limits = {name: config.providers[name].max_upload_bytes for name in rule.providers}
    taking = [name for name, most in limits.items() if most is None or size_bytes <= most]
    return taking[0] if taking and rule.fallback != "held" else rule.providers[0]


def _live_words(state: tuple[JobState, float, str], now: float) -> str:
    match state:
        case (JobState.QUEUED, _, pin) if pin == BACKLOG:
            return _WAITS
        case (JobState.QUEUED, due_at, _) if due_at > now:
            return f"tried again {time_words(due_at, now)}"
        case (JobState.QUEUED, _, _):
            return "it is in the queue already"
        case (JobState.TRANSCRIBING, _, _):
            return "it is with the provider"
        case _:
            return "it has its answer, and waits to be filed"


def _totals(config: Config, rule: FolderRule, lines: list[Line]) -> dict[str, Any]:
    sent = [line for line in lines if line.is_sent]
    prices = {name: config.providers[name].price_per_minute for name in rule.providers}
    cost = sum(((line.seconds or 0.0) / 60 * (prices[line.provider] or 0.0) for line in sent), 0.0)
    return {
        "files": len(sent),
        "bytes": sum(line.size_bytes or 0 for line in sent),
        "seconds": sum((line.seconds or 0.0 for line in sent), 0.0),
        "files_of_unknown_length": sum(line.seconds is None for line in sent),
        "cost": None if prices[rule.providers[0]] is None else cost,
        "not_taken": sum(not line.is_taken for line in lines),
    }


def plan_document(plans: Sequence[Planned], prober: Prober) -> dict[str, Any]:
    """The object of ``plan --json``; every key is always there, unknown values are null."""
    return {
        "schema": PLAN_SCHEMA,
        "opened": prober.opened,
        "folders": {planned.rule.name: _folder_object(planned) for planned in plans},
    }


def _folder_object(planned: Planned) -> dict[str, Any]:
    totals = planned.totals
    return {
        "available": planned.reason is None or planned.is_not_mounted,
        "reason": planned.reason,
        "files": [_line_object(line) for line in planned.lines],
        "totals": {
            **totals,
            "seconds": round(totals["seconds"], 3),
            "cost": None if totals["cost"] is None else round(totals["cost"], 6),
        },
    }


def _line_object(line: Line) -> dict[str, Any]:
    return {
        "path": path_text(line.path),
        "taken": line.is_taken,
        "state": line.state,
        "reason": line.reason or None,
        "provider": line.provider or None,
        "bytes": line.size_bytes,
        "seconds": None if line.seconds is None else round(line.seconds, 3),
    }


def render_plan(plans: Sequence[Planned], prober: Prober) -> Iterator[str]:
    """Print the plan for people: one table for each folder, then the totals."""
    for planned in plans:
        yield f"{planned.rule.name}: {planned.rule.inbox}"
        if planned.reason:
            yield f"  {'' if planned.is_not_mounted else 'unavailable: '}{one_line(planned.reason)}\n"
        elif not planned.lines:
            yield "  the inbox is empty\n"
        else:
            yield _lines_table(planned.lines) + "\n"
    if plans:
        yield _totals_table(plans)
    yield from _notes(plans, prober)


def _lines_table(lines: Sequence[Line]) -> str:
    rows = [
        [
            path_text(line.path),
            line.provider or "-",
            "-" if line.size_bytes is None else bytes_words(line.size_bytes),
            "-" if line.seconds is None else clock_words(line.seconds),
            line.words,
        ]
        for line in lines
    ]
    return render_table(
        ["FILE", "PROVIDER", "SIZE", "LENGTH", "WHAT HAPPENS"], rows, numbers=["SIZE", "LENGTH"]
    )


def _totals_table(plans: Sequence[Planned]) -> str:
    rows = [
        [
            planned.rule.name,
            str(planned.totals["files"]),
            bytes_words(planned.totals["bytes"]),
            _at_least(f"{planned.totals['seconds'] / 3600:.2f}", planned.totals),
            _cost_words(planned.totals),
            str(planned.totals["not_taken"]),
        ]
        for planned in plans
    ]
    head = ["FOLDER", "TO SEND", "SIZE", "HOURS", "COST", "LEFT ALONE"]
    return render_table(head, rows, numbers=head[1:])


def _cost_words(totals: dict[str, Any]) -> str:
    return "-" if totals["cost"] is None else _at_least(amount_words(totals["cost"]), totals)


def _at_least(amount: str, totals: dict[str, Any]) -> str:
    """*amount*, which grows with the files of unknown length."""
    unknown = totals["files_of_unknown_length"]
    if not unknown:
        return amount
    return "not known" if unknown == totals["files"] else f"at least {amount}"


def _notes(plans: Sequence[Planned], prober: Prober) -> Iterator[str]:
    unknown = sum(planned.totals["files_of_unknown_length"] for planned in plans)
    if unknown:
        yield f"\nThe length of {plural(unknown, 'file')} is not known."
    if prober.skipped:
        yield f"{plural(prober.opened, 'file')} were opened, {prober.skipped:,} judged by name alone."
