"""The whole daemon in this process, its inboxes' threads and its queue real; the providers follow scripts."""

from __future__ import annotations

import asyncio
import contextlib

from dropscribe.app import daemon
from dropscribe.intake import availability
from dropscribe.service.sd_notify import Notifier
from support.scripted import ScriptedProvider


class Whole:
    """A running daemon; open with ``async with``.

    Args:
        monkeypatch: Shortens the time between two looks for an inbox that is away.
        scripts: By provider name; all good where it is left out.
    """

    def __init__(self, monkeypatch, config, scripts=None):
        self.config = config
        self.providers = scripts or {name: ScriptedProvider() for name in config.providers}
        monkeypatch.setattr(availability, "AVAILABLE_SECONDS", 0.02)
        self.daemon = daemon.Daemon(
            config, Notifier({}), make_provider=lambda provider: self.providers[provider.name]
        )
        self.running = None

    async def __aenter__(self):
        self.running = asyncio.create_task(self.daemon.run())
        await self.until(lambda: hasattr(self.daemon, "inboxes") and self.daemon.inboxes.live())
        return self

    async def __aexit__(self, *_):
        self.daemon.stop.set()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait_for(self.running, 60)

    async def until(self, condition, timeout_seconds=60.0):
        """Wait until *condition* (may be async) holds, while the daemon runs."""
        async with asyncio.timeout(timeout_seconds):
            while True:
                held = condition()
                if asyncio.iscoroutine(held):
                    held = await held
                if held:
                    return
                if self.running.done():
                    self.running.result()
                await asyncio.sleep(0.005)

    async def status(self, folder="calls"):
        """One folder's part of ``status --json``."""
        return (await self.daemon.report.status())["folders"][folder]

    async def until_away(self, folder="calls"):
        """Wait until the rule's inbox is unavailable."""
        await self.until(lambda: folder in self.daemon.inboxes.unavailable())

    async def until_back(self, folder="calls"):
        """Wait until it is available and has been listed."""
        await self.until(lambda: self._is_listed(folder))

    def _is_listed(self, folder):
        inbox = self.daemon.inboxes._inboxes[folder]
        return inbox.state().available and inbox.state().scanned_once
