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
from collections.abc import Callable, Sequence
from functools import cache, partial

from dropscribe.core.errors import AudioError, AudioForbidden, PublishError
from dropscribe.files.audio import open_folder_of
from dropscribe.files.beneath import closing, make_folder, make_root, open_folder, open_root, sync
from dropscribe.files.capabilities import Move, capabilities_of
from dropscribe.files.crashpoint import reached
from dropscribe.files.mounts import lease_support, require_mount
from dropscribe.files.moves import FileName, free_placeholder
from dropscribe.files.own_file import OwnFile, start_writing, write_all
from dropscribe.files.permissions import (
    give_sidecar_permissions,
    mode_of_empty,
    sidecar_mode,
)
from dropscribe.publish import moving
from dropscribe.publish.publication import CopyNeeded, JobFiles, NameTaken, PublishRequest, ReopenedForWriting

_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT})
_SMALL_BYTES = 1 << 20  # companions of a recording that are copied in a batch


def publish(request: PublishRequest) -> bytes:
    """Put the job's files in place; returns the audio's absolute path.

    Raises:
        NameTaken: Choose other names.
        AudioMissing: The audio is neither in the inbox nor at its place.
        AudioChanged: The audio has changed since it was sent; the sidecars were withdrawn.
        ReopenedForWriting: Try again in a moment.
        PublishError: The file system refused; the same call may succeed later.
    """
    (outcome,) = publish_together((request,), may_copy=True)
    if isinstance(outcome, BaseException):
        raise outcome
    return outcome


def publish_together(
    requests: Sequence[PublishRequest], *, may_copy: bool = False
) -> list[bytes | BaseException]:
    """Publish several jobs of any folders: for each, in order, the result or exception of :func:`publish`.

    A copy that may take long, of an audio or of large companions, gets CopyNeeded, unless *may_copy*.
    """
    with _Folders() as folders:
        operations = [PublishOperation(request, folders) for request in requests]
        _each(operations, lambda operation: operation.write_sidecars(may_copy=may_copy))
        # The data of all are on their way to the disk by now: the first sync writes most of them. A name
        # given in between would have each further sync write the folder again (ext4).
        _each(operations, PublishOperation.sync_sidecars)
        _each(operations, PublishOperation.place_sidecars)
        _sync(operations, lambda operation: (operation.files.target,))
        _each(operations, lambda _: reached("sidecars_synced"))
        _each(operations, lambda operation: operation.move_audio(may_copy=may_copy))
        # Originals of companions are removed once the audio and their copies are durable.
        with_companions = [each for each in operations if each.request.output_names.companions]
        _sync(with_companions, _both_folders)
        _each(operations, lambda operation: moving.remove_originals(operation.files))
        _each(operations, lambda operation: operation.files.finish())
        _sync(operations, _both_folders)
    return [operation.outcome() for operation in operations]


def withdraw(request: PublishRequest) -> None:
    """Remove the job's files from the names of *request*, before it gets others; raises PublishError."""
    with _Folders() as folders:
        try:
            target, source = folders.target(request, make=False), None
            with contextlib.suppress(AudioError):  # the folder has gone
                source = folders.source(request)
            _withdraw(JobFiles(request, source, target, capabilities_of(target)))
        except FileNotFoundError:
            return
        except OSError as error:
            raise _publish_error(request, error) from error


def is_only_in_inbox(request: PublishRequest) -> bool:
    """Whether the audio is in the inbox, and its new name is free, or in a folder that cannot be read."""
    with _Folders() as folders:
        try:
            source = FileName(folders.source(request), request.source_name)
            moving.check_source(request, source.status())
        except (AudioError, OSError):
            return False
        try:
            target = folders.target(request, make=False)
            return FileName(target, request.output_names.audio).status() is None
        except OSError:
            return True


class _Folders(contextlib.ExitStack):
    """Open folders by path, each opened and asked once for all jobs of a batch; closed together."""

    def __init__(self) -> None:
        super().__init__()
        self._open: dict[tuple[bytes, bytes], int] = {}
        self.capabilities = cache(capabilities_of)
        self.leases = cache(lease_support)
        self.device = cache(_device_of)

    def source(self, request: PublishRequest) -> int:
        """The folder that the audio leaves; raises as open_folder_of."""
        key = (request.inbox + b"//", request.path.rpartition(b"/")[0])
        return self._once(key, lambda: open_folder_of(request.inbox, request.path))

    def target(self, request: PublishRequest, *, make: bool) -> int:
        """The folder that the files go to; FileNotFoundError if there is none, and *make* is false."""
        path, directory = request.output_names.root, request.output_names.directory
        open_top, open_below = (make_root, make_folder) if make else (open_root, open_folder)

        def open_mounted() -> int:
            require_mount(path)
            return open_top(path)

        root = self._once((path, b""), open_mounted)
        return self._once((path, directory), lambda: open_below(root, directory))

    def _once(self, key: tuple[bytes, bytes], open_it: Callable[[], int]) -> int:
        if key not in self._open:
            self._open[key] = self.enter_context(closing(open_it()))
        return self._open[key]


