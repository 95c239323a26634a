"""The companions of one recording: copied before the audio is moved, removed from the inbox after it.

Guarantees: a companion is never overwritten, and no other file is removed in its place. Its original stays
in the inbox until the copy and the audio are durable; a copy whose original has gone is never withdrawn.
"""

from __future__ import annotations

import errno
from functools import partial
from typing import TYPE_CHECKING

from dropscribe.core.settling import Lease
from dropscribe.files.audio import snapshot_of
from dropscribe.files.beneath import closing, open_file
from dropscribe.files.capabilities import capabilities_of
from dropscribe.files.crashpoint import reached
from dropscribe.files.lease import held_lease
from dropscribe.files.moves import FileName, remove_aside, remove_if
from dropscribe.files.own_file import copy_audio, sha256_of
from dropscribe.publish.publication import CompanionChanged, NameTaken

if TYPE_CHECKING:
    from dropscribe.core.naming import Companion
    from dropscribe.files.capabilities import Capabilities
    from dropscribe.files.own_file import OwnFile
    from dropscribe.publish.publication import PublishRequest


_NOT_TO_BE_READ = frozenset({errno.ENOENT, errno.EACCES, errno.EPERM, errno.ELOOP, errno.ENXIO})
"""Errors for a missing file, a link and an unreadable file: a retry will not find the companion."""


def copy_companions(request: PublishRequest, source: int, target: int, can: Capabilities) -> None:
    """Copy the companions that are not there yet into the open *target* folder; names are not synced.

    Raises:
        CompanionChanged: One has changed, or is being written.
        NameTaken: Another file has one of the names.
    """
    for companion, copy in request.companions(source, target, can):
        if not copy.is_placed():
            _copy(request, companion, copy, source)


def copy_missing_companions(request: PublishRequest, source: int, target: int, can: Capabilities) -> None:
    """As :func:`copy_companions`, where the audio is in *target* already: existing files stay."""
    for companion, copy in request.companions(source, target, can):
        is_needed = FileName(target, companion.name).status() is None
        if is_needed and _is_original(request, companion, FileName(source, companion.source)):
            _copy(request, companion, copy, source)


def _copy(request: PublishRequest, companion: Companion, copy: OwnFile, source: int) -> None:
    original = FileName(source, companion.source)
    try:
        descriptor = open_file(*original)
    except OSError as error:
        if error.errno not in _NOT_TO_BE_READ:
            raise
        raise CompanionChanged(companion.source) from error
    with closing(descriptor), held_lease(descriptor) as lease:
        if lease is Lease.WRITER or not _is_original(request, companion, original):
            raise CompanionChanged(companion.source)
        copy.write(lambda new: _fill(descriptor, new))
    try:
        copy.place()
    except FileExistsError:
        raise NameTaken(request.output_names.path(companion.name)) from None
    reached("companion_linked")


def _fill(original: int, new: int) -> None:
    copy_audio(original, new)
    if sha256_of(new) != sha256_of(original):
        raise OSError(errno.EIO, "the copy does not read back as the original")


def _is_original(request: PublishRequest, companion: Companion, name: FileName) -> bool:
    status = name.status()
    return status is not None and companion.snapshot.same_audio(
        snapshot_of(status), stable_inodes=request.stable_inodes
    )


def withdraw_companions(request: PublishRequest, source: int | None, target: int, can: Capabilities) -> bool:
    """Remove the copies in the open *target* folder; whether any was removed."""
    removed = False
    for companion, copy in request.companions(source, target, can):
        if source is not None and _is_original(request, companion, FileName(source, companion.source)):
            removed |= copy.withdraw()
        else:
            copy.finish()
    return removed


def remove_originals(request: PublishRequest, source: int, target: int, can: Capabilities) -> None:
    """Remove the companions whose copies stand in *target* from the open inbox folder; it is not synced."""
    for index, (companion, copy) in enumerate(request.companions(source, target, can)):
        original, aside = FileName(source, companion.source), request.companion_aside(index)
        is_expected, source_can = partial(_is_original, request, companion), capabilities_of(source)
        if remove_aside(original, aside, is_expected, source_can):
            continue  # begun before a crash
        if copy.is_placed() and not _has_writer(original):
            remove_if(original, aside, is_expected, source_can)
            reached("companion_removed")


def _has_writer(name: FileName) -> bool:
    try:
        descriptor = open_file(*name)
    except OSError:
        return False
    with closing(descriptor), held_lease(descriptor) as lease:
        return lease is Lease.WRITER
