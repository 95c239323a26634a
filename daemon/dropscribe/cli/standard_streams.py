"""Standard input, output and error that name themselves in errors and may be closed, full or broken.

Guarantees: a failed message to standard error never changes what a command does or its exit code; output that
cannot be written is dropped at the exit, where Python would complain about it.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import select
import sys
from typing import Any

from dropscribe.cli.writing import naming

STANDARD_OUTPUT = "standard output"
_STANDARD_INPUT = "standard input"
_CLOSED_MODES = (os.O_WRONLY, os.O_RDONLY, os.O_RDONLY)
"""Modes of the null device in the place of closed streams: reading or writing it is an OSError."""


class _Input(io.FileIO):
    def readinto(self, buffer: Any) -> int | None:
        with naming(_STANDARD_INPUT):
            return super().readinto(buffer)

    def readall(self) -> bytes:
        with naming(_STANDARD_INPUT):
            return super().readall()


class _Output(io.FileIO):
    def write(self, data: Any) -> int:
        with naming(STANDARD_OUTPUT):
            return super().write(data)


class _Messages(io.FileIO):
    def write(self, data: Any) -> int:
        with contextlib.suppress(OSError):
            return super().write(data)
        return len(data)


def prepare_standard_streams(*, is_own_process: bool) -> None:
    """Make the standard streams usable.

    A character that the terminal's encoding lacks is written as an escape. A stream that the caller closed
    (``>&-``) is opened again, so that no other file gets its descriptor; using it is an OSError.

    Args:
        is_own_process: Whether the streams may be replaced; if not, only their handling of such characters
            is changed.
    """
    if not is_own_process:
        for stream in (sys.stdout, sys.stderr):
            _escape_unknown_letters(stream)
        return
    for number, mode in enumerate(_CLOSED_MODES):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, mode)  # takes the lowest free descriptor, which is this one
    sys.stdin = _text(io.BufferedReader(_Input(0, "r", closefd=False)), sys.stdin)
    sys.stdout = _text(io.BufferedWriter(_Output(1, "w", closefd=False)), sys.stdout)
    sys.stderr = _text(io.BufferedWriter(_Messages(2, "w", closefd=False)), sys.stderr)
    for stream in (sys.stdout, sys.stderr):
        _escape_unknown_letters(stream)
    sys.stderr.reconfigure(line_buffering=True)


def _text(buffer: Any, like: Any) -> io.TextIOWrapper:
    """Text over *buffer*, in the encoding of the stream that Python made; None where that was closed."""
    if like is None:
        return io.TextIOWrapper(buffer, encoding="utf-8")
    return io.TextIOWrapper(
        buffer,
        encoding=like.encoding,
        errors=like.errors,
        line_buffering=like.line_buffering or like.write_through,
    )


def _escape_unknown_letters(stream: object) -> None:
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(errors="backslashreplace")


def require_standard_output() -> None:
    """Raise the OSError of writing to standard output, where the system knows it without any data.

    It knows it for a closed descriptor, a pipe without a reader and a device that is always full.
    """
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
    """Drop buffered output that cannot be written: Python would complain about it at its exit."""
    try:
        sys.stdout.flush()
    except OSError:
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
