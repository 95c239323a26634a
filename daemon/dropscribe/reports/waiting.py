"""States of listed files, and the reasons that a queued one waits: holds, pauses, its folder, its turn."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import NamedTuple

from dropscribe.config.model import FolderRule
from dropscribe.core.budget import BUDGET_CODE
from dropscribe.core.model import Hold, JobState, Scope, ScopeKind
from dropscribe.core.routing import BACKLOG, provider_for
from dropscribe.core.text.printing import plural
from dropscribe.queue.model import MOST_REMOTE_JOBS, NOT_MOVABLE, Pause, probes_at
from dropscribe.queue.sql.history import JobRecord, ListedFile, count_before
from dropscribe.queue.sql.rows import read_at_provider
from dropscribe.queue.sql.stats import read_current_pauses
from dropscribe.reports.queue_reader import QueueView
from dropscribe.reports.wording import SHORT_WAIT_SECONDS, time_words

_LONGEST_WAIT_SECONDS = 366 * 86_400.0
"""A rate limit may be so low that its next request is beyond all calendars."""

_BACKLOG_WORDS = "waits until it is released (backlog: ask)"


class ListedState(NamedTuple):
    """The state of one listed file."""

    # As ``status`` counts it: queued, deferred, held, transcribing, at_provider, publishing, done or failed.
    word: str
    code: str  # Of the hold that a held file waits for; otherwise of its last failure, or ""
    reason: str  # The same in words


def listed_state(job: ListedFile, rule: FolderRule, view: QueueView) -> ListedState:
    """The state of *job*, which is one of *rule*."""
    word = job.state.value
    if job.state is JobState.QUEUED:
        if job.pin == BACKLOG:
            return ListedState("held", "", _BACKLOG_WORDS)
        if holds := holds_on(job.pin, rule, view):
            return ListedState("held", holds[0].code, holds[0].reason)
        word = "deferred" if job.due_at > view.now else "queued"
    elif job.at_provider_since is not None:
        word = "at_provider"
    elif job.state in {JobState.TRANSCRIBED, JobState.REJECTED}:
        word = "publishing"
    return ListedState(word, job.code, job.reason)


def queued_words(record: JobRecord, rule: FolderRule, view: QueueView) -> list[str]:
    """The reasons that a queued job waits."""
    now = view.now
    pauses = current_pauses(view)
    words = _hold_words(record, rule, pauses, view)
    if view.is_running and view.live.get("trouble"):
        words.append(f"nothing is sent now: {view.live['trouble']}")
    if closed := view.live_of(record.folder).get("reason"):
        words.append(f"its folder waits: {closed}")
    if record.due_at > now:
        again = f"it is tried again {time_words(record.due_at, now)}"
        words.append(f"{again}, because of {failure_words(record)}")
    elif record.code == NOT_MOVABLE:
        words.append(f"it could not be moved, and nothing was sent: {record.reason}")
    takes_its_turn = not words
    paused = {name for name, pause in pauses.items() if pause.is_long_at(now)}
    if provider := _provider_of(record.pin, rule, view, paused) or _provider_of(record.pin, rule, view):
        words += _provider_words(provider, pauses.get(provider), view)
    words += [f"{tried.provider} refused it ({tried.code})" for tried in record.tries if tried.refused]
    if takes_its_turn:
        words.append(_turn_words(record, provider, view))
    if record.node:
        words.append(f"node {record.node} had it last")
    return words


def failure_words(record: JobRecord) -> str:
    """The code and the reason of the job's last failure."""
    if record.code and record.reason and record.reason != record.code:
        return f"{record.code}: {record.reason}"
    return record.code or record.reason or "an earlier failure"


def _provider_words(provider: str, pause: Pause | None, view: QueueView) -> list[str]:
    if pause is not None:
        return [paused_words(provider, pause, view.now)]
    wait_seconds = view.next_starts().get(provider, 0.0) - view.now
    if wait_seconds < SHORT_WAIT_SECONDS:
        return []
    next_at = time_words(view.now + min(wait_seconds, _LONGEST_WAIT_SECONDS), view.now)
    return [f"the rate limit of provider {provider} (requests_per_minute) allows its next request {next_at}"]


