"""One job's files, put where its kept answer says.

Order: sidecars, each whole from its first instant → the folder synced → the audio → both folders
synced. So the audio's arrival says that all is there (CONTRACT.md §4), also after a power cut.

Guarantees: safe to repeat from any point. On a name that is taken, bytes equal to ours are ours from
before a crash; anything else raises NameTaken after our own files of the group were taken back.
"""

from __future__ import annotations

import errno
import os
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

if TYPE_CHECKING:
    from dropscribe.core.model import FileSnapshot, Group


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
        if _is_moved(publication):
            _sync_target(publication)
            return publication.audio
        _publish_group(publication)
    except OSError as error:
        raise _publish_error(publication, error) from error
    except AudioForbidden as error:
        raise PublishError(publication.path, error.reason, "EACCES") from error
    reached("published")
    return publication.audio


def _publish_group(publication: Publication) -> None:
    *folders, name = publication.path.split(b"/")
    folder = open_folder_beneath(publication.inbox, folders, publication.path)
    try:
        status = _check_source(publication, folder, name)
        writing.make_folders(publication.group.folder)
        try:
            _write_sidecars(publication, writing.Look.of_sidecar(status))
            writing.sync_folder(publication.group.folder)
            reached("sidecars_synced")
            _move_audio(publication, folder, name)
        except (AudioError, NameTaken, WriterCameBack):
            _take_back_sidecars(publication)
            raise
        _sync_target(publication)
        writing.sync_open_folder(folder)
    finally:
        os.close(folder)


def _check_source(publication: Publication, folder: int, name: bytes) -> os.stat_result:
    try:
        status = os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        raise AudioMissing(publication.path, "nothing is there") from None
    if not publication.snapshot.same_audio(snapshot_of(status), stable_inodes=publication.stable_inodes):
        raise AudioChanged(publication.path, "is not what was transcribed")
    return status


def _is_moved(publication: Publication) -> bool:
    """Whether a run before a crash has already moved the audio to its place.

    By rename the inode tells; by copy the content does, and then the source may still be there.
    """
    try:
        status = os.lstat(publication.audio)
    except (FileNotFoundError, NotADirectoryError):
        return False
    found = snapshot_of(status)
    same_inode = found.inode == publication.snapshot.inode and publication.stable_inodes
    same_times = publication.snapshot.same_audio(found, stable_inodes=False)
    source_is_there = os.path.lexists(publication.inbox + b"/" + publication.path)
    return same_times and not source_is_there and (same_inode or _is_copy(publication))


def _is_copy(publication: Publication) -> bool:
    if not publication.sha256:
        return False
    return _digest(publication.audio) == publication.sha256


def _digest(path: bytes) -> str:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        return writing.sha256_of(descriptor)
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
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    with os.fdopen(descriptor, "rb") as file:
        try:
            return file.read(len(content) + 1) == content
        except OSError:
            return False


def _take_back_sidecars(publication: Publication) -> None:
    for name, content in publication.files:
        path = publication.group.path(name)
        if _holds(path, content):
            os.unlink(path)


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
    finally:
        if source is not None:
            os.close(source)
    reached("audio_moved")


def _open_source(folder: int, name: bytes) -> int | None:
    """The audio's descriptor, or None where it may be moved but not read."""
    try:
        return os.open(
            name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY, dir_fd=folder
        )
    except PermissionError:
        return None


def _copy_audio(publication: Publication, source: int | None, folder: int, name: bytes) -> None:
    """Another mount: copy, verify, sync, and only then let go of the original."""
    if source is None:
        raise AudioForbidden(publication.path, "may not be read, and done is on another mount")
    expected = publication.sha256 or writing.sha256_of(source)
    try:
        found = writing.copy_new(source, publication.audio, publication.temp_name(len(publication.files)))
    except FileExistsError:
        if _digest(publication.audio) != expected:
            raise NameTaken(publication.audio) from None
        found = expected
    if found != expected:
        os.unlink(publication.audio)
        raise AudioChanged(publication.path, "its content is not what was transcribed")
    writing.sync_folder(publication.group.folder)
    _check_source(publication, folder, name)
    os.unlink(name, dir_fd=folder)


def _sync_target(publication: Publication) -> None:
    writing.sync_folder(publication.group.folder)


def _publish_error(publication: Publication, error: OSError) -> PublishError:
    code = errno.errorcode.get(error.errno or 0, "EIO")
    place = os.fsencode(error.filename) if error.filename else publication.group.folder
    return PublishError(place, error.strerror or str(error), code)
