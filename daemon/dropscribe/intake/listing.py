"""Lists an inbox folder by folder and compares it with the queue.

A walk is a generator that does little work between two yields, so that a fresh file does not wait until a
hundred thousand old ones have been listed. A folder is watched before it is listed, so that no file falls
between. Nothing is kept in memory for a file whose job lives: its row is the memory.

Guarantees: each folder is opened below the inbox without following a link, and listed and watched by that
descriptor. A file counts as gone only if two walks in a row have missed it, in a folder on the device it was
on, and its inode is not in the inbox under another name. A folder that could not be listed says nothing.
"""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from dropscribe.files.audio import describe_forbidden
from dropscribe.files.beneath import UnsafePathError, closing, open_folder, open_root
from dropscribe.intake.probe import OpenInbox

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from dropscribe.core.model import LiveRow
    from dropscribe.core.rules import Taking
    from dropscribe.intake.context import InboxContext

_YIELD_EVERY = 128
_YOUNG_NS = 2 * 10**9
"""A folder changed this short a time ago may change again within one tick of its mtime."""

_MOST_MISSING = 20_000
BATCH = 500
_GONE = frozenset({errno.ENOENT, errno.ENOTDIR})


class Finder(Protocol):
    """Interface of the inbox to a walk."""

    def found(self, path: bytes, *, is_whole: bool) -> None:
        """A file without a live job is at *path*."""

    def watch(self, directory: bytes, descriptor: int) -> bool:
        """Watch *directory*, which is open as *descriptor*; whether hints will come from it."""

    def pending_inodes(self) -> set[int]:
        """Inodes of the files that wait to settle."""

    def is_there(self) -> bool:
        """Whether the inbox is still the one that the walk began in."""


@dataclass(slots=True)
class _Folder:
    """State of one folder at its last listing."""

    stamp: tuple[int, int, int, int]  # device, inode, mtime_ns, ctime_ns
    is_watched: bool
    can_skip: bool = False
    children: tuple[bytes, ...] = ()


