"""``dropscribe list``: lists files, newest first, with their place or the reason."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from dropscribe.cli.messages import say
from dropscribe.cli.options import named, read_reporting_config
from dropscribe.config.model import Config, FolderRule
from dropscribe.core.model import LIVE_STATES, JobState
from dropscribe.core.text.printing import path_text, plural, utc_text
from dropscribe.queue.sql.history import FileFilter, ListedFile, read_files
from dropscribe.queue.sql.intake_queries import read_inboxes
from dropscribe.reports.inbox_reader import files_without_job, unavailable_reason
from dropscribe.reports.locations import filed_place
from dropscribe.reports.queue_reader import QueueView, view_queue
from dropscribe.reports.transcript_reader import doubts_about
from dropscribe.reports.waiting import ListedState, listed_state
from dropscribe.reports.wording import moment_words, reason_words, render_table

_MOST_READ = 10_000  # the most transcripts that --suspect reads


def execute(options: argparse.Namespace) -> None:
    """Print the files as a table or as one JSON object."""
    config = read_reporting_config(options)
    if options.folder:
        named(config.folders, "folder", options.folder, config)
    with view_queue(config) as view:
        unavailable = _unavailable_inboxes(config, view, options) if _asks_for_waiting(options) else {}
        rows = read_rows(config, view, options, unavailable)
    shown, more = rows[: options.limit], len(rows) > options.limit
    if options.json:
        files = [{**row, "at": utc_text(row["at"])} for row in shown]
        document = {"schema": "dropscribe.list/1", "more": more, "unavailable": unavailable, "files": files}
        sys.stdout.write(json.dumps(document, indent=2) + "\n")
    else:
        for name, reason in unavailable.items():
            say(f"folder {name}: files in its inbox are not listed: it is unavailable: {reason}")
        sys.stdout.write(_render(shown, options.limit if more else None))


def _asks_for_waiting(options: argparse.Namespace) -> bool:
    return options.waiting or not (options.failed or options.done or options.suspect)


def _unavailable_inboxes(config: Config, view: QueueView, options: argparse.Namespace) -> dict[str, str]:
    """Rule → reason, for inboxes of this machine that cannot be listed."""
    rules = [config.folders[options.folder]] if options.folder else config.folders.values()
    here = [rule for rule in rules if config.watches(rule) and rule.name not in view.not_mounted]
    return {rule.name: reason for rule in here if (reason := unavailable_reason(rule))}


def read_rows(
    config: Config, view: QueueView, options: argparse.Namespace, unavailable: Collection[str]
) -> list[dict[str, Any]]:
    """Rows of ``list --json``, newest first, ``at`` in Unix seconds; one above the limit if more."""
    left = _inboxes_of_left_rules(config, view)
    folders = [options.folder] if options.folder else [*config.folders, *left]
    since = None if options.since is None else view.now - options.since
    chosen = {JobState.FAILED: options.failed, JobState.DONE: options.done}
    chosen |= dict.fromkeys(LIVE_STATES, options.waiting)
    states = [JobState.DONE] if options.suspect else [state for state in chosen if chosen[state]]
    wanted = FileFilter(folders=folders, states=states, since=since)
    most = _MOST_READ if options.suspect else options.limit + 1
    jobs = read_files(view.db, wanted, most) if view.db and folders else []
    if options.suspect:
        suspects = (
            {**_job_row(config, view, job, left), "code": ", ".join(doubts)}
            for job in jobs
            if (rule := config.folders.get(job.folder)) and job.filed
            if (doubts := doubts_about(filed_place(rule, job.filed)))
        )
        return list(islice(suspects, options.limit + 1))
    rows = [_job_row(config, view, job, left) for job in jobs]
    if _asks_for_waiting(options):
        skipped = {*unavailable, *view.not_mounted}
        rules = [config.folders[name] for name in folders if name in config.folders and name not in skipped]
        rows += [row for rule in rules for row in _not_queued(config, rule, view, since)]
    rows.sort(key=lambda row: row["at"], reverse=True)
    return rows


def _inboxes_of_left_rules(config: Config, view: QueueView) -> Mapping[str, str]:
    """Rule → its inbox, of rules that have left the config; one with another name now has not."""
    inboxes = {str(rule.inbox) for rule in config.folders.values()}
    stored = read_inboxes(view.db) if view.db else {}
    return {
        name: inbox for name, inbox in stored.items() if name not in config.folders and inbox not in inboxes
    }


def _job_row(config: Config, view: QueueView, job: ListedFile, left: Mapping[str, str]) -> dict[str, Any]:
    rule = config.folders.get(job.folder)
    state = listed_state(job, rule, view) if rule else _state_without_rule(job)
    inbox = rule.inbox if rule else left[job.folder]
    return {
        "at": job.ended_at or job.received_at,
        "folder": job.folder,
        "state": state.word,
        "place": path_text(job.filed) if job.filed else f"{inbox}/{path_text(job.path)}",
        "provider": job.provider or None,
        "code": state.code or None,
        "reason": reason_words(job, state.reason) or None,
    }


def _state_without_rule(job: ListedFile) -> ListedState:
    """The state of a job whose rule has left the config, as ``why`` tells it."""
    if job.state.is_live:
        return ListedState("unavailable", "", f"its folder {job.folder} is not in the config any more")
    return ListedState(job.state.value, job.code, job.reason)


def _not_queued(
    config: Config, rule: FolderRule, view: QueueView, since: float | None
) -> Iterator[dict[str, Any]]:
    """Files of an inbox without a job: those that settle, and those that may not be read."""
    if not config.watches(rule):
        return
    said = view.waiting_of(rule.name)
    for found, is_blocked in files_without_job(rule, view):
        at = found.status.st_ctime if found.status else 0.0
        if since is not None and at < since:
            continue
        path = path_text(found.path)
        reason = said.get(path) or view.forbidden_words(rule.name, found.path) or found.reason
        yield {
            "at": at,
            "folder": rule.name,
            "state": "blocked" if is_blocked else "settling",
            "place": f"{rule.inbox}/{path}",
            "provider": None,
            "code": None,
            "reason": reason or ("may not be read" if is_blocked else None),
        }


def _render(rows: Sequence[dict[str, Any]], cut_at: int | None) -> str:
    if not rows:
        return "no files\n"
    cells = []
    for row in rows:
        words = ": ".join(filter(None, (row["code"], row["reason"])))
        file = f"{row['place']}  ({words})" if words else row["place"]
        cells.append([moment_words(row["at"]), row["folder"], row["state"], file])
    table = render_table(["WHEN", "FOLDER", "STATE", "FILE"], cells)
    more = f"\nThe newest {plural(cut_at, 'file')}; more with --limit.\n" if cut_at else "\n"
    return table + more
