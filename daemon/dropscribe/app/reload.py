"""Takes a new config while the daemon runs.

Guarantees: steps that can fail come first; then everything that the config decides changes in one step,
without a pause in which a job could see half of it. A refused config changes nothing. Attempts under way end
with the config that they began with.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import structlog

from dropscribe.config.model import diff_configs
from dropscribe.config.running import store_running_config
from dropscribe.core.errors import ConfigError, DropscribeError, Problem, StoreError
from dropscribe.core.model import Scope, ScopeKind
from dropscribe.files.threads import DaemonThreads
from dropscribe.pipeline.claims import build_runtime
from dropscribe.queue.model import build_plan

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from dropscribe.app.daemon import Daemon
    from dropscribe.config.model import Config, FolderRule, ProviderConfig
    from dropscribe.pipeline.claims import RuntimeConfig
    from dropscribe.providers.base import Provider
    from dropscribe.queue.engine import Engine

log = structlog.get_logger()

READ_SECONDS = 30.0  # a config that cannot be read in this time is refused: its disk may hang
_FIXED = ("state_dir", "queue")


class Reloader:
    """Reads, checks and takes the configs of *daemon*."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self._closing: set[asyncio.Task[None]] = set()

    async def reload(self) -> None:
        """Take the config as it is on disk now, or log why it is refused."""
        if self._daemon.read_config is None:
            return
        try:
            await self._take(await _read_in_time(self._daemon.read_config))
        except ConfigError as error:
            for problem in error.problems:
                if not problem.warning:
                    self._refuse(place=problem.place, reason=problem.message)
        except TimeoutError:
            self._refuse(reason=f"it could not be read within {READ_SECONDS:g} seconds")
        except DropscribeError as error:
            self._refuse(reason=str(error))
        except Exception as error:
            # A bug or a disk error: the daemon goes on with its old config.
            log.exception("config.reload_failed")
            self._refuse(reason=str(error))

    async def close(self) -> None:
        """Close the providers that a reload has replaced."""
        for task in self._closing:
            task.cancel()
        await asyncio.gather(*self._closing, return_exceptions=True)

    def _refuse(self, **fields: str) -> None:
        log.error("config.refused", **fields)
        self._daemon.monitoring.observe_config(is_taken=False)

    async def _take(self, config: Config) -> None:
        daemon, old = self._daemon, self._daemon.handler.runtime
        for name in _FIXED:
            if getattr(config, name) != getattr(old.config, name):
                message = f"{name} cannot change while the daemon runs: restart it"
                raise ConfigError((Problem(message, file=str(config.path or ""), path=name),))
        new = build_runtime(config, make_providers(config, daemon.make_provider, old), daemon.engine)
        inboxes = await daemon.inboxes.prepare(watched_rules(config))
        try:
            await daemon.monitoring.swap(config)
            # Last, before the new threads list the inboxes: they would take the same files once more.
            await begin_folders(daemon.engine, config)
        except BaseException:
            daemon.inboxes.discard(inboxes)
            raise
        # Without an await from here to the end of the swap, so that no job sees half of the change.
        daemon.inboxes.commit(inboxes)
        daemon.handler.runtime = new
        daemon.engine.replan(build_plan(new.config))
        if daemon.on_reload is not None:
            daemon.on_reload(new.config)
        await self._after(old, new)

    async def _after(self, old: RuntimeConfig, new: RuntimeConfig) -> None:
        daemon = self._daemon
        for name, provider in old.providers.items():
            if new.providers.get(name) is not provider:
                daemon.engine.holds.probe_now(Scope(ScopeKind.PROVIDER, name))
                self._close_when_idle(name, provider)
        for name in {**old.config.folders, **new.config.folders}:
            if new.config.folders.get(name) != old.config.folders.get(name):
                daemon.engine.holds.probe_now(Scope(ScopeKind.FOLDER, name))
                daemon.handler.checks.reopen(name)
        keep_running_config(new.config)
        daemon.monitoring.observe_config(is_taken=True)
        log.info("config.reloaded", changes=diff_configs(old.config, new.config))
        daemon.engine.signals.news.set()
        try:
            await daemon.engine.clear_stale_assignments()
            await daemon.handler.budgets.audit()
        except StoreError as error:
            log.warning("config.reload_unfinished", reason=error.reason)

    def _close_when_idle(self, name: str, provider: Provider) -> None:
        """Close a replaced provider when the attempts that began with it have ended."""
        tasks = self._daemon.engine.in_flight.tasks_at(name)

        async def close() -> None:
            try:
                if tasks:
                    await asyncio.wait(tasks)
            finally:
                await provider.close()

        closing = asyncio.create_task(close())
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)


def make_providers(
    config: Config, make: Callable[[ProviderConfig], Provider], old: RuntimeConfig | None = None
) -> dict[str, Provider]:
    """The providers that rules name; one of *old* with an unchanged section stays, with its connections."""
    used = dict.fromkeys(name for rule in config.folders.values() for name in rule.providers)
    return {
        name: old.providers[name]
        if old and name in old.providers and old.config.providers.get(name) == config.providers[name]
        else make(config.providers[name])
        for name in used
    }


def keep_running_config(config: Config) -> None:
    """Store *config* for the commands; without it they read the file on disk."""
    try:
        store_running_config(config)
    except OSError as error:
        log.warning("config.not_kept", error=str(error))


async def begin_folders(engine: Engine, config: Config) -> None:
    """Take over the files of rules with another name by now, and mark the first start of new ones."""
    await engine.begin_folders(
        {name: rule.backlog == "ask" for name, rule in config.folders.items()},
        {name: str(rule.inbox) for name, rule in config.folders.items()},
    )


def watched_rules(config: Config) -> Mapping[str, FolderRule]:
    """The rules with an inbox that this node watches: in a cluster, an inbox on one of the node's mounts."""
    return {name: rule for name, rule in config.folders.items() if config.watches(rule)}


async def _read_in_time(read: Callable[[], Config]) -> Config:
    threads = DaemonThreads(1, "config")
    reading = threads.submit(read)
    threads.shutdown(cancel_futures=False)
    async with asyncio.timeout(READ_SECONDS):
        return await asyncio.wrap_future(reading)
