"""The files in the failed folders, and the names under which they were dropped.

Guarantees: an audio's folder rule and old name come from the queue. They come from an error file only if the
queue has none and the file belongs to this process's user or to root, because droppers can write error files.
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, TypeVar

from dropscribe.core.model import JobState
from dropscribe.core.naming import split_name
from dropscribe.files.beneath import closing, open_at, open_root, stat_at
from dropscribe.publish.error_file import error_names, own_uids, read_error
from dropscribe.publish.return_to_inbox import FailedFile
from dropscribe.queue.sql.history import read_filed
from dropscribe.reports.locations import find_places
from dropscribe.reports.patience import ask_disk, stands_at

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from dropscribe.config.model import Config, FolderRule
    from dropscribe.queue.sql.database import Connection

T = TypeVar("T")

_ERROR_ENDING = b".error.json"


class FailedFiles:
    """Finds failed files.

    Args:
        db: The queue; None where no daemon has run yet, or a cluster's database is away.
    """

    def __init__(self, config: Config, db: Connection | None) -> None:
        self._config = config
        self._db = db

    def named(self, file: bytes) -> list[FailedFile]:
        """The failed audio that *file* names, directly or by its error file.

        Raises:
            OSError: There is none, or its file system does not answer.
        """
        places = [place for place in find_places(self._config, file) if place.part == "failed"]
        if not places:
            raise FileNotFoundError(errno.ENOENT, "is in no failed folder of the config")
        root, audio = places[0].root, places[0].path
        ask_disk(root, lambda: stands_at(places[0].absolute))
        if file.endswith(_ERROR_ENDING):
            audio = _audio_of_error_file(root, audio)
        if not _exists(root, audio):
            raise FileNotFoundError(errno.ENOENT, "its audio is not there any more")
        rules = [place.rule for place in places if place.root == root]
        # If rules share a failed folder, the queue or the error file has the rule of the file.
        known = ((rule, self._told(rule, audio)) for rule in rules)
        found = (FailedFile(rule, audio, told[1]) for rule, told in known if told and told[0] == rule.name)
        return [next(found, FailedFile(rules[0], audio, os.path.basename(audio)))]

    def of_rule(self, rule: FolderRule) -> Iterator[FailedFile]:
        """Every failed audio of *rule*, in the order of paths.

        A file that neither the queue nor an error file names is included only if the rule takes such names
        and shares its failed folder with no other rule.

        Raises:
            OSError: The folder's file system does not answer.
        """
        root = os.fsencode(rule.failed)
        ask_disk(root, lambda: os.path.lexists(root))
        others = (other for other in self._config.folders.values() if other is not rule)
        is_shared = any(other.failed == rule.failed for other in others)
        for path in _walk(root):
            if path.endswith(_ERROR_ENDING):
                continue
            told = self._told(rule, path)
            if told is None and not is_shared and rule.taking.takes(path):
                told = rule.name, os.path.basename(path)
            if told is not None and told[0] == rule.name:
                yield FailedFile(rule, path, told[1])

    def _told(self, rule: FolderRule, path: bytes) -> tuple[str, bytes] | None:
        """(folder rule, name in its inbox) of the failed audio *path*; None if they are unknown."""
        root = os.fsencode(rule.failed)
        records = [] if self._db is None else read_filed(self._db, root + b"/" + path)
        if records and records[0].state is JobState.FAILED:
            return records[0].folder, os.path.basename(records[0].path)
        return _look_beside(root, path, _told_by_error_file)


def _look_beside(root: bytes, path: bytes, look: Callable[[int, bytes], T]) -> T | None:
    """The result of *look*, called with the folder and the name of *path*; None if it cannot be opened."""
    directory, _, name = path.rpartition(b"/")
    try:
        with closing(open_at(root, directory)) as folder:
            return look(folder, name)
    except OSError:
        return None


def _told_by_error_file(folder: int, audio: bytes) -> tuple[str, bytes] | None:
    for name in error_names(audio):
        error = read_error(folder, name, own_uids())
        if error is None:
            continue
        original = _original_name(error)
        if original is None or split_name(original)[1] == split_name(audio)[1]:
            return str(error.get("folder")), original or audio
    return None


def _walk(root: bytes) -> Iterator[bytes]:
    """Every file below *root*, relative, in the order of paths; no link is followed."""
    try:
        descriptor = open_root(root)
    except OSError:
        return
    with closing(descriptor):
        for folder, folders, names, _ in os.fwalk(b".", dir_fd=descriptor):
            folders.sort()
            for name in sorted(names):
                yield os.path.normpath(os.path.join(folder, name))


def _exists(root: bytes, path: bytes) -> bool:
    return _look_beside(root, path, stat_at) is not None


def _original_name(error: dict[str, object]) -> bytes | None:
    """The audio's name in an error file; None for a path or a hidden name."""
    written = error.get("file")
    if not isinstance(written, str) or not written or "/" in written or "\0" in written:
        return None
    return None if written.startswith(".") else written.encode("utf-8", "surrogateescape")


def _audio_of_error_file(root: bytes, path: bytes) -> bytes:
    """The audio beside an error file: by its full name, else by its stem and the original's suffix.

    Raises:
        FileNotFoundError: There is no such error file.
    """
    error = _look_beside(root, path, read_error)
    if error is None:
        raise FileNotFoundError(errno.ENOENT, "there is no such file")
    base = path.removesuffix(_ERROR_ENDING)
    return base if _exists(root, base) else base + split_name(_original_name(error) or b"")[1]
