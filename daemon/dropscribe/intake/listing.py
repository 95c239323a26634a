"""Lists an inbox folder by folder and compares it with the queue.

A walk is a generator that does little work between two yields, so that a fresh file does not wait until a
hundred thousand old ones have been listed. A folder is watched before it is listed, so that no file is
missed in between. A file with a live job takes no memory here: the row in the queue is enough.

Guarantees: each folder is opened below the inbox without following a link, and listed and watched by that
descriptor. A file counts as gone only if two walks in a row have missed it, in a folder on the device it was
on, and its inode is not in the inbox under another name. A folder that could not be listed proves nothing.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Collection, Generator, Iterable, Iterator
from typing import TypeAlias

import structlog

from dropscribe.core.model import LiveRow
from dropscribe.files.audio import describe_forbidden
from dropscribe.files.beneath import UnsafePathError, closing, open_listable_folder, open_root
from dropscribe.intake.availability import Availability, InboxContext
from dropscribe.intake.pending import Pending
from dropscribe.intake.probe import OpenInbox

Walk = Iterator[bytes | None]
_Visit: TypeAlias = Generator[bytes | None, None, bool]

log = structlog.get_logger()

_YIELD_EVERY = 128  # names, after which a listing may be interrupted
_MOST_MISSING = 20_000
_BATCH = 500  # missing files that one call reports to the queue
_GONE = frozenset({errno.ENOENT, errno.ENOTDIR})


class Lister:
    """Walks one inbox, and ends the live jobs of files that two whole walks in a row have missed.

    A walk yields each file that has no live job, and None where it may be interrupted.

    Attributes:
        missing: Live jobs' files, with their inodes, that the last whole walk has not found.
        has_unconfirmed: Whether that walk is the first to miss one of them.
        unlistable: Folders that cannot be listed, and why.
        unwatched: Folders of the last whole walk from which no hints come.
    """

    def __init__(self, context: InboxContext, availability: Availability, pending: Pending) -> None:
        self._context = context
        self._availability = availability
        self._pending = pending
        self.missing: dict[bytes, int] = {}
        self._missing_now: dict[bytes, int] = {}
        self.has_unconfirmed = False
        self.unlistable: dict[bytes, str] = {}
        self._logged: dict[bytes, str] = {}
        self.unwatched = 0

    def reset(self) -> None:
        """Forget everything: another folder may be there now, or none."""
        self.missing.clear()
        self.has_unconfirmed = False
        self.unlistable.clear()

    def walk_whole(self) -> Walk:
        """List the whole inbox, and find the live jobs that have lost their files."""
        self._context.mounts.clear()
        self._missing_now = {}
        with_rows = frozenset(self._context.queue.directories(self._context.rule.name))
        unvisited, unwatched = set(with_rows), 0
        self.unlistable.clear()
        waiting: dict[bytes, None] = {b"": None}
        while waiting:
            directory, _ = waiting.popitem()
            unvisited.discard(directory)
            unwatched += not (yield from self._visit(directory, waiting, with_rows))
        for directory in unvisited:
            self._note_unvisited(directory)
            yield None
        yield from self._withdraw_missing()
        yield from self._context.queue.take_back_copied(self._context.rule.name)
        self.unwatched = unwatched
        self._logged = dict(self.unlistable)

    def walk_below(self, directories: dict[bytes, None]) -> Walk:
        """List folders that have just appeared, and empty *directories*."""
        while directories:
            directory, _ = directories.popitem()
            yield from self._visit(directory, directories, None)

    def _visit(
        self, directory: bytes, waiting: dict[bytes, None], with_rows: Collection[bytes] | None
    ) -> _Visit:
        """List one folder and add those in it to *waiting*; returns False if no hints come from it.

        Args:
            with_rows: The folders with live jobs; None for a walk that does not look for missing files.
        """
        try:
            with closing(open_root(self._context.root)) as root:
                descriptor = open_listable_folder(root, directory)
            with closing(descriptor):
                return (yield from self._list(directory, descriptor, waiting, with_rows))
        except OSError as error:
            if not directory:
                raise
            if isinstance(error, PermissionError):
                self._note_unlistable(directory, describe_forbidden(self._context.root, directory))
            elif error.errno not in _GONE and not isinstance(error, UnsafePathError):
                self._note_unlistable(directory, error.strerror or str(error))
            yield None
            return True

    def _note_unlistable(self, directory: bytes, why: str) -> None:
        self.unlistable[directory] = why
        if self._logged.get(directory) != why:
            log.warning("folder.unlistable", folder=self._context.rule.name, path=directory, reason=why)
        self._logged[directory] = why

    def _list(
        self,
        directory: bytes,
        descriptor: int,
        waiting: dict[bytes, None],
        with_rows: Collection[bytes] | None,
    ) -> _Visit:
        device = os.fstat(descriptor).st_dev
        is_watched = False
        if self._context.mounts.of(device, descriptor).gives_events:
            # Each time: a folder that was removed and made again may have its inode, and has no watch.
            hints = self._availability.hints
            is_watched = hints is not None and hints.watch(directory, descriptor)
        rows: dict[bytes, LiveRow] = {}
        if with_rows is None or directory in with_rows:
            found = self._context.queue.live(self._context.rule.name, directory)
            rows = {row.name: row for row in found}
        waiting.update((yield from self._compare(directory, descriptor, device, rows)))
        if with_rows is not None:
            self._note_missing(directory, rows.values(), device)
        return is_watched

    def _compare(
        self, directory: bytes, descriptor: int, device: int, rows: dict[bytes, LiveRow]
    ) -> Generator[bytes | None, None, dict[bytes, None]]:
        """Yield files without a row, and remove from *rows* those that were found; returns the folders."""
        prefix, patterns = os.path.join(directory, b""), self._context.patterns
        below: dict[bytes, None] = {}
        has_moved = False
        with os.scandir(descriptor) as items:
            for count, item in enumerate(items):
                if count % _YIELD_EVERY == 0:
                    yield None
                name = os.fsencode(item.name)
                if item.is_dir(follow_symlinks=False):
                    if patterns.enters(name):
                        below[prefix + name] = None
                elif item.is_file(follow_symlinks=False):
                    row = rows.pop(name, None)
                    if row is not None and (not row.stable_inodes or row.inode == item.inode()):
                        has_moved = has_moved or row.device != device
                    elif patterns.takes(prefix + name):
                        yield prefix + name
        if has_moved:
            with self._context.asking_queue():
                self._context.queue.moved_device(self._context.rule.name, directory, device)
        return below

    def _note_missing(self, directory: bytes, rows: Iterable[LiveRow], device: int) -> None:
        """Record that the walk has not found the files of *rows* in *directory*, which is on *device*."""
        for row in rows:
            # On another device the file is not gone: its file system is not mounted.
            if row.device == device and len(self._missing_now) < _MOST_MISSING:
                self._missing_now[os.path.join(directory, row.name)] = row.inode

    def _note_unvisited(self, directory: bytes) -> None:
        """Check whether a folder with live jobs that the walk has not reached is gone."""
        try:
            with OpenInbox(self._context.root) as inbox:
                above = directory
                while (found := inbox.stat(above)) is None and above:
                    above = above.rpartition(b"/")[0]
        except OSError:
            return  # no evidence that it is gone
        if found is not None and above != directory:
            self._note_missing(
                directory, self._context.queue.live(self._context.rule.name, directory), found.st_dev
            )

    def _withdraw_missing(self) -> Iterator[None]:
        """End the jobs of files that this finished walk and the one before it have missed."""
        yield  # found files are probed first: one may be a missing file that was renamed
        gone = self._gone() if self.missing else []
        if gone and self._availability.is_same_folder():
            for start in range(0, len(gone), _BATCH):
                batch = gone[start : start + _BATCH]
                with self._context.asking_queue():
                    self._context.queue.withdraw(self._context.rule.name, batch, "the file was taken away")
                yield
            for path in gone:
                del self._missing_now[path]
        self.has_unconfirmed = not self._missing_now.keys() <= self.missing.keys()
        self.missing = self._missing_now

    def _gone(self) -> list[bytes]:
        with OpenInbox(self._context.root) as inbox:
            waiting = {
                entry.snapshot.inode if entry.snapshot else _inode_at(inbox, path)
                for path, entry in self._pending.entries.items()
            }
            return [
                path
                for path, inode in self._missing_now.items()
                if self.missing.get(path) == inode and inode not in waiting and _inode_at(inbox, path) is None
            ]


def _inode_at(inbox: OpenInbox, path: bytes) -> int | None:
    """Inode of the file at *path*; None if there is none, 0 where that cannot be told."""
    try:
        status = inbox.stat(path)
    except OSError:
        return 0
    return status.st_ino if status else None
