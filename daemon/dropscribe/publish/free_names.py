"""Finds the first names for a job that are all free in ``done`` or ``failed``."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

from dropscribe.core.naming import first_free, number_names
from dropscribe.files.audio import open_folder_of
from dropscribe.files.beneath import closing, folder_below, open_folder, open_root, stat_at
from dropscribe.files.capabilities import Move, capabilities_of
from dropscribe.files.permissions import may_act_as_owner

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from dropscribe.core.model import OutputNames
    from dropscribe.core.naming import OutputPlan

_NAME_MAX_BYTES = 255
_NO_EVIDENCE = frozenset(
    {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENAMETOOLONG, errno.EILSEQ, errno.EINVAL}
)

OF_ONE_PLACE = frozenset(
    {errno.EACCES, errno.EPERM, errno.EROFS, errno.ELOOP, errno.ENOTDIR, errno.EISDIR, errno.EEXIST}
)
"""Errors of one folder or one name; all others may be those of the whole disk."""


_REMEDIES = {
    errno.EACCES: "; give uid {uid} write access to it (chmod, chown or an ACL)",
    errno.EROFS: "; mount it writable",
    errno.ELOOP: "; put a folder in its place",
}
"""Remedies for the trouble of a sub-folder; those of a rule's own folders are in ``check``."""


class PlaceRefused(OSError):
    """Raised where a folder takes no files, or lets none be moved out of it.

    Attributes:
        is_of_rule: No file of the rule can be moved; else the trouble is of one sub-folder, or of one file.
    """

    def __init__(self, number: int, reason: str, place: str, *, is_of_rule: bool) -> None:
        super().__init__(number, reason, place)
        self.is_of_rule = is_of_rule


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
    directory, _, name = path.rpartition(b"/")
    _check_target(done, directory)
    with _refusals(inbox, directory), closing(open_folder_of(inbox, path)) as source:
        _require_writable(source)
        _require_no_sticky_bit(source, name)


def _check_target(root: bytes, directory: bytes) -> None:
    """Check *directory* below *root*, or the nearest folder above it that exists."""
    place = root
    while True:
        try:
            with _refusals(place, b""):
                above = open_root(place)
            break
        except FileNotFoundError:
            parent = os.path.dirname(place.rstrip(b"/"))
            if parent == place:
                raise
            place, directory = parent, b""
    with closing(above):
        while True:
            try:
                with _refusals(place, directory), folder_below(above, directory) as target:
                    _require_move(target)
                    _require_writable(target)
                    break
            except FileNotFoundError:
                if not directory:
                    raise
                directory = directory.rpartition(b"/")[0]


@contextlib.contextmanager
def _refusals(root: bytes, directory: bytes) -> Iterator[None]:
    """Turn errors on *directory* below *root* into PlaceRefused, where they are evidence about it."""
    try:
        yield
    except FileNotFoundError:
        raise
    except OSError as error:
        place = os.fsdecode(os.path.join(root, directory).rstrip(b"/"))
        if error.errno in _NO_EVIDENCE:
            raise OSError(error.errno, error.strerror, place) from error
        is_of_rule = not directory or error.errno not in OF_ONE_PLACE
        words = error.strerror or str(error)
        if error.errno == errno.EPERM:
            is_of_rule = False  # of this file alone, in whichever folder it is
        elif not is_of_rule:
            words += _REMEDIES.get(error.errno or 0, "").format(uid=os.geteuid())
        raise PlaceRefused(error.errno or errno.EIO, words, place, is_of_rule=is_of_rule) from error


def _require_move(folder: int) -> None:
    if capabilities_of(folder).move is Move.NONE:
        raise OSError(errno.EOPNOTSUPP, "no file can be renamed or linked there")


def _require_writable(folder: int) -> None:
    """Check this folder itself, because its mount's capabilities may have been tried in another one."""
    if not os.access(b".", os.W_OK | os.X_OK, dir_fd=folder, effective_ids=True):
        is_read_only = os.fstatvfs(folder).f_flag & os.ST_RDONLY
        number = errno.EROFS if is_read_only else errno.EACCES
        raise OSError(number, os.strerror(number))


def _require_no_sticky_bit(folder: int, name: bytes) -> None:
    """Check that the folder's sticky bit, if it has one, allows this process to move the file *name*."""
    above, uid = os.fstat(folder), os.geteuid()
    if not above.st_mode & stat.S_ISVTX or above.st_uid == uid or may_act_as_owner():
        return
    audio = stat_at(folder, name)
    if audio is not None and audio.st_uid != uid:
        raise OSError(
            errno.EPERM,
            f"its sticky bit keeps {os.fsdecode(name)!r}, which belongs to uid {audio.st_uid}; "
            f"remove the bit (chmod -t), or give the file or the folder to uid {uid}",
        )
