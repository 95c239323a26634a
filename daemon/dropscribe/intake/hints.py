"""Hints: the system reports, as it happens, which path to look at.

A hint is not reliable: it may come late, twice, under an old name or not at all. A source must report lost
hints, so that the inbox is listed.
"""

from __future__ import annotations

import collections
import contextlib
import ctypes
import enum
import errno
import os
import struct
import warnings
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import structlog

from dropscribe.config.model import FolderRule
from dropscribe.files.mounts import Mount

if TYPE_CHECKING:
    from watchdog.events import FileSystemEvent
    from watchdog.observers.api import BaseObserver

HintSource: TypeAlias = "InotifyHints | WatchdogHints"

log = structlog.get_logger()

# linux/inotify.h
_CLOSE_WRITE, _MOVED_TO, _CREATE = 0x8, 0x80, 0x100
_DELETE_SELF, _MOVE_SELF, _UNMOUNT, _OVERFLOW, _IGNORED = 0x400, 0x800, 0x2000, 0x4000, 0x8000
_ONLYDIR, _EXCL_UNLINK, _ISDIR = 0x1000000, 0x4000000, 0x40000000
_CHANGES = _CREATE | _CLOSE_WRITE | _MOVED_TO | _DELETE_SELF | _MOVE_SELF
_MASK = ctypes.c_uint32(_CHANGES | _ONLYDIR | _EXCL_UNLINK)
_HEADER = struct.Struct("iIII")
_READ_BYTES = 64 * 1024
_MAX_WAITING = 20_000
_MAX_READS = 4


class HintKind(enum.IntEnum):
    """Kind of a change at a path."""

    CREATED = 0  # a name appeared; somebody may still be writing
    CLOSED = 1  # a writer closed it
    MOVED = 2  # it was renamed or moved to this name
    FOLDER = 3  # a folder appeared: list it
    FOLDER_GONE = 4  # a folder was moved away: forget everything below its name
    LOST = 5  # hints were lost: list everything
    ROOT_GONE = 6  # the watched folder itself went, or its file system did


class Hint(NamedTuple):
    """One thing to look at; *path* is relative to the inbox."""

    kind: HintKind
    path: bytes = b""


class HintsUnavailable(Exception):
    """Raised when no source is available: the instance limit is reached, or the system has none."""


def open_hints(rule: FolderRule, mount: Mount) -> HintSource | None:
    """Watch *rule*'s inbox on *mount* by inotify, else by the watchdog library; None if it must be polled."""
    if rule.watch == "poll" or (rule.watch == "auto" and not mount.gives_events):
        return None
    watchdog = partial(WatchdogHints, os.fsencode(rule.inbox), recursive=rule.recursive)
    for name, open_source in (("inotify", InotifyHints), ("watchdog", watchdog)):
        try:
            return open_source()
        except HintsUnavailable as error:
            log.warning("watch.unavailable", folder=rule.name, source=name, reason=str(error))
    return None


class InotifyHints:
    """One inotify(7) instance for one inbox, used by the inbox's own thread.

    This is the source on Linux. The watchdog library loses a quarter of a burst of moves, and its public API
    reports neither that loss nor a dead reader thread in time (measured with watchdog 7.1.0,
    bench/README.md).

    Guarantees: an overflow, a lost root and a refused watch are all reported. Opening, reading and listing by
    this process cause no hints, nor does a file that leaves: those events are not requested.

    Raises:
        HintsUnavailable: inotify is missing, or the user's limit of instances is reached.
    """

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        try:
            self._descriptor: int = self._libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        except AttributeError as error:
            raise HintsUnavailable("the system has no inotify") from error
        if self._descriptor < 0:
            raise HintsUnavailable(os.strerror(ctypes.get_errno()))
        self._paths: dict[int, bytes] = {}
        self._limit_reached = False

    def fileno(self) -> int:
        """Readable when hints wait."""
        return self._descriptor

    def watch(self, directory: bytes, descriptor: int) -> bool:
        """Watch *directory* of the inbox, open as *descriptor*; it must be listed after this, never before.

        Returns False if it must be listed more often instead.
        """
        path = b"/proc/self/fd/%d" % descriptor  # the open folder itself, even if it was renamed or replaced
        watch: int = self._libc.inotify_add_watch(self._descriptor, path, _MASK)
        if watch < 0:
            if ctypes.get_errno() == errno.ENOSPC and not self._limit_reached:
                self._limit_reached = True
                remedy = "raise the sysctl fs.inotify.max_user_watches"
                log.warning("watch.limit_reached", path=directory, watches=len(self._paths), remedy=remedy)
            return False
        self._paths[watch] = directory  # the same folder under a new name keeps its watch
        return True

    def read(self) -> list[Hint]:
        """The waiting hints, at most some thousands; never blocks."""
        hints: list[Hint] = []
        for _ in range(_MAX_READS):
            try:
                block = os.read(self._descriptor, _READ_BYTES)
            except BlockingIOError:
                break
            self._parse(block, hints)
            if len(block) < _READ_BYTES // 2:
                break
        return hints

    def _parse(self, block: bytes, hints: list[Hint]) -> None:
        position = 0
        while position < len(block):
            watch, mask, _, length = _HEADER.unpack_from(block, position)
            position += _HEADER.size + length
            directory = self._paths.get(watch)
            if mask & (_OVERFLOW | _IGNORED | _UNMOUNT | _DELETE_SELF | _MOVE_SELF):
                if mask & _OVERFLOW:
                    hints.append(Hint(HintKind.LOST))
                elif directory == b"":
                    hints.append(Hint(HintKind.ROOT_GONE))
                elif directory is not None and mask & _MOVE_SELF:
                    self._forget(directory)  # its watches would go on reporting the old name
                    # It may be its new name, if it was listed between its arrival there and this event.
                    hints += (Hint(HintKind.FOLDER_GONE, directory), Hint(HintKind.FOLDER, directory))
                elif directory is not None and mask & _UNMOUNT:
                    hints.append(Hint(HintKind.FOLDER, directory))
                if mask & _IGNORED:
                    self._paths.pop(watch, None)
            elif directory is not None:
                name = block[position - length : position].rstrip(b"\0")
                path = directory + b"/" + name if directory else name
                hints.append(Hint(_kind_of(mask), path))

    def _forget(self, directory: bytes) -> None:
        """Stop watching *directory* and everything below it."""
        below = directory + b"/"
        gone = [watch for watch, path in self._paths.items() if path == directory or path.startswith(below)]
        for watch in gone:
            self._libc.inotify_rm_watch(self._descriptor, watch)
            del self._paths[watch]

    def close(self) -> None:
        """Stop watching; safe to call twice."""
        if self._descriptor >= 0:
            with contextlib.suppress(OSError):
                os.close(self._descriptor)
            self._descriptor = -1


