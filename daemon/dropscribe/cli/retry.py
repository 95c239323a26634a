"""``dropscribe retry``: failed audio back into its inbox, where the daemon finds it like any other file.

Guarantees: nothing is overwritten; the audio stands in the inbox, durably, before its error file goes;
the queue is not written, so that it works with the daemon up or down.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dropscribe.cli import exit_codes
from dropscribe.cli.failed_files import FailedFile, find_failed, find_failed_in
from dropscribe.cli.messages import say
from dropscribe.cli.options import named, read_config
from dropscribe.core.errors import AudioError, StoreError
from dropscribe.core.naming import free_name
from dropscribe.files.audio import open_beneath, open_folder_of
from dropscribe.files.writing import (
    copy_new,
    make_folders,
    move_new,
    sha256_of,
    sync_folder,
    sync_open_folder,
)
from dropscribe.reports.inbox_reader import unavailable_reason
from dropscribe.reports.queue_reader import BEYOND, is_anybody_running
from dropscribe.reports.wording import plural, show_path

if TYPE_CHECKING:
    import argparse

    from dropscribe.config.model import Config

_USAGE = "dropscribe retry: name FILEs, or --folder NAME, or --all (one of the three)"


@dataclass(slots=True)
class _Count:
    moved: int = 0
    refused: int = 0


def execute(options: argparse.Namespace) -> int:
    """Take back what was named; 74 where some of it could not be."""
    if sum((bool(options.files), bool(options.folder), options.all)) != 1:
        say(_USAGE)
        return exit_codes.USAGE
    config = read_config(options)
    count = _Count()
    for failed in _chosen(options, config, count):
        _take_back(failed, count)
    _say_end(config, count)
    return exit_codes.IO_ERROR if count.refused else exit_codes.OK


def _chosen(options: argparse.Namespace, config: Config, count: _Count) -> list[FailedFile]:
    if options.files:
        return [failed for file in options.files if (failed := _named_file(config, file, count))]
    names = [options.folder] if options.folder else list(config.folders)
    rules = [named(config.folders, "folder", name, config) for name in names]
    served = [rule for rule in rules if config.queue is None or config.queue.serves(rule)]
    if options.folder and not served:
        _refuse(os.fsencode(rules[0].failed), BEYOND, count)
    return [failed for rule in served for failed in find_failed_in(config, rule)]


def _named_file(config: Config, file: str, count: _Count) -> FailedFile | None:
    found = find_failed(config, os.fsencode(file))
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
        target = _move(failed)
    except AudioError as error:
        _refuse(failed.audio, error.reason, count)
    except OSError as error:
        place = f" ({error.filename})" if error.filename else ""
        _refuse(failed.audio, f"stays where it is: {error.strerror}{place}", count)
    else:
        count.moved += 1
        sys.stdout.write(f"{show_path(failed.audio)} -> {show_path(target)}\n")


def _move(failed: FailedFile) -> bytes:
    """Move the audio, then remove its error file; returns where the audio stands."""
    name = failed.path.rpartition(b"/")[2]
    root = os.fsencode(failed.rule.failed)
    source = open_folder_of(root, failed.path)
    try:
        if not stat.S_ISREG(os.stat(name, dir_fd=source, follow_symlinks=False).st_mode):
            raise OSError(errno.EINVAL, "not a regular file")
        target = _place(failed, source, name)
        sync_folder(os.path.dirname(target))
        sync_open_folder(source)
    finally:
        os.close(source)
    if failed.error_file:
        # The daemon, which may have found the audio meanwhile, removes it too.
        with contextlib.suppress(FileNotFoundError):
            os.unlink(failed.error_file)
    return target


def _place(failed: FailedFile, source: int, name: bytes) -> bytes:
    folder = os.path.join(os.fsencode(failed.rule.inbox), os.path.dirname(failed.path))
    make_folders(folder)
    while True:
        target = os.path.join(
            folder,
            free_name(failed.name, lambda name: not os.path.lexists(os.path.join(folder, name))),
        )
        # Somebody else may take the name meanwhile: then the next one is looked for.
        with contextlib.suppress(FileExistsError):
            _move_one(failed, source, name, target)
            return target


def _move_one(failed: FailedFile, source: int, name: bytes, target: bytes) -> None:
    try:
        move_new(source, name, target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        _copy_one(failed, target)
        os.unlink(name, dir_fd=source)


def _copy_one(failed: FailedFile, target: bytes) -> None:
    """Another mount: the original goes only when the copy has been read back."""
    descriptor = open_beneath(os.fsencode(failed.rule.failed), failed.path)
    try:
        digest = sha256_of(descriptor)
        if copy_new(descriptor, target, b".dropscribe-retry-%d.tmp" % os.getpid()) != digest:
            os.unlink(target)
            raise OSError(errno.EIO, "the copy does not read back as the original")
    finally:
        os.close(descriptor)
    sync_folder(os.path.dirname(target))


def _say_end(config: Config, count: _Count) -> None:
    if not count.moved:
        sys.stdout.write("" if count.refused else "nothing has failed; nothing to take back\n")
        return
    is_or_are = "is" if count.moved == 1 else "are"
    sys.stdout.write(f"{plural(count.moved, 'file')} {is_or_are} back in the inbox{_when(config)}\n")


def _when(config: Config) -> str:
    """The files are back whether the queue can be asked or not."""
    try:
        running = is_anybody_running(config)
    except StoreError:
        return ""
    return "" if running else "; dropscribe is not running, and goes on when it is"
