"""Moves the audio from its inbox to its place, by rename or link, or by a copy to another mount.

Its companions are copied before, and removed from the inbox after it.

Guarantees: only the files that settled are moved, and never over anything; an original is removed only after
its copy was read back and is durable. A companion's original stays in the inbox until its copy and the audio
are durable; a copy whose original has gone is never withdrawn.
"""

from __future__ import annotations

import contextlib
import errno
import os
from functools import partial

from dropscribe.core.errors import AudioChanged, AudioForbidden, AudioMissing
from dropscribe.core.naming import Companion
from dropscribe.core.settling import Lease
from dropscribe.files.audio import snapshot_of
from dropscribe.files.beneath import READ, closing, open_file, sync
from dropscribe.files.crashpoint import reached
from dropscribe.files.mounts import LeaseSupport, hold_lease
from dropscribe.files.moves import (
    FileName,
    has_gone,
    is_file_of,
    is_placeholder,
    move_new,
    remove_aside,
    remove_if,
)
from dropscribe.files.own_file import OwnFile, copy_audio, copy_verified, digest_at, digest_of, sha256_of
from dropscribe.publish.publication import CopyNeeded, JobFiles, NameTaken, PublishRequest, ReopenedForWriting

_NOT_TO_BE_READ = frozenset({errno.ENOENT, errno.EACCES, errno.EPERM, errno.ELOOP, errno.ENXIO})
"""Errors for a missing file, a link and an unreadable file: a retry will not find the companion."""


def check_source(request: PublishRequest, status: os.stat_result | None) -> os.stat_result:
    """The *status* at the audio's old name; AudioMissing or AudioChanged if it is not the audio's."""
    if status is None:
        raise AudioMissing(request.path, "nothing is there")
    if not request.snapshot.same_audio(snapshot_of(status), stable_inodes=request.stable_inodes):
        raise AudioChanged(request.path, "is not what was transcribed")
    return status


def check_untouched(request: PublishRequest, audio: os.stat_result) -> None:
    """Raise AudioChanged if the content of the audio, which has the status *audio*, may have changed.

    A write followed by a call that sets the time back shows in ctime alone. So do chmod and link, also a link
    that a failed try of ours has made: the caller compares the content.
    """
    if request.ctime_ns not in {None, audio.st_ctime_ns}:
        raise AudioChanged(request.path, "has been touched since it was transcribed")


def check_target(files: JobFiles, audio: os.stat_result) -> None:
    """Raise NameTaken if a file other than *audio*, which is in the inbox, has its new name already."""
    found = files.new.status()
    if found is None or os.path.samestat(found, audio) or is_placeholder(files.new, files.aside):
        return
    if not _is_copied(files):
        if has_gone(files.old):  # a cache had it: it may have been moved before a crash
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        raise NameTaken(repr(files.request.audio))


def is_moved(files: JobFiles) -> bool:
    """Whether the audio is at its destination already, from before a crash or a lost reply.

    To be called only when the audio is not at its source, where another file may be by now. No file is
    removed because of the result, so equal content is proof enough where the hidden names have gone.
    """
    request = files.request
    if files.source is not None and request.is_audio_at(files.original(files.aside)):
        return True  # set aside only after it had arrived, and was durable there
    status = files.new.status()
    if status is None or status.st_size != request.snapshot.size_bytes:
        return False
    if request.stable_inodes and request.is_audio_at(files.new):
        return True
    if request.sha256 and digest_at(files.new) != request.sha256:
        return False
    if request.sha256 and (files.source is None or files.old.status() is None):
        return True
    # If the sidecars are this job's, so is the audio beside them.
    return all(
        sidecar.is_placed() or digest_at(sidecar.name) == digest_of(content)
        for sidecar, content in files.sidecars
    )


def move_audio(files: JobFiles, leases: LeaseSupport, *, may_copy: bool) -> None:
    """Move the audio, out of an inbox with *leases*; the last names are not synced.

    Raises:
        ReopenedForWriting: It is open for writing.
        NameTaken: Another file has its new name.
        AudioMissing, AudioChanged: It is no longer the file that settled.
        CopyNeeded: It would have to be copied, and not *may_copy*.
    """
    request = files.request
    # Some FUSE file systems cannot rename an open file; leases are meaningful on local ones alone.
    audio = _open_source(files.old) if leases is LeaseSupport.FULL else None
    try:
        # Until the file is closed no writer can open it, so check and move are atomic.
        if hold_lease(audio, leases) is Lease.WRITER and not request.ignores_writers:
            raise ReopenedForWriting(repr(request.path))
        # A file that was renamed over it meanwhile is found after the move.
        status = files.old.status() if audio is None else os.fstat(audio)
        check_untouched(request, check_source(request, status))
        _move_or_copy(files, may_copy=may_copy)
    finally:
        if audio is not None:
            os.close(audio)
    reached("audio_moved")


