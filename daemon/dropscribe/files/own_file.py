"""New files that get their final name whole, and are recognised as ours by identity.

A file is written under a hidden name in the same folder, and then named. The hidden name stays until all
files of the job are in place: where hard links work, both names lead to one file, which proves that it is
ours, also after a crash. Where they do not, the hidden file is renamed, and a hidden mark from before that
shows that it has been named. Equal content proves nothing: two silent recordings have equal transcripts.

Guarantees: another file's name is never replaced or removed. Every step may be repeated.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import stat
from collections.abc import Callable

from dropscribe.files.beneath import closing, open_file, sync
from dropscribe.files.capabilities import CAPABILITY_ERRORS, Capabilities, Move, forget_capabilities, link
from dropscribe.files.moves import FileName, free_placeholder, move_new, remove_aside, remove_if, same_file
from dropscribe.files.permissions import keep_permissions

_NEW = os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC
_BLOCK_BYTES = 1024 * 1024


class OwnFile:
    """One new file from its hidden name to its final one.

    Args:
        name: Its final name; *hidden* is one in the same folder, this file's alone.
        sha256: Hex digest of the content, which tells where hard links do not; "" where they do.
    """

    def __init__(self, name: FileName, hidden: bytes, sha256: str, can: Capabilities) -> None:
        self.name = name
        self._hidden = name.beside(hidden)
        self._aside = hidden + b".away"
        self._sha256 = sha256
        self._can = can
        self._is_named = False
        self._descriptor: int | None = None

    @property
    def _mark(self) -> FileName:
        """The name of the mark that shows, where hard links do not work, that the file has been named."""
        return self._hidden.beside(self._hidden.name + b".named")

    def is_placed(self) -> bool:
        """Whether the file at the final name is this one, named by this process or before a crash."""
        if self._can.links:
            return same_file(self._hidden, self.name)
        return self._mark.status() is not None and self._hidden.status() is None and self._is_at(self.name)

    def _is_at(self, name: FileName) -> bool:
        return digest_at(name) == self._sha256

    def write(self, fill: Callable[[int], None]) -> None:
        """Write durably under the hidden name what *fill* does, unless the file has its final name."""
        try:
            self.begin(fill)
            self.make_durable()
        except Exception:
            self.abandon()
            raise

    def begin(self, fill: Callable[[int], None], mode: int = 0o600) -> None:
        """As :meth:`write`, without the sync; if several files are begun, the first sync writes most data.

        After an error here or in :meth:`make_durable` the caller calls :meth:`abandon`. The empty file has
        *mode*, as far as the umask allows.
        """
        self._descriptor = self._open_new(mode)
        if self._descriptor is not None:
            fill(self._descriptor)

    def make_durable(self) -> None:
        """Sync and close the file that was begun."""
        if self._descriptor is None:
            return
        os.fsync(self._descriptor)
        self._close()
        if not self._can.links:
            os.close(os.open(self._mark.name, _NEW, 0o600, dir_fd=self._mark.folder))
            sync(self._mark.folder)

    def _close(self) -> None:
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)

    def abandon(self) -> None:
        """Close and remove a file that was begun and is not durable. Safe to call twice."""
        if self._descriptor is None:
            return
        with contextlib.suppress(OSError):
            self._close()
        with contextlib.suppress(OSError):
            self._hidden.unlink()

    def _open_new(self, mode: int) -> int | None:
        """Open a new hidden file; None if an earlier try has written it whole."""
        if self._can.links:
            # Without a hidden file nothing of an earlier try is left, because it is removed last.
            with contextlib.suppress(FileExistsError):
                return self._create(mode)
        self._is_named = self.is_placed()
        if self._is_named:
            return None
        remove_aside(self.name, self._aside, self._is_own)
        if not self._can.links and self._mark.status() is not None and self._is_at(self._hidden):
            return None  # whole, by its mark
        self.finish()
        return self._create(mode)

    def _create(self, mode: int) -> int:
        return os.open(self._hidden.name, _NEW, mode, dir_fd=self._hidden.folder)

    def place(self) -> None:
        """Give the file its final name, which is not synced; FileExistsError if it is taken."""
        if self._is_named:
            return
        if not self._can.links:
            move_new(self._hidden, self.name, self._can, self._aside, self._is_at)
            return
        try:
            link(*self._hidden, *self.name)
        except OSError as error:
            # The result of the call was lost, or the file was named before a crash.
            if same_file(self._hidden, self.name):
                return
            if error.errno in CAPABILITY_ERRORS:
                forget_capabilities(self.name.folder)
            raise

    def withdraw(self) -> bool:
        """Remove the file under all its names; whether its final name was removed."""
        if self._can.move is Move.PLACEHOLDER:
            free_placeholder(self.name, self._aside)
        is_removed = remove_aside(self.name, self._aside, self._is_own)
        if not is_removed and self.is_placed():
            is_removed = remove_if(self.name, self._aside, self._is_own)
        self.finish()
        return is_removed

    def _is_own(self, found: FileName) -> bool:
        if not self._can.links:
            return self._is_at(found)
        return same_file(self._hidden, found)

    def finish(self) -> None:
        """Remove the proof of ownership: all files of the job are in place, or none is."""
        self._hidden.unlink()
        if not self._can.links:
            self._mark.unlink()


def digest_at(name: FileName) -> str:
    """Hex SHA-256 of the regular file *name*; "" if there is none."""
    status = name.status()
    if status is None or not stat.S_ISREG(status.st_mode):
        return ""
    try:
        descriptor = open_file(*name)
    except OSError as error:
        if error.errno in {errno.ELOOP, errno.ENXIO, errno.ENOENT}:
            return ""
        raise
    with closing(descriptor):
        return sha256_of(descriptor)


def digest_of(content: bytes) -> str:
    """Hex SHA-256 of *content*."""
    return hashlib.sha256(content).hexdigest()


def sha256_of(descriptor: int) -> str:
    """Hex SHA-256 of an open file's whole content, its position untouched."""
    digest = hashlib.sha256()
    offset = 0
    while block := os.pread(descriptor, _BLOCK_BYTES, offset):
        digest.update(block)
        offset += len(block)
    return digest.hexdigest()


def write_all(descriptor: int, data: bytes | memoryview) -> None:
    """Write all of *data* at the open file's position."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def start_writing(descriptor: int) -> None:
    """Let the system begin to write an open file's data to the disk, without waiting for it."""
    with contextlib.suppress(OSError):
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)


def copy_audio(source: int, target: int) -> None:
    """Copy the open *source* to the open, empty *target* with permissions and, where allowed, times."""
    status, offset = os.fstat(source), 0
    while block := os.pread(source, _BLOCK_BYTES, offset):
        offset += len(block)
        write_all(target, block)
    keep_permissions(source, target)
    with contextlib.suppress(PermissionError):  # a mount may show every file as another user's (uid=)
        os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))


def copy_verified(source: int, target: int) -> None:
    """As :func:`copy_audio`; raises OSError if the copy does not read back as the original."""
    copy_audio(source, target)
    if sha256_of(target) != sha256_of(source):
        raise OSError(errno.EIO, "the copy does not read back as the original")
