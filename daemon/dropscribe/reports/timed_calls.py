"""Reads users' folders with a time limit, because a file system may never answer."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from concurrent.futures import Future, wait
from pathlib import Path
from typing import Any, TypeVar

from dropscribe.files.threads import DaemonThreads

T = TypeVar("T")
U = TypeVar("U")

ANSWER_SECONDS = 5.0  # limit for a few system calls; a slow share answers them in far less
LISTING_SECONDS = 60.0  # limit for the names of one folder, or the status of a thousand files
_MOST_THREADS = 1000  # more than places that hang; each answers one call at a time
_threads = DaemonThreads(_MOST_THREADS, "look")
_unanswered: dict[Future[Any], bytes] = {}
"""Calls that have not returned within their limit, and their places."""


def ask_disk(place: Path | bytes, look: Callable[[], T], *, seconds: float | None = None) -> T:
    """The result of *look*, which makes system calls on the file system of *place*, or its error.

    While a call on *place* or a folder above it is overdue, no further one is made: a mount that hangs costs
    one wait and one thread, however often it is asked. Without an answer after *seconds*, by default
    :data:`ANSWER_SECONDS`, the OSError is ETIMEDOUT; its thread does not keep the process.
    """
    path = os.fsencode(place)
    no_answer = OSError(errno.ETIMEDOUT, "its file system does not answer", os.fspath(place))
    if any(path == silent or path.startswith(silent + b"/") for silent in list(_unanswered.values())):
        raise no_answer
    answer = _threads.submit(look)
    wait((answer,), ANSWER_SECONDS if seconds is None else seconds)
    if not answer.done():
        _unanswered[answer] = path
        answer.add_done_callback(_unanswered.pop)
        raise no_answer
    return answer.result()


def ask_disk_or(otherwise: U, place: Path | bytes, look: Callable[[], T]) -> T | U:
    """The result of :func:`ask_disk`; *otherwise* where that raises OSError."""
    try:
        return ask_disk(place, look)
    except OSError:
        return otherwise


def is_there(path: bytes) -> bool:
    """Whether anything stands at *path*; False also where it may not be looked at, or no answer comes."""
    return ask_disk_or(False, path, lambda: stands_at(path))


def stands_at(path: bytes) -> bool:
    """Whether anything stands at *path*, without a time limit; OSError if the system does not say."""
    try:
        os.lstat(path)
    except OSError as error:
        if error.errno in {errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG}:
            return False
        raise
    return True
