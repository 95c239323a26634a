"""The inboxes of one config, with their threads."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from typing import Any

import structlog

from dropscribe.config.model import FolderRule
from dropscribe.core.errors import StoreInUse
from dropscribe.core.settling import Cause
from dropscribe.core.text.printing import path_text
from dropscribe.intake.availability import TAKEN, TAKEN_BY_US
from dropscribe.intake.inbox import Inbox
from dropscribe.intake.inbox_queue import InboxQueue
from dropscribe.queue.admission import FolderGate

log = structlog.get_logger()

AWAY = "inbox"
_STOP_SECONDS = 5.0
_FIRST_LOOK_SECONDS = 3.0
_HANG_CHECK_SECONDS = 2.0
_POLL_SECONDS = 0.001
_MOST_NAMED = 3  # idle writers

INTAKE_KEYS = (
    *("inbox", "include", "exclude", "recursive", "links", "companions", "companions_wait_seconds"),
    *("settle_seconds", "settle_incomplete_seconds", "settle_ignores_writers", "min_age_seconds"),
    *("watch", "rescan_seconds"),
)
"""The keys of a rule that an inbox's thread uses; a change of any other leaves the thread running."""


class Inboxes:
    """Runs one :class:`Inbox` per rule, and forwards the pipeline's requests to it.

    Args:
        on_news: Called in the event loop when an inbox has news.
        owner_token: Identifies the queue in owner files; None if other daemons share it, and so the inboxes.
    """

    def __init__(
        self, folders: FolderGate, queue: InboxQueue, on_news: Callable[[], None], owner_token: str | None
    ) -> None:
        self._folders = folders
        self._queue = queue
        self._on_news = on_news
        self._owner_token = owner_token
        self._loop = asyncio.get_running_loop()
        self._inboxes: dict[str, Inbox] = {}
        self._ending: set[Inbox] = set()
        self._reported: set[Inbox] = set()
        self._hanging: set[Inbox] = set()
        self._next_check: asyncio.TimerHandle | None = None

    async def prepare(self, rules: Mapping[str, FolderRule]) -> Mapping[str, Inbox]:
        """Start and lock the inboxes of *rules*, before any old one is stopped; returns all of them by name.

        Those whose rule has not changed are the old ones. A file system that hangs is not waited for. Raises
        StoreInUse if another daemon has one of the new inboxes, or if two rules have the same folder by paths
        that do not show it (a bind mount); nothing has changed then.
        """
        unchanged = {
            name: inbox
            for name, inbox in self._inboxes.items()
            if name in rules
            and all(getattr(inbox.rule, key) == getattr(rules[name], key) for key in INTAKE_KEYS)
        }
        new = {name: self._make(rules[name]) for name in rules if name not in unchanged}
        with contextlib.ExitStack() as undo:
            undo.callback(self.discard, new)
            for inbox in new.values():
                inbox.start()
            await _until_all(new.values(), lambda inbox: inbox.has_looked, _FIRST_LOOK_SECONDS)
            seen = Counter(inbox.seen_folder for inbox in (*unchanged.values(), *new.values()))
            for inbox in new.values():
                reason = inbox.state().reason
                # Our own old threads may still hold locks: the thread of a changed rule until commit, the
                # thread of a rule that was removed and is now back until it has ended.
                if reason == TAKEN or (reason == TAKEN_BY_US and seen[inbox.seen_folder] > 1):
                    remedy = "give each its own inbox"
                    remedy = f"stop the other daemon, or {remedy}" if reason == TAKEN else remedy
                    raise StoreInUse(str(inbox.rule.inbox), reason, remedy)
            undo.pop_all()
        return {**unchanged, **new}

    def discard(self, prepared: Mapping[str, Inbox]) -> None:
        """Undo :meth:`prepare`."""
        self._end({*prepared.values()} - {*self._inboxes.values()})

    def commit(self, prepared: Mapping[str, Inbox]) -> None:
        """Stop the inboxes that are not needed any more and let the new ones take files."""
        old, self._inboxes = self._inboxes, dict(prepared)
        self._end({*old.values()} - {*prepared.values()})
        for name in old.keys() - prepared.keys():
            self._folders.open(name, AWAY)
        for name, inbox in prepared.items():
            if inbox is not old.get(name):
                self._folders.close(name, AWAY, "its inbox is being looked at")
                inbox.begin()
        if self._next_check is None:
            self._check_for_hangs()

    def _end(self, inboxes: Collection[Inbox]) -> None:
        for inbox in inboxes:
            inbox.stop()
        self._reported.difference_update(inboxes)
        self._ending = {inbox for inbox in (*self._ending, *inboxes) if inbox.is_alive()}

    def _make(self, rule: FolderRule) -> Inbox:
        name = rule.name

        def changed() -> None:
            with contextlib.suppress(RuntimeError):  # the loop has closed
                self._loop.call_soon_threadsafe(self._changed, name)

        return Inbox(rule, self._queue, changed, owner_token=self._owner_token)

    def _changed(self, name: str) -> None:
        if inbox := self._inboxes.get(name):
            self._reported.add(inbox)
            state = inbox.state()
            if state.available:
                self._folders.open(name, AWAY)
            else:
                self._folders.close(name, AWAY, state.reason or "its inbox is not there")
        self._on_news()

    def _check_for_hangs(self) -> None:
        """Report inboxes with hanging threads, because such a thread cannot report anything itself."""
        self._next_check = self._loop.call_later(_HANG_CHECK_SECONDS, self._check_for_hangs)
        current = {*self._inboxes.values()}
        hanging = {inbox for inbox in current | self._ending if inbox.is_hanging()}
        for inbox in hanging - self._hanging:
            log.warning("inbox.hangs", folder=inbox.rule.name, reason=inbox.state().reason)
        for inbox in (hanging ^ self._hanging) & current:
            self._changed(inbox.rule.name)
        self._hanging = hanging

    async def stop(self) -> None:
        """Stop taking files. The inboxes stay locked, because files in flight are in them."""
        inboxes = self._inboxes.values()
        for inbox in inboxes:
            inbox.rest()
        for inbox in await _until_all(inboxes, lambda inbox: inbox.has_rested, _STOP_SECONDS):
            log.warning("inbox.hangs", folder=inbox.rule.name, reason=inbox.state().reason)

    async def release(self) -> None:
        """End every thread and unlock the inboxes; a thread that hangs in a mount is left behind."""
        if self._next_check is not None:
            self._next_check.cancel()
        self._end(self._inboxes.values())
        waits = {inbox for inbox in self._ending if not inbox.is_hanging()}
        await _until_all(waits, lambda inbox: not inbox.is_alive(), _STOP_SECONDS)

    def look_again(self, folder: str, changed: bytes | None = None) -> None:
        """List the inbox soon: a file is not where its row says, or *changed* after it had settled."""
        if inbox := self._inboxes.get(folder):
            inbox.look_again(changed)

    def is_settling(self) -> bool:
        """Whether a listing has yet to tell what is there, or a file waits only for its quiet time."""
        # An old thread that hangs may keep its inbox for good.
        is_decided = bool(self._ending & self._hanging)
        for inbox in self._inboxes.values():
            is_known = inbox in self._reported or inbox in self._hanging
            state = inbox.state()
            waits = not state.scanned_once or state.waits_for_quiet or state.waits_for_listing
            if not is_known or (state.available and waits) or (state.is_undecided and not is_decided):
                return True
        return False

    def has_hard_link_waiting(self) -> bool:
        """Whether a hard link waits for the job of another name of the same file."""
        states = (inbox.state() for inbox in self._inboxes.values())
        waiting = itertools.chain.from_iterable(state.waiting for state in states if state.available)
        return any(file.cause is Cause.TWIN for file in waiting)

    def unavailable(self) -> dict[str, str]:
        """Inboxes that are not available, with the reason."""
        states = {name: inbox.state() for name, inbox in self._inboxes.items()}
        return {name: state.reason or "" for name, state in states.items() if not state.available}

    def live(self) -> dict[str, Any]:
        """Each inbox for ``live.json``."""
        return {name: _live_of(inbox) for name, inbox in self._inboxes.items()}


async def _until_all(
    inboxes: Collection[Inbox], is_done: Callable[[Inbox], bool], seconds: float
) -> list[Inbox]:
    """Wait until *is_done* holds for all, at most for *seconds*; returns those for which it does not."""
    loop = asyncio.get_running_loop()
    until = loop.time() + seconds
    while left := [inbox for inbox in inboxes if not is_done(inbox)]:
        if loop.time() >= until:
            break
        await asyncio.sleep(_POLL_SECONDS)
    return left


def _live_of(inbox: Inbox) -> dict[str, Any]:
    state, now = inbox.state(), time.monotonic()
    idle_writers = [path_text(file.path) for file in state.waiting if file.is_idle_writer(now)]
    return {
        "available": state.available,
        "reason": state.reason or None,
        "oldest_settling_at": state.oldest_settling_at,
        "watch": state.watch,
        "settling": state.settling,
        "blocked": state.blocked,
        "file_system": state.file_system,
        "found_without_hint": state.found_without_hint,
        "hint_overflows": state.overflows,
        "waiting": {path_text(file.path): file.describe(now) for file in state.waiting},
        "idle_writers": idle_writers[:_MOST_NAMED],
    }
