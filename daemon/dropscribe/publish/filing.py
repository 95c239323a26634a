"""Jobs' files, put where their kept answers say: several at once, each as if it were alone.

Order: sidecars, each whole from its first instant → their folder synced → the audio → both folders
synced. So an audio's arrival says that all is there (CONTRACT.md §4), also after a power cut. Files that
are published together take each step together, and a folder is synced once for all of them.

Guarantees: safe to repeat from any point. On a name that is taken, bytes equal to ours are ours from
before a crash; anything else is NameTaken, after our own files of the group were taken back. What befalls
one file leaves the others alone.
"""

from __future__ import annotations

import contextlib
import errno
import os
from typing import TYPE_CHECKING, Self

from dropscribe.core.errors import AudioError, AudioForbidden, PublishError
from dropscribe.files import writing
from dropscribe.files.audio import open_folder_of
from dropscribe.files.crashpoint import reached
from dropscribe.publish.moving import check_source, is_moved, move_audio
from dropscribe.publish.publication import NameTaken, WriterCameBack
from dropscribe.publish.safe_delete import clear_aside
from dropscribe.publish.sidecars import take_back_sidecars, write_sidecars

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from dropscribe.publish.publication import PublishRequest


def publish(publication: PublishRequest) -> bytes:
    """Put the group's files in place; returns the audio's absolute path.

    Raises:
        NameTaken: Choose another group.
        AudioMissing: The audio is neither in the inbox nor where it was to go.
        AudioChanged: The audio is not what was transcribed; our sidecars were taken back.
        WriterCameBack: Try again in a moment.
        PublishError: The disk said no; the same call may succeed later.
    """
    (outcome,) = publish_together((publication,))
    if isinstance(outcome, BaseException):
        raise outcome
    return outcome


def publish_together(publications: Sequence[PublishRequest]) -> list[bytes | BaseException]:
    """Publish several jobs of any folders.

    Returns:
        For each, in order, what :func:`publish` returns or raises; also AcrossMounts, where there are
        several, for an audio that has to be copied.
    """
    with _Folders() as folders:
        filings = [PublishOperation(publication, folders) for publication in publications]
        _each(filings, PublishOperation.write_sidecars)
        _sync(filings, lambda filing: (filing.target,))
        _each(filings, PublishOperation.sidecars_are_synced)
        may_copy = len(filings) == 1
        _each(filings, lambda filing: filing.move_audio(may_copy=may_copy))
        _sync(filings, lambda filing: (filing.target, filing.source))
    return [filing.outcome() for filing in filings]


class _Folders:
    """Open folders by path, each opened once for all who need it."""

    def __init__(self) -> None:
        self._open: dict[bytes, int] = {}

    def source(self, publication: PublishRequest) -> int:
        """Where the audio stands; raises as open_folder_of."""
        inbox, path = publication.inbox, publication.path
        folder = path.rpartition(b"/")[0]
        # Two slashes: no target's path looks like that, and what is below an inbox is opened with more care.
        key = inbox + b"//" + folder
        if key not in self._open:
            self._open[key] = open_folder_of(inbox, path)
        return self._open[key]

    def target(self, publication: PublishRequest) -> int:
        """Where all is to stand; it is made if need be."""
        path = publication.group.folder
        if path not in self._open:
            writing.make_folders(path)
            self._open[path] = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        return self._open[path]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for descriptor in self._open.values():
            os.close(descriptor)


class PublishOperation:
    """How far one publication is.

    Attributes:
        source: The folder that its audio leaves, once that was looked at.
        target: The open folder that it goes to.
        is_over: Nothing more is done for it: it failed, or was found done.
    """

    def __init__(self, publication: PublishRequest, folders: _Folders) -> None:
        self.source: int | None = None
        self.target: int | None = None
        self.is_over = False
        self._publication = publication
        self._folders = folders
        self._error: Exception | None = None

    def write_sidecars(self) -> None:
        """Write the sidecars under their final names."""
        publication = self._publication
        try:
            self.source = self._folders.source(publication)
            status = check_source(publication, self.source)
        except AudioError:
            if not is_moved(publication):
                raise
            self._finish_moved()
            return
        self.target = self._folders.target(publication)
        write_sidecars(publication, self.target, writing.Look.of_sidecar(status))

    def sidecars_are_synced(self) -> None:
        """Record that the sidecars' folder has been synced."""
        reached("sidecars_synced")

    def move_audio(self, *, may_copy: bool) -> None:
        """Move the audio to its destination."""
        if self.source is not None:
            move_audio(self._publication, self.source, may_copy=may_copy)

    def fail(self, error: Exception) -> None:
        """Take back what is ours, unless the audio stands beside it."""
        self.is_over, self._error = True, error
        if isinstance(error, (AudioError, NameTaken, WriterCameBack)):
            try:
                take_back_sidecars(self._publication)
            except OSError as trouble:
                self._error = trouble
        elif isinstance(error, OSError) and not os.path.lexists(self._publication.audio):
            # Half a group stands for nothing, and takes room where there may be none.
            with contextlib.suppress(OSError):
                take_back_sidecars(self._publication)

    def outcome(self) -> bytes | BaseException:
        """The audio's place, or the error that its publisher knows."""
        match self._error:
            case None:
                reached("published")
                return self._publication.audio
            case OSError() as error:
                return _publish_error(self._publication, error)
            case AudioForbidden() as error:
                return PublishError(self._publication.path, error.reason, "EACCES")
            case error:
                return error

    def _finish_moved(self) -> None:
        """The audio stands in its place: what a crash may have left to do is done."""
        self.is_over = True
        publication, folder = self._publication, self._folders.target(self._publication)
        look = writing.Look.of_sidecar(os.lstat(publication.audio))
        for index, (name, content) in enumerate(publication.files):
            with contextlib.suppress(FileExistsError):
                writing.write_new(folder, name, content, look, publication.temp_name(index))
        writing.sync_open_folder(folder)
        with contextlib.suppress(AudioError):
            name = publication.path.rpartition(b"/")[2]
            clear_aside(self._folders.source(publication), name, publication.aside, publication.is_audio)


def _each(filings: Sequence[PublishOperation], step: Callable[[PublishOperation], None]) -> None:
    for filing in filings:
        if not filing.is_over:
            try:
                step(filing)
            except Exception as error:  # noqa: BLE001  # whatever it is, it is this file's alone
                filing.fail(error)


def _sync(
    filings: Sequence[PublishOperation], folders_of: Callable[[PublishOperation], tuple[int | None, ...]]
) -> None:
    """Sync each folder once; where that fails, it fails for all who needed it."""
    left = [filing for filing in filings if not filing.is_over]
    for folder in dict.fromkeys(folder for filing in left for folder in folders_of(filing)):
        try:
            if folder is not None:
                writing.sync_open_folder(folder)
        except OSError as error:
            for filing in left:
                if folder in folders_of(filing) and not filing.is_over:
                    filing.fail(error)


def _publish_error(publication: PublishRequest, error: OSError) -> PublishError:
    code = errno.errorcode.get(error.errno or 0, "EIO")
    # A call by descriptor names "." or a bare name: the folder says more.
    named = os.fsencode(error.filename) if error.filename else b""
    is_place = named.startswith(b"/") and not named.startswith(b"/proc/self/")
    place = named if is_place else publication.group.folder
    published = PublishError(place, error.strerror or str(error), code)
    published.__cause__ = error
    return published
