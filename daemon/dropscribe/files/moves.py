"""Moves within one mount that never overwrite, and removals of nothing but the expected file.

Over a network a call that failed may have been carried out. So no step is undone or repeated because of
an errno: after an error the names are read again, and the move goes on from their actual state.

Guarantees: another file's name is never replaced or removed; a file that is not the expected one
keeps its name, or goes back to it.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import stat
import struct
from collections.abc import Callable
from typing import NamedTuple

from dropscribe.files.beneath import closing, open_file, stat_at, sync
from dropscribe.files.capabilities import (
    CAPABILITY_ERRORS,
    Capabilities,
    Move,
    capabilities_of,
    forget_capabilities,
    link,
    rename,
    rename_noreplace,
)
from dropscribe.files.crashpoint import reached

_AT_SYMLINK_NOFOLLOW = 0x100
_AT_STATX_FORCE_SYNC = 0x2000
_STATX_BASIC = 0x7FF
_StatxBuffer = ctypes.c_char * 256
# struct statx of statx(2) without its birth time; a time is seconds, nanoseconds and padding.
_STATX = struct.Struct("=16xIIIHxxQQ16xqI4x16xqI4xqI4x8xII")

_REFUSALS = frozenset(
    {errno.EXDEV, errno.EPERM, errno.EACCES, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.ENOENT}
    | {errno.EISDIR, errno.ENOTDIR, errno.EBUSY, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS}
)

_libc = ctypes.CDLL(None, use_errno=True)


class FileName(NamedTuple):
    """A name in an open folder."""

    folder: int
    name: bytes

    def status(self) -> os.stat_result | None:
        """Status of the entry from the file system itself, no link followed; None if there is none.

        A plain stat on NFS or FUSE may be answered from the kernel's cache.
        """
        if not hasattr(_libc, "statx"):  # musl before 1.2.5
            return stat_at(self.folder, self.name)
        buffer = _StatxBuffer()
        number = self._statx(buffer)
        if number == errno.EIO:
            # FUSE's error if the cache has another type for the name; the cache is cleared by now.
            number = self._statx(buffer)
        if number == errno.ENOENT:
            return None
        if number:
            raise OSError(number, os.strerror(number), os.fsdecode(self.name))
        links, uid, gid, mode, inode, size_bytes, *times, major, minor = _STATX.unpack_from(buffer)
        accessed, accessed_ns, changed, changed_ns, modified, modified_ns = times
        whole_ns = {
            "st_atime_ns": accessed * 10**9 + accessed_ns,
            "st_mtime_ns": modified * 10**9 + modified_ns,
            "st_ctime_ns": changed * 10**9 + changed_ns,
        }
        device = os.makedev(major, minor)
        fields = (mode, inode, device, links, uid, gid, size_bytes, accessed, modified, changed)
        return os.stat_result(fields, whole_ns)

    def _statx(self, buffer: ctypes.Array[ctypes.c_char]) -> int:
        """statx(2) with AT_STATX_FORCE_SYNC; the errno, or 0."""
        flags = _AT_SYMLINK_NOFOLLOW | _AT_STATX_FORCE_SYNC
        failed = _libc.statx(self.folder, self.name, flags, _STATX_BASIC, buffer)
        return ctypes.get_errno() if failed else 0

    def unlink(self) -> None:
        """Remove the name, if it is there."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.name, dir_fd=self.folder)

    def beside(self, name: bytes) -> FileName:
        """Another name in the same folder."""
        return FileName(self.folder, name)


IsExpected = Callable[[FileName], bool]  # whether the file at a name is the one that is meant


def same_file(one: FileName, other: FileName) -> bool:
    """Whether two names on one mount with hard links are names of one file."""
    status = one.status()
    return status is not None and is_file_of(status, other)


def has_gone(name: FileName) -> bool:
    """Whether there is no file of this name, also where a cache has it still (that of sshfs for 20 s)."""
    try:
        with closing(open_file(*name)):
            return False
    except FileNotFoundError:
        return True
    except OSError:  # not to be read
        return name.status() is None


def is_file_of(status: os.stat_result, name: FileName) -> bool:
    """Whether the file that has *status* stands at *name*."""
    found = name.status()
    return found is not None and os.path.samestat(found, status)


