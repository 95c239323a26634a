"""The daemon: built from a config, run until it is told to stop, or once.

Order of the start: the state directory and the inboxes locked → the queue recovered → inboxes watched →
ready. Order of the stop: nothing new is found → nothing new is claimed → what is in flight gets
``shutdown_grace`` → the rest is handed back.
"""

from __future__ import annotations

import asyncio
import random
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import structlog

from dropscribe import __version__
from dropscribe.app.housekeeping import keep_ledger_short, notice_releases
from dropscribe.app.inbox_queue import InboxQueue
from dropscribe.app.inboxes import Inboxes
from dropscribe.app.observability import Health
from dropscribe.app.queue import open_when_there
from dropscribe.app.reporter import Reporter
from dropscribe.app.status_publisher import SelfReport
from dropscribe.config.diff import diff_configs
from dropscribe.config.running import store_running_config
from dropscribe.core.errors import ConfigError, DropscribeError, Problem, StoreBusy
from dropscribe.core.model import Scope, ScopeKind
from dropscribe.core.retry import RetryLimits
from dropscribe.media.build import add_fitted_providers, sweep_spool
from dropscribe.pipeline.budgets import Budgets
from dropscribe.pipeline.deduplication import Reuse
from dropscribe.pipeline.fallback import Fallback
from dropscribe.pipeline.handler import Handler
from dropscribe.pipeline.holds import Holds
from dropscribe.pipeline.links import add_link_providers
from dropscribe.pipeline.plan import build_plan
from dropscribe.pipeline.publisher import Publisher
from dropscribe.pipeline.results import Answers
from dropscribe.pipeline.runtime_config import DiskThreads, RuntimeConfig
from dropscribe.providers.build import build_provider
from dropscribe.queue.embedded.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable

    from dropscribe.config.model import Config, FolderRule
    from dropscribe.providers.base import Provider
    from dropscribe.queue.rows_engine import RowsEngine
    from dropscribe.service.sd_notify import Notifier

log = structlog.get_logger()

ONCE_HORIZON_SECONDS = 60.0
"""``run --once`` waits for retries due within this time (CONTRACT.md §2)."""

_ONCE_LOOK_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class RunResult:
    """What ``run --once`` left behind.

    Attributes:
        failed: Files that went to ``failed`` in this run.
        left: Files that wait for something.
    """

    failed: int
    left: int


