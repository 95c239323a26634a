"""``dropscribe run``: the daemon in the foreground, or once."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from dropscribe.cli import exits
from dropscribe.cli.words import say
from dropscribe.config.aside import ReadAside
from dropscribe.config.find import find_config
from dropscribe.config.problems import format_problem
from dropscribe.service.logs import configure_logging
from dropscribe.service.notify import Notifier
from dropscribe.service.signals import prepare_process, route_signals

if TYPE_CHECKING:
    import argparse
    from pathlib import Path

    from dropscribe.app.daemon import Daemon, RunResult
    from dropscribe.config.model import Config


def execute(options: argparse.Namespace) -> int:
    """Run until a signal; with --once until nothing more can be done now."""
    prepare_process()
    path = find_config(options.config)
    reading = ReadAside(path)
    from dropscribe.app.daemon import Daemon  # noqa: PLC0415  # imported while the config is being read

    config, warnings = reading.result()
    for warning in warnings:
        say(format_problem(warning))
    _configure_logging(config)
    daemon = Daemon(config, Notifier(), reload=lambda: _reload(path))
    result = asyncio.run(_run(daemon, once=options.once))
    if not options.once:
        return exits.OK
    return _code(result)


async def _run(daemon: Daemon, *, once: bool) -> RunResult:
    with route_signals(asyncio.get_running_loop(), daemon.stop, daemon.ask_reload):
        return await daemon.run(once=once)


def _reload(path: Path) -> Config:
    config, _ = ReadAside(path).result()
    _configure_logging(config)
    return config


def _configure_logging(config: Config) -> None:
    configure_logging(config.log.level, config.log.format, secrets=config.secrets)


def _code(result: RunResult) -> int:
    if result.left:
        return exits.LEFT_WAITING
    return exits.SOME_FAILED if result.failed else exits.OK