def move_new(
    source: FileName, target: FileName, can: Capabilities, aside: bytes, is_expected: IsExpected
) -> None:
    """Move *source* to *target* within one mount, never over anything; neither folder is synced.

    Args:
        aside: Hidden name beside *source*, the caller's alone: see :func:`remove_if`.
        is_expected: Asked where a call failed, and the file is gone from *source* all the same.

    Raises:
        FileExistsError: The name is taken.
        OSError: EXDEV for two mounts; else as far as can be seen now, it was not carried out.
    """
    try:
        _move(can.move, source, target, aside)
    except OSError as error:
        if error.errno == errno.EXDEV:
            raise
        if not _is_there(source, target, can, is_expected):
            if error.errno in CAPABILITY_ERRORS:
                forget_capabilities(target.folder)
            raise
    if can.move is Move.LINK and source.status() is not None:
        sync(target.folder)
        # The link exists for certain; the old name may be another file's by now.
        if not remove_if(source, aside, is_expected):
            raise OSError(errno.ESTALE, "another file stands at its old name by now")


def _is_there(source: FileName, target: FileName, can: Capabilities, is_expected: IsExpected) -> bool:
    """Whether the file of *source* stands at *target*, after a call that failed."""
    if target.status() is None:
        return False
    if can.move is Move.LINK and same_file(source, target):
        return True
    return has_gone(source) and is_expected(target)


def _move(way: Move, source: FileName, target: FileName, aside: bytes) -> None:
    match way:
        case Move.NOREPLACE:
            rename_noreplace(*source, *target)
        case Move.LINK:
            link(*source, *target)
        case Move.REFUSING | Move.CHECKED:
            if target.status() is not None:
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), os.fsdecode(target.name))
            rename(*source, *target)
        case Move.PLACEHOLDER:
            _move_over_placeholder(source, target, aside)
        case Move.NONE:
            reason = "the file system has no way to rename or link a file"
            raise OSError(errno.EOPNOTSUPP, reason, os.fsdecode(target.name))


def _move_over_placeholder(source: FileName, target: FileName, aside: bytes) -> None:
    """Reserve the name by a symbolic link with unique text, then rename over it.

    An empty file would not be safe: some file systems write an opened file back by its name long after its
    close, which would truncate the file that has replaced it.
    """
    try:
        os.symlink(aside, target.name, dir_fd=target.folder)
    except OSError:
        if not is_placeholder(target, aside):
            raise
    try:
        rename(*source, *target)
    except OSError as error:
        # After any other error the rename may be carried out yet.
        if error.errno in _REFUSALS:
            free_placeholder(target, aside)
        raise


def is_placeholder(target: FileName, aside: bytes) -> bool:
    """Whether *target* is the link by which :func:`move_new` with *aside* reserved the name."""
    try:
        return os.readlink(target.name, dir_fd=target.folder) == aside
    except OSError as error:
        if error.errno in {errno.EINVAL, errno.ENOENT, errno.EOPNOTSUPP, errno.ENOSYS}:
            return False
        raise


def free_placeholder(target: FileName, aside: bytes) -> None:
    """Remove the link by which :func:`move_new` reserved the name *target*, if it is still there."""
    if is_placeholder(target, aside):
        target.unlink()


def remove_if(name: FileName, aside: bytes, is_expected: IsExpected) -> bool:
    """Remove the file at *name* if it is the expected one.

    Between the check of a name and its removal another file may be renamed over it. So the name is first
    renamed to *aside*, a hidden name of the caller's alone, and the file there is checked. Safe to repeat
    after a crash at any point.

    Returns False if another file, or none, was at the name. The other file is still there, or keeps the
    hidden name if the old one was taken meanwhile.
    """
    if remove_aside(name, aside, is_expected):
        return True
    try:
        rename(*name, *name.beside(aside))
    except FileNotFoundError:
        return False
    reached("copy_set_aside")
    return remove_aside(name, aside, is_expected)


def remove_aside(name: FileName, aside: bytes, is_expected: IsExpected) -> bool:
    """Finish an interrupted :func:`remove_if`; whether the expected file was removed."""
    hidden = name.beside(aside)
    status = hidden.status()
    if status is None:
        return False
    if stat.S_ISREG(status.st_mode) and is_expected(hidden):
        hidden.unlink()
        return True
    with contextlib.suppress(FileExistsError):
        _put_back(hidden, name)
    return False


def _put_back(hidden: FileName, name: FileName) -> None:
    """Move *hidden*, a unique name, to *name* if that is free."""
    try:
        can = capabilities_of(name.folder)
    except OSError:  # a full disk has no room for a trial; a link needs none, and overwrites nothing
        can = None
    if can is None or can.links:
        link(*hidden, *name)
        hidden.unlink()
    else:
        _move(can.move, hidden, name, hidden.name + b".back")
