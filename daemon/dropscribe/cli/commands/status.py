"""``dropscribe status``: counts of waiting, running, held, done and failed files, and problems."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
from typing import Any

from dropscribe.cli.options import read_reporting_config
from dropscribe.config.model import Config, FolderRule
from dropscribe.core.model import JobState
from dropscribe.core.text.printing import amount_words, duration_words, path_text, plural, utc_text
from dropscribe.queue.model import Stats, build_plan
from dropscribe.queue.sql.history import FileFilter, read_files
from dropscribe.queue.sql.stats import has_live_job, read_stats
from dropscribe.reports.inbox_reader import files_without_job, unavailable_reason
from dropscribe.reports.queue_reader import QueueView, view_queue
from dropscribe.reports.timed_calls import ask_disk_or, stands_at
from dropscribe.reports.troubles import Trouble, troubles_of
from dropscribe.reports.wording import (
    next_request_at,
    provider_word,
    render_table,
    terminal_width,
    time_words,
    unix_time,
    wrap,
)
from dropscribe.service.status import WAITING_STATES, WATCHED_ELSEWHERE, status_document

_NEWEST_FAILED = 3  # the number of failed files that are named


def execute(options: argparse.Namespace) -> None:
    """Print the status as one JSON object, or as text with the problems first."""
    config = read_reporting_config(options)
    with view_queue(config) as view:
        document = read_status(config, view)
    text = json.dumps(document, indent=2) + "\n" if options.json else render_status(document, view.now)
    sys.stdout.write(text)


def read_status(config: Config, view: QueueView) -> dict[str, Any]:
    """The object that ``status --json`` prints; while the daemon is down, this process reads the inboxes."""
    view.freeze()
    stats = read_stats(view.db, build_plan(config), view.now) if view.db else Stats({}, (), nodes=view.nodes)
    look = _caught_up if view.is_here else _look_at_inbox
    folders = {rule.name: look(rule, view) for rule in config.folders.values() if config.watches(rule)}
    live = {**(view.live if view.is_here else {}), "folders": folders}
    document = status_document(config, stats, live, running=view.is_running, now=view.now)
    return document | {"newest_failed": _newest_failed(config, view)}


def _newest_failed(config: Config, view: QueueView) -> list[dict[str, Any]]:
    if view.db is None or not config.folders:
        return []
    wanted = FileFilter(folders=list(config.folders), states=[JobState.FAILED])
    return [
        {
            "folder": job.folder,
            "file": path_text(job.filed or job.path),
            "code": job.code or None,
            "reason": job.reason or None,
            "at": utc_text(job.ended_at or job.received_at),
        }
        for job in read_files(view.db, wanted, _NEWEST_FAILED)
    ]


def _caught_up(rule: FolderRule, view: QueueView) -> dict[str, Any]:
    """The daemon's report of an inbox without the files that were queued since: each file counts once."""
    live = view.live_of(rule.name)
    settling = int(live.get("settling", 0))
    paths = [os.fsencode(path) for path in live.get("waiting", ())] if settling else []

    def is_missing(path: bytes) -> bool:
        with contextlib.suppress(OSError):
            return not stands_at(os.path.join(os.fsencode(rule.inbox), path))
        return False

    # None is missing if the inbox's file system does not answer.
    gone: set[bytes] = ask_disk_or(set(), rule.inbox, lambda: set(filter(is_missing, paths)))
    gone.update(path for path in paths if view.db and has_live_job(view.db, rule.name, path))
    left = max(0, settling - len(gone))
    oldest_at = live.get("oldest_settling_at") if left or live.get("blocked") else None
    return {**live, "settling": left, "oldest_settling_at": oldest_at and oldest_at + view.ahead_seconds}


def _look_at_inbox(rule: FolderRule, view: QueueView) -> dict[str, Any]:
    """Files of an inbox without a job: those that settle, and those that may not be read."""
    last_watch = view.live.get("folders", {}).get(rule.name, {}).get("watch", "native")
    watch = last_watch if rule.watch == "auto" else rule.watch
    if reason := unavailable_reason(rule):
        return {"watch": watch, "available": False, "reason": reason}
    counts = {False: 0, True: 0}
    arrivals: list[float] = []
    for found, is_blocked in files_without_job(rule, view):
        counts[is_blocked] += 1
        if found.status is not None and not found.is_unlistable:
            arrivals.append(found.status.st_ctime + view.ahead_seconds)
    return {
        "watch": watch,
        "available": True,
        "settling": counts[False],
        "blocked": counts[True],
        "oldest_settling_at": min(arrivals, default=None),
    }


