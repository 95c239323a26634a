"""``dropscribe retry``: moves failed audio back into its inbox, where the daemon finds it as any file.

Guarantees: nothing is overwritten; the audio is in the inbox, durably, before its error file is removed.
A running daemon updates the queue when it finds the file; without one this command does, so that no report
still names it as failed. Run by root it acts with the rights of the daemon's user.
"""

from __future__ import annotations

import contextlib
import os
import sys
from functools import partial
from typing import TYPE_CHECKING

from dropscribe.cli import exit_codes
from dropscribe.cli.failed_files import FailedFiles
from dropscribe.cli.messages import say
from dropscribe.cli.options import act_as_owner, named, read_config_to_act
from dropscribe.core.errors import StoreAway, StoreError
from dropscribe.publish.return_to_inbox import return_to_inbox
from dropscribe.queue.sql.intake_queries import forget_failed
from dropscribe.reports.inbox_reader import unavailable_reason
from dropscribe.reports.queue_reader import NOT_MOUNTED, is_anybody_running, view_queue, write_queue_once
from dropscribe.reports.wording import plural, show_path

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterable, Sequence

    from dropscribe.config.model import Config
    from dropscribe.publish.return_to_inbox import FailedFile
    from dropscribe.queue.sql.database import Connection

_USAGE = "dropscribe retry: name FILEs, or --folder NAME, or --all (one of the three)"


def execute(options: argparse.Namespace) -> int:
    """Move the named files back; 74 if one of them cannot be moved."""
    if sum((bool(options.files), bool(options.folder), options.all)) != 1:
        say(_USAGE)
        return exit_codes.USAGE
    config = read_config_to_act(options)
    act_as_owner(config)
    moved: list[FailedFile] = []
    with contextlib.ExitStack() as stack:
        db = None
        with contextlib.suppress(StoreAway):  # a cluster's database: the error files suffice then
            db = stack.enter_context(view_queue(config)).db
        try:
            chosen, all_found = _choose(options, config, FailedFiles(config, db))
            moved += filter(_take_back, chosen)
        finally:
            is_running = _update_queue(config, moved)
    is_complete = all_found and len(moved) == len(chosen)
    if moved:
        is_or_are = "is" if len(moved) == 1 else "are"
        when = "" if is_running else "; dropscribe is not running: start it to process them"
        sys.stdout.write(f"{plural(len(moved), 'file')} {is_or_are} back in the inbox{when}\n")
    elif is_complete:
        sys.stdout.write("nothing has failed; nothing to take back\n")
    return exit_codes.OK if is_complete else exit_codes.IO_ERROR


def _choose(options: argparse.Namespace, config: Config, files: FailedFiles) -> tuple[list[FailedFile], bool]:
    """The files to move, and whether nothing that was asked for is missing among them."""
    sources: list[tuple[bytes, Callable[[], Iterable[FailedFile]]]] = [
        (path, partial(files.named, path)) for path in map(os.fsencode, options.files)
    ]
    chosen: list[FailedFile] = []
    all_found = True
    names = [options.folder] if options.folder else config.folders if options.all else ()
    for rule in [named(config.folders, "folder", name, config) for name in names]:
        path = os.fsencode(rule.failed)
        if config.queue is None or config.queue.serves(rule):
            sources.append((path, partial(files.of_rule, rule)))
        elif options.folder:
            all_found = _refuse(path, NOT_MOUNTED)
    for path, find in sources:
        try:
            chosen += list(find())
        except OSError as error:
            all_found = _refuse(path, error.strerror or str(error))
    return chosen, all_found


def _take_back(failed: FailedFile) -> bool:
    """Move one file back, if that is possible; returns whether it was."""
    if reason := unavailable_reason(failed.rule):
        return _refuse(failed.audio, f"stays where it is: the inbox is unavailable: {reason}")
    try:
        target = return_to_inbox(failed)
    except OSError as error:
        place = f" ({show_path(os.fsencode(error.filename))})" if error.filename else ""
        return _refuse(failed.audio, f"stays where it is: {error.strerror}{place}")
    sys.stdout.write(f"{show_path(failed.audio)} -> {show_path(target)}\n")
    return True


def _refuse(path: bytes, reason: str) -> bool:
    """Say why *path* is not moved; returns False."""
    say(f"dropscribe: {show_path(path)}: {reason}")
    return False


def _update_queue(config: Config, moved: Sequence[FailedFile]) -> bool:
    """Mark the files as taken back if no daemon runs that does it; returns whether one may run.

    A queue that cannot be used is no error, because the files are back anyway.
    """

    def mark(db: Connection) -> None:
        for failed in moved:
            forget_failed(db, failed.rule.name, failed.audio)

    try:
        if not moved or is_anybody_running(config):
            return True
        write_queue_once(config, mark)
    except StoreError:
        return True
    return False
