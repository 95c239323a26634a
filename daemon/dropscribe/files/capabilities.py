"""Capabilities of a folder's file system, found by a trial once per mount.

Neither the type's name nor an errno shows the capabilities: FUSE file systems lack hard links or
RENAME_NOREPLACE, give two names of one file two inode numbers, or answer EIO for "not supported".

Guarantees: a trial leaves nothing behind and touches nothing but a hidden folder of its own; it judges by the
files that exist afterwards, because the result of a call can be lost on a network.
"""

from __future__ import annotations

import contextlib
import ctypes
import enum
import errno
import os
import secrets
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from dropscribe.files.beneath import closing, open_folder, stat_at
from dropscribe.files.mounts import Mount, mount_of

_RENAME_NOREPLACE = 1
_SMB = frozenset({"cifs", "smb3", "smb2", "smb", "smbfs"})
_TRIES = 2
_TRIALS = b".dropscribe-trial"
_OLD_NS = 60 * 10**9  # older trials of other machines were cut off

_libc = ctypes.CDLL(None, use_errno=True)


class Move(enum.Enum):
    """Ways to move a file to a free name without replacing another file, best first."""

    NOREPLACE = "a rename that never replaces"
    LINK = "a hard link, then the old name is removed"
    REFUSING = "a rename that the server refuses where the name is taken"
    PLACEHOLDER = "a rename over a symbolic link that takes the name first"
    CHECKED = "a look at the name, then a rename: a file that comes between the two is overwritten"
    NONE = "none that works"


@dataclass(frozen=True, slots=True)
class Capabilities:
    """Capabilities of one mount."""

    file_system: str
    links: bool  # Hard links work, and both names of a file show one inode number
    move: Move  # How a file is moved within the mount

    @property
    def is_safe(self) -> bool:
        """Whether new names can be given without ever overwriting a file."""
        return self.move not in {Move.CHECKED, Move.NONE}


CAPABILITY_ERRORS = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL})
"""Errors of a mount that lacks the cached capabilities: another one is mounted there now."""

_Call = Callable[[int, bytes, int, bytes], None]

_known: dict[tuple[int, int], Capabilities] = {}
_trial = threading.Lock()


def capabilities_of(folder: int) -> Capabilities:
    """Capabilities of the mount of *folder*, tried there if unknown; OSError if nothing can be made there."""
    key = _mount_key(folder)
    if (found := _known.get(key)) is None:
        with _trial:
            found = _known[key] = _known.get(key) or _try_out(folder)
    return found


def _mount_key(folder: int) -> tuple[int, int]:
    """Device and file system id, because device numbers are reused after an unmount."""
    return os.fstat(folder).st_dev, os.fstatvfs(folder).f_fsid


def forget_capabilities(folder: int) -> None:
    """Repeat the trial of *folder*'s mount at its next use, because a call failed unexpectedly there."""
    with contextlib.suppress(OSError):
        _known.pop(_mount_key(folder), None)


def link(source_folder: int, name: bytes, target_folder: int, new_name: bytes) -> None:
    """Give a file a second name; raises FileExistsError where that is taken."""
    os.link(name, new_name, src_dir_fd=source_folder, dst_dir_fd=target_folder, follow_symlinks=False)


def rename(source_folder: int, name: bytes, target_folder: int, new_name: bytes) -> None:
    """Rename, replacing any file at *new_name*: only for our own hidden names."""
    os.rename(name, new_name, src_dir_fd=source_folder, dst_dir_fd=target_folder)


def rename_noreplace(source_folder: int, name: bytes, target_folder: int, new_name: bytes) -> None:
    """renameat2(2) with RENAME_NOREPLACE; EINVAL or ENOSYS where the file system does not know the flag."""
    if not hasattr(_libc, "renameat2"):  # musl
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS), os.fsdecode(new_name))
    if _libc.renameat2(source_folder, name, target_folder, new_name, _RENAME_NOREPLACE):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), os.fsdecode(new_name))


def _try_out(folder: int) -> Capabilities:
    mount = mount_of(b"/proc/self/fd/%d" % folder)
    with contextlib.suppress(FileExistsError):
        os.mkdir(_TRIALS, 0o700, dir_fd=folder)
    try:
        with closing(open_folder(folder, _TRIALS)) as trials:
            name = _own_prefix() + b"%d.%s" % (os.getpid(), secrets.token_hex(4).encode())
            os.mkdir(name, 0o700, dir_fd=trials)
            try:
                _remove_leftovers(trials, name)
                with closing(open_folder(trials, name)) as inside:
                    return _try_all(inside, mount)
            finally:
                _remove(trials, name)
    finally:
        with contextlib.suppress(OSError):
            os.rmdir(_TRIALS, dir_fd=folder)


