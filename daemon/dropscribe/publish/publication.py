"""One job's files, put where its kept answer says.

Order: sidecars, each whole from its first instant → the folder synced → the audio → both folders
synced. So the audio's arrival says that all is there (CONTRACT.md §4), also after a power cut.

Guarantees: safe to repeat from any point. On a name that is taken, bytes equal to ours are ours from
before a crash; anything else raises NameTaken after our own files of the group were taken back.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dropscribe.core.errors import (
    AudioChanged,
    AudioError,
    AudioForbidden,
    AudioMissing,
    DropscribeError,
    PublishError,
)
from dropscribe.core.settling import Lease
from dropscribe.disk import writing
from dropscribe.disk.audio import open_folder_beneath, snapshot_of
from dropscribe.disk.crashpoint import reached
from dropscribe.disk.lease import held_lease
from dropscribe.publish.letting_go import clear_aside, let_go

if TYPE_CHECKING:
    from dropscribe.core.model import FileSnapshot, Group


_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY


class NameTaken(DropscribeError):
    """Raised when a name of the group belongs to somebody else; nothing of ours stands any more."""

    def __init__(self, path: bytes) -> None:
        super().__init__(repr(path))
        self.path = path


class WriterCameBack(DropscribeError):
    """Raised when somebody has the audio open for writing again: wait, it may change."""


@dataclass(frozen=True, slots=True)
class Publication:
    """What is to stand where.

    Attributes:
        inbox: Absolute path of the inbox.
        path: The audio's path below it.
        snapshot: What settled; anything else at the path is not moved.
        stable_inodes: Whether inode numbers tell files apart there.
        sha256: The audio's digest, for checking a copy; "" where it was never read.
        group: The reserved names.
        files: (file name, content) of the sidecars, in order.
        token: Distinguishes temp names of this store and job from anybody else's.
    """

    inbox: bytes
    path: bytes
    snapshot: FileSnapshot
    stable_inodes: bool
    sha256: str
    group: Group
    files: tuple[tuple[bytes, bytes], ...]
    token: str

    @property
    def audio(self) -> bytes:
        """Absolute path under which the audio will stand."""
        return self.group.path(self.group.audio)

    @property
    def aside(self) -> bytes:
        """Hidden name in the inbox for the original of a copy, while it is let go of."""
        return self.temp_name(len(self.files) + 1)

    def is_audio(self, found: FileSnapshot) -> bool:
        """Whether *found* is what settled."""
        return self.snapshot.same_audio(found, stable_inodes=self.stable_inodes)

    def temp_name(self, index: int) -> bytes:
        """Hidden name for the *index*-th file of this job."""
        return b".dropscribe-%s-%d.tmp" % (self.token.encode(), index)


def publish(publication: Publication) -> bytes:
    """Put the group's files in place; returns the audio's absolute path.

    Raises:
        NameTaken: Choose another group.
        AudioMissing: The audio is neither in the inbox nor where it was to go.
        AudioChanged: The audio is not what was transcribed; our sidecars were taken back.
        WriterCameBack: Try again in a moment.
        PublishError: The disk said no; the same call may succeed later.
    """
    try:
        if not _is_moved(publication):
            _publish_group(publication)
        else:
            _finish_moved(publication)
    except OSError as error:
        raise _publish_error(publication, error) from error
    except AudioForbidden as error:
        raise PublishError(publication.path, error.reason, "EACCES") from error
    reached("published")
    return publication.audio


def _publish_group(publication: Publication) -> None:
    *folders, name = publication.path.split(b"/")
    try:
        folder = open_folder_beneath(publication.inbox, folders, publication.path)
        try:
            _put_group(publication, folder, name)
        finally:
            os.close(folder)
    except (AudioError, NameTaken, WriterCameBack):
        _take_back_sidecars(publication)
        raise
    except OSError:
        # Half a group stands for nothing, and takes room where there may be none.
        if not os.path.lexists(publication.audio):
            with contextlib.suppress(OSError):
                _take_back_sidecars(publication)
        raise


def _put_group(publication: Publication, folder: int, name: bytes) -> None:
    status = _check_source(publication, folder, name)
    writing.make_folders(publication.group.folder)
    _write_sidecars(publication, writing.Look.of_sidecar(status))
    writing.sync_folder(publication.group.folder)
    reached("sidecars_synced")
    _move_audio(publication, folder, name)
    writing.sync_folder(publication.group.folder)
    writing.sync_open_folder(folder)


def _finish_moved(publication: Publication) -> None:
    """The audio stands in its place: what a crash may have left to do is done."""
    look = writing.Look.of_sidecar(os.lstat(publication.audio))
    for index, (name, content) in enumerate(publication.files):
        with contextlib.suppress(FileExistsError):
            writing.write_new(publication.group.path(name), content, look, publication.temp_name(index))
    writing.sync_folder(publication.group.folder)
    *folders, name = publication.path.split(b"/")
    with contextlib.suppress(AudioError):
        folder = open_folder_beneath(publication.inbox, folders, publication.path)
        try:
            clear_aside(folder, name, publication.aside, publication.is_audio)
        finally:
            os.close(folder)


def _check_source(publication: Publication, folder: int, name: bytes) -> os.stat_result:
    try:
        status = os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        raise AudioMissing(publication.path, "nothing is there") from None
    if not publication.is_audio(snapshot_of(status)):
        raise AudioChanged(publication.path, "is not what was transcribed")
    return status


def _is_moved(publication: Publication) -> bool:
    """Whether a run before a crash has already moved the audio to its place.

    Not while it still stands at its source, where another file may stand by now. After a rename the
    inode tells, after a copy the content: another file system may have rounded its times.
    """
    if _stands_at_source(publication):
        return False
    try:
        status = os.lstat(publication.audio)
    except (FileNotFoundError, NotADirectoryError):
        return False
    found = snapshot_of(status)
    if publication.stable_inodes and publication.snapshot.same_audio(found):
        return True
    return found.size_bytes == publication.snapshot.size_bytes and _is_copy(publication)


def _stands_at_source(publication: Publication) -> bool:
    try:
        status = os.lstat(publication.inbox + b"/" + publication.path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return publication.is_audio(snapshot_of(status))


def _is_copy(publication: Publication) -> bool:
    if publication.sha256:
        return _digest(publication.audio) == publication.sha256
    # It was never read: sidecars that are ours say whose the audio beside them is.
    return all(_holds(publication.group.path(name), content) for name, content in publication.files)


def _digest(path: bytes) -> str:
    """Of a regular file; "" for anything else that has taken the name."""
    try:
        descriptor = os.open(path, _READ)
    except OSError as error:
        if error.errno in {errno.ELOOP, errno.ENXIO}:
            return ""
        raise
    try:
        is_file = stat.S_ISREG(os.fstat(descriptor).st_mode)
        return writing.sha256_of(descriptor) if is_file else ""
    finally:
        os.close(descriptor)


def _write_sidecars(publication: Publication, look: writing.Look) -> None:
    for index, (name, content) in enumerate(publication.files):
        path = publication.group.path(name)
        try:
            writing.write_new(path, content, look, publication.temp_name(index))
        except FileExistsError:
            if not _holds(path, content):
                raise NameTaken(path) from None
        reached("sidecar_linked")


def _holds(path: bytes, content: bytes) -> bool:
    """Whether *path* is a regular file with exactly *content*."""
    try:
        descriptor = os.open(path, _READ)
    except OSError:
        return False
    try:
        is_file = stat.S_ISREG(os.fstat(descriptor).st_mode)
        return is_file and os.pread(descriptor, len(content) + 1, 0) == content
    except OSError:
        return False
    finally:
        os.close(descriptor)


def _take_back_sidecars(publication: Publication) -> None:
    for name, content in publication.files:
        path = publication.group.path(name)
        if _holds(path, content):
            os.unlink(path)
    reached("taken_back")


def _move_audio(publication: Publication, folder: int, name: bytes) -> None:
    source = _open_source(folder, name)
    try:
        # While the lease is held no writer can open the file: check and move are one.
        with held_lease(source) as state:
            if state is Lease.WRITER:
                raise WriterCameBack(repr(publication.path))
            _check_source(publication, folder, name)
            try:
                writing.move_new(folder, name, publication.audio)
            except FileExistsError:
                raise NameTaken(publication.audio) from None
            except OSError as error:
                if error.errno != errno.EXDEV:
                    raise
                _copy_audio(publication, source, folder, name)
            else:
                _check_moved(publication, folder, name)
    finally:
        if source is not None:
            os.close(source)
    reached("audio_moved")


def _check_moved(publication: Publication, folder: int, name: bytes) -> None:
    """Another file may have been renamed over the source between the check and the move: it goes back."""
    found = snapshot_of(os.lstat(publication.audio))
    is_same = found.inode == publication.snapshot.inode or not publication.stable_inodes
    if is_same and found.size_bytes == publication.snapshot.size_bytes:
        return
    target = os.open(publication.group.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with contextlib.suppress(FileExistsError):
            writing.move_new(target, publication.group.audio, b"/proc/self/fd/%d/%s" % (folder, name))
    finally:
        os.close(target)
    raise AudioChanged(publication.path, "another file took its place")


def _open_source(folder: int, name: bytes) -> int | None:
    """The audio's descriptor, or None where it may be moved but not read."""
    try:
        return os.open(name, _READ, dir_fd=folder)
    except PermissionError:
        return None


def _copy_audio(publication: Publication, source: int | None, folder: int, name: bytes) -> None:
    """Another mount: copy, verify, sync, and only then let go of the original."""
    if source is None:
        raise AudioForbidden(publication.path, "may not be read, and done is on another mount")
    expected = publication.sha256 or writing.sha256_of(source)
    is_ours = True
    try:
        found = writing.copy_new(source, publication.audio, publication.temp_name(len(publication.files)))
    except FileExistsError:
        found, is_ours = _digest(publication.audio), False
        if found != expected:
            raise NameTaken(publication.audio) from None
    writing.sync_folder(publication.group.folder)
    reached("copy_verified")
    if found != expected or not let_go(folder, name, publication.aside, publication.is_audio):
        if is_ours:
            os.unlink(publication.audio)
        raise AudioChanged(publication.path, "is not what was transcribed")


def _publish_error(publication: Publication, error: OSError) -> PublishError:
    code = errno.errorcode.get(error.errno or 0, "EIO")
    # A call by descriptor names "." or a bare name: the folder says more.
    named = os.fsencode(error.filename) if error.filename else b""
    place = named if named.startswith(b"/") else publication.group.folder
    return PublishError(place, error.strerror or str(error), code)
