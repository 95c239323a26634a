"""Explains what a queued job waits for: holds, pauses, its folder, a time, its turn."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dropscribe.core.budget import BUDGET_CODE
from dropscribe.core.model import Scope, ScopeKind
from dropscribe.core.routing import BACKLOG, provider_for
from dropscribe.queue.model import NOT_MOVABLE, probes_at
from dropscribe.queue.sql.history import count_before
from dropscribe.queue.sql.hold_rows import read_holds
from dropscribe.queue.sql.stats import read_current_pauses
from dropscribe.reports.wording import plural, time_words

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dropscribe.config.model import FolderRule
    from dropscribe.core.model import Hold
    from dropscribe.queue.model import Pause
    from dropscribe.queue.sql.history import JobRecord
    from dropscribe.reports.locations import Place
    from dropscribe.reports.queue_reader import QueueView

_SHORT_WAIT_SECONDS = 3.0
"""Shorter waits for a rate limit are not worth a sentence."""

BACKLOG_WORDS = "waits until it is released (backlog: ask)"

_LONGEST_WAIT_SECONDS = 366 * 86_400.0
"""A rate limit may be so low that its next request is beyond all calendars."""


def queued_words(record: JobRecord, place: Place, view: QueueView, now: float) -> tuple[str, list[str]]:
    """The state of a queued job as status counts it, and the reasons that it waits."""
    found_holds = [*view.stops, *(read_holds(view.db) if view.db else ())]
    holds = {hold.scope: hold for hold in found_holds}
    pauses = read_current_pauses(view.db, now) if view.db else {}
    words = _hold_words(record, place, holds, pauses, now)
    state = "held" if words else "deferred" if record.due_at > now else "queued"
    if view.is_running and view.live.get("trouble"):
        words.append(f"nothing is sent now: {view.live['trouble']}")
    if closed := view.live_of(record.folder).get("reason"):
        words.append(f"its folder waits: {closed}")
    if record.due_at > now:
        words.append(
            f"it is tried again {time_words(record.due_at, now)}, because of {failure_words(record)}"
        )
    elif record.code == NOT_MOVABLE:
        words.append(f"it could not be moved, and nothing was sent: {record.reason}")
    takes_its_turn = not words
    if provider := _provider_of(record.pin, place.rule, holds):
        words += _provider_words(provider, pauses.get(provider), view, now)
    words += [f"{tried.provider} refused it ({tried.code})" for tried in record.tries if tried.refused]
    if takes_its_turn:
        words.append(_turn_words(record, view))
    if record.node:
        words.append(f"node {record.node} had it last")
    return state, words


def failure_words(record: JobRecord) -> str:
    """The code and the reason of the job's last failure."""
    if record.code and record.reason and record.reason != record.code:
        return f"{record.code}: {record.reason}"
    return record.code or record.reason or "an earlier failure"


def _provider_words(provider: str, pause: Pause | None, view: QueueView, now: float) -> list[str]:
    """The reason that *provider* gets no request now, if there is one."""
    if pause is not None:
        until = time_words(pause.until, now)
        return [f"provider {provider} is paused: it asked for fewer requests; the next one goes {until}"]
    wait_seconds = view.next_starts().get(provider, 0.0) - now
    if wait_seconds <= _SHORT_WAIT_SECONDS:
        return []
    next_at = time_words(now + min(wait_seconds, _LONGEST_WAIT_SECONDS), now)
    return [f"the rate limit of provider {provider} (requests_per_minute) allows its next request {next_at}"]


def _turn_words(record: JobRecord, view: QueueView) -> str:
    if record.lane and view.is_running:
        return f"its turn has come: provider {record.lane} gets it as soon as a slot is free, on any node"
    before = count_before(view.db, record) if view.db else 0
    go = "goes" if before == 1 else "go"
    where = f"{plural(before, 'file')} of its folder {go} first" if before else "it is the next in the queue"
    return where if view.is_running else f"{where}, when dropscribe is started"


def holds_on(pin: str, rule: FolderRule, holds: Mapping[Scope, Hold]) -> list[Hold]:
    """The holds that a queued job of *rule* waits for, its folder's first; none if it may be sent.

    Args:
        pin: The provider that the job is assigned to, or "".
    """
    folder_hold = holds.get(Scope(ScopeKind.FOLDER, rule.name))
    found = [folder_hold] if folder_hold else []
    if _provider_of(pin, rule, holds) is None:
        names = (pin,) if pin else rule.providers[: 1 if rule.fallback == "refused" else None]
        found += [holds[Scope(ScopeKind.PROVIDER, name)] for name in names]
    return found


def _provider_of(pin: str, rule: FolderRule, holds: Mapping[Scope, Hold]) -> str | None:
    """The provider that the job goes to; None if it waits for a hold or a release."""
    held = {scope.name for scope in holds if scope.kind is ScopeKind.PROVIDER}
    return provider_for(pin, rule.providers, held, is_strict=rule.fallback == "refused")


def _hold_words(
    record: JobRecord, place: Place, holds: Mapping[Scope, Hold], pauses: Mapping[str, Pause], now: float
) -> list[str]:
    if record.pin == BACKLOG:
        return [f"it was there before the rule's first start, and {BACKLOG_WORDS}"]
    found = []
    for hold in holds_on(record.pin, place.rule, holds):
        name = hold.scope.name
        if hold.scope.kind is ScopeKind.FOLDER:
            found += _one_hold_words(f"rule {name}", hold, None, now)
        else:
            found += _one_hold_words(f"provider {name}", hold, pauses.get(name), now)
    return found


def _one_hold_words(who: str, hold: Hold, pause: Pause | None, now: float) -> list[str]:
    if hold.code == BUDGET_CODE:
        return [f"{who} waits: {hold.reason}"]
    probe_at = probes_at(hold, pause)
    probe = "with the next file" if probe_at <= now else time_words(probe_at, now)
    return [
        f"{who} is held since {time_words(hold.since, now)}: {hold.reason}",
        f"one file tries it again {probe}; when that goes well, the others go on by themselves",
    ]
