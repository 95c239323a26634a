"""Moves the audio from its inbox to its place: by rename or link, or by a copy to another mount.

Guarantees: only the file that settled is moved, and never over anything; an original is removed only after
its copy was read back and is durable.
"""

from __future__ import annotations

import contextlib
import errno
import os
from typing import TYPE_CHECKING

from dropscribe.core.errors import AudioChanged, AudioForbidden, AudioMissing
from dropscribe.core.settling import Lease
from dropscribe.files.audio import snapshot_of
from dropscribe.files.beneath import READ, sync
from dropscribe.files.crashpoint import reached
from dropscribe.files.lease import held_lease
from dropscribe.files.mounts import LeaseSupport
from dropscribe.files.moves import FileName, is_placeholder, move_new, remove_aside, remove_if, same_file
from dropscribe.files.own_file import copy_audio, digest_at, sha256_of
from dropscribe.publish.publication import AcrossMounts, NameTaken, WriterCameBack

if TYPE_CHECKING:
    from dropscribe.files.capabilities import Capabilities
    from dropscribe.publish.publication import PublishRequest


def check_source(request: PublishRequest, folder: int) -> os.stat_result:
    """Check that the audio that settled stands in the open inbox *folder*; returns its status.

    Raises:
        AudioMissing: There is no file.
        AudioChanged: Something else does.
    """
    status = FileName(folder, request.source_name).status()
    if status is None:
        raise AudioMissing(request.path, "nothing is there")
    if not request.is_audio(snapshot_of(status)):
        raise AudioChanged(request.path, "is not what was transcribed")
    return status


def check_target(
    request: PublishRequest, source: int, target: int, can: Capabilities, audio: os.stat_result
) -> None:
    """Check, before sidecars stand beside it, that no other file has the audio's new name.

    Args:
        audio: Status of the audio in the open *source*.

    Raises:
        NameTaken: One has.
    """
    old, new = FileName(source, request.source_name), FileName(target, request.output_names.audio)
    found = new.status()
    if found is None or os.path.samestat(found, audio):
        return
    if is_placeholder(new, request.aside):
        return
    if not (_is_copied(request, old, target, can) or same_file(old, new, can)):
        raise NameTaken(request.audio)


def is_moved(request: PublishRequest, source: int | None, target: int, can: Capabilities) -> bool:
    """Whether the audio stands at its place already, from before a crash or a lost answer.

    To be asked only when it does not stand at its source, where another file may stand by now. Nothing is
    removed because of the answer, so content is proof enough where the hidden names have gone.

    Args:
        source: The open inbox folder, or None where there is none any more.
        target: The open target folder.
    """
    if source is not None and request.is_audio_at(FileName(source, request.aside)):
        return True  # set aside only after it had arrived, and was durable there
    place = FileName(target, request.output_names.audio)
    status = place.status()
    if status is None or status.st_size != request.snapshot.size_bytes:
        return False
    if request.stable_inodes and request.is_audio_at(place):
        return True
    if request.sha256 and digest_at(place) != request.sha256:
        return False
    is_gone = source is None or FileName(source, request.source_name).status() is None
    if request.sha256 and is_gone:
        return True
    # Sidecars that are ours say whose the audio beside them is.
    return all(sidecar.is_placed() or sidecar.is_like() for sidecar, _ in request.sidecars(target, can))


def move_audio(
    request: PublishRequest,
    source: int,
    target: int,
    can: Capabilities,
    leases: LeaseSupport,
    *,
    may_copy: bool,
) -> None:
    """Move the audio from the open inbox folder to the open target folder; the last names are not synced.

    Args:
        leases: Of the mount of *source*.

    Raises:
        WriterCameBack: It is open for writing.
        NameTaken: Another file has its new name.
        AudioMissing, AudioChanged: It is no longer what settled.
        AcrossMounts: It would have to be copied, and not *may_copy*.
    """
    old = FileName(source, request.source_name)
    # Some FUSE file systems rename no open file; a lease says something on local ones alone.
    audio = _open_source(old) if leases is LeaseSupport.FULL else None
    try:
        # While the lease is held no writer can open the file: check and move are one.
        with held_lease(audio, leases) as state:
            if state is Lease.WRITER and not request.ignores_writers:
                raise WriterCameBack(repr(request.path))
            check_source(request, source)
            _move_or_copy(request, old, target, can, may_copy=may_copy)
    finally:
        if audio is not None:
            os.close(audio)
    reached("audio_moved")


