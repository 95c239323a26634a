"""``dropscribe plan``: a dry run. Nothing is sent, nothing is changed, no queue is made."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dropscribe.cli.options import read_config
from dropscribe.config.model import Config, FolderRule
from dropscribe.core.errors import AudioError
from dropscribe.core.links import MAX_LINK_BYTES, LinkRefused, check_link, is_link, read_link
from dropscribe.core.model import JobState, ScopeKind
from dropscribe.core.routing import BACKLOG, provider_for
from dropscribe.core.text.printing import amount_words, path_text, plural
from dropscribe.files.audio import open_beneath
from dropscribe.files.beneath import closing
from dropscribe.intake.pending import BLOCKED_WORDS
from dropscribe.native.decoder import probe_seconds
from dropscribe.queue.model import Pause
from dropscribe.queue.sql import backlog
from dropscribe.queue.sql.history import read_live_states
from dropscribe.reports.inbox_reader import InboxEntry, unavailable_reason, unsettled_words, walk_inbox
from dropscribe.reports.queue_reader import NOT_MOUNTED, QueueView, view_queue
from dropscribe.reports.timed_calls import LISTING_SECONDS, ask_disk
from dropscribe.reports.waiting import current_pauses, holds_on, paused_words
from dropscribe.reports.wording import bytes_words, clock_words, printable_line, render_table, time_words

MOST_OPENED = 2000
MOST_SECONDS = 30.0
"""Limits of one plan: files that are opened, and seconds; all other files are judged by name."""

_WAITS = "waits for 'dropscribe release' (backlog: ask)"


def execute(options: argparse.Namespace) -> None:
    """Print for each inbox the effect of a run."""
    config = read_config(options, acts=False)
    with view_queue(config) as view:
        planner = Planner(config, view)
        folders = {name: planner.plan_folder(rule) for name, rule in config.folders.items()}
    if options.json:
        document = {"schema": "dropscribe.plan/1", "opened": planner.opened, "folders": folders}
        sys.stdout.write(json.dumps(document) + "\n")
    else:
        for part in render_plan(config, folders, planner):
            sys.stdout.write(part + "\n")


@dataclass(slots=True)
class Planner:
    """Judges the files of the inboxes; it opens a bounded number of them, within a bounded time."""

    config: Config
    view: QueueView
    opened: int = 0  # Files that were opened
    skipped: int = 0  # Files that were judged by their name alone
    _began_at: float = field(default_factory=time.monotonic)
    _pauses: dict[str, Pause] = field(init=False)  # By provider

    def __post_init__(self) -> None:
        self._pauses = current_pauses(self.view)

    def plan_folder(self, rule: FolderRule) -> dict[str, Any]:
        """One folder of ``plan --json``: every name in the inbox, and sums over the files that will be sent.

        Every key is always there; unknown values are null, and so is the cost without a price.
        """
        is_elsewhere = rule.name in self.view.not_mounted
        reason = NOT_MOUNTED if is_elsewhere else unavailable_reason(rule)
        states = read_live_states(self.view.db, rule.name) if self.view.db else {}
        planned = [self._judge(rule, found, states) for found in (() if reason else walk_inbox(rule))]
        sent = [file for file, is_sent in planned if is_sent]
        if rule.backlog == "ask" and backlog.is_first_start(self.view.db, rule.name):
            for file in sent:
                file["reason"] = file["reason"] or _WAITS
        prices = {name: self.config.providers[name].price_per_minute or 0.0 for name in rule.providers}
        used = {file["provider"] for file in sent} or rule.providers[:1]
        cost = sum(((file["seconds"] or 0.0) / 60 * prices[file["provider"]] for file in sent), 0.0)
        seconds = [file["seconds"] for file in sent]
        return {
            "available": reason is None or is_elsewhere,
            "reason": reason,
            "files": [
                {**file, "seconds": file["seconds"] and round(file["seconds"], 3)} for file, _ in planned
            ],
            "totals": {
                "files": len(sent),
                "bytes": sum(file["bytes"] for file in sent),
                "seconds": round(sum(filter(None, seconds), 0.0), 3),
                "files_of_unknown_length": seconds.count(None),
                "cost": round(cost, 6) if self._is_priced(used) and not is_elsewhere else None,
                "not_taken": sum(not file["taken"] for file, _ in planned),
            },
        }

    def _is_priced(self, used: Iterable[str]) -> bool:
        """Whether the cost at the providers *used* is known; only the embedded engine may have no price."""
        providers = [self.config.providers[name] for name in used]
        unpriced = [each.type for each in providers if each.price_per_minute is None]
        return len(unpriced) < len(providers) and all(kind == "local" for kind in unpriced)

    def _judge(
        self, rule: FolderRule, found: InboxEntry, states: Mapping[bytes, tuple[JobState, float, str]]
    ) -> tuple[dict[str, Any], bool]:
        """One file of ``plan --json``, and whether it will go to a provider, as far as can be told now."""
        size_bytes = found.size_bytes
        file = {"path": path_text(found.path), "taken": True, "state": "new", "reason": found.reason}
        file |= {"provider": None, "bytes": size_bytes, "seconds": None}
        if found.reason or size_bytes is None:
            return file | {"taken": False, "state": "not_taken"}, False
        provider = self._provider_for(rule, size_bytes)
        reason, seconds, refusal = self._look(rule, found.path)
        file |= {"provider": provider, "seconds": seconds}
        if state := next((states[key] for key in found.identities() if key in states), None):
            is_sent = state[0] in {JobState.QUEUED, JobState.TRANSCRIBING}
            provider = state[2] if state[2] in rule.providers else provider
            wait = self._wait_words(rule, provider, state[2])
            words = (wait if state[0] is JobState.QUEUED else None) or _live_words(*state, self.view.now)
            return file | {"provider": provider, "state": state[0].value, "reason": words}, is_sent
        most = self.config.providers[provider].max_upload_bytes
        if most is not None and size_bytes > most and rule.sends_as_dropped:
            words = f"larger than max_upload ({bytes_words(most)}): it goes to failed, unsent"
            refusal = words + (", unless it is silent" if rule.silence == "skip" else "")
        if refusal:
            return file | {"reason": refusal}, False
        if forbidden := self.view.forbidden_words(rule.name, found.path):
            reason = BLOCKED_WORDS + forbidden
        is_blocked = reason is not None and reason.startswith(BLOCKED_WORDS)
        reason = reason or self._wait_words(rule, provider)
        return file | {"reason": reason}, size_bytes > 0 and not is_blocked

    def _provider_for(self, rule: FolderRule, size_bytes: int) -> str:
        """The first provider that is not held; with a fallback from refusals, of those that take the size."""
        limits = {name: self.config.providers[name].max_upload_bytes for name in rule.providers}
        taking = [name for name, most in limits.items() if most is None or size_bytes <= most]
        is_refused = rule.fallback != "held" and rule.sends_as_dropped
        names = taking if taking and is_refused else rule.providers
        held = {scope.name for scope in self.view.holds if scope.kind is ScopeKind.PROVIDER}
        paused = {name for name, pause in self._pauses.items() if pause.is_long_at(self.view.now)}
        is_strict = rule.fallback == "refused"
        found = (provider_for("", names, closed, is_strict=is_strict) for closed in (held | paused, held))
        return next(filter(None, found), names[0])

    def _wait_words(self, rule: FolderRule, provider: str, pin: str = "") -> str | None:
        """The hold or pause that a file of *rule* waits for, assigned to *pin*, which goes to *provider*."""
        if pin == BACKLOG:
            return None
        if hold := next(iter(holds_on(pin, rule, self.view)), None):
            return f"waits: {hold.scope.kind} {hold.scope.name} is held: {hold.reason}"
        pause = self._pauses.get(provider)
        return f"waits: {paused_words(provider, pause, self.view.now)}" if pause else None

    def _look(self, rule: FolderRule, path: bytes) -> tuple[str | None, float | None, str | None]:
        """(why it is not taken at once, seconds, why it fails unsent); None each: not so, or unknown."""
        if self.opened >= MOST_OPENED or time.monotonic() - self._began_at > MOST_SECONDS:
            self.skipped += 1
            return None, None, None
        self.opened += 1

        def read() -> tuple[float | None, str | None]:
            with closing(open_beneath(os.fsencode(rule.inbox), path)) as descriptor:
                return probe_seconds(descriptor), _refused_link(rule, path, descriptor)

        try:
            return unsettled_words(rule, path), *ask_disk(rule.inbox, read, seconds=LISTING_SECONDS)
        except AudioError as error:
            return BLOCKED_WORDS + error.reason, None, None
        except OSError as error:
            return error.strerror or str(error), None, None


def _refused_link(rule: FolderRule, path: bytes, descriptor: int) -> str | None:
    """Words about a link file that the rule refuses; None for all other files."""
    suffix = os.path.splitext(path_text(path))[1].lower()
    if rule.links and is_link(suffix) and (content := os.pread(descriptor, MAX_LINK_BYTES + 1, 0)):
        try:
            check_link(read_link(suffix, content), rule.link_hosts)
        except LinkRefused as refused:
            return f"{refused}: it goes to failed, unsent"
    return None


def _live_words(state: JobState, due_at: float, pin: str, now: float) -> str:
    if state is JobState.TRANSCRIBING:
        return "it is with the provider"
    if state is not JobState.QUEUED:
        return "it has its answer, and waits to be filed"
    if pin == BACKLOG:
        return _WAITS
    return f"tried again {time_words(due_at, now)}" if due_at > now else "it is in the queue already"


def render_plan(config: Config, folders: Mapping[str, dict[str, Any]], planner: Planner) -> Iterator[str]:
    """The plan for people: one table for each folder, then the totals."""
    for name, folder in folders.items():
        yield f"{name}: {config.folders[name].inbox}"
        if folder["reason"]:
            yield f"  {'' if folder['available'] else 'unavailable: '}{printable_line(folder['reason'])}\n"
        else:
            yield (_files_table(folder["files"]) if folder["files"] else "  the inbox is empty") + "\n"
    if folders:
        yield _totals_table(folders)
    unknown = sum(folder["totals"]["files_of_unknown_length"] for folder in folders.values())
    if unknown:
        yield f"\nThe length of {plural(unknown, 'file')} is not known."
    if planner.skipped:
        yield f"{plural(planner.opened, 'file')} opened, {planner.skipped:,} judged by name alone."


def _files_table(files: Sequence[dict[str, Any]]) -> str:
    states = {"not_taken": "left alone: ", "new": ""}
    rows = [
        [
            file["path"],
            file["provider"] or "-",
            "-" if file["bytes"] is None else bytes_words(file["bytes"]),
            "-" if file["seconds"] is None else clock_words(file["seconds"]),
            states.get(file["state"], f"{file['state']}: ") + (file["reason"] or "would be taken"),
        ]
        for file in files
    ]
    head = ["FILE", "PROVIDER", "SIZE", "LENGTH", "WHAT HAPPENS"]
    return render_table(head, rows, numbers=["SIZE", "LENGTH"])


def _totals_table(folders: Mapping[str, dict[str, Any]]) -> str:
    rows = []
    for name, folder in folders.items():
        totals = folder["totals"]
        hours, cost = f"{totals['seconds'] / 3600:.2f}", "-"
        if totals["cost"] is not None:
            cost = amount_words(totals["cost"])
        if unknown := totals["files_of_unknown_length"]:  # with them both amounts grow
            least = "not known" if unknown == totals["files"] else "at least {}"
            hours, cost = least.format(hours), cost if cost == "-" else least.format(cost)
        size = bytes_words(totals["bytes"])
        rows.append([name, str(totals["files"]), size, hours, cost, str(totals["not_taken"])])
    head = ["FOLDER", "TO SEND", "SIZE", "HOURS", "COST", "LEFT ALONE"]
    return render_table(head, rows, numbers=head[1:])
