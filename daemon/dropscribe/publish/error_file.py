"""The error file beside an audio in ``failed``: read, and removed once its audio has gone back.

Guarantees: it is reached by descriptor, and no link is followed; nothing but a regular file is read.
"""

from __future__ import annotations

import json
import os
import stat
from typing import TYPE_CHECKING

from dropscribe.core.naming import split_name
from dropscribe.files.beneath import closing, open_at, open_file, stat_at

if TYPE_CHECKING:
    from collections.abc import Collection

_MOST_BYTES = 16 * 1024 * 1024


def error_names(audio: bytes) -> tuple[bytes, bytes]:
    """The names that the error file of the audio *audio* may have: by stem, or by full name."""
    return split_name(audio)[0] + b".error.json", audio + b".error.json"


def own_uids() -> frozenset[int]:
    """Users whose error files are accepted without the queue: this process's and root."""
    return frozenset({0, os.geteuid()})


def read_error(folder: int, name: bytes, believed: Collection[int] | None = None) -> dict[str, object] | None:
    """The error document *name* in the open *folder*; None if there is none of dropscribe's.

    Args:
        believed: User ids that may have written it; None for all.
    """
    try:
        with closing(open_file(folder, name)) as descriptor:
            if believed is not None and os.fstat(descriptor).st_uid not in believed:
                return None
            document = json.loads(_content(descriptor))
    except (OSError, ValueError, RecursionError):
        return None
    if isinstance(document, dict) and str(document.get("schema", "")).startswith("dropscribe.error/"):
        return document
    return None


def _content(descriptor: int) -> bytes:
    with open(descriptor, "rb", closefd=False) as file:
        return file.read(_MOST_BYTES)


def remove_error_file(root: bytes, path: bytes) -> bool:
    """Remove the error file that dropscribe wrote beside the audio *path* below ``failed``, which has gone.

    Returns:
        False while the audio is still there; True otherwise, whether a file was found or not.
    """
    directory, _, name = path.rpartition(b"/")
    try:
        with closing(open_at(root, directory)) as folder:
            if stat_at(folder, name) is not None:
                return False
            _remove_of(folder, name)
    except OSError:
        return True
    return True


def _remove_of(folder: int, audio: bytes) -> None:
    suffix = split_name(audio)[1]
    for name in error_names(audio):
        document = read_error(folder, name)
        # call.error.json may as well be that of another call: call.mp3 beside call.wav.
        if document is not None and os.fsencode(str(document.get("file", ""))).endswith(suffix):
            status = stat_at(folder, name)
            if status is not None and stat.S_ISREG(status.st_mode):
                os.unlink(name, dir_fd=folder)
            break
