"""Prepares standard output and standard error, also if the caller closed them."""

from __future__ import annotations

import contextlib
import io
import os
import sys


def prepare_standard_streams() -> None:
    """Make the standard streams usable.

    A character that the terminal's encoding lacks is written as an escape. A stream that the caller closed
    (``>&-``) is opened again, so that no other file gets its descriptor; writing to it is an OSError.
    """
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDONLY)  # takes the lowest free descriptor, which is this one
    if sys.stdout is None:
        sys.stdout = open(1, "w", encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115  # stays open as long as we run
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def discard_unwritten_output() -> None:
    """Drop buffered output that cannot be written: Python would complain about it at its exit."""
    try:
        sys.stdout.flush()
    except OSError:
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
