"""Folders from which no job is claimed, because their inbox or ``done`` is unavailable."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dropscribe.queue.model import HANGS

if TYPE_CHECKING:
    from dropscribe.queue.signals import Signals


class FolderGate:
    """Closed folders and their causes, on this node and in memory: they are found out anew after a start.

    Results are published into a closed folder all the same, because only trying shows whether the trouble is
    over; not while the cause is :data:`~dropscribe.queue.model.HANGS`.
    """

    def __init__(self, signals: Signals) -> None:
        self._closed: dict[str, dict[str, str]] = {}
        self._signals = signals

    def close(self, folder: str, cause: str, reason: str) -> None:
        """Claim nothing of *folder* until every *cause* is removed by :meth:`open`."""
        self._closed.setdefault(folder, {})[cause] = reason
        self._tell()

    def open(self, folder: str, cause: str) -> None:
        """The reverse of :meth:`close`."""
        causes = self._closed.get(folder, {})
        if causes.pop(cause, None) is None:
            return
        if not causes:
            del self._closed[folder]
        self._tell()

    def closed_reason(self, folder: str) -> str | None:
        """Why nothing is claimed of *folder*, or None."""
        return next(iter(self._closed.get(folder, {}).values()), None)

    @property
    def closed(self) -> frozenset[str]:
        """All closed folders."""
        return frozenset(self._closed)

    @property
    def hanging(self) -> frozenset[str]:
        """Folders whose disks do not answer: nothing is published into them."""
        return frozenset(folder for folder, causes in self._closed.items() if HANGS in causes)

    def _tell(self) -> None:
        self._signals.wake.set()
        self._signals.tell_news()
