"""An event loop whose timers fire at once, and inboxes that wait by its clock: a month passes in minutes."""

from __future__ import annotations

import asyncio
import select
import threading
import time

from dropscribe.files.threads import DaemonThreads
from dropscribe.intake import inbox, inboxes
from dropscribe.intake.inbox import Inbox
from dropscribe.queue.embedded.store import Store

_REAL_MONOTONIC, _REAL_TIME = time.monotonic, time.time


class VirtualLoop(asyncio.SelectorEventLoop):
    """Skips the wait for the next timer, or for an inbox's next look, while no thread works.

    Attributes:
        skipped_seconds: The lead of its clock over the real one.
    """

    def __init__(self):
        super().__init__()
        self.skipped_seconds = 0.0
        self.calls_under_way = 0
        self._lock = threading.Lock()
        self._busy, self._looks_at = set(), {}

    def time(self):
        return _REAL_MONOTONIC() + self.skipped_seconds

    def run_in_executor(self, executor, func, *args):
        self.calls_under_way += 1
        future = super().run_in_executor(executor, func, *args)
        future.add_done_callback(lambda _: _count(self))
        return future

    def note_busy(self, thread):
        """An inbox's thread works; time stands still."""
        with self._lock:
            self._looks_at.pop(thread, None)
            self._busy.add(thread)

    def note_idle(self, thread, looks_at=None):
        """An inbox's thread waits until *looks_at*, or has ended."""
        with self._lock:
            self._busy.discard(thread)
            if looks_at is not None:
                self._looks_at[thread] = looks_at
        self.call_soon_threadsafe(int)  # it may skip now

    def _run_once(self):
        if not self._ready and not self.calls_under_way and not self._wake_inboxes(is_news=True):
            times = [timer.when() for timer in self._scheduled[:1]] + list(self._looks_at.values())
            if times:
                self.skipped_seconds += max(0.0, min(times) - self.time())
            self._wake_inboxes(is_news=False)
        super()._run_once()

    def _wake_inboxes(self, *, is_news):
        """Wake those that have news, or whose time has come; whether any thread works now."""
        with self._lock:
            due = [
                thread
                for thread, at in self._looks_at.items()
                if (thread.has_news() if is_news else at <= self.time())
            ]
            for thread in due:
                del self._looks_at[thread]
                self._busy.add(thread)
        for thread in due:
            thread.set()
        return bool(self._busy)


class VirtualInbox(Inbox):
    """Its thread waits by the clock of a virtual loop."""

    loop: VirtualLoop

    def __init__(self, *args, **keys):
        super().__init__(*args, clock=self.loop.time, **keys)
        self._wake_up = _VirtualWakeUp(self.loop)
        self._may_take = _VirtualEvent(self.loop, self._wake_up)

    def start(self):
        self.loop.note_busy(self._wake_up)
        super().start()

    def _run(self):
        try:
            super()._run()
        finally:
            self.loop.note_idle(self._wake_up)


class _VirtualWakeUp(inbox._WakeUp):
    """Tells the loop when the thread waits, and until when."""

    def __init__(self, loop):
        super().__init__()
        self._loop, self._hints = loop, None

    def wait(self, seconds, hints):
        self._hints = hints
        self._loop.note_idle(self, self._loop.time() + seconds)
        super().wait(seconds, hints)
        self._loop.note_busy(self)

    def has_news(self):
        """Whether the wait is about to end."""
        poll = select.poll()
        for descriptor in (self._event, self._hints and self._hints.fileno()):
            if descriptor is not None:
                poll.register(descriptor, select.POLLIN)
        return bool(poll.poll(0))


class _VirtualEvent(threading.Event):
    """Tells the loop while the thread waits for it."""

    def __init__(self, loop, thread):
        super().__init__()
        self._loop, self._waiting_thread = loop, thread

    def set(self):
        if not self.is_set():
            self._loop.note_busy(self._waiting_thread)
        super().set()

    def wait(self, timeout=None):
        if not self.is_set():
            self._loop.note_idle(self._waiting_thread)
        return super().wait(timeout)


def run_in_virtual_time(monkeypatch, coroutine):
    """Run *coroutine* to its end; ``time.time`` and ``time.monotonic`` go with the loop's clock."""
    loop = VirtualLoop()
    do, submit = Store.do, DaemonThreads.submit

    async def counted_do(store, work):
        loop.calls_under_way += 1
        try:
            return await do(store, work)
        finally:
            loop.calls_under_way -= 1

    def counted_submit(pool, call, *args):
        def ended(_):
            loop.call_soon_threadsafe(_count, loop)

        loop.calls_under_way += 1
        future = submit(pool, call, *args)
        future.add_done_callback(ended)
        return future

    monkeypatch.setattr(VirtualInbox, "loop", loop, raising=False)
    monkeypatch.setattr(inboxes, "Inbox", VirtualInbox)
    monkeypatch.setattr(Store, "do", counted_do)
    monkeypatch.setattr(DaemonThreads, "submit", counted_submit)
    monkeypatch.setattr(time, "time", lambda: _REAL_TIME() + loop.skipped_seconds)
    monkeypatch.setattr(time, "monotonic", lambda: _REAL_MONOTONIC() + loop.skipped_seconds)
    try:
        return loop.run_until_complete(coroutine)
    finally:
        loop.close()


def _count(loop):
    loop.calls_under_way -= 1
