"""A command's process: its standard streams and the files that it writes.

Guarantees: a failed message to standard error never changes what a command does or its exit code; errors of
standard input and output name them; output that cannot be written is dropped at the exit, where Python would
complain about it.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import select
import sys
from collections.abc import Iterator
from typing import Any

STANDARD_OUTPUT = "standard output"
_MESSAGES = 2  # the descriptor of standard error
_CLOSED_MODES = (os.O_WRONLY, os.O_RDONLY, os.O_RDONLY)
"""Modes of the null device in the place of closed streams: reading or writing it is an OSError."""


@contextlib.contextmanager
def naming(place: str) -> Iterator[None]:
    """Put *place* into an OSError of the block that names no file."""
    try:
        yield
    except OSError as error:
        error.filename = error.filename or place
        raise


class _Stream(io.FileIO):
    """A standard stream: its errors name it; those of standard error, which has the messages, are dropped."""

    def readinto(self, buffer: Any) -> int | None:
        with naming("standard input"):
            return super().readinto(buffer)

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except OSError as error:
            if self.fileno() == _MESSAGES:
                return len(data)
            error.filename = STANDARD_OUTPUT
            raise


def prepare_standard_streams(*, is_own_process: bool) -> None:
    """Make the standard streams usable; without *is_own_process* only the way of their escapes changes.

    A character that the terminal's encoding lacks is written as an escape. A stream that the caller closed
    (``>&-``) is opened again, so that no other file gets its descriptor; using it is an OSError.
    """
    if is_own_process:
        for number, mode in enumerate(_CLOSED_MODES):
            try:
                os.fstat(number)
            except OSError:
                os.open(os.devnull, mode)  # takes the lowest free descriptor, which is this one
        sys.stdin = _text(io.BufferedReader(_Stream(0, "r", closefd=False)), sys.stdin)
        sys.stdout = _text(io.BufferedWriter(_Stream(1, "w", closefd=False)), sys.stdout)
        sys.stderr = _text(io.BufferedWriter(_Stream(_MESSAGES, "w", closefd=False)), sys.stderr)
        sys.stderr.reconfigure(line_buffering=True)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _text(buffer: Any, like: Any) -> io.TextIOWrapper:
    """Text over *buffer*, in the encoding of the stream that Python made; None where that was closed."""
    if like is None:
        return io.TextIOWrapper(buffer, encoding="utf-8")
    line_buffering = like.line_buffering or like.write_through
    return io.TextIOWrapper(buffer, encoding=like.encoding, errors=like.errors, line_buffering=line_buffering)


def require_standard_output() -> None:
    """Raise the OSError of a standard output that is closed, always full, or a pipe without a reader."""
    try:
        descriptor = sys.stdout.fileno()
    except (OSError, ValueError):
        return  # a caller's own object
    with naming(STANDARD_OUTPUT):
        os.write(descriptor, b"")
        waiting = select.poll()
        waiting.register(descriptor, 0)
        if any(events & select.POLLERR for _, events in waiting.poll(0)):
            raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))


def discard_unwritten_output() -> None:
    """Drop buffered output that cannot be written."""
    try:
        sys.stdout.flush()
    except OSError:
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def write_new(path: str, content: bytes, mode: int = 0o666) -> None:
    """Write a file that is not there yet, or raise OSError; on an error nothing of it is left."""
    descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, mode)
    try:
        with naming(path), open(descriptor, "wb") as file:
            file.write(content)
    except BaseException:
        os.unlink(path)
        raise
