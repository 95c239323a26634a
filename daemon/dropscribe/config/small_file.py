"""Reads a small regular file whole: the config, a file with a key, a list of words."""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def read_small_file(path: Path, longest_bytes: int) -> tuple[bytes, os.stat_result]:
    """The content of the file at *path* and its status. A FIFO or a device is refused without waiting for it.

    Raises:
        OSError: It cannot be opened, is no regular file, or is longer than *longest_bytes*.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    with open(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if stat.S_ISDIR(status.st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), os.fspath(path))
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "not a regular file", os.fspath(path))
        content = file.read(longest_bytes + 1)
    if len(content) > longest_bytes:
        raise OSError(errno.EFBIG, f"longer than {longest_bytes} bytes", os.fspath(path))
    return content, status


def read_small_text(path: Path, longest_bytes: int) -> str:
    """The same as text.

    Raises:
        OSError: As :func:`read_small_file`, or it is not UTF-8.
    """
    content, _ = read_small_file(path, longest_bytes)
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise OSError(errno.EILSEQ, "not UTF-8", os.fspath(path)) from None
