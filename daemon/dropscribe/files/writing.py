"""New files and moves, durable, and never over a file that is there.

Guarantees: a name appears whole or not at all; what is there already is never replaced; after a crash
no temp file stays on file systems with O_TMPFILE, and elsewhere only one under a name of this store,
which the next try of the same job removes.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import hashlib
import os
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dropscribe.files.crashpoint import reached

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_AT_FDCWD = -100
_RENAME_NOREPLACE = 1
_COPY_BLOCK_BYTES = 1024 * 1024
_NO_TMPFILE = {errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL, errno.ENOSYS}
_NO_NOREPLACE = {errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP}
_NOT_ALLOWED = {errno.EPERM, errno.EACCES, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS}
_NO_LINK = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EINVAL}

_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class Look:
    """What a new file takes over from the audio beside it.

    Attributes:
        mode: Permission bits.
        owner: (uid, gid), taken where the system allows it.
    """

    mode: int
    owner: tuple[int, int]

    @classmethod
    def of_sidecar(cls, audio: os.stat_result) -> Look:
        """The audio's mode less execute bits, and its owner (CONTRACT.md §4)."""
        return cls(stat.S_IMODE(audio.st_mode) & 0o666, (audio.st_uid, audio.st_gid))


def write_new(folder: int, name: bytes, data: bytes, look: Look, temp_name: bytes) -> None:
    """Write *name* durably into the open *folder*, where nobody has it; the name itself is not synced.

    Args:
        temp_name: Hidden name in the same folder, this job's alone; used where O_TMPFILE is not known.

    Raises:
        FileExistsError: The name is taken.
        OSError: The disk's answer (ENOSPC, EROFS, EACCES, …); nothing stands at *name* then.
    """
    with _temp_file(folder, name, temp_name, look.mode) as (descriptor, link):
        view = memoryview(data)
        while view:
            view = view[os.write(descriptor, view) :]
        dress(descriptor, look)
        os.fsync(descriptor)
        reached("sidecar_written")
        link()


def copy_new(source: int, path: bytes, temp_name: bytes) -> str:
    """Copy the open file *source* durably to *path*, with mode, times and, where allowed, owner.

    Returns:
        The hex SHA-256 of what was read back from the copy.

    Raises:
        FileExistsError: The name is taken.
        OSError: The disk's answer; nothing stands at *path* then.
    """
    status = os.fstat(source)
    look = Look(stat.S_IMODE(status.st_mode), (status.st_uid, status.st_gid))
    with (
        _open_folder(os.path.dirname(path)) as folder,
        _temp_file(folder, os.path.basename(path), temp_name, look.mode) as (descriptor, link),
    ):
        _copy_content(source, descriptor)
        dress(descriptor, look)
        os.utime(descriptor, ns=(status.st_atime_ns, status.st_mtime_ns))
        os.fsync(descriptor)
        reached("copied")
        digest = sha256_of(descriptor)
        link()
    reached("copy_linked")
    return digest


def sha256_of(descriptor: int) -> str:
    """Hex SHA-256 of an open file's whole content, its position untouched."""
    digest = hashlib.sha256()
    offset = 0
    while block := os.pread(descriptor, _COPY_BLOCK_BYTES, offset):
        digest.update(block)
        offset += len(block)
    return digest.hexdigest()


def dress(descriptor: int, look: Look) -> None:
    """Give an open file its owner, where allowed, and its mode.

    A file that keeps our own owner never becomes set-user-ID: a program that somebody dropped under an
    audio's name would run as us.
    """
    mode, found = look.mode, os.fstat(descriptor)
    is_own = (found.st_uid, found.st_gid) == look.owner
    try:
        if not is_own:
            os.fchown(descriptor, *look.owner)
    except OSError as error:
        if error.errno not in _NOT_ALLOWED:
            raise
        mode &= 0o777
    try:
        # A change of owner may have taken bits away.
        if not is_own or stat.S_IMODE(found.st_mode) != mode:
            os.fchmod(descriptor, mode)
    except OSError as error:
        if error.errno not in _NOT_ALLOWED:
            raise


