"""``dropscribe run``: runs the daemon in the foreground; with --once until nothing more can be done."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from dropscribe import __version__
from dropscribe.cli import exit_codes
from dropscribe.cli.messages import say
from dropscribe.cli.process import loading_for_good
from dropscribe.config.find import find_config
from dropscribe.config.load import load_config
from dropscribe.files.mounts import require_proc

if TYPE_CHECKING:
    import argparse

    from dropscribe.config.model import Config


def execute(options: argparse.Namespace) -> int:
    """Run until a signal; with --once until nothing more can be done now."""
    require_proc()
    path = find_config(options.config)
    config, warnings = load_config(path)
    with loading_for_good():
        from dropscribe.app.daemon import run_in_foreground  # noqa: PLC0415

    for warning in warnings:
        say(str(warning))
    if sys.stderr.isatty():
        say(f"config: {config.path}" if options.once else _welcome(config))
    result = run_in_foreground(config, lambda: load_config(path)[0], once=options.once)
    if options.once and (result.left != 0 or result.unavailable):
        return exit_codes.LEFT_WAITING
    return exit_codes.SOME_FAILED if options.once and result.failed else exit_codes.OK


def _welcome(config: Config) -> str:
    lines = [f"dropscribe {__version__} with {config.path}"]
    for rule in config.folders.values():
        if config.watches(rule):
            lines.append(f"  drop recordings into  {rule.inbox}")
            lines.append(f"  transcripts appear in {rule.done}  (provider {', '.join(rule.providers)})")
    return "\n".join([*lines, "Press Ctrl-C to stop.", ""])
