"""Publishes a batch of jobs with shared fsyncs; each job can fail on its own.

Order: sidecars and copies of companions, each whole from its first instant → their folder synced → the audio
→ both folders synced → the companions' originals removed. An audio at its place therefore has all
its files, also after a power cut. The jobs of a batch take each step together, and a folder is synced once
for all of them.

Guarantees: safe to repeat from any point. A file is ours only if this job made it, which its hidden name
proves; a name of another file is NameTaken, after the files of this job were withdrawn. A call
that failed over a network may have been carried out: the next try checks the names first.
"""

from __future__ import annotations

import contextlib
import errno
import os
from typing import TYPE_CHECKING, Self

from dropscribe.core.errors import AudioError, AudioForbidden, PublishError
from dropscribe.files.audio import open_folder_of
from dropscribe.files.beneath import make_folder, make_root, open_folder, open_root, sync
from dropscribe.files.capabilities import Move, capabilities_of
from dropscribe.files.crashpoint import reached
from dropscribe.files.mounts import lease_support
from dropscribe.files.moves import FileName, free_placeholder
from dropscribe.files.permissions import Permissions, hands_down_list
from dropscribe.publish.companions import (
    copy_companions,
    copy_missing_companions,
    remove_originals,
    withdraw_companions,
)
from dropscribe.publish.moving import AudioMove, check_source, check_untouched
from dropscribe.publish.publication import CompanionChanged, NameTaken, ReopenedForWriting
from dropscribe.publish.sidecars import Sidecars, withdraw_sidecars

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from dropscribe.files.capabilities import Capabilities
    from dropscribe.files.mounts import LeaseSupport
    from dropscribe.publish.publication import PublishRequest

_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT})
_MOST_OPEN = 16


def publish(request: PublishRequest) -> bytes:
    """Put the job's files in place; returns the audio's absolute path.

    Raises:
        NameTaken, CompanionChanged: Choose other names.
        AudioMissing: The audio is neither in the inbox nor at its place.
        AudioChanged: The audio has changed since it was sent; the sidecars were withdrawn.
        ReopenedForWriting: Try again in a moment.
        PublishError: The file system refused; the same call may succeed later.
    """
    (outcome,) = publish_together((request,))
    if isinstance(outcome, BaseException):
        raise outcome
    return outcome


def publish_together(requests: Sequence[PublishRequest]) -> list[bytes | BaseException]:
    """Publish several jobs of any folders.

    Returns:
        For each, in order, the result or the exception of :func:`publish`; also CopyNeeded, where
        there are several, for an audio that has to be copied.
    """
    with _Folders() as folders:
        operations = [PublishOperation(request, folders) for request in requests]
        for group in _groups(operations):
            _each(group, PublishOperation.write_sidecars)
            # The data of all are on their way to the disk by now: the first sync writes most of them. A name
            # given in between would have each further sync write the folder again (ext4).
            _each(group, PublishOperation.sync_sidecars)
            _each(group, PublishOperation.place_sidecars)
        _sync(operations, lambda operation: (operation.target,))
        _each(operations, lambda _: reached("sidecars_synced"))
        may_copy = len(operations) == 1
        _each(operations, lambda operation: operation.move_audio(may_copy=may_copy))
        _sync(operations, lambda operation: operation.folders_before_removal)
        _each(operations, PublishOperation.remove_originals)
        _each(operations, PublishOperation.finish)
        _sync(operations, lambda operation: (operation.target, operation.source))
    return [operation.outcome() for operation in operations]


def withdraw(request: PublishRequest) -> None:
    """Remove the files of this job that stand under the names of *request*, before it gets others.

    Raises:
        PublishError: The file system refused; the same call may succeed later.
    """
    with _Folders() as folders:
        try:
            target = folders.target(request, make=False)
            _withdraw(request, folders.source_if_there(request), target, capabilities_of(target))
        except FileNotFoundError:
            return
        except OSError as error:
            raise _publish_error(request, error) from error


