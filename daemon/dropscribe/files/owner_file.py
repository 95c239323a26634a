"""The owner file of an inbox: ``.dropscribe/owner``, where daemons of other machines can read who has it.

The record has a fixed length, and its owner writes each beat over it in place: on NFS the file stays the
same one (no name or handle is stale elsewhere), a beat through a descriptor opened before a take-over
lands in the file that was replaced, and nothing is left behind by a crash. A reader that catches half of
a write sees other bytes than before, which is what a beat looks like.

Guarantees: nothing is followed that is not a plain file in a plain folder of the inbox, nothing is written
into a file that does not hold the writer's own token, and nothing is kept open between two calls.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import stat
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

OWN_FOLDER = b".dropscribe"
"""Our hidden folder in an inbox; listings never enter it (``core/rules.py``)."""

_NAME = b"owner"
_RECORD_BYTES = 1024
_MOST_BYTES = 4096
_WORD_LETTERS = 64
_READ_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_NOT_TO_BE_READ = frozenset({errno.EACCES, errno.EPERM, errno.ELOOP, errno.ENXIO})


@dataclass(frozen=True, slots=True)
class Owner:
    """Who has an inbox.

    Attributes:
        host, pid, version, started_at: For people: where to look for it. The pid is one of its own
            container's; nothing is decided by it.
        token: Random, made anew for each owner.
        lock: What :func:`name_lock` says of the lock that it holds, or "".
        beat: Counts up while the owner lives.
    """

    host: str
    pid: int
    token: str
    version: str
    started_at: str
    lock: str = ""
    beat: int = 0

    def __str__(self) -> str:
        return f"host {self.host}, pid {self.pid}, since {self.started_at}"


@dataclass(frozen=True, slots=True)
class Sighting:
    """What stood in an owner file at one look.

    Attributes:
        content: Its bytes, or a stamp of what may not be read: compared with another look's.
        owner: None where it cannot be understood.
    """

    content: bytes
    owner: Owner | None

    def __str__(self) -> str:
        return str(self.owner) if self.owner else "an owner file that cannot be understood"


def name_lock(identity: tuple[int, int]) -> str:
    """Name the lock that ``intake/root.py`` binds for a folder, so that no other lock has this name.

    Abstract names end at the network namespace, which a container may have of its own, and the lock's own
    name has the folder's device number, which two mounts of one share may not have in common.

    Returns:
        Boot, network namespace, device and inode; "" where /proc does not tell.
    """
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            boot = file.read().strip()
        namespace = os.stat("/proc/self/ns/net")
    except (OSError, ValueError):
        return ""
    return f"{boot}/{namespace.st_dev}:{namespace.st_ino}/{identity[0]}:{identity[1]}"


def read_owner(inbox: bytes) -> Sighting | None:
    """What the owner file of *inbox* says; None where there is none.

    Raises:
        OSError: It cannot be looked at, or our folder there is no plain folder.
    """
    try:
        with _own_folder(inbox) as folder:
            return _read_at(folder)
    except FileNotFoundError:
        return None


def create_owner(inbox: bytes, owner: Owner) -> None:
    """Claim an inbox that nobody has.

    Raises:
        FileExistsError: Somebody has been quicker.
        OSError: It cannot be written there.
    """
    _make_own_folder(inbox)
    with _own_folder(inbox) as folder:
        _write_new(folder, _NAME, owner)


def replace_owner(inbox: bytes, owner: Owner) -> None:
    """Put *owner* in the place of another one, in one step.

    Raises:
        OSError: It cannot be written there; the other one's file stands.
    """
    temp_name = b"owner-" + owner.token.encode()
    with _own_folder(inbox) as folder:
        _write_new(folder, temp_name, owner)
        try:
            os.rename(temp_name, _NAME, src_dir_fd=folder, dst_dir_fd=folder)
        except OSError:
            _unlink(folder, temp_name)
            raise


def refresh_owner(inbox: bytes, owner: Owner) -> bool:
    """Write *owner* over its own older record; False, and nothing written, where another one stands there.

    Raises:
        OSError: It cannot be written there; FileNotFoundError: it is gone.
    """
    with _own_folder(inbox) as folder:
        descriptor = os.open(_NAME, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
        try:
            found = _parse(os.pread(descriptor, _MOST_BYTES, 0))
            if found is None or found.token != owner.token:
                return False
            os.pwrite(descriptor, _render(owner), 0)
        finally:
            os.close(descriptor)
    return True


def remove_owner(inbox: bytes, seen: Sighting) -> None:
    """Remove the owner file while it still is what was *seen*, and our folder where nothing else is in it.

    Raises:
        OSError: It cannot be removed.
    """
    try:
        with _own_folder(inbox) as folder:
            if _read_at(folder) != seen:
                return
            os.unlink(_NAME, dir_fd=folder)
    except FileNotFoundError:
        return
    with contextlib.suppress(OSError):
        os.rmdir(inbox + b"/" + OWN_FOLDER)


@contextlib.contextmanager
def _own_folder(inbox: bytes) -> Iterator[int]:
    path = inbox + b"/" + OWN_FOLDER
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        yield folder
    finally:
        os.close(folder)


def _make_own_folder(inbox: bytes) -> None:
    path = inbox + b"/" + OWN_FOLDER
    try:
        os.mkdir(path, 0o700)
    except FileExistsError:
        return
    # Whoever may write in the inbox may take it over: the next daemon may run as another user.
    with contextlib.suppress(OSError):
        os.chmod(path, stat.S_IMODE(os.stat(inbox).st_mode))


def _read_at(folder: int) -> Sighting:
    try:
        descriptor = os.open(_NAME, _READ_FLAGS, dir_fd=folder)
    except OSError as error:
        if error.errno not in _NOT_TO_BE_READ:
            raise
        return Sighting(_stamp(os.stat(_NAME, dir_fd=folder, follow_symlinks=False)), None)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            return Sighting(_stamp(status), None)
        content = os.pread(descriptor, _MOST_BYTES, 0)
        return Sighting(content, _parse(content))
    finally:
        os.close(descriptor)


def _stamp(status: os.stat_result) -> bytes:
    return b"%d:%d:%d" % (status.st_ino, status.st_size, status.st_mtime_ns)


def _write_new(folder: int, name: bytes, owner: Owner) -> None:
    flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(name, flags, 0o644, dir_fd=folder)
    try:
        os.write(descriptor, _render(owner))
    except OSError:
        _unlink(folder, name)
        raise
    finally:
        os.close(descriptor)


def _unlink(folder: int, name: bytes) -> None:
    with contextlib.suppress(OSError):
        os.unlink(name, dir_fd=folder)


def _render(owner: Owner) -> bytes:
    document = {"schema": "dropscribe.owner/1", **asdict(owner)}
    return json.dumps(document).encode().ljust(_RECORD_BYTES - 1) + b"\n"


def _parse(content: bytes) -> Owner | None:
    try:
        found = json.loads(content)
        return Owner(
            host=_word(found["host"]),
            pid=int(found["pid"]),
            token=_word(found["token"]),
            version=_word(found["version"]),
            started_at=_word(found["started_at"]),
            lock=str(found["lock"]),
            beat=int(found["beat"]),
        )
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
        return None


def _word(value: object) -> str:
    """Others write in an inbox too: what they write reaches the log as one short line."""
    return "".join(letter for letter in str(value)[:_WORD_LETTERS] if letter.isprintable())
