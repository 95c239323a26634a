"""One job's files: their names, their content, and the audio that goes with them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from dropscribe.core.errors import DropscribeError
from dropscribe.core.model import FileSnapshot, OutputNames
from dropscribe.core.naming import Companion
from dropscribe.files.audio import snapshot_of
from dropscribe.files.capabilities import Capabilities
from dropscribe.files.moves import FileName
from dropscribe.files.own_file import OwnFile, digest_at, digest_of


class NameTaken(DropscribeError):
    """Raised when other names are needed, and no file of the job is left in place.

    Another file has one of the names, or a companion has changed.
    """


class ReopenedForWriting(DropscribeError):
    """Raised when the audio is open for writing again: it may change."""


class CopyNeeded(DropscribeError):
    """Raised when audio or large companions must be copied, which may take long: publish them alone."""


@dataclass(frozen=True, slots=True)
class PublishRequest:
    """The files to put in place for one job."""

    inbox: bytes  # Absolute path of the inbox
    path: bytes  # The audio's path below it
    snapshot: FileSnapshot  # The audio as it settled; anything else at the path is not moved
    stable_inodes: bool  # Whether inode numbers tell files apart there
    sha256: str  # The audio's digest, for checking a copy; "" where it was never read
    output_names: OutputNames  # The reserved names
    files: tuple[tuple[bytes, bytes], ...]  # (file name, content) of the sidecars, in order
    token: str  # Distinguishes hidden names of this store and job from all others
    ignores_writers: bool = False  # The audio is moved even while a process has it open for writing
    ctime_ns: int | None = None  # Its st_ctime_ns when it was read; None where it is not compared

    @property
    def audio(self) -> bytes:
        """Absolute path of the audio after publication."""
        return self.output_names.path(self.output_names.audio)

    @property
    def companion_bytes(self) -> int:
        """Size of the companions, which are always copied."""
        return sum(companion.snapshot.size_bytes for companion in self.output_names.companions)

    @property
    def source_name(self) -> bytes:
        """The audio's file name in its inbox folder."""
        return self.path.rpartition(b"/")[2]

    def is_at(self, snapshot: FileSnapshot, name: FileName) -> bool:
        """Whether the file of *snapshot* stands at *name*, in the inbox or moved within its mount."""
        status = name.status()
        return status is not None and snapshot.same_audio(
            snapshot_of(status), stable_inodes=self.stable_inodes
        )

    def is_audio_at(self, name: FileName) -> bool:
        """Whether the file that settled stands at *name*."""
        return self.is_at(self.snapshot, name)


class JobFiles:
    """The files of one job, with their names in open folders.

    Args:
        source: The inbox folder, or None where there is none any more.
        target: The folder that the files go to.
        can: Its mount's capabilities.
    """

    def __init__(self, request: PublishRequest, source: int | None, target: int, can: Capabilities) -> None:
        self.request = request
        self.source = source
        self.target = target
        self.can = can
        self.new = FileName(target, request.output_names.audio)  # of the audio
        self.aside = self._hidden_name(len(request.files) + 1)  # for the original, while it is removed

    @cached_property
    def old(self) -> FileName:
        """Name of the audio in the inbox folder; there must be one."""
        return self.original(self.request.source_name)

    def original(self, name: bytes) -> FileName:
        """A name in the inbox folder; there must be one."""
        if self.source is None:
            raise ValueError("the source folder is not open")
        return FileName(self.source, name)

    @cached_property
    def sidecars(self) -> list[tuple[OwnFile, bytes]]:
        """The sidecars with their content."""
        # Without links it takes the content to know a file.
        return [
            (self._own_file(name, index, "" if self.can.links else digest_of(content)), content)
            for index, (name, content) in enumerate(self.request.files)
        ]

    @cached_property
    def companions(self) -> list[tuple[Companion, OwnFile]]:
        """The companions with their copies."""
        copies = []
        for number, companion in enumerate(self.request.output_names.companions):
            # Without links it takes the content to know a copy.
            is_known = self.can.links or self.source is None
            digest = "" if is_known else digest_at(self.original(companion.source))
            copies.append((companion, self._own_file(companion.name, self._companion_index(number), digest)))
        return copies

    def copy(self, sha256: str) -> OwnFile:
        """The copy of the audio, whose digest is *sha256*, on another mount."""
        return self._own_file(self.new.name, len(self.request.files), sha256)

    def companion_aside(self, number: int) -> bytes:
        """Hidden name in the inbox folder for the original of a companion, while it is removed."""
        return self._hidden_name(self._companion_index(number) + 1)

    def place(self, file: OwnFile) -> None:
        """Give *file* its name; raises NameTaken where another file has it."""
        try:
            file.place()
        except FileExistsError:
            raise NameTaken(repr(self.request.output_names.path(file.name.name))) from None

    def finish(self) -> None:
        """Remove the hidden names: all files are in place."""
        for sidecar, _ in self.sidecars:
            sidecar.finish()
        for _, copy in self.companions:
            copy.finish()

    def _companion_index(self, number: int) -> int:
        return len(self.request.files) + 2 + 2 * number

    def _own_file(self, name: bytes, index: int, sha256: str) -> OwnFile:
        return OwnFile(FileName(self.target, name), self._hidden_name(index), sha256, self.can)

    def _hidden_name(self, index: int) -> bytes:
        return b".dropscribe-%s-%d.tmp" % (self.request.token.encode(), index)
