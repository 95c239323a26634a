"""Hints from the watchdog library's public API, used if inotify itself is not available.

Only the needed events are requested, so that its own walks do not overflow its queue. Nothing reports events
that it has lost, or a thread of it that has ended: the inbox is listed as often as one without hints.
"""

from __future__ import annotations

import collections
import contextlib
import os
import warnings
from typing import TYPE_CHECKING

from watchdog.events import (
    DirCreatedEvent,
    DirMovedEvent,
    FileClosedEvent,
    FileCreatedEvent,
    FileMovedEvent,
    FileSystemEvent,
    FileSystemEventHandler,
)
from watchdog.observers import Observer

from dropscribe.intake.hints import Hint, HintKind, HintsUnavailable

if TYPE_CHECKING:
    from watchdog.observers.api import BaseObserver

_MAX_WAITING = 20_000
_KINDS: dict[type[FileSystemEvent], HintKind] = {
    FileCreatedEvent: HintKind.CREATED,
    FileClosedEvent: HintKind.CLOSED,
    FileMovedEvent: HintKind.MOVED,
    DirCreatedEvent: HintKind.FOLDER,
    DirMovedEvent: HintKind.FOLDER,
}


class WatchdogHints(FileSystemEventHandler):
    """One observer for one inbox, as :class:`~dropscribe.intake.hints.InotifyHints`."""

    def __init__(self, root: bytes, *, recursive: bool = True) -> None:
        self._below = root.rstrip(b"/") + b"/"
        self._waiting: collections.deque[Hint] = collections.deque()
        self._event = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        # A reader of the library that finds no watch for an event prints its whole table as a warning.
        warnings.filterwarnings("ignore", module=r"watchdog\..*")
        self._observer: BaseObserver | None = None
        try:
            self._observer = Observer()
            self._observer.schedule(self, os.fsdecode(root), recursive=recursive, event_filter=list(_KINDS))
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
        """See :class:`~dropscribe.intake.hints.InotifyHints`."""
        # Emptied before the deque is drained: the other order loses a wake-up.
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._event)
        return [self._waiting.popleft() for _ in range(len(self._waiting))]

    def dispatch(self, event: FileSystemEvent) -> None:
        """Called from the library's threads: turn its event into hints."""
        if isinstance(event, DirMovedEvent) and event.src_path:
            self._put(HintKind.FOLDER_GONE, event.src_path)
        kind = _KINDS.get(type(event))
        if kind is not None:
            self._put(kind, event.dest_path or event.src_path)

    def _put(self, kind: HintKind, path: str | bytes) -> None:
        whole = os.fsencode(path)
        if not whole.startswith(self._below) or whole == self._below or len(self._waiting) >= _MAX_WAITING:
            return
        self._waiting.append(Hint(kind, whole.removeprefix(self._below)))
        with contextlib.suppress(OSError):  # closed meanwhile
            os.eventfd_write(self._event, 1)

    def close(self) -> None:
        """See :class:`~dropscribe.intake.hints.InotifyHints`."""
        if self._event < 0:
            return
        if self._observer is not None and self._observer.is_alive():
            self._observer.stop()
            self._observer.join(timeout=2.0)
        os.close(self._event)
        self._event = -1
