"""``dropscribe release``: starts the files from before the first start of a rule (``backlog: ask``)."""

from __future__ import annotations

import argparse
import sys

from dropscribe.cli import exit_codes
from dropscribe.cli.messages import say
from dropscribe.cli.options import act_as_owner, named, read_config
from dropscribe.core.text.printing import plural
from dropscribe.queue.sql import backlog
from dropscribe.reports.queue_reader import is_anybody_running, write_queue_once


def execute(options: argparse.Namespace) -> int:
    """Start the backlog, with the daemon up or down; 74 if no daemon has run yet."""
    config = read_config(options)
    act_as_owner(config)
    rule = named(config.folders, "folder", options.folder, config)
    count = write_queue_once(config, lambda db: backlog.release(db, rule.name))
    if count is None:
        queue = "queue" if config.queue else "state_dir"
        say(f"dropscribe: nothing waits: dropscribe has not been started with this {queue} yet")
        return exit_codes.IO_ERROR
    go = "goes" if count == 1 else "go"
    words = f"{plural(count, 'file')} {go} on" if count else "nothing waited"
    if count and not is_anybody_running(config):
        words += ", when dropscribe is started"
    sys.stdout.write(f"{rule.name}: {words}\n")
    return exit_codes.OK
