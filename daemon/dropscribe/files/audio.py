"""The audio of one job: the file opened is the file checked, and is read in bounded pieces.

Guarantees: no symlink is followed on any part of the path below the inbox; nothing but a regular file
is opened; :meth:`AudioFile.recheck` tells whether the file has changed since it was opened.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import pwd
import stat
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import NamedTuple, Self

from dropscribe.core.errors import AudioChanged, AudioError, AudioForbidden, AudioMissing, AudioUnsafe
from dropscribe.core.model import FileSnapshot
from dropscribe.files.beneath import (
    UnsafePathError,
    closing,
    open_at,
    open_file,
    open_listable_folder,
    open_listable_root,
    open_with_status,
)
from dropscribe.files.own_file import sha256_of

BLOCK_BYTES = 512 * 1024  # Bytes of one read: the memory of an upload of any length
READ_SECONDS = 30.0
"""A read that takes longer ends the attempt, so that a mount that hangs keeps no provider's slot."""

_FIRST_NS, _LAST_NS = -(2**63), 2**63 - 1


def snapshot_of(status: os.stat_result) -> FileSnapshot:
    """The snapshot that a stat result holds.

    Times before 1677 or after 2262 become the nearest that 64 bits of nanoseconds can hold: the database has
    no larger integers, and file systems do store such times.
    """
    return FileSnapshot(
        status.st_dev,
        status.st_ino,
        status.st_size,
        min(max(status.st_mtime_ns, _FIRST_NS), _LAST_NS),
        min(max(status.st_ctime_ns, _FIRST_NS), _LAST_NS),
    )


def open_beneath(root: bytes, path: bytes) -> int:
    """Open the regular file *path* below the folder *root* for reading, following no link below *root*.

    Raises:
        AudioMissing: Nothing is there.
        AudioForbidden: May not be read; the reason names owner, mode and remedy.
        AudioUnsafe: A link, device, pipe, socket or folder.
        OSError: Anything else (EIO, ESTALE, EMFILE, …), which is no evidence about the audio.
    """
    with closing(open_folder_of(root, path)) as folder, audio_errors(root, path):
        return open_file(folder, path.rpartition(b"/")[2])


def open_folder_of(root: bytes, path: bytes) -> int:
    """Open the folder of the file *path* below *root*; raises as :func:`open_beneath`."""
    with audio_errors(root, path):
        return open_at(root, path.rpartition(b"/")[0])


@contextlib.contextmanager
def audio_errors(root: bytes, path: bytes) -> Iterator[None]:
    """Turn the system's errors on the file *path* below *root* into those of audio files."""
    try:
        yield
    except UnsafePathError as error:
        raise AudioUnsafe(path, error.strerror or str(error)) from error
    except OSError as error:
        if error.errno in {errno.ENOENT, errno.ENAMETOOLONG}:
            raise AudioMissing(path, "nothing is there") from error
        if error.errno in {errno.ELOOP, errno.ENXIO, errno.ENOTDIR, errno.ENODEV}:
            raise AudioUnsafe(path, os.strerror(error.errno)) from error
        if error.errno in {errno.EACCES, errno.EPERM}:
            raise AudioForbidden(path, describe_forbidden(root, path)) from error
        raise


def describe_forbidden(root: bytes, path: bytes) -> str:
    """Owner, mode and remedy of a file or folder below *root* that may not be read.

    If a folder on the way hides it, of that folder.
    """
    described = path
    while True:
        try:
            status = _status_below(root, described)
            break
        except OSError as error:
            if error.errno not in {errno.EACCES, errno.EPERM} or not described:
                return f"may not be looked at: {os.strerror(error.errno or 0)}"
        described = described.rpartition(b"/")[0]
    which = "" if described == path else f"its folder {os.fsdecode(described or root)}: "
    words = f"{which}owner {_owner_name(status.st_uid)}, mode {stat.S_IMODE(status.st_mode):04o}:"
    uid = os.geteuid()
    who = "u" if status.st_uid == uid else "g"
    if stat.S_ISDIR(status.st_mode):
        return f"{words} closed to uid {uid}; give it access (chmod {who}+rx, or an ACL)"
    remedy = f"give it read access (chmod {who}+r, an ACL, or run the recorder with UMask=0027)"
    return f"{words} not readable by uid {uid}; {remedy}"


def _status_below(root: bytes, path: bytes) -> os.stat_result:
    """The status of *path* below *root*, no link followed; of *root* itself for b""."""
    directory, _, name = path.rpartition(b"/")
    with closing(open_at(root, directory)) as folder:
        return os.stat(name, dir_fd=folder, follow_symlinks=False) if name else os.fstat(folder)


@dataclass(slots=True)
class Progress:
    """Progress of the attempt at a recording; written by its provider, read by the page."""

    total_bytes: int
    sent_bytes: int = 0
    heard_seconds: float | None = None  # The engine on this machine has recognised the recording up to here
    piece: int = 0  # Number of the piece that is being sent, from 1; 0 where it is sent as it is
    pieces: int = 0  # Of a recording that is sent in pieces, their number


def _owner_name(uid: int) -> str:
    if _is_substitute(uid):
        return "not visible to the service (PrivateUsers=yes)"
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _is_substitute(uid: int) -> bool:
    """Whether *uid* is the overflow uid, which stands for all owners that our user namespace does not map."""
    try:
        with open("/proc/sys/kernel/overflowuid") as number, open("/proc/self/uid_map") as mapped:
            is_whole = sum(int(line.split()[2]) for line in mapped) >= 2**32 - 1
            return uid == int(number.read()) and not is_whole
    except (OSError, ValueError):
        return False