class PublishOperation:
    """The progress of one publication."""

    def __init__(self, request: PublishRequest, folders: _Folders) -> None:
        self.request = request
        self.is_over = False  # nothing more is done for it, because it failed
        self._folders = folders
        self._files: JobFiles | None = None
        self._begun: list[OwnFile] = []
        self._is_moved = False
        self._is_writing = False
        self._error: Exception | None = None

    @property
    def files(self) -> JobFiles:
        """The files in their open folders; there are none before :meth:`write_sidecars`."""
        if self._files is None:
            raise ValueError("the target folder is not open yet")
        return self._files

    def write_sidecars(self, *, may_copy: bool) -> None:
        """Write the sidecars under hidden names; CopyNeeded before, where a long copy is foreseen."""
        request, folders = self.request, self._folders
        source: int | None = None
        missing: AudioError | None = None
        try:
            source = folders.source(request)
            status = moving.check_source(request, FileName(source, request.source_name).status())
        except AudioError as error:
            missing = error
        try:
            target = folders.target(request, make=missing is None)
        except FileNotFoundError as error:
            raise missing or error from None
        self._files = files = JobFiles(request, source, target, folders.capabilities(target))
        if missing is None:
            # The audio is at its source, so this is no move of an earlier try to be finished.
            moving.check_untouched(request, status)
            moving.check_target(files, status)
            is_far = folders.device(files.old.folder) != folders.device(target)
            if not may_copy and (is_far or request.companion_bytes > _SMALL_BYTES):
                raise CopyNeeded(repr(request.path))  # before there is anything to be withdrawn
            self._is_writing = True
            self._begin(files.sidecars, files.old, status)
        elif moving.is_moved(files):
            # Sidecars that were withdrawn while the audio was not visible are written again.
            self._is_moved = True
            if (found := files.new.status()) is not None:  # else another program has taken it already
                withdrawn = [each for each in files.sidecars if each[0].name.status() is None]
                self._begin(withdrawn, files.new, found)
        else:
            raise missing

    def _begin(
        self, sidecars: Sequence[tuple[OwnFile, bytes]], audio: FileName, status: os.stat_result
    ) -> None:
        mode = sidecar_mode(*audio, status)
        for sidecar, content in sidecars:
            self._begun.append(sidecar)
            sidecar.begin(partial(_fill, mode, status, content), mode_of_empty(mode))

    def sync_sidecars(self) -> None:
        """Make the sidecars durable under their hidden names."""
        for sidecar in self._begun:
            sidecar.make_durable()
            reached("sidecar_written")

    def place_sidecars(self) -> None:
        """Give the sidecars their names, and copy the companions."""
        files = self.files
        for sidecar in self._begun:
            files.place(sidecar)
            reached("sidecar_linked")
        if not self._is_moved:
            moving.copy_companions(files)
        else:
            if files.new.status() is not None:
                moving.copy_missing_companions(files)
            moving.finish_move(files)
        self._is_writing = False

    def move_audio(self, *, may_copy: bool) -> None:
        """Move the audio to its destination."""
        if not self._is_moved:
            leases = self._folders.leases(self.files.old.folder)
            moving.move_audio(self.files, leases, may_copy=may_copy)

    def fail(self, error: Exception) -> None:
        """End the publication; withdraw the sidecars if the audio will not follow."""
        self.is_over, self._error = True, error
        for sidecar in self._begun:
            sidecar.abandon()
        files = self._files
        if files is None:
            return
        if isinstance(error, OSError) and error.errno in _NO_ROOM and self._is_writing:
            # A full disk must not keep half of the files.
            with contextlib.suppress(OSError):
                _withdraw(files)
        elif isinstance(error, (AudioError, NameTaken, ReopenedForWriting)):
            try:
                if files.can.move is Move.PLACEHOLDER:
                    free_placeholder(files.new, files.aside)
                _withdraw(files)
            except OSError as trouble:
                self._error = trouble

    def outcome(self) -> bytes | BaseException:
        """The audio's place, or the error of its publication."""
        match self._error:
            case None:
                reached("published")
                return self.request.audio
            case OSError() as error:
                return _publish_error(self.request, error)
            case AudioForbidden() as error:
                return PublishError(self.request.path, error.reason, "EACCES")
            case error:
                return error


def _device_of(folder: int) -> int:
    return os.fstat(folder).st_dev


def _both_folders(operation: PublishOperation) -> tuple[int | None, ...]:
    return operation.files.target, operation.files.source


def _fill(mode: int, audio: os.stat_result, content: bytes, descriptor: int) -> None:
    # Before there is anything to read.
    give_sidecar_permissions(descriptor, mode, audio)
    write_all(descriptor, content)
    start_writing(descriptor)


def _withdraw(files: JobFiles) -> None:
    """Remove the files of this job from the target folder, durably."""
    removed = [sidecar.withdraw() for sidecar, _ in files.sidecars]
    if any([*removed, moving.withdraw_companions(files)]):
        sync(files.target)
    reached("taken_back")


def _each(operations: Sequence[PublishOperation], step: Callable[[PublishOperation], None]) -> None:
    for operation in operations:
        if not operation.is_over:
            try:
                step(operation)
            except Exception as error:  # noqa: BLE001  # it fails this job alone
                operation.fail(error)


def _sync(
    operations: Sequence[PublishOperation], folders_of: Callable[[PublishOperation], tuple[int | None, ...]]
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
