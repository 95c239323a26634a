"""One job's files: their names, their content, and the audio that goes with them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dropscribe.core.errors import DropscribeError
from dropscribe.files.audio import snapshot_of
from dropscribe.files.moves import FileName
from dropscribe.files.own_file import OwnFile, digest_at

if TYPE_CHECKING:
    from dropscribe.core.model import FileSnapshot, OutputNames
    from dropscribe.core.naming import Companion
    from dropscribe.files.capabilities import Capabilities


class NameTaken(DropscribeError):
    """Raised when another file has one of the names; no file of the job is left in place."""

    def __init__(self, path: bytes) -> None:
        super().__init__(repr(path))
        self.path = path


class CompanionChanged(DropscribeError):
    """Raised when a companion has changed: other names are needed; no file of the job is left in place."""

    def __init__(self, name: bytes) -> None:
        super().__init__(repr(name))
        self.name = name


class ReopenedForWriting(DropscribeError):
    """Raised when the audio is open for writing again: it may change."""


class CopyNeeded(DropscribeError):
    """Raised in a batch when the audio must be copied: publish it alone, the copy may take long."""


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
    def source_name(self) -> bytes:
        """The audio's file name in its inbox folder."""
        return self.path.rpartition(b"/")[2]

    @property
    def aside(self) -> bytes:
        """Hidden name in the inbox folder for the original, while it is removed."""
        return self._hidden_name(len(self.files) + 1)

    def is_audio(self, found: FileSnapshot) -> bool:
        """Whether *found* is the file that settled."""
        return self.snapshot.same_audio(found, stable_inodes=self.stable_inodes)

    def is_audio_at(self, name: FileName) -> bool:
        """Whether the file that settled stands at *name*, in its inbox or moved within its mount."""
        status = name.status()
        return status is not None and self.is_audio(snapshot_of(status))

    def sidecars(self, folder: int, can: Capabilities) -> list[tuple[OwnFile, bytes]]:
        """The sidecars with their content, on their way to names in the open *folder*."""
        return [
            (self._own_file(folder, name, index, hashlib.sha256(content).hexdigest(), can), content)
            for index, (name, content) in enumerate(self.files)
        ]

    def copy(self, folder: int, sha256: str, can: Capabilities) -> OwnFile:
        """The copy of the audio, on its way to its name in the open *folder* on another mount."""
        return self._own_file(folder, self.output_names.audio, len(self.files), sha256, can)

    def companions(
        self, source: int | None, target: int, can: Capabilities
    ) -> list[tuple[Companion, OwnFile]]:
        """The companions with their copies, on their way to names in the open *target* folder.

        Args:
            source: The open inbox folder, or None where there is none any more.
        """
        return [
            (companion, self._own_file(target, companion.name, self._companion_index(number), digest, can))
            for number, companion in enumerate(self.output_names.companions)
            # Without links it takes the content to know a copy.
            for digest in [
                "" if can.links or source is None else digest_at(FileName(source, companion.source))
            ]
        ]

    def own_files(self, target: int, can: Capabilities) -> list[OwnFile]:
        """Sidecars and copies of companions."""
        return [own_file for own_file, _ in self.sidecars(target, can)] + [
            own_file for _, own_file in self.companions(None, target, can)
        ]

    def companion_aside(self, number: int) -> bytes:
        """Hidden name in the inbox folder for the original of a companion, while it is removed."""
        return self._hidden_name(self._companion_index(number) + 1)

    def _companion_index(self, number: int) -> int:
        return len(self.files) + 2 + 2 * number

    def _own_file(self, folder: int, name: bytes, index: int, sha256: str, can: Capabilities) -> OwnFile:
        return OwnFile(FileName(folder, name), self._hidden_name(index), sha256, can)

    def _hidden_name(self, index: int) -> bytes:
        return b".dropscribe-%s-%d.tmp" % (self.token.encode(), index)
