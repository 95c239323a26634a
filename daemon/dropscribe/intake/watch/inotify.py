"""Hints from inotify(7): one descriptor an inbox, read in the inbox's own thread.

This is the source on Linux. The watchdog library loses a quarter of a burst of moves, and its public API
reports neither that loss nor a dead reader thread in time (measured with watchdog 7.1.0, bench/README.md).

Guarantees: an overflow, a lost root and a refused watch are all reported. Opening, reading and listing by
this process cause no hints, because those events are not requested.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import struct

import structlog

from dropscribe.intake.watch.hints import Hint, HintKind, HintsUnavailable

log = structlog.get_logger()

# linux/inotify.h
_CLOSE_WRITE, _MOVED_FROM, _MOVED_TO, _CREATE = 0x8, 0x40, 0x80, 0x100
_DELETE_SELF, _MOVE_SELF, _UNMOUNT, _OVERFLOW, _IGNORED = 0x400, 0x800, 0x2000, 0x4000, 0x8000
_ONLYDIR, _EXCL_UNLINK, _ISDIR = 0x1000000, 0x4000000, 0x40000000
_CHANGES = _CREATE | _CLOSE_WRITE | _MOVED_TO | _MOVED_FROM | _DELETE_SELF | _MOVE_SELF
_MASK = _CHANGES | _ONLYDIR | _EXCL_UNLINK
_HEADER = struct.Struct("iIII")
_READ_BYTES = 64 * 1024
_MAX_READS = 4


class InotifyHints:
    """One inotify instance for one inbox. See :class:`~dropscribe.intake.watch.hints.HintSource`.

    Raises:
        HintsUnavailable: inotify is missing, or the user's limit of instances is reached.
    """

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._descriptor = _init(self._libc)
        self._paths: dict[int, bytes] = {}
        self._watches: dict[bytes, int] = {}
        self._limit_reached = False

    def fileno(self) -> int:
        """See :class:`~dropscribe.intake.watch.hints.HintSource`."""
        return self._descriptor

    def watch(self, directory: bytes, descriptor: int) -> bool:
        """See :class:`~dropscribe.intake.watch.hints.HintSource`."""
        path = b"/proc/self/fd/%d" % descriptor  # the open folder itself, even if it was renamed or replaced
        watch: int = self._libc.inotify_add_watch(self._descriptor, path, ctypes.c_uint32(_MASK))
        if watch < 0:
            return self._refused(directory, ctypes.get_errno())
        # The same folder under a new name keeps its watch: the old name is removed.
        old = self._paths.get(watch)
        if old is not None and old != directory and self._watches.get(old) == watch:
            del self._watches[old]
        self._paths[watch] = directory
        self._watches[directory] = watch
        return True

    def _refused(self, directory: bytes, number: int) -> bool:
        if number != errno.ENOSPC:
            return False
        if not self._limit_reached:
            self._limit_reached = True
            remedy = "raise the sysctl fs.inotify.max_user_watches"
            log.warning("watch.limit_reached", path=directory, watches=len(self._paths), remedy=remedy)
        return False

    def read(self) -> list[Hint]:
        """See :class:`~dropscribe.intake.watch.hints.HintSource`."""
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
            if mask & (_OVERFLOW | _IGNORED | _UNMOUNT | _DELETE_SELF | _MOVE_SELF):
                self._note(watch, mask, hints)
                continue
            directory = self._paths.get(watch)
            if directory is None:
                continue
            name = block[position - length : position].rstrip(b"\0")
            self._translate(mask, directory + b"/" + name if directory else name, hints)

    def _translate(self, mask: int, path: bytes, hints: list[Hint]) -> None:
        if mask & _ISDIR:
            if mask & _MOVED_FROM:
                # Its watches would go on reporting the old name.
                self._forget(path)
                hints.append(Hint(HintKind.FOLDER_GONE, path))
            else:
                hints.append(Hint(HintKind.FOLDER, path))
        elif mask & _CLOSE_WRITE:
            hints.append(Hint(HintKind.CLOSED, path))
        elif mask & _MOVED_TO:
            hints.append(Hint(HintKind.MOVED, path))
        elif mask & _CREATE:
            hints.append(Hint(HintKind.CREATED, path))

    def _note(self, watch: int, mask: int, hints: list[Hint]) -> None:
        if mask & _OVERFLOW:
            hints.append(Hint(HintKind.LOST))
            return
        directory = self._paths.get(watch)
        if mask & _IGNORED:
            self._drop(watch)
        if directory == b"":
            hints.append(Hint(HintKind.ROOT_GONE))
        elif directory is not None and mask & _UNMOUNT:
            hints.append(Hint(HintKind.FOLDER, directory))

    def _forget(self, directory: bytes) -> None:
        """Stop watching *directory* and everything below it."""
        below = directory + b"/"
        gone = [watch for path, watch in self._watches.items() if path == directory or path.startswith(below)]
        for watch in gone:
            self._libc.inotify_rm_watch(self._descriptor, watch)
            self._drop(watch)

    def _drop(self, watch: int) -> None:
        path = self._paths.pop(watch, None)
        if path is not None and self._watches.get(path) == watch:
            del self._watches[path]

    def close(self) -> None:
        """See :class:`~dropscribe.intake.watch.hints.HintSource`."""
        if self._descriptor >= 0:
            with contextlib.suppress(OSError):
                os.close(self._descriptor)
            self._descriptor = -1


def _init(libc: ctypes.CDLL) -> int:
    try:
        init = libc.inotify_init1
    except AttributeError as error:
        raise HintsUnavailable("the system has no inotify") from error
    descriptor: int = init(os.O_NONBLOCK | os.O_CLOEXEC)
    if descriptor < 0:
        raise HintsUnavailable(os.strerror(ctypes.get_errno()))
    return descriptor
