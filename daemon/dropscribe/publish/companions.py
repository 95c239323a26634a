"""The companions of one recording: copied before the audio is moved, removed from the inbox after it.

Guarantees: a companion is never overwritten, and no other file is removed in its place. Its original stays
in the inbox until the copy and the audio are durable; a copy whose original has gone is never withdrawn.
"""

from __future__ import annotations

import errno
from functools import partial
from typing import TYPE_CHECKING

from dropscribe.core.settling import Lease
from dropscribe.files.beneath import closing, open_file
from dropscribe.files.crashpoint import reached
from dropscribe.files.lease import hold_lease
from dropscribe.files.moves import remove_aside, remove_if
from dropscribe.files.own_file import copy_audio, sha256_of
from dropscribe.publish.publication import CompanionChanged

if TYPE_CHECKING:
    from dropscribe.core.naming import Companion
    from dropscribe.files.moves import FileName
    from dropscribe.files.own_file import OwnFile
    from dropscribe.publish.publication import JobFiles


_NOT_TO_BE_READ = frozenset({errno.ENOENT, errno.EACCES, errno.EPERM, errno.ELOOP, errno.ENXIO})
"""Errors for a missing file, a link and an unreadable file: a retry will not find the companion."""


def copy_companions(files: JobFiles) -> None:
    """Copy the companions that are not there yet into the target folder; names are not synced.

    Raises:
        CompanionChanged: One has changed, or is being written.
        NameTaken: Another file has one of the names.
    """
    for companion, copy in files.companions:
        if not copy.is_placed():
            _copy(files, companion, copy)


def copy_missing_companions(files: JobFiles) -> None:
    """As :func:`copy_companions`, where the audio is in the target folder already: existing files stay."""
    for companion, copy in files.companions:
        if copy.name.status() is None and _has_original(files, companion):
            _copy(files, companion, copy)


def _copy(files: JobFiles, companion: Companion, copy: OwnFile) -> None:
    try:
        descriptor = open_file(*files.original(companion.source))
    except OSError as error:
        if error.errno not in _NOT_TO_BE_READ:
            raise
        raise CompanionChanged(repr(companion.source)) from error
    with closing(descriptor):
        if hold_lease(descriptor) is Lease.WRITER or not _has_original(files, companion):
            raise CompanionChanged(repr(companion.source))
        copy.write(lambda new: _fill(descriptor, new))
    files.place(copy)
    reached("companion_linked")


def _fill(original: int, new: int) -> None:
    copy_audio(original, new)
    if sha256_of(new) != sha256_of(original):
        raise OSError(errno.EIO, "the copy does not read back as the original")


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