@dataclass
class Daemon:
    """One run of dropscribe on one config.

    Attributes:
        reload: Reads and checks the config again; raises ConfigError, and the old one stays.
    """

    config: Config
    notifier: Notifier
    reload: Callable[[], Config] | None = None
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    _reload_asked: asyncio.Event = field(default_factory=asyncio.Event)
    _news: asyncio.Event = field(default_factory=asyncio.Event)
    _closing: set[asyncio.Task[None]] = field(default_factory=set)

    def ask_reload(self) -> None:
        """SIGHUP: read the config again when the loop comes to it."""
        self._reload_asked.set()

    async def run(self, *, once: bool = False) -> RunResult:
        """Run until :attr:`stop` is set; with *once* until nothing more can be done now.

        Raises:
            StoreError: The state directory or an inbox cannot be had, or broke on the way.
            ListenError: ``http.listen`` cannot be bound.
        """
        store = Store(self.config.state_dir)
        try:
            limits = RetryLimits(**_limits(self.config))
            engine = await open_when_there(self.config, store, limits, self.notifier, self.stop)
            if engine is None:
                return RunResult(0, 0)
            try:
                self._build(store, engine, limits)
                return await self._run_built(once=once)
            finally:
                if engine.store is not store:
                    engine.store.close()
        finally:
            store.close()

    def _build(self, store: Store, engine: RowsEngine, limits: RetryLimits) -> None:
        sweep_spool(self.config)
        self.engine = engine
        self.health = Health(self.config, __version__, store)
        self.reporter = Reporter(self.health.metrics, self.health.hooks, self.health.notifications)
        self.disks = DiskThreads()
        queue = InboxQueue(self.engine, asyncio.get_running_loop())
        token = engine.store.token if self.config.queue is None else None
        self.inboxes = Inboxes(self.engine, queue, self._news.set, token)
        self.report = SelfReport(lambda: self.config, self.engine, self.inboxes, self.notifier, self._news)
        hold = self.config.hold
        self.holds = Holds(self.engine, self.reporter, hold.first_seconds, hold.max_seconds)
        answers = Answers(self.engine, self.disks)
        publisher = Publisher(
            self.engine, self.inboxes, self.reporter, self.disks, answers, engine.store.token
        )
        self.budgets = Budgets(self.engine, self.reporter, self.disks)
        self.handler = Handler(
            setup=_setup(self.config, _build_providers(self.config, {}), limits),
            queue=self.engine,
            holds=self.holds,
            intake=self.inboxes,
            observer=self.reporter,
            disks=self.disks,
            answers=answers,
            publisher=publisher,
            reuse=Reuse(self.engine),
            fallback=Fallback(self.engine),
            budgets=self.budgets,
            jitter=random.random,
        )

    async def _run_built(self, *, once: bool) -> RunResult:
        try:
            async with asyncio.TaskGroup() as group:
                plan = build_plan(self.config)
                self.engine.replan(plan)
                await self.budgets.audit()
                await self._mark_first_starts(self.config)
                inboxes = await self.inboxes.prepare(_watched(self.config))
                feeding = group.create_task(self.engine.run(plan, self.handler.attempt, self.handler.publish))
                self.inboxes.commit(inboxes)  # before the first claim: it closes what is not available
                report = self.report
                await self.health.start(self.status, report.find_stuck, report.find_unready)
                side = [  # the first writes live.json: see _wind_up
                    group.create_task(report.write_when_new()),
                    group.create_task(self.notifier.feed_watchdog(lambda: not report.find_stuck())),
                    group.create_task(self._reload_when_asked()),
                    group.create_task(self.health.run()),
                    group.create_task(self.budgets.watch()),
                    group.create_task(notice_releases(self.engine, self._asks)),
                    group.create_task(
                        keep_ledger_short(self.engine, lambda: self.config.ledger_keep_seconds)
                    ),
                ]
                _keep_running_config(self.config)
                log.info("daemon.ready", version=__version__, folders=len(self.config.folders))
                self.notifier.ready(f"watching {len(self.config.folders)} folders")
                await (self._until_nothing_more() if once else self.stop.wait())
                result = await self._wind_up(feeding, side)
        except BaseExceptionGroup as group_error:
            raise _first_error(group_error) from group_error
        finally:
            await self.inboxes.release()
        return result

    async def _wind_up(self, feeding: asyncio.Task[None], side: list[asyncio.Task[Any]]) -> RunResult:
        grace_seconds = self.config.shutdown_grace_seconds
        log.info("daemon.stopping", in_flight=self.engine.in_flight)
        self.notifier.stopping(f"finishing {self.engine.in_flight} files")
        self.notifier.extend_timeout(grace_seconds + 15)
        # A stopped inbox knows of nothing, not even how it was watched.
        left_in_inboxes = self.inboxes.left_waiting()
        side[0].cancel()
        self.report.write()
        await self.inboxes.stop()
        await self.engine.drain(grace_seconds)
        feeding.cancel()
        await asyncio.wait([feeding])
        result = await self._result(left_in_inboxes)
        for task in side:
            task.cancel()
        await self.health.close()
        for provider in self.handler.setup.providers.values():
            await provider.close()
        self.disks.close()
        log.info("daemon.stopped", **asdict(result))
        return result

    async def _result(self, left_in_inboxes: int) -> RunResult:
        try:
            stats = await self.engine.stats()
        except StoreBusy:  # a cluster's database is away: who stops now does not wait for it
            return RunResult(self.reporter.filed_count[False], left_in_inboxes)
        live = sum(
            each.queued + each.transcribing + each.deferred + each.held + each.publishing
            for each in stats.folders.values()
        )
        return RunResult(self.reporter.filed_count[False], live + left_in_inboxes)

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
        """The object of CONTRACT.md §6, as it is now."""
        return await self.report.status()

    # Reload -------------------------------------------------------------------------------------

    async def _reload_when_asked(self) -> None:
        while True:
            await self._reload_asked.wait()
            self._reload_asked.clear()
            self.notifier.reloading()
            try:
                await self._reload()
            finally:
                self.notifier.ready()

    async def _reload(self) -> None:
        if self.reload is None:
            return
        try:
            config = await asyncio.to_thread(self.reload)
            await self._take(config)
        except ConfigError as error:
            for problem in error.problems:
                if not problem.warning:
                    self._refuse(place=_place_of(problem), reason=problem.message)
        except DropscribeError as error:
            self._refuse(reason=str(error))
        except Exception as error:
            # A bug, or a disk: the daemon that works goes on as it is.
            log.exception("config.reload_failed")
            self._refuse(reason=str(error))

    def _refuse(self, **what: str) -> None:
        log.error("config.refused", **what)
        self.health.observe_config(is_taken=False)

    async def _take(self, config: Config) -> None:
        """Swap everything in one step; whatever may fail fails before it."""
        old = self.handler.setup
        if config.state_dir != old.config.state_dir:
            message = "state_dir cannot change while the daemon runs: restart it"
            raise ConfigError((Problem(message, file=str(config.path or ""), path="state_dir"),))
        if config.queue != old.config.queue:
            message = "queue cannot change while the daemon runs: restart it"
            raise ConfigError((Problem(message, file=str(config.path or ""), path="queue"),))
        providers = _build_providers(config, dict(old.providers), old.config)
        limits = RetryLimits(**_limits(config))
        setup = _setup(config, providers, limits)
        await self.health.swap(config)
        try:
            await self._mark_first_starts(config)
            await self.inboxes.swap(_watched(config))
        except BaseException:
            await self.health.swap(old.config)
            raise
        self.config = config
        self.handler.setup = setup
        self.engine.limits = limits
        self.health.equip(self.reporter)
        self.holds.first_seconds = config.hold.first_seconds
        self.holds.max_seconds = config.hold.max_seconds
        plan = build_plan(config)
        self.engine.replan(plan)
        await self.engine.clear_stale_assignments()
        await self.budgets.audit()
        for name, provider in old.providers.items():
            if providers.get(name) is not provider:
                self.engine.probe_now(Scope(ScopeKind.PROVIDER, name))
                self._close_when_idle(name, provider)
        for name in config.folders:
            if config.folders[name] != old.config.folders.get(name):
                self.engine.probe_now(Scope(ScopeKind.FOLDER, name))
        _keep_running_config(config)
        self.health.observe_config(is_taken=True)
        log.info("config.reloaded", changes=[str(change) for change in diff_configs(old.config, config)])
        self._news.set()

    async def _mark_first_starts(self, config: Config) -> None:
        """Before any inbox is listed: what is in it now may be backlog."""
        asks = {name: rule.backlog == "ask" for name, rule in config.folders.items()}
        await self.engine.begin_folders(asks)

    def _asks(self) -> bool:
        return any(rule.backlog == "ask" for rule in self.config.folders.values())

    def _close_when_idle(self, name: str, provider: Provider) -> None:
        """An attempt that began with the old provider ends with it."""
        closing = asyncio.create_task(_close_after(self.engine.tasks_at(name), provider))
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)


