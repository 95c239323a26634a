"""What is to stand where for one job, and what may be in the way."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from dropscribe.core.errors import DropscribeError

if TYPE_CHECKING:
    from dropscribe.core.model import FileSnapshot, Group


class NameTaken(DropscribeError):
    """Raised when a name of the group belongs to somebody else; nothing of ours stands any more."""

    def __init__(self, path: bytes) -> None:
        super().__init__(repr(path))
        self.path = path


class WriterCameBack(DropscribeError):
    """Raised when somebody has the audio open for writing again: wait, it may change."""


class AcrossMounts(DropscribeError):
    """Raised when the audio must be copied and has company: publish it alone, the copy may take long."""


@dataclass(frozen=True, slots=True)
class PublishRequest:
    """What is to stand where.

    Attributes:
        inbox: Absolute path of the inbox.
        path: The audio's path below it.
        snapshot: What settled; anything else at the path is not moved.
        stable_inodes: Whether inode numbers tell files apart there.
        sha256: The audio's digest, for checking a copy; "" where it was never read.
        group: The reserved names.
        files: (file name, content) of the sidecars, in order.
        token: Distinguishes temp names of this store and job from anybody else's.
    """

    inbox: bytes
    path: bytes
    snapshot: FileSnapshot
    stable_inodes: bool
    sha256: str
    group: Group
    files: tuple[tuple[bytes, bytes], ...]
    token: str

    @property
    def audio(self) -> bytes:
        """Absolute path under which the audio will stand."""
        return self.group.path(self.group.audio)

    @property
    def aside(self) -> bytes:
        """Hidden name in the inbox for the original of a copy, while it is let go of."""
        return self.temp_name(len(self.files) + 1)

    def is_audio(self, found: FileSnapshot) -> bool:
        """Whether *found* is what settled."""
        return self.snapshot.same_audio(found, stable_inodes=self.stable_inodes)

    def temp_name(self, index: int) -> bytes:
        """Hidden name for the *index*-th file of this job."""
        return b".dropscribe-%s-%d.tmp" % (self.token.encode(), index)
