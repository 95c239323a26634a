"""Reads of the pages from the queue and from users' folders. Blocking: runs in a thread of its own."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, time, timedelta
from typing import Any

from dropscribe.config.model import Config
from dropscribe.core.errors import AudioError
from dropscribe.core.model import JobState
from dropscribe.core.naming import TEMPLATE
from dropscribe.files.audio import AudioFile, open_beneath
from dropscribe.queue.sql.history import FileFilter, JobRecord, read_files, read_record
from dropscribe.queue.sql.history import read_page as read_listed_page
from dropscribe.queue.sql.stats import Ended, read_ended
from dropscribe.reports.explain import explain_job
from dropscribe.reports.job_explanation import Explanation
from dropscribe.reports.locations import Place, filed_place
from dropscribe.reports.queue_reader import QueueView, view_queue
from dropscribe.reports.timed_calls import ask_disk
from dropscribe.reports.transcript_reader import possible_formats, read_document, sidecar_paths
from dropscribe.reports.waiting import listed_state
from dropscribe.web import views

LIST_ROWS = 8
PAGE_ROWS = 50
CHART_DAYS = 14
AUDIO = ""
"""Form of a job's audio, beside the output formats and the endings of templates' outputs."""

STATES = {
    "": ("all", ()),
    "waiting": ("waiting", (JobState.QUEUED, JobState.TRANSCRIBED, JobState.REJECTED)),
    "transcribing": ("in flight", (JobState.TRANSCRIBING,)),
    "done": ("done", (JobState.DONE,)),
    "failed": ("failed", (JobState.FAILED,)),
}
"""Name of a filter, and the jobs that it chooses, by its value in a page's address."""


def id_of(text: str | None) -> int | None:
    """The id of a job in an address; None for anything that the database could not hold."""
    return int(text) if text and text.isdecimal() and len(text) < 19 else None


def filter_of(folder: str, chosen: Mapping[str, str]) -> FileFilter:
    """The jobs of *folder* that the parts of an address choose; malformed parts are left out."""
    try:
        since = datetime.fromisoformat(chosen["since"]).astimezone().timestamp() if chosen["since"] else None
    except (ValueError, OverflowError):
        since = None
    return FileFilter(
        folders=[folder],
        states=STATES.get(chosen["state"], STATES[""])[1],
        since=since,
        text=chosen["q"],
        provider=chosen["provider"],
        code=chosen["code"],
        before_id=id_of(chosen["before"]),
    )


def read_lists(
    config: Config, sending: Mapping[int, AudioFile]
) -> tuple[dict[str, list[views.Row]], list[tuple[str, Ended]]]:
    """The newest files by state, and how many ended on each of the last days; *sending* as in PageSource."""
    lists: dict[str, list[views.Row]] = {state: [] for state in STATES if state}
    names = list(config.folders)
    with view_queue(config) as view:
        lists["waiting"] += _inbox_rows(view, names)[:LIST_ROWS]
        if view.db is None or not names:
            return lists, []
        for state, rows in lists.items():
            for job in read_files(view.db, FileFilter(folders=names, states=STATES[state][1]), LIST_ROWS):
                row_state = listed_state(job, config.folders[job.folder], view)
                rows.append(views.file_row(job, row_state, view.now, sending.get(job.id)))
        starts = day_starts(view.now)
        ended = read_ended(view.db, names, [start.timestamp() for start in starts])
        return lists, [(f"{start:%Y-%m-%d}", each) for start, each in zip(starts, ended, strict=True)]


def day_starts(now: float) -> list[datetime]:
    """The local midnights of the last days, each at the offset of its own day."""
    today = datetime.fromtimestamp(now).astimezone().date()
    days = [today - timedelta(days=days) for days in reversed(range(CHART_DAYS))]
    return [datetime.combine(day, time.min).astimezone() for day in days]


def _inbox_rows(view: QueueView, folders: Sequence[str], text: str = "") -> list[views.Row]:
    """Files that have no job yet and *text* in their path, the blocked ones first.

    They come from the report of the daemon: no file system is waited for, and their number is limited.
    """
    rows = [
        views.inbox_row(folder, path, str(reason))
        for folder in folders
        if view.live_of(folder).get("available")
        for path, reason in view.waiting_of(folder).items()
        if text in path
    ]
    return sorted(rows, key=lambda row: row.state != "blocked")


