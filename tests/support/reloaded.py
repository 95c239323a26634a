"""The whole daemon in this process, with configs that a test chooses."""

from __future__ import annotations

import asyncio

from dropscribe.app import daemon
from dropscribe.intake import availability
from dropscribe.service.sd_notify import Notifier


class Reloaded:
    """A daemon whose next config a test chooses; open with ``async with``."""

    def __init__(self, monkeypatch, config, make_provider):
        monkeypatch.setattr(availability, "AVAILABLE_SECONDS", 0.02)
        self.next, self.taken = config, []
        self.daemon = daemon.Daemon(
            config,
            Notifier({}),
            read_config=self._read,
            on_reload=self.taken.append,
            make_provider=make_provider,
        )
        self.reads = 0

    def _read(self):
        self.reads += 1
        if isinstance(self.next, Exception):
            raise self.next
        return self.next

    async def __aenter__(self):
        self.running = asyncio.create_task(self.daemon.run())
        await self.until(lambda: hasattr(self.daemon, "inboxes") and self.daemon.inboxes.live())
        return self

    async def __aexit__(self, *_):
        self.daemon.stop.set()
        await asyncio.wait_for(self.running, 60)

    async def until(self, condition, timeout_seconds=60.0):
        """Wait until *condition* holds, while the daemon runs."""
        async with asyncio.timeout(timeout_seconds):
            while not condition():
                if self.running.done():
                    self.running.result()
                await asyncio.sleep(0.005)

    async def reload(self, config):
        """Ask for *config*; returns whether it was taken."""
        self.next, reads, taken = config, self.reads, len(self.taken)
        refusals = []
        self.daemon.health.observe_config = lambda *, is_taken: refusals.append(is_taken)
        self.daemon.ask_reload()
        await self.until(lambda: self.reads > reads and refusals)
        return len(self.taken) > taken
