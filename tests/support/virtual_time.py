"""An event loop whose timers fire at once: a month passes in a minute."""

from __future__ import annotations

import asyncio
import time

from dropscribe.files.threads import DaemonThreads
from dropscribe.queue.embedded.store import Store

_REAL_MONOTONIC, _REAL_TIME = time.monotonic, time.time


class VirtualLoop(asyncio.SelectorEventLoop):
    """Skips the wait for the next timer while no thread works for the loop.

    Attributes:
        skipped_seconds: How far its clock is ahead of the real one.
    """

    def __init__(self):
        super().__init__()
        self.skipped_seconds = 0.0
        self.calls_under_way = 0

    def time(self):
        return _REAL_MONOTONIC() + self.skipped_seconds

    def _run_once(self):
        if not self._ready and self._scheduled and not self.calls_under_way:
            self.skipped_seconds += max(0.0, self._scheduled[0].when() - self.time())
        super()._run_once()


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
