"""Explains one job in sentences, from its row: its state, the reason for its wait, its end, the remedy."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

from dropscribe.config.model import FolderRule
from dropscribe.core.budget import BUDGET_CODE
from dropscribe.core.model import JobState, ScopeKind
from dropscribe.core.retry import DUPLICATE, REUSED
from dropscribe.core.routing import BACKLOG
from dropscribe.core.text.printing import path_text, plural, shell_word
from dropscribe.files.beneath import closing, open_root
from dropscribe.publish.return_to_inbox import ERROR_ENDING, find_error, read_error
from dropscribe.queue.sql.history import JobRecord
from dropscribe.queue.sql.rows import TAKEN_BACK
from dropscribe.reports.queue_reader import QueueView
from dropscribe.reports.timed_calls import ask_disk_or, is_there, stands_at
from dropscribe.reports.waiting import failure_words, holds_on, listed_state, queued_words
from dropscribe.reports.wording import time_words


@dataclass(slots=True)
class Explanation:
    """The answer to ``why``."""

    # The state in the counts of ``status`` (queued, held, …, done, failed), or ``withdrawn``, ``not_taken``,
    # ``unavailable``, ``unknown``.
    state: str
    words: list[str] = field(default_factory=list)  # Sentences, the most important first
    remedy: str = ""  # A step for the user, or ""
    record: JobRecord | None = None  # The job that they are about, or None


def error_beside(audio: bytes) -> dict[str, object]:
    """The error document of the failed *audio*, absolute, or of that error file itself; {} without one."""
    folder, name = os.path.split(audio)

    def read() -> dict[str, object]:
        with closing(open_root(folder)) as opened:
            if name.endswith(ERROR_ENDING):
                return read_error(opened, name) or {}
            return find_error(opened, name)[1]

    return ask_disk_or({}, folder, read)


def explain_record(record: JobRecord, rule: FolderRule, view: QueueView) -> Explanation:
    """Explain a job of *rule* by its row alone, and by the error file of a failed one."""
    state = listed_state(record, rule, view).word
    match state:
        case "queued" | "deferred" | "held":
            words = queued_words(record, rule, view)
        case "at_provider":
            words = _at_provider_words(record, view)
        case "transcribing":
            words = [_transcribing_words(record, view)]
        case "publishing":
            words = _publishing_words(record, view)
        case _:
            words = ended_words(record, view.now)
    return Explanation(state, words + paid_words(record), _remedy(record, state, rule, view), record)


def _at_provider_words(record: JobRecord, view: QueueView) -> list[str]:
    since = time_words(record.remote_at or view.now, view.now)
    words = [f"it waits at the provider {record.provider} since {since}, as its job {record.remote_id}"]
    if record.code or record.reason:
        words.append(f"the last poll of it failed: {failure_words(record)}")
    if not view.is_running:
        words.append("the next start of dropscribe asks for the result; nothing is sent again")
    elif record.due_at > view.now:
        words.append(f"its result is polled again {time_words(record.due_at, view.now)}")
    return words


def _transcribing_words(record: JobRecord, view: QueueView) -> str:
    since = time_words(record.tries[-1].at, view.now) if record.tries else "now"
    if view.is_running:
        return f"it is with provider {record.provider} since {since}{_node_words(record, view)}"
    was = f"it was with provider {record.provider} (since {since}) when the daemon ended"
    return f"{was}; the next start sends it again"


def _node_words(record: JobRecord, view: QueueView) -> str:
    """The node that works on the file, and the consequence if that node is silent."""
    if not record.node:
        return ""
    node = next((node for node in view.nodes or () if node.name == record.node), None)
    if node is not None and not node.is_silent(view.now):
        return f", on node {record.node}"
    last = "has stopped" if node is None else f"had its last heartbeat {time_words(node.beat_at, view.now)}"
    return f", on node {record.node}, which {last}: another node takes it over"


def _publishing_words(record: JobRecord, view: QueueView) -> list[str]:
    is_answered = record.state is JobState.TRANSCRIBED
    what = "its answer is stored" if is_answered else "it can never be transcribed"
    where = "done" if is_answered else "failed"
    failure = f"{what}, but could not be put into {where}: {failure_words(record)}"
    again = "that is tried again {}; nothing is sent or paid for again"
    if not view.is_running:
        # The row may still have the code of an attempt that failed before the answer came.
        old_codes = {tried.code for tried in record.tries}
        if record.due_at and record.code and record.code not in old_codes:
            return [failure, again.format("when dropscribe is started")]
        return [what, f"it goes to {where} when dropscribe is started"]
    if record.due_at > view.now:
        return [failure, again.format(time_words(record.due_at, view.now))]
    return [f"{what}; it is being put into {where}{_node_words(record, view)}"]


def ended_words(record: JobRecord, now: float) -> list[str]:
    """The end of a job, and the place of its file."""
    at = time_words(record.ended_at, now) if record.ended_at else "some time ago"
    if record.state is JobState.DONE and record.tries and record.tries[-1].code == REUSED:
        known = f"its answer was known, and it was filed {at}"
        words = [known, f"nothing was sent: {record.tries[-1].reason}"]
    elif record.state is JobState.DONE:
        by = f"{record.provider}, on node {record.node}," if record.node else record.provider
        words = [f"it was transcribed by {by} and filed {at}"]
    elif record.state is JobState.FAILED:
        on = f" on node {record.node}" if record.node else ""
        words = [f"it failed {at}{on}: {_failure_words(record)}"]
    elif record.reason == TAKEN_BACK:
        return [f"it failed {at}, and was {TAKEN_BACK} after that"]
    else:
        return [f"it was dropped from the queue {at}: {record.reason or 'the file was gone'}"]
    return [*words, f"it is in {_filed_words(record)}"]


def _failure_words(record: JobRecord) -> str:
    """The failure's reason from the error file; if that is gone, from the last attempt."""
    if error := error_beside(record.filed_here) if record.filed_here else {}:
        return f"{error.get('code')}: {error.get('reason')}"
    last = next((attempt for attempt in reversed(record.tries) if attempt.code), None)
    return f"{last.code}: {last.reason}" if last else failure_words(record)