def render_status(document: dict[str, Any], now: float) -> str:
    """The status as text for people."""
    width = terminal_width()
    troubles = [
        "  " + wrap(_trouble_words(each, now), width - 2, "    ") for each in troubles_of(document, now)
    ]
    found = sum(folder["suspect"] for folder in document["folders"].values())
    suspect = f"{plural(found, 'doubtful transcript')} so far; 'list --suspect' names files and warnings"
    newest = [
        [_when(file["at"], now), file["code"] or "", file["file"]] for file in document["newest_failed"]
    ]
    parts = [
        "\n".join([_headline(document, is_troubled=bool(troubles)), *troubles]),
        _node_table(document, now),
        _folder_table(document, now),
        wrap(suspect, width, "  ") if found else "",  # below the table: nothing is wrong with the daemon
        render_table(["NEWEST FAILED", "CODE", "FILE"], newest) if newest else "",
        _provider_table(document, now),
        _budget_table(document),
    ]
    return "\n\n".join(filter(None, parts)) + "\n"


def _headline(document: dict[str, Any], *, is_troubled: bool) -> str:
    nodes = document["nodes"]
    if not document["running"]:
        nobody = "dropscribe is not running" if nodes is None else "no node is running"
        return f"{nobody}: start it to process files." + (" And:" if is_troubled else "")
    words = "dropscribe is running"
    if nodes is not None:
        words += f" on {plural(sum(not node['silent'] for node in nodes), 'node')}"
    return f"{words}, but:" if is_troubled else f"{words}, and nothing is wrong."


def _trouble_words(trouble: Trouble, now: float) -> str:
    since = f"since {time_words(trouble.since, now)}" if trouble.since else ""
    next_at = time_words(trouble.next_at, now) if trouble.next_at else ""
    times = ", ".join(filter(None, [since, f"{trouble.next_words} {next_at}".strip()]))
    return "; ".join(filter(None, [trouble.words, trouble.commands, times]))


def _when(text: str, now: float) -> str:
    return time_words(unix_time(text), now)


def _node_table(document: dict[str, Any], now: float) -> str:
    rows = [
        [
            *(node[key] for key in ("name", "host", "role", "version")),
            "silent" if node["silent"] else "beating",
            str(node["in_flight"]),
            _when(node["started_at"], now),
        ]
        for node in document["nodes"] or ()
    ]
    head = ["NODE", "HOST", "ROLE", "VERSION", "STATE", "IN FLIGHT", "STARTED"]
    return render_table(head, rows, numbers=["IN FLIGHT"]) if rows else ""


def _folder_table(document: dict[str, Any], now: float) -> str:
    rows = []
    for name, folder in document["folders"].items():
        waits = [f"{folder[key]} {key}" for key in WAITING_STATES if folder[key]]
        if folder["at_provider"]:
            since = _when(folder["at_provider_since"], now)
            waits.append(f"{folder['at_provider']} waiting at the provider since {since}")
        inbox = folder["watch"] if folder["available"] else "unavailable"
        inbox = "left to other nodes" if folder["watch"] == WATCHED_ELSEWHERE else inbox
        waiting, oldest = sum(folder[key] for key in WAITING_STATES), folder["oldest_waiting"]
        counts = (waiting, folder["transcribing"] + folder["at_provider"], folder["done"], folder["failed"])
        age = "-" if oldest is None else duration_words(oldest)
        rows.append([name, inbox, *map(str, counts), age, ", ".join(waits)])
    numbers = ["WAITING", "IN FLIGHT", "DONE", "FAILED"]
    return render_table(["FOLDER", "INBOX", *numbers, "OLDEST", "WHAT WAITS"], rows, numbers=numbers)


def _provider_table(document: dict[str, Any], now: float) -> str:
    rows = []
    for name, provider in document["providers"].items():
        words = provider_word(provider)
        if words == "ready" and (next_at := next_request_at(provider, now)):
            words += f", its rate limit allows the next request {time_words(next_at, now)}"
        rows.append([name, words, str(provider["in_flight"])])
    return render_table(["PROVIDER", "STATE", "IN FLIGHT"], rows, numbers=["IN FLIGHT"])


def _budget_table(document: dict[str, Any]) -> str:
    rows = []
    accounts = [
        (f"{kind} {name}", period.removeprefix("per_"), account)
        for kind in ("provider", "folder")
        for name, part in document[f"{kind}s"].items()
        for period, account in (part["budget"] or {}).items()
    ]
    for name, period, account in accounts:
        if account:
            unit = "" if account["unit"] == "money" else f" {account['unit']}"
            amounts = [amount_words(account[key]) + unit for key in ("limit", "spent", "left")]
            unknown = plural(account["unknown_files"], "file") if account["unknown_files"] else "-"
            rows.append([name, period, *amounts, unknown])
    numbers = ["LIMIT", "SPENT", "LEFT"]
    return render_table(["BUDGET", "PER", *numbers, "NOT KNOWN"], rows, numbers=numbers) if rows else ""
