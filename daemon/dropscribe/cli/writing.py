"""Writes new files for commands; errors name the file."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextlib.contextmanager
def naming(place: str) -> Iterator[None]:
    """Put *place* into an OSError of the block that names no file."""
    try:
        yield
    except OSError as error:
        error.filename = error.filename or place
        raise


def write_new(path: str, content: bytes, mode: int = 0o666) -> None:
    """Write a file that is not there yet; on an error nothing of it is left.

    Raises:
        FileExistsError: Something is at *path*.
        OSError: It cannot be written.
    """
    descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, mode)
    try:
        with naming(path), open(descriptor, "wb") as file:
            file.write(content)
    except BaseException:
        os.unlink(path)
        raise
