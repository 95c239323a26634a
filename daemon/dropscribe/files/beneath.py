"""Opens users' folders and files by descriptor, one path component at a time, following no link.

A root (an inbox, ``done``, ``failed``) is opened by :func:`open_root`. Everything below it is reached from
that descriptor by ``dir_fd`` calls, so that a folder swapped for a link between two calls leads nowhere.

Guarantees: below a root no link is followed and no component is empty, ``.`` or ``..``. On the way to a
root a link is followed only if root or this process's user owns it. Nothing but a regular file is opened.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import stat
import struct
from collections.abc import Callable

FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
"""Flags for a name of unknown type: no link is followed, and opening a pipe does not block."""

_PASS = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_MOST_LINKS = 40  # the kernel's own limit, path_resolution(7)
_NO_FOLDER = frozenset({errno.ENOTDIR, errno.ELOOP})
_NO_SYNC = frozenset({errno.EINVAL, errno.EBADF})

_OPENAT2 = 437  # the same number on every architecture but alpha: unistd.h
_NO_SYMLINKS = 0x04  # RESOLVE_NO_SYMLINKS, openat2(2)
_AT_ONCE = struct.pack("=QQQ", FOLDER, 0, _NO_SYMLINKS)

_syscall = ctypes.CDLL(None).syscall
_syscall.restype = ctypes.c_long
_syscall.argtypes = (ctypes.c_long, ctypes.c_int, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_size_t)


class UnsafePathError(OSError):
    """Raised where a path leads through a link that is not followed, or names something not allowed."""


def open_root(path: bytes) -> int:
    """Open the folder at the absolute *path*; UnsafePathError for a link of neither root nor our user."""
    at_once = _open_at_once(path)
    if at_once >= 0:
        return at_once
    try:
        with closing(_walk(path)) as folder:
            try:
                return os.open(b".", FOLDER, dir_fd=folder)
            except PermissionError:
                return os.dup(folder)  # for traversal only
    except OSError as error:
        error.filename = os.fsdecode(path)
        raise


def _open_at_once(path: bytes) -> int:
    """Open the folder at the absolute *path* in one call, where that is possible without following a link.

    -1 on any failure (a link, a container that forbids the call, no right to list the folder): the walk
    component by component then succeeds or raises the right error.
    """
    if b"\0" in path:
        return -1
    descriptor: int = _syscall(_OPENAT2, -1, path, _AT_ONCE, len(_AT_ONCE))
    return descriptor


def _walk(path: bytes) -> int:
    """Open the folder *path* component by component, for traversal only."""
    descriptor = os.open(b"/" if path.startswith(b"/") else b".", _PASS)
    waiting, links = _steps(path), 0
    try:
        while waiting:
            name = waiting.pop()
            try:
                below = os.open(name, _PASS, dir_fd=descriptor)
            except OSError as error:
                target = _link_target(descriptor, name, path) if error.errno in _NO_FOLDER else None
                if target is None:
                    raise
                links += 1
                if links > _MOST_LINKS:
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP)) from None
                waiting += _steps(target)
                below = os.open(b"/" if target.startswith(b"/") else b".", _PASS, dir_fd=descriptor)
            os.close(descriptor)
            descriptor = below
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _steps(path: bytes) -> list[bytes]:
    """The components of *path*, the last one first."""
    return [part for part in reversed(path.split(b"/")) if part not in {b"", b"."}]


def _link_target(folder: int, name: bytes, path: bytes) -> bytes | None:
    """Target of the symbolic link *name*; None if *name* is not a link."""
    with closing(os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)) as link:
        status = os.fstat(link)
        if not stat.S_ISLNK(status.st_mode):
            return None
        if status.st_uid not in {0, os.geteuid()}:
            reason = f"the link {os.fsdecode(name)!r} belongs to uid {status.st_uid} and is not followed"
            raise UnsafePathError(errno.ELOOP, reason, os.fsdecode(path))
        return os.readlink(b"", dir_fd=link)


def open_listable_root(path: bytes) -> int:
    """As :func:`open_root`, for a folder that is to be listed."""
    return _listable(open_root(path), path)


def open_listable_folder(root: int, path: bytes) -> int:
    """As :func:`open_folder`, for a folder that is to be listed."""
    return _listable(open_folder(root, path), path)


def _listable(descriptor: int, path: bytes) -> int:
    """The open *descriptor*; raises PermissionError if this process may pass through it but not list it."""
    if fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_PATH:
        os.close(descriptor)
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), os.fsdecode(path))
    return descriptor


def make_root(path: bytes) -> int:
    """As :func:`open_root`, making the folder and its missing parents, each name durable."""
    with contextlib.suppress(FileNotFoundError):
        return open_root(path)
    parent, _, name = path.rstrip(b"/").rpartition(b"/")
    with closing(make_root(parent or b"/")) as above:
        with contextlib.suppress(FileExistsError):
            os.mkdir(name, dir_fd=above)
        sync(above)
    return open_root(path)


def open_folder(root: int, path: bytes) -> int:
    """Open *path* below the open *root* (b"": itself); UnsafePathError for a link or what is no path."""
    return _descend(root, path, _step)


def make_folder(root: int, path: bytes) -> int:
    """As :func:`open_folder`, making missing folders with *root*'s mode, each name durable."""
    mode = stat.S_IMODE(os.fstat(root).st_mode)

    def step_or_make(folder: int, name: bytes, path: bytes) -> int:
        with contextlib.suppress(FileNotFoundError):
            return _step(folder, name, path)
        is_made = True
        try:
            os.mkdir(name, mode & 0o777, dir_fd=folder)
        except FileExistsError:
            is_made = False
        below = _step(folder, name, path)
        try:
            if is_made:
                _give_mode(below, mode)
            sync(folder)
        except BaseException:
            os.close(below)
            raise
        return below

    return _descend(root, path, step_or_make)


