"""``dropscribe run``: the daemon in the foreground, or once."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

from dropscribe.app.daemon import Daemon, RunResult
from dropscribe.cli import exits
from dropscribe.cli.words import say
from dropscribe.config.load import find_config, load_config
from dropscribe.config.problems import format_problem
from dropscribe.service.logs import configure_logging
from dropscribe.service.notify import Notifier
from dropscribe.service.signals import prepare_process, route_signals

if TYPE_CHECKING:
    import argparse
    from pathlib import Path

    from dropscribe.config.model import Config


def execute(options: argparse.Namespace) -> int:
    """Run until a signal; with --once until nothing more can be done now."""
    prepare_process()
    path = find_config(options.config)
    config, warnings = load_config(path, environ=os.environ)
    for warning in warnings:
        say(format_problem(warning))
    _configure_logging(config)
    result = asyncio.run(_run(config, path, once=options.once))
    if not options.once:
        return exits.OK
    return _code(result)


async def _run(config: Config, path: Path, *, once: bool) -> RunResult:
    daemon = Daemon(config, Notifier(), reload=lambda: _reload(path))
    with route_signals(asyncio.get_running_loop(), daemon.stop, daemon.ask_reload):
        return await daemon.run(once=once)


def _reload(path: Path) -> Config:
    config, _ = load_config(path, environ=os.environ)
    _configure_logging(config)
    return config


def _configure_logging(config: Config) -> None:
    configure_logging(config.log.level, config.log.format, secrets=config.secrets)


def _code(result: RunResult) -> int:
    if result.left:
        return exits.LEFT_WAITING
    return exits.SOME_FAILED if result.failed else exits.OK
