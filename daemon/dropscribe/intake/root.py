"""Is the inbox there, is it ours alone, and is it still the same one?

Guarantees: two daemons of one machine never work on one inbox: its folder is locked for as long as it is
used. A missing inbox is never created and never taken for an empty one.
"""

from __future__ import annotations

import errno
import fcntl
import os

from dropscribe.core.errors import StoreInUse

TAKEN = "another dropscribe has it"

# Some file systems have no locks, and NFS wants a descriptor that may write: go on without.
_NO_LOCKS = frozenset({errno.EBADF, errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.EACCES})
_WORDS = {
    errno.ENOENT: "it is not there",
    errno.ENOTDIR: "it is not a folder",
    errno.EACCES: "it may not be listed",
    errno.ESTALE: "its server has lost it",
    errno.ENOTCONN: "its server is not connected",
}


class Root:
    """One inbox's own folder.

    Attributes:
        identity: (st_dev, st_ino) of the folder that is locked now, or None.
    """

    def __init__(self, path: bytes) -> None:
        self.path = path
        self.identity: tuple[int, int] | None = None
        self._descriptor = -1

    def lock(self) -> None:
        """Lock the inbox if it is there.

        Raises:
            StoreInUse: Another daemon has it.
        """
        if self.look() == TAKEN:
            name = os.fsdecode(self.path)
            raise StoreInUse(name, TAKEN, "stop the other daemon, or give each its own inbox")

    def unlock(self) -> None:
        """Let the folder go, so that its file system can be unmounted and others may have it."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor, self.identity = -1, None

    def look(self) -> str:
        """Why the inbox is not available, or "" where it is; then it is locked."""
        try:
            descriptor = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            self.unlock()
            return describe(error)
        status = os.fstat(descriptor)
        identity = (status.st_dev, status.st_ino)
        if identity == self.identity:
            os.close(descriptor)
            return ""
        self.unlock()
        if not _take(descriptor):
            os.close(descriptor)
            return TAKEN
        self._descriptor, self.identity = descriptor, identity
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


def _take(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
    return True
