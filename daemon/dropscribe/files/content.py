"""Looks for a recording whose path or metadata has changed: by its content, or by its inode."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

from dropscribe.core.errors import AudioError, AudioForbidden
from dropscribe.files.audio import open_beneath, snapshot_of
from dropscribe.files.beneath import closing, open_listable_folder, open_listable_root
from dropscribe.files.own_file import sha256_of

if TYPE_CHECKING:
    from dropscribe.core.model import FileSnapshot


class FoundContent(NamedTuple):
    """The file found at a recording's path."""

    snapshot: FileSnapshot | None = None  # Of a file with the recording's bytes; None if its bytes differ
    inode: int | None = None  # Of the file; None if there is none
    is_forbidden: bool = False  # There is a file, and it may not be read


def find_content(inbox: bytes, path: bytes, size_bytes: int, sha256: str) -> FoundContent:
    """Compare the file at *path* with the bytes that were sent; blocking: it may read the whole file.

    SFTP and rclone clients set a file's times after its last byte, and others rename a second copy of the
    same bytes over the first: neither is another recording.
    """
    try:
        with closing(open_beneath(inbox, path)) as descriptor:
            before = snapshot_of(os.fstat(descriptor))
            is_it = sha256 and before.size_bytes == size_bytes and sha256_of(descriptor) == sha256
            is_still = before.same_audio(snapshot_of(os.fstat(descriptor)))
            return FoundContent(before if is_it and is_still else None, before.inode)
    except AudioForbidden:
        return FoundContent(is_forbidden=True)
    except (AudioError, OSError):
        return FoundContent()


def has_left(inbox: bytes, audio: FileSnapshot) -> bool:
    """Whether a complete listing of *inbox* shows that *audio*, known by its inode, is not in it.

    False where that is not certain: a folder cannot be listed, or another device is mounted there.
    """
    try:
        with closing(open_listable_root(inbox)) as root:
            return os.fstat(root).st_dev == audio.device and not _has_inode(root, audio.inode)
    except OSError:
        return False


def _has_inode(root: int, inode: int) -> bool:
    waiting = [b""]
    while waiting:
        directory = waiting.pop()
        with closing(open_listable_folder(root, directory)) as folder, os.scandir(folder) as entries:
            for entry in entries:
                if entry.inode() == inode:
                    return True
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(os.path.join(directory, os.fsencode(entry.name)))
    return False