def _descend(root: int, path: bytes, step: Callable[[int, bytes, bytes], int]) -> int:
    """Go from *root* down the components of *path*, each opened by *step*."""
    names = path.split(b"/") if path else []
    for name in names:
        _check_name(name, path)
    descriptor = os.dup(root)
    try:
        for name in names:
            below = step(descriptor, name, path)
            os.close(descriptor)
            descriptor = below
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _give_mode(folder: int, mode: int) -> None:
    """Set *mode* on a folder just made: the umask or an ACL may have changed it.

    Another folder may have been renamed over the new one: only an empty folder of our own is changed.
    """
    status = os.fstat(folder)
    if stat.S_IMODE(status.st_mode) == mode or status.st_uid != os.geteuid():
        return
    with contextlib.suppress(PermissionError), os.scandir(folder) as names:
        if next(names, None) is None:
            os.fchmod(folder, mode)


def open_at(root: bytes, path: bytes) -> int:
    """As :func:`open_folder`, for the folder *path* below the one at the absolute path *root*."""
    if not path:
        return open_root(root)
    with closing(open_root(root)) as opened:
        return open_folder(opened, path)


def open_file(folder: int, name: bytes) -> int:
    """Open the regular file *name* in the open *folder*; UnsafePathError if it is anything else."""
    return open_with_status(folder, name)[0]


def open_with_status(folder: int, name: bytes) -> tuple[int, os.stat_result]:
    """As :func:`open_file`, with the status of the open file."""
    _check_name(name, name)
    descriptor = os.open(name, READ, dir_fd=folder)
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        os.close(descriptor)
        raise UnsafePathError(errno.ENXIO, "not a regular file", os.fsdecode(name))
    return descriptor, status


def stat_at(folder: int, name: bytes) -> os.stat_result | None:
    """The status of *name* in the open *folder*, no link followed; None where nothing is there."""
    try:
        return os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return None


class closing:  # noqa: N801  # a context manager, named as contextlib names its own
    """The open *descriptor*, closed at the end of the block."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def __enter__(self) -> int:
        return self._descriptor

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)


def sync(folder: int) -> None:
    """Make the names in the open *folder* durable, where its file system can."""
    try:
        os.fsync(folder)
    except OSError as error:
        if error.errno not in _NO_SYNC:
            raise


def _check_name(name: bytes, path: bytes) -> None:
    if name in {b"", b".", b".."} or b"/" in name or b"\0" in name:
        raise UnsafePathError(errno.EINVAL, "is no plain path below its folder", os.fsdecode(path))


def _step(folder: int, name: bytes, path: bytes) -> int:
    try:
        return os.open(name, FOLDER, dir_fd=folder)
    except PermissionError:
        return os.open(name, _PASS, dir_fd=folder)
    except OSError as error:
        if error.errno not in _NO_FOLDER:
            raise
        raise UnsafePathError(errno.ELOOP, "leads through a link or a file", os.fsdecode(path)) from error
