"""Publishes the status of the running daemon: /status, live.json, systemd's status line and health."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import structlog

from dropscribe.config.model import Config
from dropscribe.core.errors import StoreError
from dropscribe.core.text.printing import plural
from dropscribe.intake.inboxes import Inboxes
from dropscribe.queue.engine import Engine
from dropscribe.queue.model import Stats
from dropscribe.service.sd_notify import Notifier
from dropscribe.service.status import status_document, write_live

log = structlog.get_logger()

_LIVE_GAP_SECONDS = 0.2  # live.json is written this often at most
_WAITS_SECONDS = 5.0  # so old the times in its sentences on settling files may be
_STATS_SECONDS = 4.0  # longest wait for a cluster's database; after it the last answer is shown


@dataclass
class StatusPublisher:
    """Reads the state of the engine and the inboxes, for status, metrics and health."""

    config: Callable[[], Config]  # the current one
    engine: Engine
    inboxes: Inboxes
    notifier: Notifier
    _last: Stats = field(default_factory=lambda: Stats({}, ()))

    async def status(self) -> dict[str, Any]:
        """The object of ``status --json``: current, or the last one if a cluster's database is away."""
        live, config = self._live(), self.config()
        if config.queue is None:
            self._last = await self.engine.stats()
        elif self.engine.database.trouble is None:
            try:
                async with asyncio.timeout(_STATS_SECONDS):
                    self._last = await self.engine.stats()
            except StoreError as error:
                live["trouble"] = f"{error.reason}: {error.path}"
            except TimeoutError:
                live["trouble"] = "the queue's database does not answer"
        return status_document(config, self._last, live, running=True, now=self.engine.now())

    def _live(self) -> dict[str, Any]:
        return {
            "folders": {
                name: {**live, "reason": live["reason"] or self.engine.folders.closed_reason(name)}
                for name, live in self.inboxes.live().items()
            },
            "providers": {name: len(self.engine.in_flight.at(name)) for name in self.config().providers},
            "next_starts": {name: round(at) for name, at in self.engine.rates.next_starts().items()},
            "trouble": self.engine.trouble,
        }

    def write(self) -> None:
        """Write live.json as it is now."""
        write_live(self.config().state_dir, self._live())

    async def write_when_new(self) -> None:
        """Write live.json at most five times a second, and only when something may have changed.

        While files wait for their quiet times, time alone changes it: it has the seconds of each. Waits for
        others, such as a program that keeps a file open for days, keep no disk awake.
        """
        news = self.engine.signals.news
        last: dict[str, Any] = {}
        while True:
            news.clear()
            try:
                live = self._live()
                if live != last:
                    write_live(self.config().state_dir, live)
                    last = live
                    self.notifier.send(status=self._words(live))
            except Exception:  # a report that fails must not end the daemon
                log.exception("status.not_written")
            await asyncio.sleep(_LIVE_GAP_SECONDS)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(news.wait(), _WAITS_SECONDS if self.inboxes.is_settling() else None)

    def _words(self, live: dict[str, Any]) -> str:
        settling = sum(folder["settling"] for folder in live["folders"].values())
        uploading = sum(live["providers"].values())
        away = len(self.inboxes.unavailable())
        watched = plural(len(live["folders"]) - away, "folder")
        words = f"watching {watched}, {uploading} uploading, {settling} settling"
        words += f", {away} unavailable" if away else ""
        if (queue := self.config().queue) is None:
            return words
        return f"node {queue.node}: {words}" + (
            ", it waits for the queue's database" if live["trouble"] else ""
        )

    def find_stuck(self) -> str:
        """The reason to restart the process, or ""."""
        return "" if self.engine.dispatcher.is_alive() else "the queue has not been looked at for two minutes"

    def find_unready(self) -> str:
        """The inboxes and services that are unavailable now, or ""."""
        found = [f"{name}: {reason}" for name, reason in self.inboxes.unavailable().items()]
        if self.config().queue is not None and self.engine.trouble is not None:
            found.insert(0, f"queue: {self.engine.trouble}")
        return "; ".join(found)
