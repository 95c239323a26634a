"""Reads small files and resolves paths, without waiting long for a disk."""

from __future__ import annotations

import codecs
import errno
import os
import stat
from collections.abc import Iterable
from concurrent.futures import wait
from pathlib import Path

from dropscribe.files.threads import DaemonThreads

_THREADS = 4
WAIT_SECONDS = 2.0  # limit for all paths of a config together


def read_small_file(path: Path, longest_bytes: int) -> tuple[bytes, os.stat_result]:
    """The content of the file at *path* and its status. A FIFO or a device is refused without waiting for it.

    Raises:
        OSError: It cannot be opened, is no regular file, or is longer than *longest_bytes*.
    """
    with open(path, "rb", opener=_open_at_once) as file:  # which refuses a folder
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "not a regular file", os.fspath(path))
        content = file.read(longest_bytes + 1)
    if len(content) > longest_bytes:
        raise OSError(errno.EFBIG, f"longer than {longest_bytes} bytes", os.fspath(path))
    return content, status


def _open_at_once(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK | os.O_NOCTTY)


def read_small_text(path: Path, longest_bytes: int) -> str:
    """The text of the small file at *path*; see :func:`read_small_file`.

    Raises:
        OSError: As :func:`read_small_file`, or it is not UTF-8.
    """
    content, _ = read_small_file(path, longest_bytes)
    try:
        return content.removeprefix(codecs.BOM_UTF8).decode()
    except UnicodeDecodeError:
        raise OSError(errno.EILSEQ, "not UTF-8", os.fspath(path)) from None


def real_paths(paths: Iterable[Path]) -> dict[Path, str]:
    """Each of *paths* without links and ``..``; by its name alone if its file system does not answer in time.

    Returns after at most :data:`WAIT_SECONDS`. A thread that waits for a dead mount is left behind.
    """
    threads = DaemonThreads(_THREADS, "real-paths")
    answers = {path: threads.submit(os.path.realpath, path) for path in paths}
    threads.shutdown(cancel_futures=False)
    done, _ = wait(answers.values(), WAIT_SECONDS)
    return {
        path: answer.result() if answer in done else os.path.normpath(path)
        for path, answer in answers.items()
    }