def _move_or_copy(files: JobFiles, *, may_copy: bool) -> None:
    request = files.request
    try:
        move_new(files.old, files.new, files.can, files.aside, request.is_audio_at)
    except OSError as error:
        if error.errno == errno.EEXIST and not _is_copied(files):
            raise NameTaken(repr(request.audio)) from None
        if error.errno not in {errno.EXDEV, errno.EEXIST}:
            raise
        if not may_copy:
            raise CopyNeeded(repr(request.path)) from None
        _copy(files)
    else:
        _check_moved(files)


def _is_copied(files: JobFiles) -> bool:
    """Whether the name is taken by our own copy, from before a crash or a lost answer.

    link() and a rename that checks first report a taken name before they report two mounts.
    """
    return files.copy(files.request.sha256 or digest_at(files.old)).is_placed()


def _check_moved(files: JobFiles) -> None:
    """Move a file back that was renamed over the source between the check and the move."""
    request, status = files.request, files.new.status()
    if status is None:
        return  # another program has taken it already
    is_same = status.st_ino == request.snapshot.inode or not request.stable_inodes
    if is_same and status.st_size == request.snapshot.size_bytes:
        return
    with contextlib.suppress(FileExistsError):
        move_new(files.new, files.old, files.can, files.aside, partial(is_file_of, status))
    raise AudioChanged(request.path, "another file took its place")


def _copy(files: JobFiles) -> None:
    """Copy to another mount, verify, sync, and only then remove the original."""
    request, old = files.request, files.old
    source = _open_source(old)
    if source is None:
        raise AudioForbidden(request.path, "may not be read, and done is on another mount")
    with closing(source):
        expected = request.sha256 or sha256_of(source)
        copy = files.copy(expected)

        def fill(descriptor: int) -> None:
            copy_audio(source, descriptor)
            os.fsync(descriptor)
            reached("copied")
            if sha256_of(descriptor) != expected:
                raise AudioChanged(request.path, "is not what was transcribed")

        if not copy.is_placed():
            copy.write(fill)
            try:
                files.place(copy)
            except NameTaken:
                copy.finish()
                raise
        reached("copy_linked")
    sync(files.target)
    reached("copy_verified")
    if not remove_if(old, files.aside, request.is_audio_at):
        copy.withdraw()
        raise AudioChanged(request.path, "is not what was transcribed")
    sync(old.folder)
    copy.finish()


def finish_move(files: JobFiles) -> None:
    """End a move that a crash has interrupted: the audio stands at its place."""
    if files.source is not None:
        remove_aside(files.old, files.aside, files.request.is_audio_at)
        sync(files.source)
    files.copy(files.request.sha256).finish()


def _open_source(name: FileName) -> int | None:
    """The audio's descriptor, or None where it may be moved but not read."""
    try:
        return os.open(name.name, READ, dir_fd=name.folder)
    except PermissionError:
        return None


def copy_companions(files: JobFiles) -> None:
    """Copy the missing companions into the target folder, without a sync; NameTaken if one has changed."""
    for companion, copy in files.companions:
        if not copy.is_placed():
            _copy_companion(files, companion, copy)


def copy_missing_companions(files: JobFiles) -> None:
    """As :func:`copy_companions`, where the audio is in the target folder already: existing files stay."""
    for companion, copy in files.companions:
        if copy.name.status() is None and _has_original(files, companion):
            _copy_companion(files, companion, copy)


def _copy_companion(files: JobFiles, companion: Companion, copy: OwnFile) -> None:
    try:
        descriptor = open_file(*files.original(companion.source))
    except OSError as error:
        if error.errno not in _NOT_TO_BE_READ:
            raise
        raise NameTaken(repr(companion.source)) from error
    with closing(descriptor):
        if hold_lease(descriptor) is Lease.WRITER or not _has_original(files, companion):
            raise NameTaken(repr(companion.source))
        copy.write(lambda new: copy_verified(descriptor, new))
    files.place(copy)
    reached("companion_linked")


def _has_original(files: JobFiles, companion: Companion) -> bool:
    return files.source is not None and files.request.is_at(
        companion.snapshot, files.original(companion.source)
    )


def withdraw_companions(files: JobFiles) -> bool:
    """Remove the copies in the target folder; whether any was removed."""
    removed = False
    for companion, copy in files.companions:
        if _has_original(files, companion):
            removed |= copy.withdraw()
        else:
            copy.finish()
    return removed


def remove_originals(files: JobFiles) -> None:
    """Remove the companions whose copies stand in the target folder from the inbox; it is not synced."""
    if files.source is None:
        return
    for number, (companion, copy) in enumerate(files.companions):
        original, aside = files.original(companion.source), files.companion_aside(number)
        is_expected = partial(files.request.is_at, companion.snapshot)
        if remove_aside(original, aside, is_expected):
            continue  # begun before a crash
        if copy.is_placed() and not _has_writer(original):
            remove_if(original, aside, is_expected)
            reached("companion_removed")


def _has_writer(name: FileName) -> bool:
    try:
        descriptor = open_file(*name)
    except OSError:
        return False
    with closing(descriptor):
        return hold_lease(descriptor) is Lease.WRITER
