"""``dropscribe retry``: moves failed audio back into its inbox, where the daemon finds it as any file.

Guarantees: nothing is overwritten; the audio is in the inbox, durably, before its error file is removed.
A running daemon updates the queue when it finds the file; without one this command does, so that no report
still names it as failed. Run by root it acts with the rights of the daemon's user.
"""

from __future__ import annotations

import contextlib
import os
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from dropscribe.cli import exit_codes
from dropscribe.cli.failed_files import FailedFiles
from dropscribe.cli.messages import say
from dropscribe.cli.options import act_as_owner, named, read_config_to_act
from dropscribe.core.errors import StoreAway, StoreError
from dropscribe.publish.return_to_inbox import FailedFile, return_to_inbox
from dropscribe.queue.sql.intake_queries import forget_failed
from dropscribe.reports.inbox_reader import unavailable_reason
from dropscribe.reports.queue_reader import (
    NOT_MOUNTED,
    is_anybody_running,
    view_queue,
    write_queue_once,
)
from dropscribe.reports.wording import plural, show_path

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from dropscribe.config.model import Config, FolderRule
    from dropscribe.queue.sql.database import Connection

_USAGE = "dropscribe retry: name FILEs, or --folder NAME, or --all (one of the three)"


@dataclass(slots=True)
class _Count:
    moved: list[FailedFile] = field(default_factory=list)
    refused: int = 0


def execute(options: argparse.Namespace) -> int:
    """Move the named files back; 74 if one of them cannot be moved."""
    if sum((bool(options.files), bool(options.folder), options.all)) != 1:
        say(_USAGE)
        return exit_codes.USAGE
    config = read_config_to_act(options)
    act_as_owner(config)
    count = _Count()
    with contextlib.ExitStack() as stack:
        db = None
        with contextlib.suppress(StoreAway):  # a cluster's database: the error files suffice then
            db = stack.enter_context(view_queue(config)).db
        try:
            for failed in _chosen(options, config, FailedFiles(config, db), count):
                _take_back(failed, count)
        finally:
            is_running = _update_queue(config, count.moved)
    _say_end(count, is_running=is_running)
    return exit_codes.IO_ERROR if count.refused else exit_codes.OK


def _chosen(
    options: argparse.Namespace, config: Config, files: FailedFiles, count: _Count
) -> list[FailedFile]:
    if options.files:
        return [failed for file in options.files if (failed := _named_file(files, file, count))]
    names = [options.folder] if options.folder else list(config.folders)
    rules = [named(config.folders, "folder", name, config) for name in names]
    served = [rule for rule in rules if config.queue is None or config.queue.serves(rule)]
    if options.folder and not served:
        _refuse(os.fsencode(rules[0].failed), NOT_MOUNTED, count)
    return [failed for rule in served for failed in _failed_of(files, rule, count)]


def _failed_of(files: FailedFiles, rule: FolderRule, count: _Count) -> list[FailedFile]:
    try:
        return list(files.of_rule(rule))
    except OSError as error:
        _refuse(os.fsencode(rule.failed), error.strerror or str(error), count)
        return []


def _named_file(files: FailedFiles, file: str, count: _Count) -> FailedFile | None:
    try:
        found = files.named(os.fsencode(file))
    except OSError as error:
        found = error.strerror or str(error)
    if isinstance(found, FailedFile):
        return found
    _refuse(os.fsencode(file), found, count)
    return None


def _refuse(path: bytes, reason: str, count: _Count) -> None:
    say(f"dropscribe: {show_path(path)}: {reason}")
    count.refused += 1


def _take_back(failed: FailedFile, count: _Count) -> None:
    if reason := unavailable_reason(failed.rule):
        _refuse(failed.audio, f"stays where it is: the inbox is unavailable: {reason}", count)
        return
    try:
        target = return_to_inbox(failed)
    except OSError as error:
        place = f" ({show_path(os.fsencode(error.filename))})" if error.filename else ""
        _refuse(failed.audio, f"stays where it is: {error.strerror}{place}", count)
    else:
        count.moved.append(failed)
        sys.stdout.write(f"{show_path(failed.audio)} -> {show_path(target)}\n")


def _update_queue(config: Config, moved: Sequence[FailedFile]) -> bool:
    """Mark the files as taken back if no daemon runs that does it; returns whether one may run.

    A queue that cannot be used is no error, because the files are back anyway.
    """
    if not moved:
        return True
    try:
        if is_anybody_running(config):
            return True
        write_queue_once(config, lambda db: _mark_taken_back(db, moved))
    except StoreError:
        return True
    return False


def _mark_taken_back(db: Connection, moved: Sequence[FailedFile]) -> None:
    for failed in moved:
        forget_failed(db, failed.rule.name, failed.audio)


def _say_end(count: _Count, *, is_running: bool) -> None:
    if not count.moved:
        sys.stdout.write("" if count.refused else "nothing has failed; nothing to take back\n")
        return
    is_or_are = "is" if len(count.moved) == 1 else "are"
    when = "" if is_running else "; dropscribe is not running: start it to process them"
    sys.stdout.write(f"{plural(len(count.moved), 'file')} {is_or_are} back in the inbox{when}\n")