def move_new(source_folder: int, name: bytes, path: bytes) -> None:
    """Rename *name* in the open folder to *path*, never over anything.

    renameat2 with RENAME_NOREPLACE; where the file system does not know it, link and unlink; where it
    has no links either (some FUSE and SMB), the name is first taken by an empty file of ours.

    Raises:
        FileExistsError: The name is taken.
        OSError: EXDEV among them: two mounts, though st_dev may be equal (DESIGN.md §2).
    """
    try:
        _rename_noreplace(source_folder, name, path)
    except OSError as error:
        if error.errno not in _NO_NOREPLACE:
            raise
        _move_by_link(source_folder, name, path)


def _rename_noreplace(source_folder: int, name: bytes, path: bytes) -> None:
    result = _libc.renameat2(source_folder, name, _AT_FDCWD, path, _RENAME_NOREPLACE)
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), os.fsdecode(path))


def _move_by_link(source_folder: int, name: bytes, path: bytes) -> None:
    try:
        os.link(name, path, src_dir_fd=source_folder, follow_symlinks=False)
    except FileExistsError:
        # A crash between link and unlink left the file under both names.
        if not os.path.samestat(os.lstat(path), os.stat(name, dir_fd=source_folder, follow_symlinks=False)):
            raise
    except OSError as error:
        if error.errno not in _NO_LINK:
            raise
        _move_over_placeholder(source_folder, name, path)
        return
    os.unlink(name, dir_fd=source_folder)


def _move_over_placeholder(source_folder: int, name: bytes, path: bytes) -> None:
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))
    try:
        os.rename(name, path, src_dir_fd=source_folder)
    except OSError:
        os.unlink(path)
        raise


def make_folders(path: bytes) -> None:
    """Make *path* and its missing parents, each entry on disk before this returns."""
    missing: list[bytes] = []
    while not os.path.isdir(path):
        missing.append(path)
        path = os.path.dirname(path)
    for folder in reversed(missing):
        with contextlib.suppress(FileExistsError):
            os.mkdir(folder)
        sync_folder(os.path.dirname(folder))


def sync_folder(path: bytes) -> None:
    """Make the names in a folder durable; EINVAL is what file systems say that cannot."""
    with _open_folder(path) as descriptor:
        sync_open_folder(descriptor)


def sync_open_folder(descriptor: int) -> None:
    """As :func:`sync_folder`, for an open folder."""
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in {errno.EINVAL, errno.EBADF}:
            raise


def path_in(folder: int, name: bytes) -> bytes:
    """A path to *name* in an open folder, for calls that take no descriptor for it."""
    return b"/proc/self/fd/%d/%s" % (folder, name)


def name_max_bytes(folder: bytes) -> int:
    """The longest file name that *folder*'s file system takes, in bytes."""
    while True:
        try:
            return os.pathconf(folder, "PC_NAME_MAX")
        except FileNotFoundError:
            folder = os.path.dirname(folder)
        except OSError:
            return 255


@contextlib.contextmanager
def _open_folder(path: bytes) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _temp_file(
    folder: int, name: bytes, temp_name: bytes, mode: int
) -> Iterator[tuple[int, Callable[[], None]]]:
    """(descriptor, link): an open file without a name, or with a hidden one, and how to give it *name*."""
    try:
        # Nobody can open what has no name, so it may have its mode at once.
        descriptor = os.open(b".", os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, mode & 0o777, dir_fd=folder)
    except OSError as error:
        if error.errno not in _NO_TMPFILE:
            raise
        with _named_temp_file(folder, temp_name) as descriptor:
            yield descriptor, lambda: move_new(folder, temp_name, path_in(folder, name))
        return
    try:
        yield descriptor, lambda: _name_open(descriptor, folder, name)
    finally:
        os.close(descriptor)


def _name_open(descriptor: int, folder: int, name: bytes) -> None:
    # With dst_dir_fd Python calls linkat with AT_SYMLINK_FOLLOW; without it, a plain link() of the
    # symlink in /proc, which is another file system (EXDEV).
    os.link(b"/proc/self/fd/%d" % descriptor, name, dst_dir_fd=folder, follow_symlinks=True)


@contextlib.contextmanager
def _named_temp_file(folder: int, name: bytes) -> Iterator[int]:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(name, dir_fd=folder)  # this job's own, from before a crash
    descriptor = os.open(name, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600, dir_fd=folder)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=folder)


def _copy_content(source: int, target: int) -> None:
    offset = 0
    while block := os.pread(source, _COPY_BLOCK_BYTES, offset):
        offset += len(block)
        view = memoryview(block)
        while view:
            view = view[os.write(target, view) :]
