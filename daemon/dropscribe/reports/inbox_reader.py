"""An inbox as a command sees it that runs without the daemon: what is in it, and what is taken.

Guarantees: nothing is changed; no symlink is followed below the inbox; a folder that cannot be listed
is told, never read as empty.
"""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dropscribe.core.ignored_names import OWN_FOLDER
from dropscribe.core.model import identity
from dropscribe.core.rules import reason_not_a_file, taking_of
from dropscribe.files.audio import snapshot_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dropscribe.config.model import FolderRule


@dataclass(frozen=True, slots=True)
class Found:
    """One name in an inbox.

    Attributes:
        path: Relative to the inbox.
        status: From ``lstat``; None where it could not be had.
        reason: Why the rule does not take it; None where it does.
    """

    path: bytes
    status: os.stat_result | None
    reason: str | None

    def identities(self) -> tuple[bytes, ...]:
        """As the queue may know the file, with and without its inode."""
        if self.status is None:
            return ()
        snapshot = snapshot_of(self.status)
        return tuple(identity(self.path, snapshot, stable_inodes=stable) for stable in (True, False))


def unavailable_reason(rule: FolderRule) -> str | None:
    """Why the inbox cannot be listed, with the remedy; None where it can."""
    try:
        with os.scandir(os.fsencode(rule.inbox)):
            return None
    except OSError as error:
        return _unavailable_words(rule, error)


def _unavailable_words(rule: FolderRule, error: OSError) -> str:
    if error.errno == errno.ENOENT:
        return f"{rule.inbox} is not there; mount it or make it (mkdir -p {rule.inbox})"
    if error.errno == errno.ENOTDIR:
        return f"{rule.inbox} is not a folder"
    if error.errno in {errno.EACCES, errno.EPERM}:
        return f"{rule.inbox} may not be listed by uid {os.geteuid()}; {_remedy_of_folder(rule)}"
    return f"{rule.inbox}: {os.strerror(error.errno or 0)}"


def _remedy_of_folder(rule: FolderRule) -> str:
    return f"give it access (setfacl -m u:{os.geteuid()}:rwx {rule.inbox}, or a common group)"


def walk_inbox(rule: FolderRule) -> Iterator[Found]:
    """Every name in the inbox, folder by folder in the order of names; folders not entered are told once."""
    taking = taking_of(rule)
    waiting = [b""]
    while waiting:
        folder = waiting.pop()
        try:
            entries = sorted(_entries(rule, folder), key=lambda entry: entry.name)
        except OSError as error:
            yield Found(folder or b".", None, f"the folder cannot be listed: {os.strerror(error.errno or 0)}")
            continue
        below = []
        for entry in entries:
            if entry.name == OWN_FOLDER:
                continue
            path = folder + b"/" + entry.name if folder else entry.name
            if not entry.is_dir(follow_symlinks=False):
                yield found_at(rule, path, entry)
            elif taking.enters(entry.name):
                below.append(path)
            else:
                yield Found(path + b"/", None, taking.reason_not_taken(path + b"/any.wav"))
        waiting.extend(reversed(below))


def _entries(rule: FolderRule, folder: bytes) -> list[os.DirEntry[bytes]]:
    with os.scandir(os.path.join(os.fsencode(rule.inbox), folder)) as entries:
        return list(entries)


def found_at(rule: FolderRule, path: bytes, entry: os.DirEntry[bytes] | None = None) -> Found:
    """What stands at *path* below the inbox."""
    try:
        status = (
            entry.stat(follow_symlinks=False) if entry else os.lstat(os.fsencode(rule.inbox) + b"/" + path)
        )
    except OSError as error:
        return Found(path, None, os.strerror(error.errno or 0))
    reason = reason_not_a_file(status.st_mode) or taking_of(rule).reason_not_taken(path)
    return Found(path, status, reason)


def may_read(rule: FolderRule, path: bytes) -> bool:
    """Whether this process may open the file for reading."""
    return os.access(os.fsencode(rule.inbox) + b"/" + path, os.R_OK, effective_ids=True)


def is_file(found: Found) -> bool:
    """Whether it is a regular file."""
    return found.status is not None and stat.S_ISREG(found.status.st_mode)
