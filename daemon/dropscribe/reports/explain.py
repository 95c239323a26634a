"""Explains one file in sentences, from its row, its folder and the daemon's report."""

from __future__ import annotations

import os
import shlex
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from dropscribe.core.budget import BUDGET_CODE
from dropscribe.core.companions import spellings, split_pattern
from dropscribe.core.model import JobState
from dropscribe.core.naming import sidecar_ending
from dropscribe.core.retry import REUSED
from dropscribe.core.routing import BACKLOG
from dropscribe.core.text.printing import path_text
from dropscribe.files.audio import describe_forbidden
from dropscribe.files.beneath import closing, open_root
from dropscribe.pipeline.deduplication import DUPLICATE
from dropscribe.publish.error_file import error_names, read_error
from dropscribe.queue.sql.history import read_filed, read_filed_with_stem, read_records
from dropscribe.reports import inbox_reader
from dropscribe.reports.file_reader import sign_words
from dropscribe.reports.patience import ask_disk, ask_disk_or, is_gone, is_there, stands_at
from dropscribe.reports.queue_reader import NOT_MOUNTED
from dropscribe.reports.queued_words import failure_words, queued_words
from dropscribe.reports.transcript_reader import possible_formats
from dropscribe.reports.wording import plural, shell_path, time_words

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dropscribe.config.model import FolderRule
    from dropscribe.queue.sql.history import JobRecord
    from dropscribe.reports.locations import Place
    from dropscribe.reports.queue_reader import QueueView


_FIRST_LOOK = "to be looked at"
"""The daemon's first sentence about a new file (intake/state.py)."""


@dataclass(slots=True)
class Explanation:
    """The answer to ``why``.

    Attributes:
        state: The state in the counts of ``status`` (queued, held, …, done, failed), or ``withdrawn``,
            ``not_taken``, ``unavailable``, ``unknown``.
        words: Sentences, the most important first.
        remedy: A step for the user, or "".
        record: The job that they are about, or None.
    """

    state: str
    words: list[str] = field(default_factory=list)
    remedy: str = ""
    record: JobRecord | None = None


def explain_inbox(place: Place, view: QueueView, now: float) -> Explanation:
    """Explain a path in an inbox, whether a file is there or not."""
    records = read_records(view.db, place.rule.name, place.path) if view.db else []
    if place.rule.name in view.not_mounted:
        return _explain_not_mounted(records, place, view, now)
    reason = inbox_reader.unavailable_reason(place.rule)
    unread = "" if reason else _unread_words(place, view)
    live = next((record for record in records if record.state.is_live), None)
    if live is not None:
        explanation = explain_record(live, place, view, now)
        if reason or unread:
            words = f"the inbox is unavailable: {reason}" if reason else f"it may not be read: {unread}"
            explanation.words.insert(0, words)
        return explanation
    if reason:
        return Explanation(
            "unavailable", [f"the inbox is unavailable: {reason}", "its files wait, and go on by themselves"]
        )
    return _blocked(unread) if unread else _explain_without_job(records, place, view, now)


def _explain_without_job(records: list[JobRecord], place: Place, view: QueueView, now: float) -> Explanation:
    """Explain a path in an inbox that can be listed, and that no live job has."""
    try:
        found = inbox_reader.found_at(place.rule, place.path)
    except OSError as error:
        return _unseen(place, error)
    if found is None:
        return _explain_gone(records, place, view, now)
    if found.reason:
        return Explanation(
            "not_taken", [f"the rule does not take it: {found.reason}", "it stays where it is"]
        )
    explanation = _explain_waiting(place, view)
    if records:
        explanation.words.append(f"a file of this name was here before: {_ended_words(records[0], now)[0]}")
    return explanation


def _explain_not_mounted(records: list[JobRecord], place: Place, view: QueueView, now: float) -> Explanation:
    """Explain a file that this node does not have, from the cluster's queue."""
    if not records:
        return Explanation(
            "unknown", [NOT_MOUNTED, "the queue has no record of it"], "ask on a node that has it"
        )
    explanation = explain_record(records[0], place, view, now)
    explanation.words.append(NOT_MOUNTED)
    return explanation


def _explain_gone(records: list[JobRecord], place: Place, view: QueueView, now: float) -> Explanation:
    if records:
        return explain_record(records[0], place, view, now)
    return Explanation("unknown", ["nothing is there, and the queue has no record of it"])


def _unread_words(place: Place, view: QueueView) -> str:
    """Reason why the daemon or this process cannot read the file or list its folder, with the remedy."""
    words = view.forbidden_words(place.rule.name, place.path)
    return words or inbox_reader.unlistable_words(place.rule, place.path)


def _blocked(words: str) -> Explanation:
    """Explain a file that may not be read; in *words* the remedy follows the reason after "; "."""
    reason, _, remedy = words.partition("; ")
    return Explanation("blocked", [f"it may not be read: {reason}"], remedy)


