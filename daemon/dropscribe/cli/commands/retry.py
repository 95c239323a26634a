"""``dropscribe retry``: moves failed audio back into its inbox, where the daemon finds it as any file.

Guarantees: nothing is overwritten; the audio is in the inbox, durably, before its error file is removed. An
audio's folder rule and old name come from the queue. They come from an error file only if the queue has none
and the file belongs to this process's user or to root, because droppers can write error files.
A running daemon updates the queue when it finds the file; without one this command does, so that no report
still names it as failed. Run by root it acts with the rights of the daemon's user.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import os
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TypeAlias, TypeVar

from dropscribe.cli import exit_codes
from dropscribe.cli.messages import say
from dropscribe.cli.options import act_as_owner, named, read_config
from dropscribe.config.disk_reads import real_paths
from dropscribe.config.model import Config, FolderRule
from dropscribe.core.errors import StoreAway, StoreError
from dropscribe.core.model import JobState
from dropscribe.core.naming import split_name
from dropscribe.core.text.printing import plural, shell_word
from dropscribe.files.beneath import closing, open_at, open_root, stat_at
from dropscribe.publish.return_to_inbox import (
    ERROR_ENDING,
    find_error,
    original_name,
    read_error,
    return_to_inbox,
)
from dropscribe.queue.sql.database import Connection
from dropscribe.queue.sql.history import read_filed
from dropscribe.queue.sql.intake_queries import forget_failed
from dropscribe.reports.inbox_reader import unavailable_reason
from dropscribe.reports.locations import Place, find_places, folder_at
from dropscribe.reports.queue_reader import NOT_MOUNTED, is_anybody_running, view_queue, write_queue_once
from dropscribe.reports.timed_calls import ask_disk, stands_at
from dropscribe.reports.wording import show_path

T = TypeVar("T")

_Failed: TypeAlias = tuple[Place, bytes]
"""An audio in a failed folder, and its file name in the inbox."""

_GONE = "its audio is not there any more"
_USAGE = "dropscribe retry: name FILEs, or --folder NAME, or --all (one of the three)"


def execute(options: argparse.Namespace) -> int:
    """Move the named files back; 74 if one of them cannot be moved."""
    if sum((bool(options.files), bool(options.folder), options.all)) != 1:
        say(_USAGE)
        return exit_codes.USAGE
    config = read_config(options)
    act_as_owner(config)
    moved: list[Place] = []
    with contextlib.ExitStack() as stack:
        db = None
        with contextlib.suppress(StoreAway):  # a cluster's database: the error files suffice then
            db = stack.enter_context(view_queue(config)).db
        try:
            chosen, is_complete = _choose(options, config, FailedFiles(config, db))
            for place, name in chosen:
                is_complete &= _take_back(place, name, moved)
        finally:
            is_running = _update_queue(config, moved)
    if moved:
        is_or_are = "is" if len(moved) == 1 else "are"
        when = "" if is_running else "; dropscribe is not running: start it to process them"
        sys.stdout.write(f"{plural(len(moved), 'file')} {is_or_are} back in the inbox{when}\n")
    elif is_complete:
        sys.stdout.write("nothing has failed; nothing to take back\n")
    return exit_codes.OK if is_complete else exit_codes.IO_ERROR


def _choose(options: argparse.Namespace, config: Config, files: FailedFiles) -> tuple[list[_Failed], bool]:
    """The files to move, recordings first, and whether nothing that was asked for is missing among them."""
    paths = [os.fsencode(file) for file in options.files]
    sources: list[tuple[bytes, Iterable[_Failed]]] = [(path, files.named(path)) for path in paths]
    names = [options.folder] if options.folder else config.folders if options.all else ()
    rules = [named(config.folders, "folder", name, config) for name in names]
    sources += [
        (os.fsencode(rule.failed), files.of_rule(rule))
        for rule in rules
        if options.folder or config.queue is None or config.queue.serves(rule)
    ]
    chosen: dict[bytes, _Failed] = {}  # by the audio: `retry failed/*` names each by its error file too
    all_found = True
    for path, found in sources:
        try:
            chosen |= {place.absolute: (place, name) for place, name in found}
        except OSError as error:
            all_found = _refuse(path, error.strerror or str(error))
    return sorted(chosen.values(), key=lambda each: _is_no_recording(each[0])), all_found


def _is_no_recording(place: Place) -> bool:
    return not place.rule.patterns.takes(place.path)


def _take_back(place: Place, name: bytes, moved: list[Place]) -> bool:
    """Move one file back under *name*, and add it to *moved*; returns whether it is back."""
    if moved and _is_no_recording(place) and not _exists(place.root, place.path):
        return True  # a companion, which went with its recording
    if reason := unavailable_reason(place.rule):
        return _refuse(place.absolute, f"stays where it is: the inbox is unavailable: {reason}")
    try:
        target = return_to_inbox(place.rule, place.path, name)
    except FileNotFoundError:
        return _refuse(place.absolute, _GONE)
    except OSError as error:
        return _refuse(place.absolute, f"stays where it is: {_why_not_moved(place, error)}")
    moved.append(place)  # first: the queue is updated also where the line cannot be written
    sys.stdout.write(f"{show_path(place.absolute)} -> {show_path(target)}\n")
    return True


def _why_not_moved(place: Place, error: OSError) -> str:
    """The reason of *error*, or the folder that may not be written: the error names a file in it."""
    inbox = os.fsencode(place.rule.inbox)
    target = os.path.join(inbox, place.path)
    folders = (os.path.dirname(target), inbox, os.path.dirname(place.absolute))
    for folder in folders if isinstance(error, PermissionError) else ():
        if os.path.isdir(folder) and not os.access(folder, os.W_OK | os.X_OK):
            return f"{show_path(folder)} may not be written by uid {os.geteuid()}; give it access"
    where = f" ({show_path(os.fsencode(error.filename))})" if error.filename else ""
    return f"{error.strerror}{where}"


def _refuse(path: bytes, reason: str) -> bool:
    say(f"dropscribe: {show_path(path)}: {reason}")
    return False


def _update_queue(config: Config, moved: Sequence[Place]) -> bool:
    """Mark the files as taken back if no daemon runs that does it; returns whether one may run.

    A queue that cannot be used is no error, because the files are back anyway.
    """

    def mark(db: Connection) -> None:
        for place in moved:
            forget_failed(db, place.absolute)

    with contextlib.suppress(StoreError):
        if moved and not is_anybody_running(config):
            write_queue_once(config, mark)
            return False
    return True


class FailedFiles:
    """Finds failed files, without *db* by error files alone: their places, and their names in the inbox."""

    def __init__(self, config: Config, db: Connection | None) -> None:
        self._config = config
        self._db = db

    def named(self, file: bytes) -> Iterator[_Failed]:
        """Yield the failed audio that *file* names, itself or its error file; OSError if there is none."""
        places = [place for place in find_places(self._config, file) if place.part == "failed"]
        if not places and (found := folder_at(self._config, file)) and found[1] == "failed":
            command = f"dropscribe retry --folder {shell_word(found[0].name)}"
            raise IsADirectoryError(errno.EISDIR, f"is a failed folder: {command}")
        if not places:
            raise FileNotFoundError(errno.ENOENT, "is in no failed folder of the config")
        root, path = places[0].root, places[0].path
        ask_disk(root, lambda: stands_at(places[0].absolute))
        if file.endswith(ERROR_ENDING):
            path = _audio_of_error_file(root, path)
        if not _exists(root, path):
            raise FileNotFoundError(errno.ENOENT, _GONE)
        sharing = [Place(place.rule, "failed", path) for place in places if place.root == root]
        # If rules share a failed folder, the queue or the error file has the rule of the file.
        folder, name = self._told(sharing[0]) or ("", b"")
        named = ((place, name) for place in sharing if place.rule.name == folder)
        yield next(named, (sharing[0], name or os.path.basename(path)))

    def of_rule(self, rule: FolderRule) -> Iterator[_Failed]:
        """Yield every failed audio of *rule*, in the order of paths; OSError if its folder does not answer.

        A file whose rule neither the queue nor an error file names is included only if this rule takes such
        names and shares its failed folder with no other rule.
        """
        root = os.fsencode(rule.failed)
        if self._config.queue is not None and not self._config.queue.serves(rule):
            raise OSError(errno.ENODEV, NOT_MOUNTED)
        ask_disk(root, lambda: os.path.lexists(root))
        rules = self._config.folders.values()
        others = [path for other in rules for path in (other.inbox, other.done)]
        real = real_paths([*others, *(other.failed for other in rules), self._config.state_dir])
        # One rule's failed folder may be a sub-folder of another's: both may have filed there.
        own = Path(real[rule.failed])
        failed = [Path(real[other.failed]) for other in rules]
        is_shared = sum(each.is_relative_to(own) or own.is_relative_to(each) for each in failed) > 1
        left_out = {os.fsencode(real[path]) for path in (*others, self._config.state_dir)}
        for path in _walk(root, os.fsencode(own), left_out):
            if path.endswith(ERROR_ENDING):
                continue
            place = Place(rule, "failed", path)
            folder, name = self._told(place) or ("", os.path.basename(path))
            if folder == rule.name or (not folder and not is_shared and rule.patterns.takes(path)):
                yield place, name

    def _told(self, place: Place) -> tuple[str, bytes] | None:
        """(folder rule, name in its inbox) of the failed audio at *place*; None if they are unknown.

        The rule is "" if it has left the config, has another name by now, or files elsewhere.
        """
        records = [] if self._db is None else read_filed(self._db, place.absolute)
        if records and records[0].state is JobState.FAILED:
            folder = records[0].folder
            rule = self._config.folders.get(folder)
            is_own = rule is not None and place.absolute.startswith(os.fsencode(rule.failed) + b"/")
            is_known = is_own or self._config.queue is not None
            return folder if is_known else "", os.path.basename(records[0].path)
        look = partial(find_error, trusted_uids={0, os.geteuid()})
        error = (_look_beside(place.root, place.path, look) or (b"", {}))[1]
        return (str(error.get("folder")), os.fsencode(str(error["file"]))) if error else None


def _look_beside(root: bytes, path: bytes, look: Callable[[int, bytes], T]) -> T | None:
    """The result of *look*, called with the folder and the name of *path*; None if it cannot be opened."""
    directory, _, name = path.rpartition(b"/")
    try:
        with closing(open_at(root, directory)) as folder:
            return look(folder, name)
    except OSError:
        return None


def _walk(root: bytes, real_root: bytes, left_out: Collection[bytes]) -> Iterator[bytes]:
    """Every file below *root*, relative, in the order of paths; no link is followed.

    Folders in *left_out* are not entered; these are real paths, and so is *real_root*, that of *root*.
    """
    try:
        descriptor = open_root(root)
    except OSError:
        return
    with closing(descriptor):
        for folder, folders, names, _ in os.fwalk(b".", dir_fd=descriptor):
            below = {name: os.path.normpath(os.path.join(real_root, folder, name)) for name in folders}
            folders[:] = sorted(name for name in folders if below[name] not in left_out)
            for name in sorted(names):
                yield os.path.normpath(os.path.join(folder, name))


def _exists(root: bytes, path: bytes) -> bool:
    return _look_beside(root, path, stat_at) is not None


def _audio_of_error_file(root: bytes, path: bytes) -> bytes:
    """The audio of an error file: its full name, else its stem and the original's suffix; or OSError."""
    error = _look_beside(root, path, read_error)
    if error is None:
        raise FileNotFoundError(errno.ENOENT, "there is no such file")
    base = path.removesuffix(ERROR_ENDING)
    return base if _exists(root, base) else base + split_name(original_name(error) or b"")[1]
