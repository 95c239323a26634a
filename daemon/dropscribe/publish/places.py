"""Checks, before a recording is sent and paid for, that it can be moved to its place; finds free names there.

Nothing is made. The files of one visit share their folders.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import Executor
from typing import NamedTuple, TypeAlias

from dropscribe.core.model import OutputNames
from dropscribe.core.naming import OutputPlan, first_free, number_names
from dropscribe.files.audio import AudioFile, open_folder_of
from dropscribe.files.beneath import closing, open_file, open_folder, open_root, stat_at
from dropscribe.files.capabilities import Move, capabilities_of
from dropscribe.files.mounts import require_mount
from dropscribe.files.permissions import is_kept_in_place, may_act_as_owner

_Target: TypeAlias = tuple[int | None, int]
"""A folder that files go to, open, or None where it is not there; and the longest name that fits there."""

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


_KEPT = "it is immutable or append-only; take that from it (chattr -i -a)"


class PlaceRefused(OSError):
    """Raised where a folder takes no files, or lets none be moved out of it.

    Attributes:
        is_of_rule: No file of the rule can be moved; else the trouble is of one sub-folder, or of one file.
    """

    def __init__(self, number: int, reason: str, place: str, *, is_of_rule: bool) -> None:
        super().__init__(number, reason, place)
        self.is_of_rule = is_of_rule


class Places(contextlib.ExitStack):
    """The folders of several files, each opened and checked once; closed together.

    Sharing them brings a tenth more small files a second.
    """

    def __init__(self) -> None:
        super().__init__()
        self._sources: dict[tuple[bytes, bytes], tuple[int, os.stat_result]] = {}
        self._targets: dict[tuple[bytes, bytes], _Target] = {}

    def source(self, inbox: bytes, path: bytes) -> int:
        """The open folder of the file *path* of *inbox*, out of which it can be moved."""
        directory, _, name = path.rpartition(b"/")
        with _refusals(inbox, directory):
            if (inbox, directory) not in self._sources:
                folder = self.enter_context(closing(open_folder_of(inbox, path)))
                _require_movable(folder)
                _require_writable(folder)
                self._sources[inbox, directory] = folder, os.fstat(folder)
            folder, status = self._sources[inbox, directory]
        if status.st_mode & stat.S_ISVTX:
            with _refusals(inbox, directory, is_of_file=True):
                _require_own(folder, status, name)
        return folder

    def target(self, root: bytes, directory: bytes) -> _Target:
        """The folder *directory* below *root*, or the nearest one above it, open: files can go there."""
        if (root, directory) not in self._targets:
            with _refusals(root, b""):
                require_mount(root)
            place, below, folder = _open_nearest(self, root, directory)
            with _refusals(place, below):
                is_there = (place, below) == (root, directory)
                if is_there:  # else a folder in it takes the files, which can be made there
                    _require_movable(folder)
                if capabilities_of(folder).move is Move.NONE:
                    raise OSError(errno.EOPNOTSUPP, "no file can be renamed or linked there")
                _require_writable(folder)
            self._targets[root, directory] = (folder if is_there else None), _name_max(folder)
        return self._targets[root, directory]


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
        folder = places.source(inbox, path)
        try:
            audio = open_file(folder, path.rpartition(b"/")[2])
        except OSError:  # gone, or not to be read: no evidence about the places
            return
        with closing(audio):
            _require_audio_movable(inbox, path, audio)


class FreeNames(NamedTuple):
    """Names that were free in ``done`` or ``failed`` when they were looked for."""

    plan: OutputPlan
    number: int  # Their collision number
    names: OutputNames


def find_free_names(plan: OutputPlan, refused: Collection[int]) -> FreeNames:
    """The names of *plan* with the first free number that is not *refused*, as reserved by other live jobs.

    Where the folder cannot be read, all names count as free: publishing detects a taken one.
    """
    target: _Target = None, _NAME_MAX_BYTES
    directory = plan.path.rpartition(b"/")[0]
    with contextlib.ExitStack() as opened:
        with contextlib.suppress(OSError):
            place, below, folder = _open_nearest(opened, plan.root, directory)
            target = (folder if (place, below) == (plan.root, directory) else None), _name_max(folder)
        return _free_names_in(target, plan, refused)


def _free_names_in(target: _Target, plan: OutputPlan, refused: Collection[int] = ()) -> FreeNames:
    folder, name_max_bytes = target
    names: dict[int, OutputNames] = {}

    def is_free(number: int) -> bool:
        if number in refused:
            return False
        names[number] = number_names(plan, number, name_max_bytes)
        return folder is None or not any(_is_taken(folder, name) for name in names[number].all_names)

    number = first_free(is_free)
    return FreeNames(plan, number, names[number])


def _is_taken(folder: int, name: bytes) -> bool:
    try:
        return stat_at(folder, name) is not None
    except OSError:
        return False


class OpenRequest(NamedTuple):
    """A recording to be opened."""

    inbox: bytes  # Its inbox
    path: bytes  # Below the inbox
    done: bytes  # The folder of the rule's transcripts
    plan: OutputPlan | None  # Of its files; None where their names are known only with the answer
    executor: Executor  # For later reads


class Opened(NamedTuple):
    """A recording that may be sent."""

    audio: AudioFile
    free: FreeNames | None  # Names that are free for its files, where they are known


def open_together(requests: Sequence[OpenRequest]) -> list[Opened | Exception]:
    """Open several recordings of one rule; for each, in order, the result or an exception.

    The exceptions are those of :func:`check_places` and of :meth:`AudioFile.open`.
    """
    outcomes: list[Opened | Exception] = []
    with Places() as places:
        for request in requests:
            try:
                outcomes.append(_open(places, request))
            except Exception as error:  # noqa: BLE001  # it is this recording's alone
                outcomes.append(error)
    return outcomes


def _open(places: Places, request: OpenRequest) -> Opened:
    inbox, path, done, plan, executor = request
    target = places.target(done, path.rpartition(b"/")[0])
    folder = places.source(inbox, path)
    free = None if plan is None else _free_names_in(target, plan)
    audio = AudioFile.open(inbox, path, executor, folder)
    try:
        _require_audio_movable(inbox, path, audio.fileno())
    except PlaceRefused:
        audio.close()
        raise
    return Opened(audio, free)


def _open_nearest(opened: contextlib.ExitStack, root: bytes, directory: bytes) -> tuple[bytes, bytes, int]:
    """The folder *directory* below *root*, or the nearest one above it that exists: its names, and open."""
    place, below = root, directory
    while True:
        try:
            with _refusals(place, b""):
                top = open_root(place)
            with closing(top), _refusals(place, below):
                return place, below, opened.enter_context(closing(open_folder(top, below)))
        except FileNotFoundError:
            parent = os.path.dirname(place.rstrip(b"/"))
            if not below and parent == place:
                raise
            place, below = (place, below.rpartition(b"/")[0]) if below else (parent, b"")


def _name_max(folder: int) -> int:
    try:
        # FAT says 1530: bytes enough for 255 characters in any encoding, and it takes no 256 characters.
        return min(os.fpathconf(folder, "PC_NAME_MAX"), _NAME_MAX_BYTES)
    except OSError:
        return _NAME_MAX_BYTES


@contextlib.contextmanager
def _refusals(root: bytes, directory: bytes, *, is_of_file: bool = False) -> Iterator[None]:
    """Turn errors on *directory* below *root*, or on one file in it, into PlaceRefused.

    Not those that are no evidence about it.
    """
    try:
        yield
    except FileNotFoundError:
        raise
    except OSError as error:
        place = os.fsdecode(os.path.join(root, directory).rstrip(b"/"))
        if error.errno in _NO_EVIDENCE:
            raise OSError(error.errno, error.strerror, place) from error
        is_of_rule = not is_of_file and (not directory or error.errno not in OF_ONE_PLACE)
        words = error.strerror or str(error)
        if not is_of_rule:
            words += _REMEDIES.get(error.errno or 0, "").format(uid=os.geteuid())
        raise PlaceRefused(error.errno or errno.EIO, words, place, is_of_rule=is_of_rule) from error


def _require_writable(folder: int) -> None:
    """Check this folder itself, because its mount's capabilities may have been tried in another one."""
    if not os.access(b".", os.W_OK | os.X_OK, dir_fd=folder, effective_ids=True):
        is_read_only = os.fstatvfs(folder).f_flag & os.ST_RDONLY
        number = errno.EROFS if is_read_only else errno.EACCES
        raise OSError(number, os.strerror(number))


def _require_audio_movable(inbox: bytes, path: bytes, audio: int) -> None:
    if is_kept_in_place(audio):
        raise PlaceRefused(errno.EPERM, _KEPT, os.fsdecode(os.path.join(inbox, path)), is_of_rule=False)


def _require_movable(descriptor: int) -> None:
    """Check that the attributes of an open folder let its files be moved."""
    if is_kept_in_place(descriptor):
        raise OSError(errno.EPERM, _KEPT)


def _require_own(folder: int, status: os.stat_result, name: bytes) -> None:
    """Check that the folder's sticky bit allows this process to move the file *name*."""
    uid = os.geteuid()
    if status.st_uid == uid or may_act_as_owner():
        return
    audio = stat_at(folder, name)
    if audio is not None and audio.st_uid != uid:
        raise OSError(
            errno.EPERM,
            f"its sticky bit keeps {os.fsdecode(name)!r}, which belongs to uid {audio.st_uid}; "
            f"remove the bit (chmod -t), or give the file or the folder to uid {uid}",
        )