class _Folders:
    """Open folders by path, each opened once for all jobs of a batch."""

    def __init__(self) -> None:
        self._open: dict[tuple[bytes, bytes], int] = {}
        self._capabilities: dict[int, Capabilities] = {}
        self._leases: dict[int, LeaseSupport] = {}
        self._lists: dict[int, bool] = {}

    def source(self, request: PublishRequest) -> int:
        """The folder that the audio leaves; raises as open_folder_of."""
        key = (request.inbox + b"//", request.path.rpartition(b"/")[0])
        if key not in self._open:
            self._open[key] = open_folder_of(request.inbox, request.path)
        return self._open[key]

    def source_if_there(self, request: PublishRequest) -> int | None:
        """As :meth:`source`; None where the folder has gone."""
        try:
            return self.source(request)
        except AudioError:
            return None

    def target(self, request: PublishRequest, *, make: bool) -> int:
        """The folder that the files go to.

        Raises:
            FileNotFoundError: It does not exist, and *make* is false.
        """
        root, directory = request.output_names.root, request.output_names.directory
        if (root, b"") not in self._open:
            self._open[root, b""] = make_root(root) if make else open_root(root)
        if (root, directory) not in self._open:
            step = make_folder if make else open_folder
            self._open[root, directory] = step(self._open[root, b""], directory)
        return self._open[root, directory]

    def capabilities(self, target: int) -> Capabilities:
        """Capabilities of the mount of the open *target*; raises as capabilities_of."""
        if target not in self._capabilities:
            self._capabilities[target] = capabilities_of(target)
        return self._capabilities[target]

    def leases(self, source: int) -> LeaseSupport:
        """The meaning of read leases on files in the open *source*."""
        if source not in self._leases:
            self._leases[source] = lease_support(source)
        return self._leases[source]

    def permissions(self, target: int, folder: int, name: bytes, status: os.stat_result) -> Permissions:
        """The permissions of sidecars in *target*, for the audio *name* in *folder*, which has *status*."""
        if target not in self._lists:
            self._lists[target] = hands_down_list(target)
        return Permissions.of_sidecar(folder, name, status, inherits_list=self._lists[target])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for descriptor in self._open.values():
            os.close(descriptor)


class PublishOperation:
    """The progress of one publication.

    Attributes:
        source: The open folder that its audio leaves; None where it is not there.
        target: The open folder that it goes to; None before it was opened.
        is_over: Nothing more is done for it, because it failed.
    """

    def __init__(self, request: PublishRequest, folders: _Folders) -> None:
        self.source: int | None = None
        self.target: int | None = None
        self.is_over = False
        self._request = request
        self._folders = folders
        self._capabilities: Capabilities | None = None
        self._sidecars: Sidecars | None = None
        self._move: AudioMove | None = None
        self._is_moved = False
        self._is_writing = False
        self._error: Exception | None = None

    @property
    def _can(self) -> Capabilities:
        if self._capabilities is None:
            raise ValueError("the target folder is not open yet")
        return self._capabilities

    @property
    def sidecar_count(self) -> int:
        """Files that :meth:`write_sidecars` leaves open."""
        return len(self._request.files)

    def write_sidecars(self) -> None:
        """Write the sidecars under hidden names."""
        request = self._request
        missing: AudioError | None = None
        try:
            self.source = self._folders.source(request)
            status = check_source(request, self.source)
        except AudioError as error:
            missing = error
        try:
            self.target = target = self._folders.target(request, make=missing is None)
        except FileNotFoundError as error:
            raise missing or error from None
        self._capabilities = can = self._folders.capabilities(target)
        self._move = move = AudioMove(request, self.source, target, can)
        if missing is None:
            # The audio is at its source, so this is no move of an earlier try to be finished.
            check_untouched(request, status)
            move.check_target(status)
            permissions = self._folders.permissions(target, self._source(), request.source_name, status)
            self._is_writing = True
            self._sidecars = Sidecars(request, target, can)
            self._sidecars.write(permissions)
        elif move.is_done():
            self._is_moved = True
            self._write_missing(target, can)
        else:
            raise missing

    def _write_missing(self, target: int, can: Capabilities) -> None:
        """Write the sidecars again that were withdrawn while the audio was not visible."""
        name = self._request.output_names.audio
        status = FileName(target, name).status()
        if status is None:
            return  # another program has taken it already
        permissions = self._folders.permissions(target, target, name, status)
        self._sidecars = Sidecars(self._request, target, can)
        self._sidecars.write(permissions, missing_alone=True)

    def sync_sidecars(self) -> None:
        """Make the sidecars durable under their hidden names."""
        if self._sidecars is not None:
            self._sidecars.make_durable()

    def place_sidecars(self) -> None:
        """Give the sidecars their names, and copy the companions."""
        request, source, can = self._request, self.source, self._can
        if self.target is None or self._move is None:
            return
        if self._sidecars is not None:
            self._sidecars.place()
        if not self._is_moved:
            copy_companions(request, self._source(), self.target, can)
        else:
            if self._sidecars is not None and source is not None:
                copy_missing_companions(request, source, self.target, can)
            self._move.finish()
        self._is_writing = False

    def _source(self) -> int:
        if self.source is None:
            raise ValueError("the source folder is not open")
        return self.source

    def move_audio(self, *, may_copy: bool) -> None:
        """Move the audio to its destination."""
        if self._move is not None and not self._is_moved:
            self._move.move(self._folders.leases(self._source()), may_copy=may_copy)

    @property
    def folders_before_removal(self) -> tuple[int | None, ...]:
        """The folders to be synced before originals of companions are removed."""
        return (self.target, self.source) if self._request.output_names.companions else ()

    def remove_originals(self) -> None:
        """Remove the companions from the inbox: the audio and their copies are durable."""
        if self.source is not None and self.target is not None:
            remove_originals(self._request, self.source, self.target, self._can)

    def finish(self) -> None:
        """Remove the hidden names: all files are in place."""
        if self.target is not None:
            for own_file in self._request.own_files(self.target, self._can):
                own_file.finish()

    def fail(self, error: Exception) -> None:
        """End the publication; withdraw the sidecars if the audio will not follow."""
        self.is_over, self._error = True, error
        if self._sidecars is not None:
            self._sidecars.abandon()
        no_room = isinstance(error, OSError) and error.errno in _NO_ROOM and self._is_writing
        if self._capabilities is None or self.target is None:
            return
        if no_room:
            # A full disk must not keep half of the files.
            with contextlib.suppress(OSError):
                _withdraw(self._request, self.source, self.target, self._can)
        elif isinstance(error, (AudioError, NameTaken, CompanionChanged, ReopenedForWriting)):
            try:
                if self._can.move is Move.PLACEHOLDER:
                    free_placeholder(
                        FileName(self.target, self._request.output_names.audio), self._request.aside
                    )
                _withdraw(self._request, self.source, self.target, self._can)
            except OSError as trouble:
                self._error = trouble

    def outcome(self) -> bytes | BaseException:
        """The audio's place, or the error of its publication."""
        match self._error:
            case None:
                reached("published")
                return self._request.audio
            case OSError() as error:
                return _publish_error(self._request, error)
            case AudioForbidden() as error:
                return PublishError(self._request.path, error.reason, "EACCES")
            case error:
                return error