class Lister:
    """Walks one inbox, and remembers the state of its folders.

    Attributes:
        unlistable: Folders that may not be listed, and why.
        unwatched: Folders of the last whole walk from which no hints come.
    """

    def __init__(self, context: InboxContext, taking: Taking, finder: Finder) -> None:
        self._context = context
        self._queue = context.queue
        self._taking = taking
        self._finder = finder
        self._folders: dict[bytes, _Folder] = {}
        self._missing: dict[bytes, int] = {}  # path → inode, of the last whole walk
        self._missing_now: dict[bytes, int] = {}
        self.unlistable: dict[bytes, str] = {}
        self.unwatched = 0

    @property
    def has_missing(self) -> bool:
        """Whether another walk must confirm that files are gone."""
        return bool(self._missing)

    def reset(self) -> None:
        """Forget everything: another folder may be there now, or none."""
        self._folders.clear()
        self._missing.clear()
        self.unlistable.clear()

    def forget(self, directory: bytes) -> None:
        """Forget *directory* and everything below it."""
        below = directory + b"/"
        for name in [name for name in self._folders if name == directory or name.startswith(below)]:
            del self._folders[name]

    def list_again(self, directory: bytes) -> None:
        """Do not skip *directory* at the next walk, even if it has not changed."""
        if directory in self._folders:
            self._folders[directory].can_skip = False

    def walk_whole(self, *, skip_unchanged: bool) -> Iterator[None]:
        """List the whole inbox, and find out which live jobs have lost their files."""
        self._missing_now = {}
        self._context.mounts.clear()
        unvisited = set(self._queue.directories(self._context.folder))
        with_rows = frozenset(unvisited)
        unwatched = 0
        self.unlistable.clear()
        for directory in self._descend([b""]):
            unvisited.discard(directory)
            yield from self._visit(directory, with_rows, skip_unchanged=skip_unchanged)
            known = self._folders.get(directory)
            unwatched += known is not None and not known.is_watched
        for directory in unvisited:
            self._note_lost_folder(directory)
            yield
        yield from self._withdraw_missing()
        self.unwatched = unwatched

    def walk_below(self, directories: Iterable[bytes]) -> Iterator[None]:
        """List folders that have just appeared."""
        for directory in self._descend(list(directories)):
            yield from self._visit(directory, None, skip_unchanged=False)

    def _descend(self, stack: list[bytes]) -> Iterator[bytes]:
        while stack:
            directory = stack.pop()
            yield directory
            known = self._folders.get(directory)
            if known is not None:
                prefix = directory + b"/" if directory else b""
                stack.extend(prefix + name for name in known.children)

    def _visit(
        self, directory: bytes, with_rows: frozenset[bytes] | None, *, skip_unchanged: bool
    ) -> Iterator[None]:
        """One folder. *with_rows*: the folders with live jobs, if this is a whole walk."""
        try:
            with closing(self._open(directory)) as descriptor:
                yield from self._visit_folder(directory, descriptor, with_rows, skip_unchanged=skip_unchanged)
        except OSError as error:
            self._folders.pop(directory, None)
            if not directory:
                raise
            if error.errno not in _GONE and not isinstance(error, UnsafePathError):
                self.unlistable[directory] = self._why_unlistable(directory, error)
            yield

    def _open(self, directory: bytes) -> int:
        with closing(open_root(self._context.root)) as root:
            return open_folder(root, directory)

    def _why_unlistable(self, directory: bytes, error: OSError) -> str:
        if error.errno == errno.EACCES:
            return describe_forbidden(self._context.root, directory)
        return error.strerror or str(error)

    def _visit_folder(
        self, directory: bytes, descriptor: int, with_rows: frozenset[bytes] | None, *, skip_unchanged: bool
    ) -> Iterator[None]:
        status = os.fstat(descriptor)
        is_local = self._context.mounts.of(status.st_dev, descriptor).gives_events
        known = self._known(directory, descriptor, status, is_local=is_local)
        stamp = (status.st_dev, status.st_ino, status.st_mtime_ns, status.st_ctime_ns)
        if skip_unchanged and is_local and known.can_skip and known.stamp == stamp:
            yield
            return
        known.stamp, known.can_skip = stamp, False
        is_old = self._context.wall() * 1e9 - status.st_mtime_ns > _YOUNG_NS
        rows: dict[bytes, LiveRow] = {}
        if with_rows is None or directory in with_rows:
            rows = {row.name: row for row in self._queue.live(self._context.folder, directory)}
        yield from self._compare(directory, descriptor, known, rows, is_whole=with_rows is not None)
        if with_rows is not None:
            self._note_missing(directory, rows.values(), status.st_dev)
        known.can_skip = is_old and not (rows and with_rows is not None)

    def _known(self, directory: bytes, descriptor: int, status: os.stat_result, *, is_local: bool) -> _Folder:
        known = self._folders.get(directory)
        place = (status.st_dev, status.st_ino)
        if known is None or known.stamp[:2] != place:
            known = self._folders[directory] = _Folder((*place, 0, 0), is_watched=False)
        if not known.is_watched and is_local:
            known.is_watched = self._finder.watch(directory, descriptor)
        return known

    def _compare(
        self,
        directory: bytes,
        descriptor: int,
        known: _Folder,
        rows: dict[bytes, LiveRow],
        *,
        is_whole: bool,
    ) -> Iterator[None]:
        """Report files without a row, and remove from *rows* those that were found."""
        prefix = directory + b"/" if directory else b""
        device = known.stamp[0]
        children: list[bytes] = []
        has_moved = False
        with os.scandir(descriptor) as items:
            for count, item in enumerate(items):
                if count % _YIELD_EVERY == 0:
                    yield
                name = os.fsencode(item.name)
                if item.is_dir(follow_symlinks=False):
                    if self._taking.enters(name):
                        children.append(name)
                elif item.is_file(follow_symlinks=False):
                    row = rows.pop(name, None)
                    if row is not None and (not row.stable_inodes or row.inode == item.inode()):
                        has_moved = has_moved or row.device != device
                    elif self._taking.takes(prefix + name):
                        self._finder.found(prefix + name, is_whole=is_whole)
        known.children = tuple(children)
        if has_moved:
            self._queue.moved_device(self._context.folder, directory, device)

    def _note_lost_folder(self, directory: bytes) -> None:
        """Live jobs are in a folder that the walk has not come to: is it gone?"""
        try:
            with OpenInbox(self._context.root) as inbox:
                if inbox.stat(directory) is not None:
                    return
                device = _device_above(inbox, directory)
        except OSError:
            return  # nothing is known about it
        self._note_missing(directory, self._queue.live(self._context.folder, directory), device)

    def _note_missing(self, directory: bytes, rows: Iterable[LiveRow], device: int) -> None:
        prefix = directory + b"/" if directory else b""
        for row in rows:
            # On another device nothing has vanished: the file system that had the file is not mounted.
            if row.device == device and len(self._missing_now) < _MOST_MISSING:
                self._missing_now[prefix + row.name] = row.inode

    def _withdraw_missing(self) -> Iterator[None]:
        """End the jobs of files that this walk and the one before it have missed."""
        yield  # the files that this walk has found are looked at first: one may be a missing one, renamed
        waiting = self._finder.pending_inodes() if self._missing else set()
        missed_twice = [
            path
            for path, inode in self._missing_now.items()
            if self._missing.get(path) == inode and inode not in waiting
        ]
        gone = self._gone(missed_twice) if missed_twice else []
        if gone and self._finder.is_there():
            for start in range(0, len(gone), BATCH):
                self._queue.withdraw(
                    self._context.folder, gone[start : start + BATCH], "the file was taken away"
                )
                yield
            for path in gone:
                del self._missing_now[path]
        self._missing = self._missing_now

    def _gone(self, paths: list[bytes]) -> list[bytes]:
        with OpenInbox(self._context.root) as inbox:
            return [path for path in paths if _is_gone(inbox, path)]


def _is_gone(inbox: OpenInbox, path: bytes) -> bool:
    try:
        return inbox.stat(path) is None
    except OSError:
        return False


def _device_above(inbox: OpenInbox, directory: bytes) -> int:
    while directory := directory.rpartition(b"/")[0]:
        if (status := inbox.stat(directory)) is not None:
            return status.st_dev
    return os.fstat(inbox.descriptor).st_dev
