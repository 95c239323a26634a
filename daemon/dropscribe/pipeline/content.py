"""Tells a recording by its content, where its metadata has changed."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from dropscribe.core.errors import AudioError
from dropscribe.files.audio import open_beneath, snapshot_of
from dropscribe.files.own_file import sha256_of

if TYPE_CHECKING:
    from dropscribe.core.model import FileSnapshot


def snapshot_if_same(inbox: bytes, path: bytes, size_bytes: int, sha256: str) -> FileSnapshot | None:
    """The file's snapshot if it still has the given content; blocking, for it reads the whole file.

    SFTP and rclone clients set a file's times after its last byte, and others rename a second copy of the
    same bytes over the first: neither is another recording.
    """
    try:
        descriptor = open_beneath(inbox, path)
    except (AudioError, OSError):
        return None
    try:
        before = snapshot_of(os.fstat(descriptor))
        if before.size_bytes != size_bytes or sha256_of(descriptor) != sha256:
            return None
        return before if before.same_audio(snapshot_of(os.fstat(descriptor))) else None
    except OSError:
        return None
    finally:
        os.close(descriptor)
