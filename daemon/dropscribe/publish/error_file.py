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
    from collections.abc import Collection, Mapping

ERROR_ENDING = b".error.json"
_MOST_BYTES = 16 * 1024 * 1024


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
            with open(descriptor, "rb", closefd=False) as file:
                document = json.loads(file.read(_MOST_BYTES))
    except (OSError, ValueError, RecursionError):
        return None
    if isinstance(document, dict) and str(document.get("schema", "")).startswith("dropscribe.error/"):
        return document
    return None


def find_error(
    folder: int, audio: bytes, believed: Collection[int] | None = None
) -> tuple[bytes, dict[str, object]]:
    """Name and document of the error file of *audio* in the open *folder*; b"" and {} if there is none.

    It is named by the audio's stem or by its full name. *believed* as above.
    """
    stem, suffix = split_name(audio)
    for name in (stem + ERROR_ENDING, audio + ERROR_ENDING):
        document = read_error(folder, name, believed) or {}
        original = original_name(document)
        # call.error.json may as well be that of another call: call.mp3 beside call.wav.
        if original is not None and split_name(original)[1] == suffix:
            return name, document
    return b"", {}


def original_name(document: Mapping[str, object]) -> bytes | None:
    """The audio's name in its inbox, as the error *document* has it; None for a path or a hidden name."""
    written = str(document.get("file") or ".")
    if written.startswith(".") or not {"/", "\0"}.isdisjoint(written):
        return None
    try:
        return os.fsencode(written)
    except UnicodeEncodeError:  # a lone surrogate, which no file name has
        return None


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
            error, _ = find_error(folder, name)
            status = stat_at(folder, error) if error else None
            if status is not None and stat.S_ISREG(status.st_mode):
                os.unlink(error, dir_fd=folder)
    except OSError:
        return True
    return True
