"""The inbox's own folder: checks that it is there and still the same one, and locks it for this daemon.

Guarantees: two daemons of one machine never work on one inbox. A missing inbox is never created and never
read as empty. No descriptor in the inbox stays open, so that a share or a stick can be unmounted while the
daemon runs.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import struct
from typing import TYPE_CHECKING

import structlog

from dropscribe.files.beneath import UnsafePathError, closing, open_listable_root

if TYPE_CHECKING:
    from collections.abc import Iterator

log = structlog.get_logger()

TAKEN = "another dropscribe has it"

_SENTENCES = {
    errno.ENOENT: "it is not there",
    errno.ENOTDIR: "it is not a folder",
    errno.EACCES: "it may not be listed",
    errno.ESTALE: "its server has lost it",
    errno.ENOTCONN: "its server is not connected",
}
_LOCK_NAMES = 4
_CREDENTIALS = struct.Struct("3i")  # struct ucred: pid, uid, gid (unix(7))


class InboxRoot:
    """One inbox's own folder.

    Args:
        exclusive: False if several daemons share one queue and its inboxes: then none is locked.

    Attributes:
        identity: (st_dev, st_ino) of the folder that is locked now, or None.
    """

    def __init__(self, path: bytes, *, exclusive: bool = True) -> None:
        self.path = path
        self._is_exclusive = exclusive
        self.identity: tuple[int, int] | None = None
        self._lock: socket.socket | None = None

    def unlock(self) -> None:
        """Release the lock."""
        if self._lock is not None:
            self._lock.close()
        self._lock, self.identity = None, None

    def check(self) -> str:
        """Reason why the inbox is not available; "" if it is, and then it is locked."""
        try:
            status = self._status()
        except OSError as error:
            self.unlock()
            return describe(error)
        identity = (status.st_dev, status.st_ino)
        if identity == self.identity:
            self._answer_probes()
            return ""
        self.unlock()
        if self._is_exclusive:
            try:
                self._lock = _lock(identity, {os.geteuid(), 0, status.st_uid})
            except BlockingIOError:
                return TAKEN
            if self._lock is None:
                log.warning(
                    "inbox.unguarded", path=self.path, reason="other users hold all names of its lock"
                )
        self.identity = identity
        return ""

    def _status(self) -> os.stat_result:
        with closing(open_listable_root(self.path)) as descriptor:
            return os.fstat(descriptor)

    def _answer_probes(self) -> None:
        """Empty the lock's backlog: each daemon that probed it has left a connection there."""
        if self._lock is not None:
            with contextlib.suppress(OSError):
                while True:
                    self._lock.accept()[0].close()


def describe(error: OSError) -> str:
    """Reason why an inbox is not available, for this error."""
    if isinstance(error, UnsafePathError):
        return error.strerror or str(error)
    return _SENTENCES.get(error.errno or 0) or error.strerror or str(error)


def _lock(identity: tuple[int, int], trusted_uids: set[int]) -> socket.socket | None:
    """Listen on an abstract socket name of the folder; None if only other users hold the names.

    The kernel releases it when the process ends, however that happens. Any local user may bind such a name,
    so the listener's credentials decide: a daemon of ours, of root or of the folder's owner has the inbox;
    other users' sockets are skipped for the next name. flock(2) on the folder would work across network
    namespaces, but its open descriptor keeps the file system from being unmounted.

    Raises:
        BlockingIOError: A daemon has the inbox.
    """
    lock, own_name = None, b""
    for name in _names(identity):
        lock, own_name = _listen(name), name
        if lock is not None:
            break
    others = [name for name in _names(identity) if lock is None or name != own_name]
    if any(_holder(name) in trusted_uids for name in others):
        if lock is not None:
            lock.close()
        raise BlockingIOError(errno.EAGAIN, TAKEN)
    return lock


def _names(identity: tuple[int, int]) -> Iterator[bytes]:
    for number in range(_LOCK_NAMES):
        yield b"\0dropscribe/inbox/%d:%d/%d" % (*identity, number)


def _listen(name: bytes) -> socket.socket | None:
    lock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        lock.bind(name)
        lock.listen()
    except OSError as error:
        lock.close()
        if error.errno != errno.EADDRINUSE:
            raise
        return None
    return lock


def _holder(name: bytes) -> int | None:
    """The user that listens on *name*; None if there is none."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as probe:
        try:
            probe.connect(name)
            credentials = probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        except OSError:
            return None
    uid: int = _CREDENTIALS.unpack(credentials)[1]
    return uid
