"""The error file of an audio that went back into its inbox (CONTRACT.md §4)."""

from __future__ import annotations

import contextlib
import json
import os

from dropscribe.core.naming import split_name

_MOST_BYTES = 16 * 1024 * 1024


def error_files_of(filed: bytes) -> tuple[bytes, bytes]:
    """Where the error file of an audio in ``failed`` may stand: by stem, or by full name."""
    folder, name = os.path.split(filed)
    return tuple(  # type: ignore[return-value]  # two names in, two paths out
        os.path.join(folder, base + b".error.json") for base in (split_name(name)[0], name)
    )


def read_error(path: bytes) -> dict[str, object] | None:
    """The error document at *path*; None where there is none, or none of ours."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            document = json.loads(file.read(_MOST_BYTES))
    except (OSError, ValueError):
        return None
    if isinstance(document, dict) and str(document.get("schema", "")).startswith("dropscribe.error/"):
        return document
    return None


def remove_error_file(filed: bytes) -> bool:
    """Remove the error file that dropscribe wrote beside *filed*, whose audio has gone.

    Returns:
        False while the audio is still there; True otherwise, whether a file was found or not.
    """
    if os.path.lexists(filed):
        return False
    suffix = split_name(os.path.basename(filed))[1]
    for path in error_files_of(filed):
        document = read_error(path)
        # call.error.json may as well be that of another call: call.mp3 beside call.wav.
        if document is not None and os.fsencode(str(document.get("file", ""))).endswith(suffix):
            with contextlib.suppress(OSError):
                os.unlink(path)
            break
    return True
