"""The audio's own way from its inbox to its place: by rename, or copied where that is another mount.

Guarantees: only what settled is moved, and never over anything; an original goes only after its copy was
read back and is durable.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from typing import TYPE_CHECKING

from dropscribe.core.errors import AudioChanged, AudioForbidden, AudioMissing
from dropscribe.core.settling import Lease
from dropscribe.files import writing
from dropscribe.files.audio import snapshot_of
from dropscribe.files.crashpoint import reached
from dropscribe.files.lease import held_lease
from dropscribe.publish.publication import AcrossMounts, NameTaken, WriterCameBack
from dropscribe.publish.safe_delete import let_go
from dropscribe.publish.sidecars import READ, holds

if TYPE_CHECKING:
    from dropscribe.publish.publication import PublishRequest


def check_source(publication: PublishRequest, folder: int) -> os.stat_result:
    """The audio's status in the open inbox *folder*.

    Raises:
        AudioMissing: Nothing stands there.
        AudioChanged: Something else does.
    """
    try:
        status = os.stat(_name(publication), dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        raise AudioMissing(publication.path, "nothing is there") from None
    if not publication.is_audio(snapshot_of(status)):
        raise AudioChanged(publication.path, "is not what was transcribed")
    return status


def is_moved(publication: PublishRequest) -> bool:
    """Whether a run before a crash has already moved the audio to its place.

    To be asked only when it does not stand at its source, where another file may stand by now. After a
    rename the inode tells, after a copy the content: another file system may have rounded its times.
    """
    try:
        status = os.lstat(publication.audio)
    except (FileNotFoundError, NotADirectoryError):
        return False
    found = snapshot_of(status)
    if publication.stable_inodes and publication.snapshot.same_audio(found):
        return True
    return found.size_bytes == publication.snapshot.size_bytes and _is_copy(publication)


def _is_copy(publication: PublishRequest) -> bool:
    if publication.sha256:
        return _digest(publication.audio) == publication.sha256
    # It was never read: sidecars that are ours say whose the audio beside them is.
    return all(holds(publication.group.path(name), content) for name, content in publication.files)


def _digest(path: bytes) -> str:
    """Of a regular file; "" for anything else that has taken the name."""
    try:
        descriptor = os.open(path, READ)
    except OSError as error:
        if error.errno in {errno.ELOOP, errno.ENXIO}:
            return ""
        raise
    try:
        is_file = stat.S_ISREG(os.fstat(descriptor).st_mode)
        return writing.sha256_of(descriptor) if is_file else ""
    finally:
        os.close(descriptor)


def move_audio(publication: PublishRequest, folder: int, *, may_copy: bool) -> None:
    """Move the audio from the open inbox *folder* to its place; neither folder is synced.

    Raises:
        WriterCameBack: It is open for writing.
        NameTaken: Its new name is somebody else's.
        AudioMissing, AudioChanged: It is no longer what settled.
        AcrossMounts: It would have to be copied, and not *may_copy*.
    """
    name = _name(publication)
    source = _open_source(folder, name)
    try:
        # While the lease is held no writer can open the file: check and move are one.
        with held_lease(source) as state:
            if state is Lease.WRITER:
                raise WriterCameBack(repr(publication.path))
            check_source(publication, folder)
            try:
                writing.move_new(folder, name, publication.audio)
            except FileExistsError:
                raise NameTaken(publication.audio) from None
            except OSError as error:
                if error.errno != errno.EXDEV:
                    raise
                if not may_copy:
                    raise AcrossMounts(repr(publication.path)) from None
                _copy_audio(publication, source, folder, name)
            else:
                _check_moved(publication, folder, name)
    finally:
        if source is not None:
            os.close(source)
    reached("audio_moved")


def _name(publication: PublishRequest) -> bytes:
    return publication.path.rpartition(b"/")[2]


def _check_moved(publication: PublishRequest, folder: int, name: bytes) -> None:
    """Another file may have been renamed over the source between the check and the move: it goes back."""
    found = snapshot_of(os.lstat(publication.audio))
    is_same = found.inode == publication.snapshot.inode or not publication.stable_inodes
    if is_same and found.size_bytes == publication.snapshot.size_bytes:
        return
    target = os.open(publication.group.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with contextlib.suppress(FileExistsError):
            writing.move_new(target, publication.group.audio, writing.path_in(folder, name))
    finally:
        os.close(target)
    raise AudioChanged(publication.path, "another file took its place")


def _open_source(folder: int, name: bytes) -> int | None:
    """The audio's descriptor, or None where it may be moved but not read."""
    try:
        return os.open(name, READ, dir_fd=folder)
    except PermissionError:
        return None


def _copy_audio(publication: PublishRequest, source: int | None, folder: int, name: bytes) -> None:
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