def _unseen(place: Place, error: OSError) -> Explanation:
    """Explain a path that the system does not say anything about: no proof that nothing is there."""
    if isinstance(error, PermissionError):
        return _blocked(ask_disk_or("", place.root, lambda: describe_forbidden(place.root, place.path)))
    return Explanation("unavailable", [f"it cannot be looked at: {error.strerror or error}"])


def _explain_waiting(place: Place, view: QueueView) -> Explanation:
    """Explain a file without a job: it settles, or cannot be read."""
    if not inbox_reader.may_read(place.rule, place.path):
        return _blocked(describe_forbidden(place.root, place.path))
    said = view.live_of(place.rule.name).get("waiting", {}).get(path_text(place.path))
    if said and said != _FIRST_LOOK:
        return Explanation("settling", [f"it is not taken yet: {said}"])
    signs = sign_words(place.rule, place.path)
    if view.is_running:
        return Explanation("settling", ["it has just arrived, and is looked at", *signs])
    return Explanation(
        "settling", ["it is taken when dropscribe is started", *signs], "dropscribe run, or its service"
    )


def explain_filed(place: Place, view: QueueView, now: float) -> Explanation:
    """Explain a path in done or failed: the audio, or one of its sidecars."""
    if place.rule.name in view.not_mounted:
        return Explanation("unknown", [NOT_MOUNTED], "ask on a node that has it")
    for record in _records_filed(place, view):
        if record.folder == place.rule.name:
            return explain_record(record, place, view, now)
    try:
        is_present = ask_disk(place.absolute, lambda: stands_at(place.absolute))
    except OSError as error:
        return _unseen(place, error)
    if not is_present:
        return Explanation("unknown", ["nothing is there, and the queue has no record of it"])
    told = _explain_by_error_file(place)
    return told or Explanation(
        "unknown", [f"it is in {place.part}, but the queue knows nothing of it (any more)"]
    )


def _records_filed(place: Place, view: QueueView) -> list[JobRecord]:
    if view.db is None:
        return []
    if found := read_filed(view.db, place.absolute):
        return found
    for base in _bases_of_sidecar(place):
        if found := read_filed(view.db, base) or read_filed_with_stem(view.db, base):
            return found
    return []


def _bases_of_sidecar(place: Place) -> Iterator[bytes]:
    """The recordings' names, or their stems, to which a file of that name may be a sidecar or companion."""
    folder, name = os.path.split(place.absolute)
    for before, after in _affixes(place.rule):
        middle = name.removeprefix(before).removesuffix(after)
        if middle and before + middle + after == name:
            yield os.path.join(folder, middle)
            if middle.endswith(b".transcript"):
                yield os.path.join(folder, middle.removesuffix(b".transcript"))


def _affixes(rule: FolderRule) -> Iterator[tuple[bytes, bytes]]:
    """The parts of the names of sidecars and companions before and after the recording's name or stem."""
    for form in possible_formats(rule):
        yield b"", sidecar_ending(form)
    for pattern in rule.companions:
        for spelling in spellings(pattern):
            before, _, after = split_pattern(os.fsdecode(spelling))
            yield os.fsencode(before), os.fsencode(after)


def _explain_by_error_file(place: Place) -> Explanation | None:
    """Explain a failed file from its error file, if the queue has no row for it."""
    error = _error_beside(place.absolute)
    if error is None:
        return None
    words = f"it failed at {error.get('failed_at')}: {error.get('code')}: {error.get('reason')}"
    return Explanation(
        "failed",
        [words, "the queue has no record of it any more"],
        f"fix the cause, then run: dropscribe retry {shell_path(place.absolute)}",
    )


def _error_beside(audio: bytes) -> dict[str, object] | None:
    """The error document beside the failed audio *audio*, absolute, or *audio* itself where it is one."""
    folder, name = os.path.split(audio)

    def read() -> dict[str, object] | None:
        with closing(open_root(folder)) as opened:
            found = (read_error(opened, each) for each in (name, *error_names(name)))
            return next((error for error in found if error is not None), None)

    return ask_disk_or(None, folder, read)


def explain_record(record: JobRecord, place: Place, view: QueueView, now: float) -> Explanation:
    """Explain a job."""
    state = record.state.value
    match record.state:
        case JobState.QUEUED:
            state, words = queued_words(record, place, view, now)
        case JobState.TRANSCRIBING if record.remote_id:
            state, words = "at_provider", _at_provider_words(record, view, now)
        case JobState.TRANSCRIBING:
            words = [_transcribing_words(record, view, now)]
        case JobState.TRANSCRIBED | JobState.REJECTED:
            state, words = "publishing", _publishing_words(record, view, now)
        case _:
            words = _ended_words(record, now)
    remedy = _remedy(record, state, view)
    return Explanation(state, words + _paid_words(record), remedy, record)


def _at_provider_words(record: JobRecord, view: QueueView, now: float) -> list[str]:
    since = time_words(record.remote_at or now, now)
    words = [f"it waits at the provider {record.provider} since {since}, as its job {record.remote_id}"]
    if record.code or record.reason:
        words.append(f"the last poll of it failed: {failure_words(record)}")
    if not view.is_running:
        words.append("the next start of dropscribe asks for the result; nothing is sent again")
    elif record.due_at > now:
        words.append(f"its result is polled again {time_words(record.due_at, now)}")
    return words