async def _close_after(tasks: list[asyncio.Task[None]], provider: Provider) -> None:
    if tasks:
        await asyncio.wait(tasks)
    await provider.close()


def _watched(config: Config) -> dict[str, FolderRule]:
    """The rules whose inboxes this node watches: in a cluster, those whose mounts it has."""
    return {name: rule for name, rule in config.folders.items() if config.watches(rule)}


def _place_of(problem: Problem) -> str:
    return f"{problem.file}:{problem.line}:{problem.column}" if problem.line else problem.file


def _keep_running_config(config: Config) -> None:
    """For the commands; without it they need the file as it is on disk."""
    try:
        store_running_config(config)
    except OSError as error:
        log.warning("config.not_kept", error=str(error))


def _limits(config: Config) -> dict[str, Any]:
    retry = config.retry
    return {
        "first_seconds": retry.first_seconds,
        "max_seconds": retry.max_seconds,
        "give_up_after_seconds": retry.give_up_after_seconds,
        "max_ambiguous": retry.max_ambiguous,
        "max_crashes": retry.max_crashes,
    }


def _build_providers(
    config: Config, existing: dict[str, Provider], old: Config | None = None
) -> dict[str, Provider]:
    """Providers that a rule uses; one whose config did not change is kept, with its connections."""
    used = {name for rule in config.folders.values() for name in rule.providers}
    return {
        name: existing[name]
        if old and name in existing and old.providers.get(name) == config.providers[name]
        else build_provider(config.providers[name])
        for name in used
    }


def _setup(config: Config, providers: dict[str, Provider], limits: RetryLimits) -> RuntimeConfig:
    """With what the rules want done around their providers; links come last, for they pass by the rest."""
    decorated: dict[tuple[str, str], Provider] = {}
    add_fitted_providers(config, providers, decorated)
    add_link_providers(config, providers, decorated)
    return RuntimeConfig(config, providers, limits, decorated)


def _first_error(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The error that ended the run: what is ours first, whatever else fell over because of it."""
    flat: list[BaseException] = []

    def flatten(error: BaseException) -> None:
        if isinstance(error, BaseExceptionGroup):
            for inner in error.exceptions:
                flatten(inner)
        else:
            flat.append(error)

    flatten(group)
    return next((error for error in flat if isinstance(error, DropscribeError)), flat[0])
