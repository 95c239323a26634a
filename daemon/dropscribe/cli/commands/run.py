"""``dropscribe run``: runs the daemon in the foreground; with --once until nothing more can be done."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable

from dropscribe import __version__
from dropscribe.cli import exit_codes
from dropscribe.cli.messages import say
from dropscribe.config.find import find_config
from dropscribe.config.load import load_config
from dropscribe.config.model import Config
from dropscribe.core.errors import Problem
from dropscribe.files.mounts import require_proc


def execute(options: argparse.Namespace) -> int:
    """Run until a signal; with --once until nothing more can be done now."""
    require_proc()
    path = find_config(options.config)
    config, warnings = load_config(path)
    # Not paid for where the config is wrong.
    from dropscribe.app.daemon import run_in_foreground  # noqa: PLC0415
    from dropscribe.service.logs import configure_logging  # noqa: PLC0415

    def reread() -> Config:
        config, warnings = load_config(path)
        _log_warnings(warnings)
        return config

    if sys.stderr.isatty():
        for warning in warnings:
            say(str(warning))
        say(f"config: {config.path}" if options.once else _welcome(config))
    else:
        configure_logging(config.log.level, config.log.format, secrets=config.secrets)
        _log_warnings(warnings)
    result = run_in_foreground(config, reread, once=options.once)
    if options.once and (result.left != 0 or result.unavailable):
        return exit_codes.LEFT_WAITING
    return exit_codes.SOME_FAILED if options.once and result.failed else exit_codes.OK


def _log_warnings(warnings: Iterable[Problem]) -> None:
    """One event of the log each, because lines for people would stand between those for programs."""
    import structlog  # noqa: PLC0415  # loaded by now; other commands do without it

    for warning in warnings:
        hint = {"hint": warning.hint} if warning.hint else {}
        reason = f"{warning.path}: {warning.message}" if warning.path else warning.message
        structlog.get_logger().warning("config.warning", place=warning.place, reason=reason, **hint)


def _welcome(config: Config) -> str:
    lines = [f"dropscribe {__version__} with {config.path}"]
    for rule in config.folders.values():
        if config.watches(rule):
            lines.append(f"  drop recordings into  {rule.inbox}")
            lines.append(f"  transcripts appear in {rule.done}  (provider {', '.join(rule.providers)})")
    return "\n".join([*lines, "Press Ctrl-C to stop.", ""])
