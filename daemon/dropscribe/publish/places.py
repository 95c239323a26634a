"""Checks, before a file is sent and paid for, that it can be moved from its inbox to its place.

Nothing is made. The files of one visit share their folders: each is opened and checked once.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from typing import TYPE_CHECKING, NamedTuple, Self

from dropscribe.files.audio import open_folder_of
from dropscribe.files.beneath import closing, open_folder, open_root, stat_at
from dropscribe.files.capabilities import Move, capabilities_of
from dropscribe.files.permissions import may_act_as_owner

if TYPE_CHECKING:
    from collections.abc import Iterator

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


class Target(NamedTuple):
    """A folder that files go to, open."""

    folder: int | None  # None where there is none yet, or it cannot be opened
    name_max_bytes: int  # The longest name that fits there

    def close(self) -> None:
        """Close the folder."""
        if self.folder is not None:
            os.close(self.folder)


class _Source(NamedTuple):
    """An open folder of an inbox, out of which files can be moved."""

    folder: int
    status: os.stat_result


class Places:
    """The folders of several files, each opened and checked once."""

    def __init__(self) -> None:
        self._sources: dict[tuple[bytes, bytes], _Source] = {}
        self._targets: dict[tuple[bytes, bytes], Target] = {}

    def source(self, inbox: bytes, path: bytes) -> int:
        """The open folder of the file *path* of *inbox*, out of which it can be moved.

        Raises:
            PlaceRefused, OSError, AudioError: As :func:`check_places`.
        """
        directory, _, name = path.rpartition(b"/")
        with _refusals(inbox, directory):
            if (inbox, directory) not in self._sources:
                self._sources[inbox, directory] = _checked_source(inbox, path)
            source = self._sources[inbox, directory]
            _require_no_sticky_bit(*source, name)
        return source.folder

    def target(self, root: bytes, directory: bytes) -> Target:
        """The folder *directory* below *root*, to which files can be moved, or which can be made.

        Raises:
            PlaceRefused, OSError: As :func:`check_places`.
        """
        if (root, directory) not in self._targets:
            self._targets[root, directory] = _checked_target(root, directory)
        return self._targets[root, directory]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for source in self._sources.values():
            os.close(source.folder)
        for target in self._targets.values():
            target.close()


def check_places(inbox: bytes, done: bytes, path: bytes) -> None:
    """Check that the file *path* of *inbox* can be moved to *done*.

    A folder that is missing in *done* can be made if the one above it is writable.

    Raises:
        PlaceRefused: No file can be put there, or none be moved out of the file's folder.
        OSError: No evidence about the folders: too many open files, or a name that *done* cannot have.
        AudioError: The file's folder cannot be reached.
    """
    with Places() as places:
        places.target(done, path.rpartition(b"/")[0])
        places.source(inbox, path)


def open_target(root: bytes, directory: bytes) -> Target:
    """The folder *directory* below *root*, unchecked; without a folder where it cannot be opened."""
    try:
        place, above = _open_nearest(root)
    except OSError:
        return Target(None, _NAME_MAX_BYTES)
    folder = None
    with closing(above):
        if place == root:
            with contextlib.suppress(OSError):
                folder = open_folder(above, directory)
        return Target(folder, _name_max(above))


def _open_nearest(root: bytes) -> tuple[bytes, int]:
    """The folder *root*, or the nearest one above it that exists; open."""
    place = root
    while True:
        try:
            with _refusals(place, b""):
                return place, open_root(place)
        except FileNotFoundError:
            parent = os.path.dirname(place.rstrip(b"/"))
            if parent == place:
                raise
            place = parent


def _name_max(folder: int) -> int:
    try:
        return os.fpathconf(folder, "PC_NAME_MAX")
    except OSError:
        return _NAME_MAX_BYTES


def _checked_source(inbox: bytes, path: bytes) -> _Source:
    folder = open_folder_of(inbox, path)
    with _closed_on_error(folder):
        _require_writable(folder)
        return _Source(folder, os.fstat(folder))


def _checked_target(root: bytes, directory: bytes) -> Target:
    """Check *directory* below *root*, or the nearest folder above it that exists."""
    place, above = _open_nearest(root)
    below = directory if place == root else b""
    with closing(above):
        name_max_bytes = _name_max(above)
        while True:
            try:
                with _refusals(place, below):
                    folder = _checked_folder(above, below)
                break
            except FileNotFoundError:
                if not below:
                    raise
                below = below.rpartition(b"/")[0]
    if (place, below) == (root, directory):
        return Target(folder, name_max_bytes)
    os.close(folder)
    return Target(None, name_max_bytes)


def _checked_folder(above: int, path: bytes) -> int:
    folder = open_folder(above, path)
    with _closed_on_error(folder):
        _require_move(folder)
        _require_writable(folder)
    return folder


@contextlib.contextmanager
def _closed_on_error(folder: int) -> Iterator[None]:
    try:
        yield
    except BaseException:
        os.close(folder)
        raise


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


def _require_no_sticky_bit(folder: int, status: os.stat_result, name: bytes) -> None:
    """Check that the folder's sticky bit, if it has one, allows this process to move the file *name*."""
    uid = os.geteuid()
    if not status.st_mode & stat.S_ISVTX or status.st_uid == uid or may_act_as_owner():
        return
    audio = stat_at(folder, name)
    if audio is not None and audio.st_uid != uid:
        raise OSError(
            errno.EPERM,
            f"its sticky bit keeps {os.fsdecode(name)!r}, which belongs to uid {audio.st_uid}; "
            f"remove the bit (chmod -t), or give the file or the folder to uid {uid}",
        )
