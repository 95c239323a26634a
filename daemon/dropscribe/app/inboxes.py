"""The inboxes of one config: their threads, and what their coming and going means to the queue."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

from dropscribe.intake.inbox import Inbox
from dropscribe.transcripts.document import path_text

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from dropscribe.app.inbox_queue import InboxQueue
    from dropscribe.config.model import FolderRule
    from dropscribe.queue.rows_engine import RowsEngine

AWAY = "inbox"
_STOP_SECONDS = 5.0

_INTAKE_KEYS = (
    "inbox",
    "done",
    "failed",
    "include",
    "exclude",
    "recursive",
    "settle_seconds",
    "settle_incomplete_seconds",
    "watch",
    "rescan_seconds",
)
"""What of a rule an inbox's thread works with; a change of anything else leaves the thread alone."""


class Inboxes:
    """Runs one :class:`Inbox` a rule; also what the work tells the intake.

    Args:
        on_news: Called in the event loop when an inbox has something new to say.
        exclusive: False where other daemons share our queue, and so the inboxes.
    """

    def __init__(
        self, engine: RowsEngine, queue: InboxQueue, on_news: Callable[[], None], *, exclusive: bool = True
    ) -> None:
        self._engine = engine
        self._queue = queue
        self._on_news = on_news
        self._is_exclusive = exclusive
        self._loop = asyncio.get_running_loop()
        self._inboxes: dict[str, Inbox] = {}
        self._heard: set[Inbox] = set()

    def swap(self, rules: Mapping[str, FolderRule]) -> None:
        """Run the inboxes of *rules*: new ones are locked before any old one is let go.

        Raises:
            StoreInUse: Another daemon has one of the new inboxes; nothing has changed then.
        """
        kept = {
            name: inbox
            for name, inbox in self._inboxes.items()
            if name in rules and _same_intake(inbox.rule, rules[name])
        }
        leaving = {name: inbox for name, inbox in self._inboxes.items() if name not in kept}
        new = {name: self._make(rules[name]) for name in rules if name not in kept}
        self._lock_all(new, leaving)
        for inbox in leaving.values():
            inbox.stop()
        for name in leaving.keys() - rules.keys():
            self._engine.open_folder(name, AWAY)
        self._inboxes = {**kept, **new}
        self._heard &= set(kept.values())
        for name, inbox in new.items():
            self._engine.close_folder(name, AWAY, "its inbox is being looked at")
            inbox.start()

    def _lock_all(self, new: Mapping[str, Inbox], leaving: Mapping[str, Inbox]) -> None:
        ours = {inbox.rule.inbox for inbox in leaving.values()}
        locked: list[Inbox] = []
        try:
            for inbox in new.values():
                # An inbox that only changes its rule is still locked by the thread that leaves.
                if inbox.rule.inbox not in ours:
                    inbox.lock()
                    locked.append(inbox)
        except BaseException:
            for inbox in locked:
                inbox.unlock()
            raise

    def _make(self, rule: FolderRule) -> Inbox:
        name = rule.name

        def changed() -> None:
            with contextlib.suppress(RuntimeError):  # the loop has closed
                self._loop.call_soon_threadsafe(self._changed, name)

        return Inbox(rule, self._queue, changed, exclusive=self._is_exclusive)

    def _changed(self, name: str) -> None:
        inbox = self._inboxes.get(name)
        if inbox is not None:
            self._heard.add(inbox)
            state = inbox.state()
            if state.available:
                self._engine.open_folder(name, AWAY)
            else:
                self._engine.close_folder(name, AWAY, state.reason or "its inbox is not there")
        self._on_news()

    async def stop(self) -> None:
        """Take nothing more; the inboxes stay ours, for what is in flight stands in them."""
        for inbox in self._inboxes.values():
            inbox.rest()
        await asyncio.gather(
            *(asyncio.to_thread(inbox.wait_for_rest, _STOP_SECONDS) for inbox in self._inboxes.values())
        )

    async def release(self) -> None:
        """End every thread and let others have the inboxes; one that hangs in a mount is left behind."""
        for inbox in self._inboxes.values():
            inbox.stop()
        await asyncio.gather(
            *(asyncio.to_thread(inbox.join, _STOP_SECONDS) for inbox in self._inboxes.values())
        )

    def look_again(self, folder: str) -> None:
        """See :class:`dropscribe.pipeline.runtime_config.IntakeSide`."""
        if inbox := self._inboxes.get(folder):
            inbox.poke()

    def distrust(self, folder: str, path: bytes) -> None:
        """See :class:`dropscribe.pipeline.runtime_config.IntakeSide`."""
        if inbox := self._inboxes.get(folder):
            inbox.changed(path)

    def is_settling(self) -> bool:
        """Whether a first listing has not ended yet, or a file waits for nothing but quiet."""
        if any(inbox not in self._heard for inbox in self._inboxes.values()):
            return True
        states = [inbox.state() for inbox in self._inboxes.values()]
        return any(
            state.is_undecided
            or (state.available and (not state.scanned_once or state.quiet_deadline is not None))
            for state in states
        )

    def unavailable(self) -> dict[str, str]:
        """Inboxes that are not there, and why."""
        states = {name: inbox.state() for name, inbox in self._inboxes.items()}
        return {name: state.reason or "" for name, state in states.items() if not state.available}

    def left_waiting(self) -> int:
        """Files that settle or may not be read."""
        states = [inbox.state() for inbox in self._inboxes.values()]
        return sum(state.settling + state.blocked for state in states)

    def live(self) -> dict[str, Any]:
        """Each inbox for ``live.json``."""
        return {name: _live_of(inbox) for name, inbox in self._inboxes.items()}


def _live_of(inbox: Inbox) -> dict[str, Any]:
    state = inbox.state()
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
        "waiting": {path_text(path): words for path, words in state.waiting.items()},
    }


def _same_intake(old: FolderRule, new: FolderRule) -> bool:
    return all(getattr(old, key) == getattr(new, key) for key in _INTAKE_KEYS)