def read_page(config: Config, wanted: FileFilter) -> tuple[list[views.Row], int | None, int]:
    """One page of the files of a folder, at most :data:`PAGE_ROWS` with a job and as many without one.

    Returns the rows, the id after which the next page begins (None on the last one), and the number of files
    without a job that are left out.
    """
    with view_queue(config) as view:
        rows, unlisted = _page_of_inbox(view, wanted)
        if view.db is None:
            return rows, None, unlisted
        jobs, older_than = read_listed_page(view.db, wanted, PAGE_ROWS)
        rules = config.folders
        rows += [views.file_row(job, listed_state(job, rules[job.folder], view), view.now) for job in jobs]
        return rows, older_than, unlisted


def _page_of_inbox(view: QueueView, wanted: FileFilter) -> tuple[list[views.Row], int]:
    """Files without a job, and the number of those left out, which is known for a page of all of them."""
    is_of_jobs = wanted.provider or wanted.code or wanted.before_id is not None
    if is_of_jobs or (wanted.states and JobState.QUEUED not in wanted.states):
        return [], 0
    rows = _inbox_rows(view, wanted.folders, wanted.text)[:PAGE_ROWS]
    if wanted.text:
        return rows, 0
    states = [view.live_of(folder) for folder in wanted.folders]
    count = sum(int(state.get(kind, 0)) for state in states for kind in ("settling", "blocked"))
    return rows, max(0, count - len(rows)) if rows else 0


def unavailable_reason(config: Config, folder: str) -> str:
    """Reason why the daemon cannot use an inbox, from its last report; "" where it can, or has none yet."""
    with view_queue(config) as view:
        state = view.live_of(folder)
    return "" if state.get("available", True) else str(state.get("reason") or "the daemon gives no reason")


@dataclass(frozen=True, slots=True)
class FileDetails:
    """One job with its files on disk."""

    record: JobRecord
    explanation: Explanation
    forms: Collection[str] = ()  # of the files that are there: AUDIO, and those of sidecars
    document: Mapping[str, Any] = field(default_factory=dict)  # the transcript's JSON, where it can be read
    is_silent: bool = False  # whether the file system does not answer, so that nothing is known of the files


def read_job(config: Config, job_id: str) -> JobRecord | None:
    """The job with the id in an address, of a rule that the config has; None where there is none."""
    number = id_of(job_id)
    with view_queue(config) as view:
        record = read_record(view.db, number) if view.db and number is not None else None
    return record if record is not None and record.folder in config.folders else None


def read_details(config: Config, record: JobRecord) -> FileDetails:
    """The job with its files; they are waited for no longer than :data:`timed_calls.ANSWER_SECONDS`."""
    place = place_of(config, record)
    files: dict[str, Any] = {}
    try:
        if place is not None:
            files = ask_disk(place.root, lambda: _read_files(place))
    except OSError:
        files = {"is_silent": True}
    with view_queue(config) as view:
        explanation = explain_job(record, config.folders[record.folder], view)
    return FileDetails(record, explanation, **files)


def _read_files(place: Place) -> dict[str, Any]:
    files = dict(_files_at(place))
    has_document = place.part == "done" and "json" in files
    document = read_document(place.root, files["json"]) if has_document else None
    return {"forms": files, "document": document or {}}


def find_part(config: Config, record: JobRecord, form: str) -> tuple[bytes, bytes] | None:
    """(folder, path below it) of one of a job's files, by its form; None where it is not there."""
    place = place_of(config, record)
    if place is None:
        return None
    return next(((place.root, path) for found, path in _files_at(place) if found == form), None)


def _files_at(place: Place) -> Iterator[tuple[str, bytes]]:
    """(form, path) of the audio at *place* and of the sidecars beside it, those of them that are there."""
    forms = [] if place.part == "inbox" else possible_formats(place.rule)
    paths = {form.removeprefix(TEMPLATE): sidecar_paths(place.rule, place.path, form) for form in forms}
    for form, possible in {AUDIO: [place.path], **paths}.items():
        if path := next((path for path in possible if _is_there(place.root, path)), None):
            yield form, path


def place_of(config: Config, record: JobRecord) -> Place | None:
    """Place of a job's audio: in done or failed once the job ended, else in its inbox."""
    rule = config.folders.get(record.folder)
    if rule is None or (record.filed and not record.filed_here):
        return None
    if (filed := record.filed_here) is None:
        return Place(rule, "inbox", record.path)
    return filed_place(rule, filed)


def _is_there(root: bytes, path: bytes) -> bool:
    with contextlib.suppress(AudioError, OSError):
        os.close(open_beneath(root, path))
        return True
    return False
