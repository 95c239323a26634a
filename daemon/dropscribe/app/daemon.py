"""The daemon: built from a config, run until it is told to stop, or once.

Order of the start: the state directory and the inboxes locked → the queue recovered → inboxes watched →
ready. Order of the stop: nothing new is found → nothing new is claimed → what is in flight gets
``shutdown_grace`` → the rest is handed back.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

import structlog

from dropscribe import __version__
from dropscribe.app.assembly import Pipeline, build_runtime
from dropscribe.app.housekeeping import keep_search_index, notice_releases, prune_queue
from dropscribe.app.inbox_queue import InboxQueue
from dropscribe.app.inboxes import Inboxes
from dropscribe.app.observability import Health
from dropscribe.app.queue import open_when_there
from dropscribe.app.reload import Reloader, keep_running_config, mark_first_starts, watched_rules
from dropscribe.app.remote_deletions import delete_due, delete_remote_jobs
from dropscribe.app.reporter import Reporter
from dropscribe.app.status_publisher import StatusPublisher
from dropscribe.core.errors import DropscribeError, StoreBusy, StoreError
from dropscribe.media.build import sweep_spool
from dropscribe.pipeline.plan import build_plan
from dropscribe.providers.base import JobProvider
from dropscribe.providers.build import build_provider
from dropscribe.queue.embedded.store import Store
from dropscribe.reports.wording import plural

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from dropscribe.config.model import Config, ProviderConfig
    from dropscribe.providers.base import Provider
    from dropscribe.queue.engine import Engine
    from dropscribe.service.sd_notify import Notifier
    from dropscribe.web.pages import PageSource

log = structlog.get_logger()

ONCE_HORIZON_SECONDS = 60.0
"""``run --once`` waits for retries that are due within this time."""

_ONCE_LOOK_SECONDS = 0.1

LAST_DELETIONS_SECONDS = 10.0
"""Limit of the last deletions at providers; the next start does the rest."""


@dataclass(frozen=True, slots=True)
class RunResult:
    """The result of ``run --once``.

    Attributes:
        failed: Files that went to ``failed`` in this run.
        left: Files that wait for something.
        unavailable: Inboxes that are missing or cannot be read.
    """

    failed: int
    left: int
    unavailable: int = 0


@dataclass
class Daemon:
    """One run of dropscribe.

    Attributes:
        first_config: The one that it starts with; :attr:`config` is the one that holds now.
        read_config: Reads and checks the config again for a reload; raises ConfigError.
        on_reload: Called with a config that has been taken.
        make_provider: Builds one provider; nothing is connected yet.
    """

    first_config: Config
    notifier: Notifier
    read_config: Callable[[], Config] | None = None
    on_reload: Callable[[Config], None] | None = None
    make_provider: Callable[[ProviderConfig], Provider] = build_provider
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    _reload_asked: asyncio.Event = field(default_factory=asyncio.Event)
    _news: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def config(self) -> Config:
        """The current config: a part of the value that a reload swaps."""
        return self.pipeline.handler.runtime.config

    def ask_reload(self) -> None:
        """Ask for a reload of the config (SIGHUP)."""
        self._reload_asked.set()

    def ask_for_report(self) -> None:
        """Ask for a new status report, because the status may have changed."""
        self._news.set()

    async def run(self, *, once: bool = False) -> RunResult:
        """Run until :attr:`stop` is set; with *once* until nothing more can be done now.

        Raises:
            StoreError: The state directory or an inbox cannot be had, or broke on the way.
            ListenError: ``http.listen`` cannot be bound.
        """
        config = self.first_config
        store = Store(config.state_dir)
        try:
            engine = await open_when_there(config, store, self.notifier, self.stop)
            if engine is None:
                return RunResult(0, 0)
            try:
                self._build(store, engine)
                return await self._run_built(once=once)
            finally:
                if engine.store is not store:
                    engine.store.close()
        finally:
            store.close()

    def _failed_root(self, folder: str) -> bytes | None:
        rule = self.config.folders.get(folder)
        return None if rule is None else os.fsencode(rule.failed)

    def _build(self, store: Store, engine: Engine) -> None:
        config = self.first_config
        sweep_spool(config)
        self.engine = engine
        self.health = Health(config, __version__, store)
        self.reporter = Reporter(self.health.metrics, self.health.hooks, self.health.notifications)
        queue = InboxQueue(self.engine, asyncio.get_running_loop(), self._failed_root)
        token = engine.store.token if config.queue is None else None
        self.inboxes = Inboxes(self.engine.folders, queue, self._news.set, token)
        self.report = StatusPublisher(
            lambda: self.config, self.engine, self.inboxes, self.notifier, self._news
        )
        used = dict.fromkeys(name for rule in config.folders.values() for name in rule.providers)
        providers = {name: self.make_provider(config.providers[name]) for name in used}
        self.pipeline = Pipeline(
            build_runtime(config, providers, self.engine),
            self.engine,
            self.inboxes,
            self.reporter,
            token=engine.store.token,
            jitter=random.random,
        )

    async def _run_built(self, *, once: bool) -> RunResult:
        config, handler = self.config, self.pipeline.handler
        reloader = Reloader(self, self.read_config, self.on_reload)
        try:
            async with asyncio.TaskGroup() as group:
                plan = build_plan(config)
                self.engine.replan(plan)
                await self.pipeline.budgets.audit()
                await mark_first_starts(self.engine, config)
                inboxes = await self.inboxes.prepare(watched_rules(config))
                feeding = group.create_task(self.engine.run(plan, handler.attempt, handler.publish))
                self.inboxes.commit(inboxes)  # before the first claim: it closes what is not available
                report = self.report
                await self.health.start(
                    self.status, report.find_stuck, report.find_unready, self._page_source
                )
                side = [  # the first writes live.json: see _wind_up
                    group.create_task(report.write_when_new()),
                    group.create_task(self.notifier.feed_watchdog(lambda: not report.find_stuck())),
                    group.create_task(self._reload_when_asked(reloader)),
                    group.create_task(self.health.run()),
                    group.create_task(self.pipeline.budgets.watch()),
                    group.create_task(notice_releases(self.engine, self._asks)),
                    group.create_task(prune_queue(self.engine, lambda: self.config)),
                    group.create_task(delete_remote_jobs(self.engine, self._providers)),
                    group.create_task(keep_search_index(self.engine, lambda: self.config)),
                ]
                keep_running_config(config)
                log.info("daemon.ready", version=__version__, folders=len(config.folders))
                self.notifier.ready(f"watching {plural(len(config.folders), 'folder')}")
                await (self._until_nothing_more() if once else self.stop.wait())
                result = await self._wind_up(feeding, side)
                await reloader.close()
        except BaseExceptionGroup as group_error:
            raise _first_error(group_error) from group_error
        finally:
            await self.inboxes.release()
        return result

    def _page_source(self) -> PageSource:
        from dropscribe.app.page_source import build_page_source  # noqa: PLC0415  # with Jinja2: 4 MiB

        return build_page_source(
            lambda: self.config, self.status, self.engine, self.pipeline.handler.attempts.sending
        )

    async def _wind_up(self, feeding: asyncio.Task[None], side: list[asyncio.Task[Any]]) -> RunResult:
        grace_seconds = self.config.shutdown_grace_seconds
        log.info("daemon.stopping", in_flight=len(self.engine.in_flight))
        self.notifier.stopping(f"finishing {len(self.engine.in_flight)} files")
        self.notifier.extend_timeout(grace_seconds + 15)
        # A stopped inbox knows of nothing, not even how it was watched.
        left = RunResult(0, self.inboxes.left_waiting(), len(self.inboxes.unavailable()))
        side[0].cancel()
        self.report.write()
        await self.inboxes.stop()
        await self.engine.drain(grace_seconds)
        feeding.cancel()
        await asyncio.wait([feeding])
        result = await self._result(left)
        for task in side:
            task.cancel()
        await self.health.close()
        await self._delete_last()
        for provider in self._providers().values():
            await provider.close()
        self.pipeline.close()
        log.info("daemon.stopped", **asdict(result))
        return result

    def _providers(self) -> Mapping[str, Provider]:
        return self.pipeline.handler.runtime.providers

    async def _delete_last(self) -> None:
        """Delete the last files' recordings at their providers: ``run --once`` may have no next start."""
        if any(isinstance(provider, JobProvider) for provider in self._providers().values()):
            with contextlib.suppress(TimeoutError, StoreError):
                async with asyncio.timeout(LAST_DELETIONS_SECONDS):
                    await delete_due(self.engine, self._providers())

    async def _result(self, left: RunResult) -> RunResult:
        """Count the files left in the inboxes and the queue, and those in ``failed``."""
        live = 0
        with contextlib.suppress(StoreBusy):  # a cluster's database is away: the stop does not wait for it
            stats = await self.engine.stats()
            live = sum(
                each.queued + each.transcribing + each.deferred + each.held + each.publishing
                for each in stats.folders.values()
            )
            live += sum(each.at_provider for each in stats.folders.values())
        return replace(left, failed=self.reporter.failed_count, left=left.left + live)

    # Once ---------------------------------------------------------------------------------------

    async def _until_nothing_more(self) -> None:
        stopping = asyncio.create_task(self.stop.wait())
        try:
            while not self.stop.is_set() and await self._can_go_on():
                await asyncio.wait([stopping], timeout=_ONCE_LOOK_SECONDS)
        finally:
            stopping.cancel()

    async def _can_go_on(self) -> bool:
        # Settling is asked first: a file that settles before the second look is in the queue by then.
        return self.inboxes.is_settling() or await self.engine.can_go_on(ONCE_HORIZON_SECONDS)

    async def status(self) -> dict[str, Any]:
        """The object that ``status --json`` prints, as it is now."""
        return await self.report.status()

    async def _reload_when_asked(self, reloader: Reloader) -> None:
        while True:
            await self._reload_asked.wait()
            self._reload_asked.clear()
            self.notifier.reloading()
            try:
                await reloader.reload()
            finally:
                self.notifier.ready()

    def _asks(self) -> bool:
        return any(rule.backlog == "ask" for rule in self.config.folders.values())


def _first_error(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The error that ended the run; dropscribe's own errors come before those that follow from them."""
    flat: list[BaseException] = []

    def flatten(error: BaseException) -> None:
        if isinstance(error, BaseExceptionGroup):
            for inner in error.exceptions:
                flatten(inner)
        else:
            flat.append(error)

    flatten(group)
    return next((error for error in flat if isinstance(error, DropscribeError)), flat[0])
