"""Runs the daemon as this process's only task: logging, signals, reloads."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from dropscribe.app.daemon import Daemon
from dropscribe.service.log.logs import configure_logging
from dropscribe.service.sd_notify import Notifier
from dropscribe.service.signals import route_signals

if TYPE_CHECKING:
    from collections.abc import Callable

    from dropscribe.app.shutdown import RunResult
    from dropscribe.config.model import Config


def run_in_foreground(config: Config, reread: Callable[[], Config], *, once: bool) -> RunResult:
    """Run until a signal; with *once* until nothing more can be done now.

    Args:
        reread: The config as it is by now, for a reload; raises ConfigError where it cannot be used.
    """
    _configure_logging(config)
    daemon = Daemon(config, Notifier(), read_config=reread, on_reload=_configure_logging)
    return asyncio.run(_run(daemon, once=once))


async def _run(daemon: Daemon, *, once: bool) -> RunResult:
    with route_signals(asyncio.get_running_loop(), daemon.stop, daemon.ask_reload):
        return await daemon.run(once=once)


def _configure_logging(config: Config) -> None:
    configure_logging(config.log.level, config.log.format, secrets=config.secrets)
