"""The daemon: built from a config, run until it is told to stop, or once.

Order of the start: the state directory and the inboxes locked → the queue recovered → inboxes watched →
ready. Order of the stop: inboxes stop taking files → claims stop → running uploads get
``shutdown_grace`` → unfinished jobs are requeued.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import random
import time
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import structlog

from dropscribe import __version__
from dropscribe.app.housekeeping import Housekeeping, change_token
from dropscribe.app.monitoring import Monitoring
from dropscribe.app.reload import Reloader, begin_folders, keep_running_config, make_providers, watched_rules
from dropscribe.app.status_publisher import StatusPublisher
from dropscribe.config.running import remove_pointer
from dropscribe.core.errors import DropscribeError, StoreAway, StoreBusy
from dropscribe.core.text.printing import plural
from dropscribe.intake.inbox_queue import InboxQueue
from dropscribe.intake.inboxes import Inboxes
from dropscribe.media.spool import Spool
from dropscribe.pipeline.claims import build_runtime
from dropscribe.pipeline.handler import Handler
from dropscribe.providers.build import build_provider
from dropscribe.queue.embedded.store import Store
from dropscribe.queue.engine import open_engine
from dropscribe.queue.model import build_plan
from dropscribe.queue.sql.stats import read_live_counts
from dropscribe.service.logs import configure_logging
from dropscribe.service.process import route_signals
from dropscribe.service.sd_notify import Notifier

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from dropscribe.config.model import Config, ProviderConfig
    from dropscribe.providers.base import Provider
    from dropscribe.queue.engine import Engine
    from dropscribe.web.site import PageSource

T = TypeVar("T")

log = structlog.get_logger()

ONCE_HORIZON_SECONDS = 60.0  # ``run --once`` waits for retries that are due within this time
_MOST_LEFT_NAMED = 20  # Files of an inbox that ``run --once`` names
_LOOK_SECONDS = 0.02  # until ``run --once`` looks for more to do again
_QUEUE_AWAY_SECONDS = 2.0  # wait between two attempts to reach a cluster's unavailable database


@dataclass(frozen=True, slots=True)
class RunResult:
    """The result of ``run --once``."""

    failed: int  # files that went to ``failed`` in this run
    # Files that wait for something; None if it is unknown: a cluster's database is away.
    left: int | None
    unavailable: int = 0  # inboxes that are missing or cannot be read


def run_in_foreground(config: Config, reread: Callable[[], Config], *, once: bool) -> RunResult:
    """Run the daemon as this process's only task, with its logging and signals.

    *reread* returns the config as it is by now, or raises ConfigError. With *once*: see :meth:`Daemon.run`.
    """

    def log_as(config: Config) -> None:
        configure_logging(config.log.level, config.log.format, secrets=config.secrets)

    async def run() -> RunResult:
        with route_signals(asyncio.get_running_loop(), daemon.stop, daemon.reload_asked.set):
            return await daemon.run(once=once)

    log_as(config)
    daemon = Daemon(config, Notifier(), read_config=reread, on_reload=log_as)
    return asyncio.run(run())


@dataclass
class Daemon:
    """One run of dropscribe."""

    first_config: Config  # at the start; :attr:`config` is the current one
    notifier: Notifier
    read_config: Callable[[], Config] | None = None  # reads and checks it for a reload; raises ConfigError
    on_reload: Callable[[Config], None] | None = None  # called with the new config after a reload
    make_provider: Callable[[ProviderConfig], Provider] = build_provider
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    reload_asked: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def config(self) -> Config:
        """The current config: a part of the value that a reload swaps."""
        return self.handler.runtime.config

    async def run(self, *, once: bool = False) -> RunResult:
        """Run until :attr:`stop` is set; with *once* until nothing more can be done now.

        Raises:
            StoreError: The state directory or an inbox cannot be used, or failed during the run.
            ListenError: ``http.listen`` cannot be bound.
        """
        with contextlib.closing(Store(self.first_config.state_dir)) as store:
            opening = partial(asyncio.to_thread, open_engine, self.first_config.queue, store)
            engine = await self._repeat_while_away(opening, once=once)
            if engine is None:
                return RunResult(0, None)
            try:
                self._build(store, engine)
                return await self._run_built(once=once)
            finally:
                if engine.store is not store:
                    engine.store.close()

    async def _repeat_while_away(self, call: Callable[[], Awaitable[T]], *, once: bool) -> T | None:
        """The result of *call*, repeated while a cluster's database is unavailable; None after a stop.

        With *once* StoreAway is raised after a minute.
        """
        told, began = False, time.monotonic()
        while not self.stop.is_set():
            try:
                return await call()
            except StoreAway as error:
                if once and time.monotonic() - began > ONCE_HORIZON_SECONDS:
                    raise
                if not told:
                    log.warning("queue.away", reason=error.reason, server=error.path)
                told = True
                self.notifier.send(status="waiting for the queue's database")
                self.notifier.extend_timeout(_QUEUE_AWAY_SECONDS + 60)
            await self._wait_for_stop(_QUEUE_AWAY_SECONDS)
        return None

    def _build(self, store: Store, engine: Engine) -> None:
        config = self.first_config
        Spool(config.state_dir).sweep()
        self.engine = engine
        queue = InboxQueue(engine, asyncio.get_running_loop(), self._failed_root)
        token = engine.store.token if config.queue is None else None
        self.inboxes = Inboxes(engine.folders, queue, engine.signals.news.set, token)
        self.report = StatusPublisher(lambda: self.config, engine, self.inboxes, self.notifier)
        self.monitoring = Monitoring(config, store, self.report, self._page_source)
        self.handler = Handler(
            build_runtime(config, make_providers(config, self.make_provider), engine),
            engine,
            self.inboxes,
            self.monitoring.reporter,
            token=engine.store.token,
            jitter=random.random,
        )
        self.housekeeping = Housekeeping(engine, lambda: self.handler.runtime)

    def _failed_root(self, folder: str) -> bytes | None:
        rule = self.config.folders.get(folder)
        return None if rule is None else os.fsencode(rule.failed)

    async def _begin_folders(self) -> bool:
        await begin_folders(self.engine, self.config)
        return True

    async def _run_built(self, *, once: bool) -> RunResult:
        config, handler = self.config, self.handler
        reloader = Reloader(self)
        try:
            async with asyncio.TaskGroup() as group:
                plan = build_plan(config)
                self.engine.replan(plan)
                # Another node may end the sessions of this one for its silence before the start.
                if not await self._repeat_while_away(self._begin_folders, once=once):
                    return RunResult(0, None)
                await self.handler.budgets.audit()  # of renamed rules too
                inboxes = await self.inboxes.prepare(watched_rules(config))
                dispatching = group.create_task(self.engine.run(plan, handler.attempt, handler.publish))
                self.inboxes.commit(inboxes)  # before the first claim: it blocks unavailable folders
                await self.monitoring.start()
                reporting = group.create_task(self.report.write_when_new())
                parts = (
                    self.notifier.feed_watchdog(lambda: not self.report.find_stuck()),
                    self._reload_when_asked(reloader),
                    self.monitoring.run(),
                    self.handler.budgets.watch(),
                    self.housekeeping.run(),
                )
                others = [group.create_task(part) for part in parts]
                keep_running_config(config)
                log.info("daemon.ready", version=__version__, folders=len(config.folders))
                self.notifier.send("READY=1", status=f"watching {plural(len(config.folders), 'folder')}")
                await (self._until_nothing_more() if once else self.stop.wait())
                result = await self._shut_down(dispatching, reporting, others)
                await reloader.close()
        except BaseExceptionGroup as group_error:
            # One of dropscribe's own comes first, because others may only follow from it.
            error: BaseException = group_error.subgroup(DropscribeError) or group_error
            while isinstance(error, BaseExceptionGroup):
                error = error.exceptions[0]
            raise error from group_error
        finally:
            remove_pointer(config.state_dir, config.path, os.environ)
            await self.inboxes.release()
        return result

    async def _shut_down(
        self, dispatching: asyncio.Task[None], reporting: asyncio.Task[None], others: list[asyncio.Task[Any]]
    ) -> RunResult:
        """Give running uploads their grace, close everything, and count the remaining files."""
        grace_seconds, uploads = self.config.shutdown_grace_seconds, len(self.engine.in_flight)
        log.info("daemon.stopping", in_flight=uploads)
        self.notifier.send("STOPPING=1", status=f"finishing {plural(uploads, 'file')}")
        self.notifier.extend_timeout(grace_seconds + 15)
        # Read before the stop: a stopped inbox no longer knows its files or its watch mode.
        inboxes = self.inboxes.live().values()
        reporting.cancel()
        self.report.write()
        await self.inboxes.stop()
        await self.engine.dispatcher.drain(grace_seconds)
        dispatching.cancel()
        await asyncio.wait([dispatching])
        failed, left = len(self.monitoring.reporter.failed), await self._count_live()
        if left is not None:
            left += sum(inbox["settling"] + inbox["blocked"] for inbox in inboxes)
        result = RunResult(failed, left, sum(not inbox["available"] for inbox in inboxes))
        for task in others:
            task.cancel()
        await self.monitoring.close()
        await self.housekeeping.delete_last()
        for provider in self.handler.runtime.providers.values():
            await provider.close()
        self.handler.close()
        log.info("daemon.stopped", **asdict(result))
        return result

    def _page_source(self) -> PageSource:
        from dropscribe.web.site import PageSource  # noqa: PLC0415  # with Jinja2: 4 MiB

        sending, token = self.handler.attempts.sending, lambda: change_token(self.config)
        return PageSource(lambda: self.config, self.report.status, self.engine, sending, token)

    async def _until_nothing_more(self) -> None:
        while not self.stop.is_set() and await self._has_more():
            await self._wait_for_stop(_LOOK_SECONDS)
        self._log_left()

    async def _has_more(self) -> bool:
        # The inboxes are asked first: a file that settles before the queue is asked is in the queue by then.
        is_settling, has_hard_link = self.inboxes.is_settling(), self.inboxes.has_hard_link_waiting()
        if is_settling or await self._can_go_on():
            return True
        # A hard link waits for the job of the same file, and is queued soon after that job has ended.
        return has_hard_link and await self._count_live() == 0

    def _log_left(self) -> None:
        """Name files that are left in inboxes, and what for: after a timer's run nobody may ask ``why``."""
        for folder, inbox in self.inboxes.live().items():
            for path, reason in itertools.islice(inbox["waiting"].items(), _MOST_LEFT_NAMED):
                log.warning("file.left", folder=folder, path=path, reason=reason)

    async def _count_live(self) -> int | None:
        """Files in the queue; None if a cluster's database is away, because the stop does not wait for it."""
        with contextlib.suppress(StoreBusy):
            counts = await self.engine.store.do(read_live_counts)
            return sum(n for folder, n in counts.items() if folder in self.config.folders)
        return None

    async def _can_go_on(self) -> bool:
        """Whether a file can go on; if a cluster's database is away for long, whether an upload runs."""
        try:
            async with asyncio.timeout(ONCE_HORIZON_SECONDS):
                return await self.engine.can_go_on(ONCE_HORIZON_SECONDS)
        except TimeoutError:
            return bool(self.engine.in_flight.uploads)

    async def _wait_for_stop(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.stop.wait()

    async def _reload_when_asked(self, reloader: Reloader) -> None:
        while True:
            await self.reload_asked.wait()
            self.reload_asked.clear()
            self.notifier.reloading()
            try:
                await reloader.reload()
            finally:
                self.notifier.send("READY=1")
