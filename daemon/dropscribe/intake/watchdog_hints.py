"""Hints from the watchdog library's public API, used if inotify itself is not available.

Hardened as far as its public API allows: only the needed events are requested, so that its own walks do not
overflow its queue; its log messages are read, because no event reports lost events; a dead thread is noticed
at the next read. It remains late when a file is moved out, and a burst of moves overflows it: a listing
repairs both.

Guarantees: no exception raised here reaches, and so ends, one of the library's threads.
"""

from __future__ import annotations

import collections
import contextlib
import logging
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
        self._was_lost = False
        # The library says in its log alone that its queue overflowed or that a watch was lost.
        self._log_handler = logging.Handler(logging.WARNING)
        self._log_handler.emit = lambda record: self.lose()  # type: ignore[method-assign]  # noqa: ARG005
        # A reader of the library that finds no watch for an event prints its whole table as a warning.
        warnings.filterwarnings("ignore", module=r"watchdog\..*")
        logging.getLogger("watchdog").addHandler(self._log_handler)
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
        """The library adds watches by itself, and does not report those that it was refused."""
        del directory, descriptor
        return True

    def read(self) -> list[Hint]:
        """See :class:`~dropscribe.intake.hints.InotifyHints`."""
        # Emptied before the deque is drained: the other order loses a wake-up.
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._event)
        hints = [self._waiting.popleft() for _ in range(len(self._waiting))]
        if self._was_lost:
            self._was_lost = False
            hints.append(Hint(HintKind.LOST))
        threads = [self._observer, *self._observer.emitters] if self._observer is not None else []
        if len(threads) < 2 or not all(thread.is_alive() for thread in threads):
            hints.append(Hint(HintKind.ROOT_GONE))
        return hints

    def dispatch(self, event: FileSystemEvent) -> None:
        """Called from the library's threads: turn its event into hints."""
        try:
            if isinstance(event, DirMovedEvent) and event.src_path:
                self._put(HintKind.FOLDER_GONE, event.src_path)
            kind = _KINDS.get(type(event))
            if kind is not None:
                self._put(kind, event.dest_path or event.src_path)
        except Exception:  # noqa: BLE001  # anything that got out would end the library's dispatcher for good
            self.lose()

    def _put(self, kind: HintKind, path: str | bytes) -> None:
        whole = os.fsencode(path)
        if not whole.startswith(self._below) or whole == self._below:
            return
        if len(self._waiting) >= _MAX_WAITING:
            self._was_lost = True
        else:
            self._waiting.append(Hint(kind, whole.removeprefix(self._below)))
        self._wake()

    def lose(self) -> None:
        """Called from the library's threads: hints were lost."""
        self._was_lost = True
        self._wake()

    def _wake(self) -> None:
        """Make the descriptor readable."""
        with contextlib.suppress(OSError):  # closed meanwhile
            os.eventfd_write(self._event, 1)

    def close(self) -> None:
        """See :class:`~dropscribe.intake.hints.InotifyHints`."""
        if self._event < 0:
            return
        logging.getLogger("watchdog").removeHandler(self._log_handler)
        if self._observer is not None and self._observer.is_alive():
            self._observer.stop()
            self._observer.join(timeout=2.0)
        os.close(self._event)
        self._event = -1