def _transcribing_words(record: JobRecord, view: QueueView, now: float) -> str:
    since = time_words(record.tries[-1].at, now) if record.tries else "now"
    if view.is_running:
        at = f"it is with provider {record.provider} since {since}"
        return at + _node_words(record, view, now)
    was = f"it was with provider {record.provider} (since {since}) when the daemon ended"
    return f"{was}; the next start sends it again"


def _node_words(record: JobRecord, view: QueueView, now: float) -> str:
    """The node that works on the file, and the consequence if that node is silent."""
    if not record.node:
        return ""
    node = view.node(record.node)
    if node is not None and not node.is_silent(view.now()):
        return f", on node {record.node}"
    last = "has stopped" if node is None else f"had its last heartbeat {time_words(node.beat_at, now)}"
    return f", on node {record.node}, which {last}: another node takes it over"


def _publishing_words(record: JobRecord, view: QueueView, now: float) -> list[str]:
    what = "its answer is stored" if record.state is JobState.TRANSCRIBED else "it can never be transcribed"
    where = "done" if record.state is JobState.TRANSCRIBED else "failed"
    failure = f"{what}, but could not be put into {where}: {failure_words(record)}"
    if not view.is_running:
        # The row may still have the code of an attempt that failed before the answer came.
        old_codes = {tried.code for tried in record.tries}
        is_stuck = record.due_at and record.code and record.code not in old_codes
        again = "that is tried again when dropscribe is started; nothing is sent or paid for again"
        return [failure, again] if is_stuck else [what, f"it goes to {where} when dropscribe is started"]
    if record.due_at > now:
        again = f"that is tried again {time_words(record.due_at, now)}; nothing is sent or paid for again"
        return [failure, again]
    return [f"{what}; it is being put into {where}{_node_words(record, view, now)}"]


def _ended_words(record: JobRecord, now: float) -> list[str]:
    at = time_words(record.ended_at, now) if record.ended_at else "some time ago"
    if record.state is JobState.DONE and record.tries and record.tries[-1].code == REUSED:
        words = f"nothing was sent: {record.tries[-1].reason}"
        return [f"its answer was known, and it was filed {at}", words, f"it is in {_filed_words(record)}"]
    if record.state is JobState.DONE:
        by = f"{record.provider}, on node {record.node}," if record.node else record.provider
        return [f"it was transcribed by {by} and filed {at}", f"it is in {_filed_words(record)}"]
    if record.state is JobState.FAILED:
        on = f" on node {record.node}" if record.node else ""
        return [f"it failed {at}{on}: {_failure_words(record)}", f"it is in {_filed_words(record)}"]
    return [f"it was dropped from the queue {at}: {record.reason or 'the file was gone'}"]


def _failure_words(record: JobRecord) -> str:
    """The failure's reason from the error file; if that is gone, from the last attempt."""
    error = _error_beside(record.filed_here) if record.filed_here else None
    if error:
        return f"{error.get('code')}: {error.get('reason')}"
    last = next((attempt for attempt in reversed(record.tries) if attempt.code), None)
    return f"{last.code}: {last.reason}" if last else failure_words(record)


def _filed_words(record: JobRecord) -> str:
    if record.filed is None:
        return "an unknown place"
    if record.filed_here is None:
        return f"{path_text(record.filed[2:])}, beneath a root of the queue that this node does not have"
    gone = " (it is not there any more)" if is_gone(record.filed) else ""
    return path_text(record.filed) + gone


def _paid_words(record: JobRecord) -> list[str]:
    interrupted = sum(attempt.code == "interrupted" for attempt in record.tries)
    words = []
    if record.ambiguous:
        words.append(
            f"{plural(record.ambiguous, 'attempt')} sent whole got no answer: each may have been paid for"
        )
    if interrupted:
        words.append(
            f"the daemon's end cut off {plural(interrupted, 'attempt')}: each may have been paid for"
        )
    return words


def _remedy(record: JobRecord, state: str, view: QueueView) -> str:
    if record.state is JobState.FAILED and record.filed_here and is_there(record.filed_here):
        audio = shell_path(record.filed_here)
        if record.tries and record.tries[-1].code == DUPLICATE:
            return f"to have it again: dropscribe forget {audio}, then dropscribe retry {audio}"
        return f"fix the cause, then run: dropscribe retry {audio}"
    if not record.state.is_live:
        return ""
    steps = []
    if not view.is_running:
        steps.append("start dropscribe: dropscribe run, or its service")
    # A start alone releases neither a backlog nor a spent budget.
    if record.pin == BACKLOG:
        steps.insert(0, f"dropscribe release --folder {shlex.quote(record.folder)}")
    elif state == "held" and any(BUDGET_CODE in stop.code for stop in view.stops):
        steps.append("raise the budget in the config, or wait until the budget resets")
    elif state == "held" and view.is_running:
        steps.append("dropscribe check --online asks the provider; nothing needs to be done for this file")
    return "\n".join(steps)