def _kind_of(mask: int) -> HintKind:
    if mask & _ISDIR:
        return HintKind.FOLDER
    if mask & _CLOSE_WRITE:
        return HintKind.CLOSED
    return HintKind.MOVED if mask & _MOVED_TO else HintKind.CREATED


_KINDS = {
    "FileCreatedEvent": HintKind.CREATED,
    "FileClosedEvent": HintKind.CLOSED,
    "FileMovedEvent": HintKind.MOVED,
    "DirCreatedEvent": HintKind.FOLDER,
    "DirMovedEvent": HintKind.FOLDER,
}
"""The needed events of the watchdog library; with the others its own walks would overflow its queue."""


class WatchdogHints:
    """One observer of the watchdog library for one inbox, used if inotify itself is not available.

    Nothing reports events that the library has lost, or a thread of it that has ended: its inbox is listed as
    often as one without hints.
    """

    def __init__(self, root: bytes, *, recursive: bool = True) -> None:
        # Loaded only here: where inotify works, its threads and tables are never needed.
        from watchdog import events, observers  # noqa: PLC0415

        self._below = root.rstrip(b"/") + b"/"
        self._waiting: collections.deque[Hint] = collections.deque()
        self._event = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        # A reader of the library that finds no watch for an event prints its whole table as a warning.
        warnings.filterwarnings("ignore", module=r"watchdog\..*")
        handler = events.FileSystemEventHandler()
        handler.dispatch = self.dispatch  # type: ignore[method-assign]
        wanted = [getattr(events, name) for name in _KINDS]
        self._observer: BaseObserver | None = None
        try:
            self._observer = observers.Observer()
            self._observer.schedule(handler, os.fsdecode(root), recursive=recursive, event_filter=wanted)
            self._observer.start()
        except OSError as error:
            self.close()
            raise HintsUnavailable(error.strerror or str(error)) from error

    def fileno(self) -> int:
        """Readable when hints wait."""
        return self._event

    def watch(self, directory: bytes, descriptor: int) -> bool:
        """The library adds watches by itself; what they miss is found by listing often."""
        del directory, descriptor
        return False

    def read(self) -> list[Hint]:
        """See :class:`InotifyHints`."""
        # Emptied before the deque is drained: the other order loses a wake-up.
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._event)
        return [self._waiting.popleft() for _ in range(len(self._waiting))]

    def dispatch(self, event: FileSystemEvent) -> None:
        """Called from the library's threads: turn its event into hints."""
        name = type(event).__name__
        if name == "DirMovedEvent" and event.src_path:
            self._put(HintKind.FOLDER_GONE, event.src_path)
        if name in _KINDS:
            self._put(_KINDS[name], event.dest_path or event.src_path)

    def _put(self, kind: HintKind, path: str | bytes) -> None:
        whole = os.fsencode(path)
        if not whole.startswith(self._below) or whole == self._below or len(self._waiting) >= _MAX_WAITING:
            return
        self._waiting.append(Hint(kind, whole.removeprefix(self._below)))
        with contextlib.suppress(OSError):  # closed meanwhile
            os.eventfd_write(self._event, 1)

    def close(self) -> None:
        """See :class:`InotifyHints`."""
        if self._event < 0:
            return
        if self._observer is not None and self._observer.is_alive():
            self._observer.stop()
            self._observer.join(timeout=2.0)
        os.close(self._event)
        self._event = -1
