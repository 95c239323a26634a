"""Is the inbox there, is it ours alone, and is it still the same one?

Guarantees: two daemons of one machine never work on one inbox: a name for it is bound for as long as it is
used. A missing inbox is never created and never taken for an empty one. Nothing in the inbox is kept open,
so that a share or a stick can be unmounted while the daemon runs.
"""

from __future__ import annotations

import errno
import os
import socket

from dropscribe.core.errors import StoreInUse

TAKEN = "another dropscribe has it"

_WORDS = {
    errno.ENOENT: "it is not there",
    errno.ENOTDIR: "it is not a folder",
    errno.EACCES: "it may not be listed",
    errno.ESTALE: "its server has lost it",
    errno.ENOTCONN: "its server is not connected",
}


class Root:
    """One inbox's own folder.

    Args:
        exclusive: False where several daemons share one queue, and so their inboxes: then none is locked.

    Attributes:
        identity: (st_dev, st_ino) of the folder that is locked now, or None.
    """

    def __init__(self, path: bytes, *, exclusive: bool = True) -> None:
        self.path = path
        self._is_exclusive = exclusive
        self.identity: tuple[int, int] | None = None
        self._lock: socket.socket | None = None

    def lock(self) -> None:
        """Lock the inbox if it is there.

        Raises:
            StoreInUse: Another daemon has it.
        """
        if self.look() == TAKEN:
            name = os.fsdecode(self.path)
            raise StoreInUse(name, TAKEN, "stop the other daemon, or give each its own inbox")

    def unlock(self) -> None:
        """Let others have it."""
        if self._lock is not None:
            self._lock.close()
        self._lock, self.identity = None, None

    def look(self) -> str:
        """Why the inbox is not available, or "" where it is; then it is locked."""
        try:
            descriptor = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            self.unlock()
            return describe(error)
        status = os.fstat(descriptor)
        os.close(descriptor)
        identity = (status.st_dev, status.st_ino)
        if identity == self.identity:
            return ""
        self.unlock()
        if self._is_exclusive:
            self._lock = _take(identity)
            if self._lock is None:
                return TAKEN
        self.identity = identity
        return ""

    @property
    def is_mount_point(self) -> bool:
        """Whether a file system of its own is mounted at the inbox."""
        try:
            return os.stat(self.path).st_dev != os.stat(self.path + b"/..").st_dev
        except OSError:
            return False


def describe(error: OSError) -> str:
    """Why an inbox is not available, for this error."""
    return _WORDS.get(error.errno or 0) or error.strerror or str(error)


def _take(identity: tuple[int, int]) -> socket.socket | None:
    """Bind a name for the folder in the abstract namespace; None where somebody has it.

    It goes with the process, however that ends. flock(2) on the folder would see through containers, but
    its open descriptor keeps the file system from being unmounted.
    """
    lock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        lock.bind(b"\0dropscribe/inbox/%d:%d" % identity)
    except OSError as error:
        lock.close()
        if error.errno != errno.EADDRINUSE:
            raise
        return None
    return lock