def _own_prefix() -> bytes:
    """Begins the names of the trials of this machine and container, of this trial alone without /proc/sys."""
    try:
        boot_id = Path("/proc/sys/kernel/random/boot_id").read_bytes().strip()
        return b"%s.%d." % (boot_id, os.stat("/proc/self/ns/pid").st_ino)
    except OSError:
        return secrets.token_hex(16).encode() + b"."


def _remove_leftovers(trials: int, own: bytes) -> None:
    """Remove other trials that were killed: those of ended processes here, and old ones of other machines."""
    prefix, now_ns = _own_prefix(), os.stat(own, dir_fd=trials).st_mtime_ns
    for name in map(os.fsencode, os.listdir(trials)):
        pid = name.removeprefix(prefix).partition(b".")[0]
        is_of_here = name.startswith(prefix) and pid.isdigit()
        is_ended = is_of_here and not _is_another_process(int(pid))
        status = stat_at(trials, name)
        is_old = status is not None and now_ns - status.st_mtime_ns > _OLD_NS
        if name != own and (is_ended or is_old):
            _remove(trials, name)


def _is_another_process(pid: int) -> bool:
    """Whether *pid* runs, which /proc may hide (hidepid), and is not ours: we run one trial at a time."""
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return pid != os.getpid()


def _remove(trials: int, trial: bytes) -> None:
    with contextlib.suppress(OSError):
        with closing(open_folder(trials, trial)) as inside:
            for name in os.listdir(inside):
                os.unlink(os.fsencode(name), dir_fd=inside)
        os.rmdir(trial, dir_fd=trials)


def _try_all(folder: int, mount: Mount) -> Capabilities:
    _create(folder, b"taken")
    names = (b"taken", b"second")
    links = _works(link, folder, *names) and os.path.samestat(
        *(os.stat(name, dir_fd=folder) for name in names)
    )
    # The kernel's SMB client checks RENAME_NOREPLACE only locally: a name taken on the server is overwritten.
    is_trusted = mount.name not in _SMB
    if is_trusted and _renames_only_to_free_names(folder, b"flag", rename_noreplace):
        move = Move.NOREPLACE
    elif links:
        move = Move.LINK
    elif _renames_only_to_free_names(folder, b"plain", rename):
        move = Move.REFUSING
    elif _replaces_links(folder):
        move = Move.PLACEHOLDER
    else:
        _create(folder, b"old")
        move = Move.CHECKED if _works(rename, folder, b"old", b"new") else Move.NONE
    return Capabilities(mount.name, links, move)


def _renames_only_to_free_names(folder: int, name: bytes, call: _Call) -> bool:
    """Whether *call* moves a file to a free name, and leaves both alone where the name is taken."""
    _create(folder, name)
    moved = name + b"-moved"
    if not _works(call, folder, name, moved):
        return False
    before = _size(folder, b"taken")
    with contextlib.suppress(OSError):
        call(folder, moved, folder, b"taken")
    return stat_at(folder, moved) is not None and _size(folder, b"taken") == before


def _replaces_links(folder: int) -> bool:
    _create(folder, b"whole")
    with contextlib.suppress(OSError):
        os.symlink(b"nowhere", b"placeholder", dir_fd=folder)
        rename(folder, b"whole", folder, b"placeholder")
    return stat_at(folder, b"whole") is None and _size(folder, b"placeholder") == len(b"whole")


def _works(call: _Call, folder: int, name: bytes, new_name: bytes) -> bool:
    """Whether *call* makes *new_name* from *name*, even if it raises; a failure is retried."""
    for _ in range(_TRIES):
        with contextlib.suppress(OSError):
            call(folder, name, folder, new_name)
        if stat_at(folder, new_name) is not None:
            return True
    return False


def _create(folder: int, name: bytes) -> None:
    """Create a small file with a size that no other file of the trial has."""
    flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC
    with closing(os.open(name, flags, 0o600, dir_fd=folder)) as descriptor:
        os.write(descriptor, name)


def _size(folder: int, name: bytes) -> int:
    status = stat_at(folder, name)
    return -1 if status is None else status.st_size
