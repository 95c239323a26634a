"""Explains one path in sentences, from its job, its folder and the daemon's report."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator

from dropscribe.config.model import Config, FolderRule
from dropscribe.core.errors import AudioError
from dropscribe.core.model import JobState
from dropscribe.core.naming import sidecar_ending, spellings, split_pattern
from dropscribe.core.text.printing import path_text, shell_word
from dropscribe.files.audio import describe_forbidden
from dropscribe.intake.pending import FIRST_LOOK_WORDS
from dropscribe.queue.sql import backlog
from dropscribe.queue.sql.database import Connection
from dropscribe.queue.sql.history import JobRecord, read_filed, read_filed_with_stem, read_records
from dropscribe.queue.sql.intake_queries import read_inboxes
from dropscribe.reports import inbox_reader
from dropscribe.reports.job_explanation import (
    Explanation,
    ended_words,
    error_beside,
    explain_record,
    paid_words,
)
from dropscribe.reports.locations import Place, filed_place, find_places, folder_at
from dropscribe.reports.queue_reader import NOT_MOUNTED, QueueView
from dropscribe.reports.timed_calls import ask_disk, ask_disk_or, stands_at
from dropscribe.reports.transcript_reader import doubts_about, possible_formats
from dropscribe.transcripts.document import WARNING_WORDS

_NOTHING_THERE = "nothing is there, and the queue has no record of it"
_ASK_OTHERS = "ask on a node that has it"


def explain(config: Config, file: bytes, view: QueueView) -> tuple[Place | None, Explanation]:
    """Explain *file* by the first rule that knows it, else by the innermost rule."""
    places = find_places(config, file)
    if not places:
        return None, _explain_elsewhere(config, os.path.abspath(file), view)
    told = [
        (place, (_explain_inbox if place.part == "inbox" else _explain_filed)(place, view))
        for place in places
    ]
    known = next((pair for pair in told if pair[1].state != "unknown"), None)
    if known is None and (removed := _explain_removed(config, os.path.abspath(file), view)):
        return None, removed
    place, explanation = known or told[0]
    record = explanation.record
    if record is not None and record.state is JobState.DONE and record.filed_here:
        doubts = doubts_about(filed_place(place.rule, record.filed_here))
        explanation.words += [WARNING_WORDS.get(doubt, doubt) for doubt in doubts]
    return place, explanation


def _explain_elsewhere(config: Config, file: bytes, view: QueueView) -> Explanation:
    """Explain a path that is below no folder of the config."""
    if removed := _explain_removed(config, file, view):
        return removed
    if found := folder_at(config, file):
        return Explanation("unknown", [f"it is the {found[1]} folder of {found[0].name}: name a file in it"])
    inboxes = ", ".join(str(rule.inbox) for rule in config.folders.values())
    known = f"the inboxes are: {inboxes}" if inboxes else "the config has no folders"
    return Explanation("unknown", ["it is in no inbox, done or failed folder of the config", known])


def _explain_removed(config: Config, file: bytes, view: QueueView) -> Explanation | None:
    """Explain a file of a rule that has left the config; None if the queue does not know it."""
    if view.db is None:
        return None
    records = read_filed(view.db, file)
    for folder, inbox in read_inboxes(view.db).items():
        if file.startswith(root := os.fsencode(inbox) + b"/"):
            records += read_records(view.db, folder, file.removeprefix(root))
    record = next((record for record in records if record.folder not in config.folders), None)
    if record is None:
        return None
    words = f"its folder {record.folder} is not in the config any more"
    if not record.state.is_live:
        return Explanation(record.state, [words, *ended_words(record, view.now)], record=record)
    waits = [f"{words}: it waits until the folder is there again", *paid_words(record)]
    return Explanation("unavailable", waits, f"add the folder {record.folder} again", record)


def _explain_inbox(place: Place, view: QueueView) -> Explanation:
    rule = place.rule
    records = read_records(view.db, rule.name, place.path) if view.db else []
    if live := next((record for record in records if record.state.is_live), None):
        return explain_job(live, rule, view)
    if rule.name in view.not_mounted:
        if records:
            return explain_job(records[0], rule, view)
        return Explanation("unknown", [NOT_MOUNTED, "the queue has no record of it"], _ASK_OTHERS)
    if unavailable := _unavailable_words(rule):
        return Explanation("unavailable", [unavailable, "its files wait, and go on by themselves"])
    if unread := _unread_words(rule, place.path, view):
        return _blocked(unread)
    return _explain_without_job(records, place, view)


def explain_job(record: JobRecord, rule: FolderRule, view: QueueView) -> Explanation:
    """Explain a job of *rule*, and what keeps its inbox or its file from being read now."""
    explanation = explain_record(record, rule, view)
    if rule.name in view.not_mounted:
        explanation.words.append(NOT_MOUNTED)
    elif record.state.is_live:
        trouble = _unavailable_words(rule)
        if not trouble and (unread := _unread_words(rule, record.path, view)):
            trouble = f"it may not be read: {unread}"
        explanation.words[:0] = filter(None, [trouble])
    return explanation


def _unavailable_words(rule: FolderRule) -> str:
    reason = inbox_reader.unavailable_reason(rule)
    return f"the inbox is unavailable: {reason}" if reason else ""


def _unread_words(rule: FolderRule, path: bytes, view: QueueView) -> str:
    """Reason why the daemon or this process cannot read the file, or list a folder on its way, or ""."""
    return view.forbidden_words(rule.name, path) or inbox_reader.unlistable_words(rule, path)


def _explain_without_job(records: list[JobRecord], place: Place, view: QueueView) -> Explanation:
    """Explain a path in an inbox that can be listed, and that no live job has."""
    try:
        found = inbox_reader.entry_at(place.rule, place.path)
    except OSError as error:
        return _unseen(place, error)
    if found is None:
        if records:
            return explain_record(records[0], place.rule, view)
        return Explanation("unknown", [_NOTHING_THERE])
    if found.reason:
        words = [f"the rule does not take it: {found.reason}", "it stays where it is"]
        return Explanation("not_taken", words)
    explanation = _explain_waiting(place, view)
    if records:
        before = ended_words(records[0], view.now)[0]
        explanation.words.append(f"a file of this name was here before: {before}")
    return explanation


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
    if not inbox_reader.may_read(place.rule, place.path):
        return _unseen(place, PermissionError())
    said = view.waiting_of(place.rule.name).get(path_text(place.path))
    if said and said != FIRST_LOOK_WORDS:
        return Explanation("settling", [f"it is not taken yet: {said}"])
    try:
        sign = inbox_reader.unsettled_words(place.rule, place.path)
    except AudioError as error:
        sign = error.reason
    except OSError as error:
        sign = error.strerror or str(error)
    signs = [sign] if sign else []
    if view.has_running("watch"):
        return Explanation("settling", ["it has just arrived, and is looked at", *signs])
    if view.is_running:
        words = "no node that watches inboxes runs: all have the role work"
        return Explanation("settling", [words, *signs], "start a node with the role all or watch")
    starts, remedy = "it is taken when dropscribe is started", "dropscribe run, or its service"
    if place.rule.backlog == "ask" and backlog.is_first_start(view.db, place.rule.name):
        starts = "it is from before the rule's first start, and waits until it is released (backlog: ask)"
        remedy += f"\ndropscribe release --folder {shell_word(place.rule.name)}"
    return Explanation("settling", [starts, *signs], remedy)


def _explain_filed(place: Place, view: QueueView) -> Explanation:
    if place.rule.name in view.not_mounted:
        return Explanation("unknown", [NOT_MOUNTED], _ASK_OTHERS)
    for record in _records_filed(view.db, place) if view.db else ():
        if record.folder == place.rule.name:
            return explain_record(record, place.rule, view)
    try:
        is_present = ask_disk(place.absolute, lambda: stands_at(place.absolute))
    except OSError as error:
        return _unseen(place, error)
    if not is_present:
        return Explanation("unknown", [_NOTHING_THERE])
    if told := error_beside(place.absolute):
        words = f"it failed at {told.get('failed_at')}: {told.get('code')}: {told.get('reason')}"
        remedy = f"fix the cause, then run: dropscribe retry {shell_word(path_text(place.absolute))}"
        return Explanation("failed", [words, "the queue has no record of it any more"], remedy)
    return Explanation("unknown", [f"it is in {place.part}, but the queue knows nothing of it (any more)"])


def _records_filed(db: Connection, place: Place) -> list[JobRecord]:
    found = read_filed(db, place.absolute)
    for base in () if found else _bases_of_sidecar(place):
        if found := read_filed(db, base) or read_filed_with_stem(db, base):
            break
    if found:
        return found
    # An earlier daemon may have spelt the folder in another way, such as through a link.
    records = read_records(db, place.rule.name, place.path)
    return [each for each in records if each.filed_here and filed_place(place.rule, each.filed_here) == place]


def _bases_of_sidecar(place: Place) -> Iterator[bytes]:
    """The recordings' names, or their stems, to which a file of that name may be a sidecar or companion."""
    folder, name = os.path.split(place.absolute)
    affixes = [(b"", sidecar_ending(form)) for form in possible_formats(place.rule)]
    for spelling in itertools.chain.from_iterable(map(spellings, place.rule.companions)):
        before, _, after = map(os.fsencode, split_pattern(os.fsdecode(spelling)))
        affixes.append((before, after))
    for before, after in affixes:
        middle = name.removeprefix(before).removesuffix(after)
        if middle and before + middle + after == name:
            yield os.path.join(folder, middle)
            if middle.endswith(b".transcript"):
                yield os.path.join(folder, middle.removesuffix(b".transcript"))