def _filed_words(record: JobRecord) -> str:
    if record.filed is None:
        return "an unknown place"
    if (place := record.filed_here) is None:
        return f"{path_text(record.filed[2:])}, beneath a root of the queue that this node does not have"
    is_gone = ask_disk_or(False, place, lambda: not stands_at(place))
    return path_text(place) + (" (it is not there any more)" if is_gone else "")


def paid_words(record: JobRecord) -> list[str]:
    """A sentence for each kind of attempt that may have been paid for and gave no answer."""
    interrupted = sum(attempt.code == "interrupted" for attempt in record.tries)
    lost = {"{} sent whole got no answer": record.ambiguous, "the daemon's end cut off {}": interrupted}
    counted = [words.format(plural(number, "attempt")) for words, number in lost.items() if number]
    return [f"{words}: each may have been paid for" for words in counted]


def _remedy(record: JobRecord, state: str, rule: FolderRule, view: QueueView) -> str:
    if record.state is JobState.FAILED and record.filed_here and is_there(record.filed_here):
        audio = shell_word(path_text(record.filed_here))
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
        steps.insert(0, f"dropscribe release --folder {shell_word(record.folder)}")
    elif state == "held":
        holds = holds_on(record.pin, rule, view)
        if any(hold.code == BUDGET_CODE for hold in holds):
            steps.append("raise the budget in the config, or wait until the budget resets")
        elif any(hold.scope.kind is ScopeKind.FOLDER for hold in holds):
            steps.append("correct the params of the rule or of its provider in the config, and reload it")
        elif view.is_running:
            steps.append(
                "dropscribe check --online asks the provider; nothing needs to be done for this file"
            )
    return "\n".join(steps)
