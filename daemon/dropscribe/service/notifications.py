"""Sends notifications about failed files, holds and budgets, through the outbox in the store.

Guarantees: notifying never blocks or fails the caller; a notification survives a crash until it is delivered,
or dropped after GIVE_UP_SECONDS with a log line; a recipient that hangs delays no other recipient.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import random
import sqlite3
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import structlog

from dropscribe.core.errors import StoreError
from dropscribe.core.retry import backoff_seconds
from dropscribe.core.text.printing import utc_text
from dropscribe.queue.embedded.store import Store
from dropscribe.queue.sql import outbox
from dropscribe.queue.sql.outbox import Notification

FIRST_RETRY_SECONDS = 5.0
LONGEST_RETRY_SECONDS = 3600.0
GIVE_UP_SECONDS = 86400.0
_STORE_RETRY_SECONDS = 60.0
_LOOK_SECONDS = 600.0  # a wait is never longer: the clock may be set, and the machine may sleep

log = structlog.get_logger()


class Recipient(ABC):
    """A receiver of notifications."""

    name: str  # its kind, a colon, and an id that is the same after a restart, and no secret
    most_at_once = 1  # notifications in one delivery
    keep_seconds = GIVE_UP_SECONDS  # how long a notification may wait

    @property
    def label(self) -> str:
        """Its name in the log: the kind alone, because the id of an url tells nobody anything."""
        return self.name.partition(":")[0]

    def wants(self, event: str) -> bool:
        """Whether it receives events of this name: done, failed, held, released, budget."""
        return event != "done"

    def not_before(self, due_at: float, last_at: float, now: float, *, is_last_chance: bool) -> float:  # noqa: ARG002
        """When to deliver, at *now* or later, if the first notification was due at *due_at*.

        Args:
            last_at: When the last message of a batch was sent; 0 if there was none.
            is_last_chance: The daemon is about to end: no further events are waited for.
        """
        return due_at

    @abstractmethod
    async def deliver(self, notifications: Sequence[Notification]) -> str:
        """Deliver *notifications* as one; returns "" or the reason of a failure. Must end by itself."""


class Notifications:
    """All recipients, each with its own loop.

    *before* are those of an older config, which no longer run. Their deliveries under way are waited for,
    because a recipient would otherwise get a notification twice.
    """

    def __init__(
        self, store: Store, recipients: Sequence[Recipient], before: Notifications | None = None
    ) -> None:
        self._store = store
        self.deliveries: dict[str, asyncio.Task[float]] = before.deliveries if before else {}
        self._loops = [DeliveryLoop(store, recipient, self.deliveries) for recipient in recipients]

    def notify(self, event: str, payload: Mapping[str, Any]) -> None:
        """Put *event* into the outbox for every recipient that wants it; returns at once.

        *payload* must be JSON values, without any transcript or secret.
        """
        names = [each.recipient.name for each in self._loops if each.recipient.wants(event)]
        if not names:
            return
        event_id, now = uuid.uuid4().hex, time.time()
        head = {"schema": "dropscribe.event/1", "id": event_id, "at": utc_text(now), "event": event}
        new = Notification(0, event_id, now, json.dumps({**head, **payload}))
        written = asyncio.wrap_future(self._store.call(lambda db: outbox.put(db, new, names)))
        written.add_done_callback(partial(self._written, event))

    async def run(self) -> None:
        """Deliver, until cancelled."""
        await self._drop_outdated()
        async with asyncio.TaskGroup() as group:
            for loop in self._loops:
                group.create_task(loop.run())

    async def close(self, grace_seconds: float) -> None:
        """Deliver due notifications for at most *grace_seconds*; the rest stays in the outbox."""
        with contextlib.suppress(TimeoutError, StoreError):
            async with asyncio.timeout(grace_seconds):
                await asyncio.gather(*(loop.deliver_all() for loop in self._loops))

    async def _drop_outdated(self) -> None:
        now, recipients = time.time(), [loop.recipient for loop in self._loops]
        oldest_at = {each.name: now - each.keep_seconds for each in recipients}
        try:
            forgotten = await self._store.do(lambda db: outbox.begin(db, oldest_at, now))
        except StoreError as error:
            log.warning("notification.outbox_unusable", reason=error.reason)
            return
        if forgotten:
            reason = "too old, or its recipient is no longer configured"
            log.warning("notification.forgotten", count=forgotten, reason=reason)

    def _written(self, event: str, written: asyncio.Future[list[str]]) -> None:
        try:
            full = written.result()
        except StoreError as error:
            log.warning("notification.lost", about=event, reason=error.reason)
            return
        if full:
            log.warning("notification.lost", about=event, reason="too many wait already")
        for loop in self._loops:
            loop.news.set()


class DeliveryLoop:
    """Delivers one recipient's notifications, with retries.

    *deliveries* holds, by recipient, the delivery that is under way or was the last one.
    """

    def __init__(
        self, store: Store, recipient: Recipient, deliveries: dict[str, asyncio.Task[float]]
    ) -> None:
        self._store = store
        self.recipient = recipient
        self._deliveries = deliveries
        self._is_last_chance = False
        self.news = asyncio.Event()  # set when a notification was put

    async def run(self) -> None:
        """Deliver until cancelled; without notifications it sleeps."""
        while True:
            self.news.clear()
            try:
                wait_seconds = await self._round()
            except StoreError as error:
                log.warning("notification.outbox_unusable", reason=error.reason)
                await asyncio.sleep(_STORE_RETRY_SECONDS)
                continue
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(wait_seconds, _LOOK_SECONDS)):
                    await self.news.wait()

    async def deliver_all(self) -> None:
        """The daemon is about to end: deliver until nothing is due or something fails."""
        self._is_last_chance = True
        if under_way := self._deliveries.get(self.recipient.name):
            await asyncio.wait((under_way,))  # it may have found that nothing is due before the last chance
        while await self._round() == 0:
            pass

    async def _round(self) -> float:
        """Make one delivery at most; returns the seconds until the next look, infinite to wait for news.

        A reload or the end does not cut it off, because a message in a thread would be sent twice. Then the
        next call waits for it.
        """
        name = self.recipient.name
        if name not in self._deliveries or self._deliveries[name].done():
            self._deliveries[name] = asyncio.create_task(self._deliver_due())
        return await asyncio.shield(self._deliveries[name])

    async def _deliver_due(self) -> float:
        recipient = self.recipient
        due_at, last_at = await self._store.do(lambda db: outbox.first_due(db, recipient.name))
        if due_at is None:
            return math.inf
        now, is_last = time.time(), self._is_last_chance
        begin_at = max(due_at, recipient.not_before(due_at, last_at, now, is_last_chance=is_last))
        if begin_at > now:
            return begin_at - now
        most = recipient.most_at_once
        notifications = await self._store.do(lambda db: outbox.read_due(db, recipient.name, now, most))
        if not notifications:  # deleted since: a reload left the recipient out
            return 0.0
        try:
            reason = await recipient.deliver(notifications)
        except Exception as error:  # noqa: BLE001 - a notification that fails must not end the daemon
            reason = type(error).__name__
        await self._settle(notifications, reason)
        return math.inf if reason and self._is_last_chance else 0.0

    async def _settle(self, notifications: list[Notification], reason: str) -> None:
        now, recipient = time.time(), self.recipient
        oldest_at = now - recipient.keep_seconds if reason else math.inf
        ended = [each for each in notifications if each.at < oldest_at]
        again = [each for each in notifications if each.at >= oldest_at]
        tries = max(each.tries for each in notifications) + 1
        due_at = now + retry_seconds(tries, random.random())  # noqa: S311 - jitter, not a secret

        def write(db: sqlite3.Connection) -> None:
            outbox.delete(db, ended)
            outbox.defer(db, again, due_at)
            if recipient.most_at_once > 1:
                outbox.note_message(db, recipient.name, now)

        await self._store.do(write)
        fields = {"recipient": recipient.label, "reason": reason}
        if reason and ended:
            log.error("notification.given_up", **fields, count=len(ended))
        if again:
            log.warning("notification.undelivered", **fields, tries=tries, next_try=utc_text(due_at))


def retry_seconds(tries: int, jitter: float) -> float:
    """The wait after *tries* failures: doubling, the second half of it at random; *jitter* is 0..1."""
    longest = backoff_seconds(FIRST_RETRY_SECONDS, tries, LONGEST_RETRY_SECONDS)
    return longest * (0.5 + 0.5 * jitter)
