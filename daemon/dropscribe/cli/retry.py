"""``dropscribe retry``: failed audio back into its inbox, where the daemon finds it like any other file.

Guarantees: nothing is overwritten; the audio stands in the inbox, durably, before its error file goes;
the queue is only read, so that it works with the daemon up or down. Run by root it acts with the rights
of the daemon's user.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dropscribe.cli import exit_codes
from dropscribe.cli.failed_files import FailedFile, FailedFiles
from dropscribe.cli.messages import say
from dropscribe.cli.options import named, read_config
from dropscribe.cli.privileges import act_as_owner
from dropscribe.core.errors import StoreError
from dropscribe.core.naming import free_name
from dropscribe.files.beneath import closing, make_folder, open_file, open_folder, open_root, stat_at, sync
from dropscribe.files.capabilities import capabilities_of
from dropscribe.files.moves import FileName, move_new, remove_if
from dropscribe.files.own_file import OwnFile, copy_audio, digest_at, sha256_of
from dropscribe.publish.error_file import remove_error_file
from dropscribe.reports.inbox_reader import unavailable_reason
from dropscribe.reports.queue_reader import BEYOND, is_anybody_running, look_at_queue
from dropscribe.reports.wording import plural, show_path

if TYPE_CHECKING:
    import argparse

    from dropscribe.config.model import Config
    from dropscribe.files.capabilities import Capabilities
    from dropscribe.files.moves import IsExpected

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
    act_as_owner(config.state_dir)
    count = _Count()
    with look_at_queue(config) as look:
        for failed in _chosen(options, config, FailedFiles(config, look.db), count):
            _take_back(failed, count)
    _say_end(config, count)
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
        _refuse(os.fsencode(rules[0].failed), BEYOND, count)
    return [failed for rule in served for failed in files.of_rule(rule)]


def _named_file(files: FailedFiles, file: str, count: _Count) -> FailedFile | None:
    found = files.named(os.fsencode(file))
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
    except OSError as error:
        place = f" ({error.filename})" if error.filename else ""
        _refuse(failed.audio, f"stays where it is: {error.strerror}{place}", count)
    else:
        count.moved += 1
        sys.stdout.write(f"{show_path(failed.audio)} -> {show_path(target)}\n")


def _move(failed: FailedFile) -> bytes:
    """Move the audio, then remove its error file; returns where the audio stands."""
    directory, _, name = failed.path.rpartition(b"/")
    inbox = os.fsencode(failed.rule.inbox)
    with contextlib.ExitStack() as opened:
        failed_root = opened.enter_context(closing(open_root(failed.root)))
        inbox_root = opened.enter_context(closing(open_root(inbox)))
        source = FileName(opened.enter_context(closing(open_folder(failed_root, directory))), name)
        target = opened.enter_context(closing(make_folder(inbox_root, directory)))
        new_name = _place(source, target, failed.name)
        sync(target)
        sync(source.folder)
    # The daemon, which may have found the audio meanwhile, removes it too.
    remove_error_file(failed.root, failed.path)
    return os.path.join(inbox, directory, new_name)


def _place(source: FileName, target: int, name: bytes) -> bytes:
    """Move the file to the first free name in the open *target* folder; returns the name."""
    while True:
        free = free_name(name, lambda name: stat_at(target, name) is None)
        # Somebody else may take the name meanwhile: then the next one is looked for.
        with contextlib.suppress(FileExistsError):
            _move_one(source, FileName(target, free))
            return free


def _move_one(source: FileName, target: FileName) -> None:
    status = source.status()
    if status is None or not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "not a regular file")

    def is_audio(name: FileName) -> bool:
        found = name.status()
        return found is not None and os.path.samestat(found, status)

    can = capabilities_of(target.folder)
    hidden = b".dropscribe-retry-%s.tmp" % secrets.token_hex(8).encode()
    try:
        move_new(source, target, can, hidden, is_audio)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        _copy_one(source, target, hidden, is_audio, can)


def _copy_one(
    source: FileName, target: FileName, hidden: bytes, is_audio: IsExpected, can: Capabilities
) -> None:
    """Another mount: the original is removed only when the copy has been read back."""
    with closing(open_file(source.folder, source.name)) as descriptor:
        digest = sha256_of(descriptor)
        copy = OwnFile(target, hidden, digest, can)
        try:
            copy.write(lambda new: copy_audio(descriptor, new))
            if digest_at(target.beside(hidden)) != digest:
                raise OSError(errno.EIO, "the copy does not read back as the original")
            copy.place()
            sync(target.folder)
        finally:
            copy.finish()
    if not remove_if(source, hidden, is_audio, can):
        raise OSError(errno.ESTALE, "was copied, but another file stands at its old name by now")


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
