"""Builds and replaces the outputs of monitoring: listener, metrics file, heartbeat, hooks, notifications."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import structlog

from dropscribe import __version__
from dropscribe.core.errors import ListenError
from dropscribe.intake.availability import NOT_LOOKED_AT
from dropscribe.service.hooks import Hooks, RetriedHook
from dropscribe.service.notifications import Notifications
from dropscribe.service.outbound import AppriseNotifier, Heartbeat, Webhook
from dropscribe.service.reporter import Reporter

if TYPE_CHECKING:
    from collections.abc import Callable

    from dropscribe.app.status_publisher import StatusPublisher
    from dropscribe.config.model import Config
    from dropscribe.queue.embedded.store import Store
    from dropscribe.service.metrics import MetricsFile
    from dropscribe.service.notifications import Recipient
    from dropscribe.web.listener import Listener
    from dropscribe.web.site import PageSource

_RECIPIENT_KEYS = ("notify", "time_zone", "hooks")  # parts of a config that set who is notified, and when
LAST_WORDS_SECONDS = 5.0  # limit for sending notifications at the end; the rest waits for the next start

log = structlog.get_logger()


class Monitoring:
    """The monitoring services that the config enables; *make_page_source* is called only for pages.

    Its reporter reports events to the metrics, the hooks and the recipients of the current config.
    """

    def __init__(
        self,
        config: Config,
        store: Store,
        report: StatusPublisher,
        make_page_source: Callable[[], PageSource],
    ) -> None:
        self._config = config
        self._store = store
        self._report = report
        self._make_page_source = make_page_source
        self.reporter = Reporter(None, build_hooks(config), build_notifications(config, store))
        self._count(config)
        self.observe_config(is_taken=True)
        self._listener: Listener | None = None
        self._restart = asyncio.Event()
        self._file: MetricsFile | None = None

    async def start(self) -> None:
        """Listen, if the config says so; raises ListenError if the address cannot be bound."""
        self._listener = await self._listen(self._config)

    async def swap(self, config: Config) -> None:
        """Take a new config; an old listener that may block the new one is closed first.

        Raises ListenError if the new address cannot be bound; the old listener is open then as before.
        """
        self._count(config)  # before anybody can ask
        if not (self._listener and config.http and self._listener.take_over(config.http)):
            self._listener = await self._moved_listener(config)
        if config.hooks != self._config.hooks:
            self.reporter.hooks = build_hooks(config)
        if any(getattr(config, name) != getattr(self._config, name) for name in _RECIPIENT_KEYS):
            before = self.reporter.notifications
            self.reporter.notifications = build_notifications(config, self._store, before)
        self._config = config
        self._restart.set()

    def _count(self, config: Config) -> None:
        """Start counting if the config exports metrics; counting is never switched off again."""
        if self.reporter.metrics is None and (config.http or config.metrics):
            from dropscribe.service.metrics import Metrics  # noqa: PLC0415  # 3 MiB

            self.reporter.metrics = Metrics(__version__)
        if self.reporter.metrics:
            self.reporter.metrics.introduce(config.folders, config.providers)

    async def run(self) -> None:
        """Run the periodic parts until cancelled."""
        while True:
            self._restart.clear()
            async with asyncio.TaskGroup() as group:
                parts = [group.create_task(part) for part in self._periodic()]
                await self._restart.wait()
                for part in parts:
                    part.cancel()

    async def close(self) -> None:
        """Stop listening; running commands get a short grace period."""
        if self._listener:
            await self._listener.close()
        if self.reporter.hooks:
            await self.reporter.hooks.close(grace_seconds=2.0)
        if self.reporter.notifications:
            await self.reporter.notifications.close(LAST_WORDS_SECONDS)
        if self._file:
            await self._file.write()

    def observe_config(self, *, is_taken: bool) -> None:
        """Count a reload of the config."""
        if self.reporter.metrics:
            self.reporter.metrics.observe_config(is_taken=is_taken, at=time.time())

    def _periodic(self) -> list[Any]:
        parts: list[Any] = []
        if heartbeat := self._config.heartbeat:
            parts.append(Heartbeat(heartbeat.url, heartbeat.every_seconds, self._is_degraded).run())
        self._file = None
        if metrics := self._config.metrics:
            from dropscribe.service.metrics import MetricsFile  # noqa: PLC0415  # 3 MiB

            self._file = MetricsFile(metrics.file, self._render)
            parts.append(self._file.run())
        if self.reporter.notifications:
            parts.append(self.reporter.notifications.run())
        return parts

    def _is_degraded(self) -> bool | None:
        """Whether something is stuck or away; None until the first look at each inbox has ended."""
        if NOT_LOOKED_AT in self._report.inboxes.unavailable().values():
            return None
        return bool(self._report.find_stuck() or self._report.find_unready())

    async def _moved_listener(self, config: Config) -> Listener | None:
        old, http, before = self._listener, config.http, self._config.http
        if old and http and before and (http.port, http.socket) == (before.port, before.socket):
            # The old socket may block the new one: 0.0.0.0:P cannot be bound beside 127.0.0.1:P.
            await old.close()
            self._listener = None
        try:
            listener = await self._listen(config)
        except ListenError:
            if old is not None and self._listener is None:
                self._listener = await self._listen(self._config)
            raise
        if self._listener is not None:
            await self._listener.close()
        return listener

    async def _listen(self, config: Config) -> Listener | None:
        if config.http is None:
            return None
        from dropscribe.web.listener import Listener  # noqa: PLC0415  # Starlette and uvicorn: 6 MiB
        from dropscribe.web.routes import Endpoints  # noqa: PLC0415

        source = self._make_page_source() if config.http.pages else None
        report = self._report
        endpoints = Endpoints(self._render, report.status, report.find_stuck, report.find_unready)
        listener = Listener(config.http, endpoints, source)
        await listener.start()
        log.info("http.listening", address=listener.address, pages=config.http.pages)
        return listener

    async def _render(self) -> bytes:
        metrics = self.reporter.metrics
        return metrics.render(await self._report.status()) if metrics else b""


def build_hooks(config: Config, *, are_retried: bool = False) -> Hooks | None:
    """Runs the commands of `hooks`; None if `retry` is not *are_retried*: retried ones are recipients."""
    hooks = config.hooks
    if hooks is None or hooks.retry != are_retried:
        return None
    return Hooks(hooks.commands, hooks.timeout_seconds, secrets=config.secrets)


def build_notifications(
    config: Config, store: Store, before: Notifications | None = None
) -> Notifications | None:
    """All recipients of *config*, None without any; *before* are those of the config that it replaces."""
    recipients: list[Recipient] = []
    if hooks := build_hooks(config, are_retried=True):
        recipients += [RetriedHook(hooks, event) for event in hooks.commands]
    if notify := config.notify:
        recipients += [
            AppriseNotifier(url.reveal(), notify.batch_seconds, notify.quiet_hours, config.time_zone)
            for url in dict.fromkeys(notify.urls)
        ]
        if notify.webhook:
            recipients.append(Webhook(notify.webhook.url, notify.webhook.secret.reveal()))
    return Notifications(store, recipients, before) if recipients else None