def _move_or_copy(
    request: PublishRequest, old: FileName, target: int, can: Capabilities, *, may_copy: bool
) -> None:
    new = FileName(target, request.output_names.audio)
    try:
        move_new(old, new, can, request.aside, request.is_audio_at)
    except OSError as error:
        if error.errno == errno.EEXIST and not _is_copied(request, old, target, can):
            raise NameTaken(request.audio) from None
        if error.errno not in {errno.EXDEV, errno.EEXIST}:
            raise
        if not may_copy:
            raise AcrossMounts(repr(request.path)) from None
        _copy_audio(request, old, target, can)
    else:
        _check_moved(request, old, new, can)


def _is_copied(request: PublishRequest, old: FileName, target: int, can: Capabilities) -> bool:
    """Whether the name is taken by our own copy, from before a crash or a lost answer.

    Of a link, and of a rename that looks first, a taken name is said before two mounts are.
    """
    return request.copy(target, request.sha256 or digest_at(old), can).is_placed()


def _open_source(name: FileName) -> int | None:
    """The audio's descriptor, or None where it may be moved but not read."""
    try:
        return os.open(name.name, READ, dir_fd=name.folder)
    except PermissionError:
        return None


def _check_moved(request: PublishRequest, old: FileName, new: FileName, can: Capabilities) -> None:
    """Another file may have been renamed over the source between the check and the move: it goes back."""
    status = new.status()
    if status is None:
        return  # its reader was quick
    found = snapshot_of(status)
    is_same = found.inode == request.snapshot.inode or not request.stable_inodes
    if is_same and found.size_bytes == request.snapshot.size_bytes:
        return
    with contextlib.suppress(FileExistsError):
        move_new(new, old, can, request.aside, lambda name: _is_inode(name, status))
    raise AudioChanged(request.path, "another file took its place")


def _is_inode(name: FileName, wanted: os.stat_result) -> bool:
    status = name.status()
    return status is not None and os.path.samestat(status, wanted)


def _copy_audio(request: PublishRequest, old: FileName, target: int, can: Capabilities) -> None:
    """Copy to another mount, verify, sync, and only then remove the original."""
    source = _open_source(old)
    if source is None:
        raise AudioForbidden(request.path, "may not be read, and done is on another mount")
    try:
        expected = request.sha256 or sha256_of(source)
        copy = request.copy(target, expected, can)
        if not copy.is_placed():
            copy.write(lambda descriptor: _fill_copy(request, source, descriptor, expected))
            try:
                copy.place()
            except FileExistsError:
                copy.finish()
                raise NameTaken(request.audio) from None
        reached("copy_linked")
    finally:
        os.close(source)
    sync(target)
    reached("copy_verified")
    if not remove_if(old, request.aside, request.is_audio_at, can):
        copy.withdraw()
        raise AudioChanged(request.path, "is not what was transcribed")
    sync(old.folder)
    copy.finish()


def _fill_copy(request: PublishRequest, source: int, descriptor: int, expected: str) -> None:
    copy_audio(source, descriptor)
    os.fsync(descriptor)
    reached("copied")
    if sha256_of(descriptor) != expected:
        raise AudioChanged(request.path, "is not what was transcribed")


def finish_copy(request: PublishRequest, source: int | None, target: int, can: Capabilities) -> None:
    """End a move that a crash has interrupted: the audio stands at its place."""
    if source is not None:
        old = FileName(source, request.source_name)
        remove_aside(old, request.aside, request.is_audio_at, can)
        sync(source)
    request.copy(target, request.sha256, can).finish()