def current_pauses(view: QueueView) -> dict[str, Pause]:
    """The pauses that last, by provider."""
    return read_current_pauses(view.db, view.now) if view.db else {}


def paused_words(provider: str, pause: Pause, now: float) -> str:
    """The reason for a wait that the *provider* has asked for."""
    until = time_words(pause.until, now)
    return f"provider {provider} is paused: it asked for fewer requests; the next one goes {until}"


def _turn_words(record: JobRecord, provider: str | None, view: QueueView) -> str:
    if view.is_running and not view.has_running("work"):
        return "no node that works runs: all have the role watch"
    if provider and (full_words := _full_words(provider, view)):
        return full_words
    before = count_before(view.db, record) if view.db else 0
    if not before and provider and view.is_running and view.nodes is not None:
        return f"its turn has come: provider {provider} gets it as soon as a slot is free, on any node"
    go = "goes" if before == 1 else "go"
    where = f"{plural(before, 'file')} of its folder {go} first" if before else "it is the next in the queue"
    return where if view.is_running else f"{where}, when dropscribe is started"


def _full_words(provider: str, view: QueueView) -> str:
    """Says that the provider has all the files that it may work on by itself; "" where it may have more."""
    limits = view.plan.providers.get(provider)
    at_provider = read_at_provider(view.db, view.plan.chains) if view.db else {}
    files = sum(name == provider for name in at_provider.values())
    if limits is None or files < limits.remote_jobs:
        return ""
    why = ", because of a budget" if limits.remote_jobs < MOST_REMOTE_JOBS else ""
    return (
        f"provider {provider} has {plural(files, 'file')}, and may have no more at once{why};"
        " the next one goes when one of them is answered or given up, within a day"
    )


def holds_on(pin: str, rule: FolderRule, view: QueueView) -> list[Hold]:
    """The holds that a queued job of *rule*, assigned to *pin* or "", waits for; its folder's first."""
    scopes = [Scope(ScopeKind.FOLDER, rule.name)]
    if _provider_of(pin, rule, view) is None:
        names = (pin,) if pin else rule.providers[: 1 if rule.fallback == "refused" else None]
        scopes += [Scope(ScopeKind.PROVIDER, name) for name in names]
    return [view.holds[scope] for scope in scopes if scope in view.holds]


def _provider_of(pin: str, rule: FolderRule, view: QueueView, paused: Collection[str] = ()) -> str | None:
    """The provider that the job goes to, none of *paused*; None if it waits for a hold or a release."""
    held = {scope.name for scope in view.holds if scope.kind is ScopeKind.PROVIDER}.union(paused)
    return provider_for(pin, rule.providers, held, is_strict=rule.fallback == "refused")


def _hold_words(
    record: JobRecord, rule: FolderRule, pauses: Mapping[str, Pause], view: QueueView
) -> list[str]:
    now = view.now
    if record.pin == BACKLOG:
        return [f"it was there before the rule's first start, and {_BACKLOG_WORDS}"]
    words = []
    for hold in holds_on(record.pin, rule, view):
        is_rule = hold.scope.kind is ScopeKind.FOLDER
        who = f"{'rule' if is_rule else 'provider'} {hold.scope.name}"
        if hold.code == BUDGET_CODE:
            words.append(f"{who} waits: {hold.reason}")
            continue
        probe_at = probes_at(hold, None if is_rule else pauses.get(hold.scope.name))
        probe = "the next file tries it again"
        if probe_at > now:
            probe = f"one file tries it again {time_words(probe_at, now)}"
        words += [
            f"{who} is held since {time_words(hold.since, now)}: {hold.reason}",
            f"{probe}; when that goes well, the others go on by themselves",
        ]
    return words
