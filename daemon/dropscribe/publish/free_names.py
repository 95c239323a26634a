"""Finds the first names for a job that are all free in ``done`` or ``failed``."""

from __future__ import annotations

import errno
import os
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

from dropscribe.core.naming import first_free, number_names
from dropscribe.files.audio import open_folder_of
from dropscribe.files.beneath import closing, open_folder, open_root, stat_at
from dropscribe.files.capabilities import Move, capabilities_of

if TYPE_CHECKING:
    from collections.abc import Collection

    from dropscribe.core.model import OutputNames
    from dropscribe.core.naming import OutputPlan

_NAME_MAX_BYTES = 255
_NO_EVIDENCE = frozenset(
    {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENAMETOOLONG, errno.EILSEQ, errno.EINVAL}
)


class PlaceRefused(OSError):
    """Raised where a folder takes no files, or lets none be moved out of it."""


class FreeNames(NamedTuple):
    """Names that were free in ``done`` or ``failed`` when they were looked for.

    Attributes:
        number: Their collision number.
    """

    plan: OutputPlan
    number: int
    names: OutputNames


def find_free_names(plan: OutputPlan, refused: Collection[int] = ()) -> FreeNames:
    """The names of *plan* with the first free collision number.

    Where the folder cannot be read, all names count as free: publishing detects a taken one.

    Args:
        refused: Numbers not to be used: other live jobs have reserved names of theirs.
    """
    folder, name_max_bytes = _open_target(plan.root, plan.path.rpartition(b"/")[0])

    @cache
    def names_of(number: int) -> OutputNames:
        return number_names(plan, number, name_max_bytes)

    def is_free(number: int) -> bool:
        if number in refused:
            return False
        return folder is None or not any(_is_taken(folder, name) for name in names_of(number).all_names)

    try:
        number = first_free(is_free)
    finally:
        if folder is not None:
            os.close(folder)
    return FreeNames(plan, number, names_of(number))


def _open_target(root: bytes, directory: bytes) -> tuple[int | None, int]:
    """(the open folder, or None where there is none; the longest name that fits there)."""
    try:
        above = open_root(root)
        name_max_bytes = _name_max(above)
        if not directory:
            return above, name_max_bytes
        with closing(above):
            try:
                return open_folder(above, directory), name_max_bytes
            except OSError:
                return None, name_max_bytes
    except FileNotFoundError:
        parent = os.path.dirname(root.rstrip(b"/"))
        return None, _open_target(parent, b"\0")[1] if parent != root else _NAME_MAX_BYTES
    except OSError:
        return None, _NAME_MAX_BYTES


def _name_max(folder: int) -> int:
    try:
        return os.fpathconf(folder, "PC_NAME_MAX")
    except OSError:
        return _NAME_MAX_BYTES


def _is_taken(folder: int, name: bytes) -> bool:
    try:
        return stat_at(folder, name) is not None
    except OSError:
        return False


def check_places(inbox: bytes, done: bytes, path: bytes) -> None:
    """Check, before anything is paid for, that the file *path* of *inbox* can be moved to *done*.

    Nothing is made. A folder that is missing in *done* can be made if the one above it is writable.

    Raises:
        PlaceRefused: No file can be put there, or none be moved out of the file's folder.
        OSError: No evidence about the folders: too many open files, or a name that *done* cannot have.
        AudioError: The file's folder cannot be reached.
    """
    directory = path.rpartition(b"/")[0]
    place = os.path.join(done, directory).rstrip(b"/")
    try:
        place, target = _open_nearest(done, directory)
        with closing(target):
            _require_move(target)
            _require_writable(target)
        place = os.path.join(inbox, directory).rstrip(b"/")
        with closing(open_folder_of(inbox, path)) as source:
            _require_writable(source)
    except OSError as error:
        kind = OSError if error.errno in _NO_EVIDENCE else PlaceRefused
        raise kind(error.errno, error.strerror, os.fsdecode(place)) from error


def _open_nearest(root: bytes, directory: bytes) -> tuple[bytes, int]:
    """Path and descriptor of *directory* below *root*, or of the nearest folder above it that is there."""
    while True:
        try:
            with closing(open_root(root)) as above:
                return os.path.join(root, directory).rstrip(b"/"), open_folder(above, directory)
        except FileNotFoundError:
            parent = os.path.dirname(root.rstrip(b"/"))
            if not directory and parent == root:
                raise
            root, directory = (root, directory.rpartition(b"/")[0]) if directory else (parent, b"")


def _require_move(folder: int) -> None:
    if capabilities_of(folder).move is Move.NONE:
        raise OSError(errno.EOPNOTSUPP, "no file can be renamed or linked there")


def _require_writable(folder: int) -> None:
    """Check this folder itself, because its mount's capabilities may have been tried in another one."""
    if not os.access(b".", os.W_OK | os.X_OK, dir_fd=folder, effective_ids=True):
        is_read_only = os.fstatvfs(folder).f_flag & os.ST_RDONLY
        number = errno.EROFS if is_read_only else errno.EACCES
        raise OSError(number, os.strerror(number))