class AudioFile:
    """One settled file, open for one attempt."""

    def __init__(
        self,
        descriptor: int,
        name: bytes,
        executor: Executor | None = None,
        status: os.stat_result | None = None,
    ) -> None:
        self._descriptor = descriptor
        self.executor = executor  # For blocking calls on its folder; None is the event loop's default
        self.sha256 = ""  # Hex digest of the whole content, known after a whole pass of :meth:`blocks`
        self.name = name
        self.snapshot = snapshot_of(status or os.fstat(descriptor))
        self.size_bytes = self.snapshot.size_bytes  # The Content-Length of the upload
        self.progress = Progress(self.size_bytes)
        # Enough to identify a container; a recording of one block costs no second hop to a thread.
        self.head = os.pread(descriptor, min(BLOCK_BYTES, self.size_bytes), 0)

    @classmethod
    def open(
        cls, root: bytes, path: bytes, executor: Executor | None = None, folder: int | None = None
    ) -> AudioFile:
        """Open *path*, whose *folder* may be open already, below *root*; raises as :func:`open_beneath`."""
        if folder is None:
            with closing(open_folder_of(root, path)) as opened:
                return cls.open(root, path, executor, opened)
        name = path.rpartition(b"/")[2]
        with audio_errors(root, path):
            descriptor, status = open_with_status(folder, name)
        try:
            return cls(descriptor, name, executor, status)
        except BaseException:
            os.close(descriptor)
            raise

    @property
    def suffix(self) -> str:
        """The name's last suffix in lower case with its dot (".wav"), or ""."""
        return os.path.splitext(os.fsdecode(self.name))[1].lower()

    async def blocks(self) -> AsyncIterator[bytes]:
        """The content from its start in blocks, hashed as it passes.

        Yields exactly ``size_bytes`` bytes or raises AudioChanged: a Content-Length is a promise.
        """
        digest = hashlib.sha256()
        sent = 0
        import asyncio  # noqa: PLC0415  # an awaiting caller has it; commands that only probe do not load it

        loop = asyncio.get_running_loop()

        def read_next() -> bytes:
            # Hashed in the same thread, so that several long uploads hash on several cores.
            block = os.pread(self._descriptor, min(BLOCK_BYTES, self.size_bytes - sent), sent)
            digest.update(block)
            return block

        block = self.head[: self.size_bytes]
        digest.update(block)
        while block:
            sent += len(block)
            yield block
            if sent >= self.size_bytes:
                break
            reading = loop.run_in_executor(self.executor, read_next)
            done, _ = await asyncio.wait((reading,), timeout=READ_SECONDS)
            if not done:
                raise OSError(errno.ETIMEDOUT, "its disk does not answer")
            block = reading.result()
        if sent < self.size_bytes:
            raise AudioChanged(self.name, f"shrank from {self.size_bytes} to {sent} bytes while being read")
        self.sha256 = digest.hexdigest()

    async def ensure_sha256(self) -> str:
        """The digest, reading the file for it only if no upload has done so."""
        if not self.sha256:
            async for _ in self.blocks():
                pass
        return self.sha256

    def fileno(self) -> int:
        """The descriptor, for a worker process to read from; valid while this AudioFile is open."""
        return self._descriptor

    def recheck(self) -> bool:
        """Whether the file is unchanged since it was opened (ctime aside, which chmod and link change)."""
        return self.snapshot.same_audio(snapshot_of(os.fstat(self._descriptor)))

    def close(self) -> None:
        """Close the descriptor; safe to call twice."""
        if self._descriptor >= 0:
            with contextlib.suppress(OSError):
                os.close(self._descriptor)
            self._descriptor = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class FoundContent(NamedTuple):
    """The file found at a recording's path."""

    snapshot: FileSnapshot | None = None  # Of a file with the recording's bytes; None if its bytes differ
    inode: int | None = None  # Of the file; None if there is none
    is_forbidden: bool = False  # There is a file, and it may not be read


def find_content(inbox: bytes, path: bytes, size_bytes: int, sha256: str) -> FoundContent:
    """Compare the file at *path* with the bytes that were sent; blocking: it may read the whole file.

    SFTP and rclone clients set a file's times after its last byte, and others rename a second copy of the
    same bytes over the first: neither is another recording.
    """
    try:
        with closing(open_beneath(inbox, path)) as descriptor:
            before = snapshot_of(os.fstat(descriptor))
            is_it = sha256 and before.size_bytes == size_bytes and sha256_of(descriptor) == sha256
            is_still = before.same_audio(snapshot_of(os.fstat(descriptor)))
            return FoundContent(before if is_it and is_still else None, before.inode)
    except AudioForbidden:
        return FoundContent(is_forbidden=True)
    except (AudioError, OSError):
        return FoundContent()


def has_left(inbox: bytes, audio: FileSnapshot) -> bool:
    """Whether a complete listing of *inbox* shows that *audio*, known by its inode, is not in it.

    False where that is not certain: a folder cannot be listed, or another device is mounted there.
    """
    try:
        with closing(open_listable_root(inbox)) as root:
            return os.fstat(root).st_dev == audio.device and not _has_inode(root, audio.inode)
    except OSError:
        return False


def _has_inode(root: int, inode: int) -> bool:
    waiting = [b""]
    while waiting:
        directory = waiting.pop()
        with closing(open_listable_folder(root, directory)) as folder, os.scandir(folder) as entries:
            for entry in entries:
                if entry.inode() == inode:
                    return True
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(os.path.join(directory, os.fsencode(entry.name)))
    return False