def _withdraw(request: PublishRequest, source: int | None, target: int, can: Capabilities) -> None:
    """Remove the files of this job from the open *target* folder, durably."""
    removed = [withdraw_sidecars(request, target, can), withdraw_companions(request, source, target, can)]
    if any(removed):
        sync(target)
    reached("taken_back")


def _each(operations: Sequence[PublishOperation], step: Callable[[PublishOperation], None]) -> None:
    for operation in operations:
        if not operation.is_over:
            try:
                step(operation)
            except Exception as error:  # noqa: BLE001  # it fails this job alone
                operation.fail(error)


def _groups(operations: Sequence[PublishOperation]) -> Iterator[list[PublishOperation]]:
    """*operations* in groups whose sidecars may all be open at once."""
    group: list[PublishOperation] = []
    for operation in operations:
        if group and sum(each.sidecar_count for each in [*group, operation]) > _MOST_OPEN:
            yield group
            group = []
        group.append(operation)
    yield group


def _sync(
    operations: Sequence[PublishOperation],
    folders_of: Callable[[PublishOperation], tuple[int | None, ...]],
) -> None:
    """Sync each folder once; a failure is raised for every publication in it."""
    left = [operation for operation in operations if not operation.is_over]
    for folder in dict.fromkeys(folder for operation in left for folder in folders_of(operation)):
        try:
            if folder is not None:
                sync(folder)
        except OSError as error:
            for operation in left:
                if folder in folders_of(operation) and not operation.is_over:
                    operation.fail(error)


def _publish_error(request: PublishRequest, error: OSError) -> PublishError:
    code = errno.errorcode.get(error.errno or 0, "EIO")
    # A call by descriptor names "." or a bare name: the folder says more.
    named = os.fsencode(error.filename) if error.filename else b""
    is_place = named.startswith(b"/") and not named.startswith(b"/proc/self/")
    place = named if is_place else request.output_names.folder
    published = PublishError(place, error.strerror or str(error), code)
    published.__cause__ = error
    return published
