"""Messages on standard error: errors (problem, file, remedy) with their exit codes, and progress."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
import traceback
from collections.abc import Iterator

from dropscribe.cli import exit_codes
from dropscribe.core.errors import (
    AudioError,
    ConfigError,
    DropscribeError,
    ListenError,
    ProviderError,
    StoreError,
    StoreInUse,
)
from dropscribe.reports.wording import clock_words, printable, printable_line, show_path

_TICK_SECONDS = 0.5


def say(text: str) -> None:
    """Print *text* to standard error, also if it has bytes that are not UTF-8."""
    sys.stderr.write(printable(text) + "\n")


def report_error(error: Exception) -> int:
    """Print the message of *error* and return the exit code; a traceback only for a bug."""
    if isinstance(error, ConfigError):
        for problem in error.problems:
            say(str(problem))
        return exit_codes.CONFIG
    text, code = _words_and_code(error)
    if code == exit_codes.BUG:
        traceback.print_exception(error)
    say(f"dropscribe: {text}")
    return code


def report_file_error(file: bytes, error: Exception) -> int:
    """Print the message of *error* for one of several files and return its exit code."""
    text, code = _words_and_code(error)
    if isinstance(error, AudioError):
        text = error.reason
    has_place = isinstance(error, OSError) and error.filename
    say(f"dropscribe: {text if has_place else f'{show_path(file)}: {text}'}")
    return code


def _words_and_code(error: Exception) -> tuple[str, int]:  # noqa: PLR0911 - one row an error: a table
    match error:
        case StoreError(path=path, reason=reason, remedy=remedy):
            code = exit_codes.IN_USE if isinstance(error, StoreInUse) else exit_codes.IO_ERROR
            return f"{printable_line(path)}: {reason}" + (f"\n  {remedy}" if remedy else ""), code
        case ListenError(address=address, reason=reason):
            return f"http.listen {address}: {reason}", exit_codes.IO_ERROR
        case AudioError(path=path, reason=reason):
            return f"{show_path(path)}: {reason}", exit_codes.IO_ERROR
        case ProviderError(reason=reason, code=code):
            return f"{reason} (code {code})", exit_codes.SOME_FAILED
        case FileNotFoundError() if _is_current_folder_gone():
            return "the current folder has been removed: change to another one", exit_codes.IO_ERROR
        case OSError(filename=str() | bytes() as place) if place:
            return f"{show_path(os.fsencode(place))}: {error.strerror}", exit_codes.IO_ERROR
        case OSError(strerror=reason) if reason:
            return reason, exit_codes.IO_ERROR
        case OSError() | DropscribeError():
            return str(error), exit_codes.IO_ERROR
        case _:
            return "this is a bug; please report it with the lines above", exit_codes.BUG


def _is_current_folder_gone() -> bool:
    try:
        os.getcwd()
    except FileNotFoundError:
        return True
    return False


@contextlib.contextmanager
def showing_progress(words: str) -> Iterator[None]:
    """Show *words* and the time while the block runs, on a terminal only."""
    if not sys.stderr.isatty():
        yield
        return
    ended = threading.Event()
    began = time.monotonic()

    def tick() -> None:
        while not ended.wait(_TICK_SECONDS):
            sys.stderr.write(f"\r{words}, {clock_words(time.monotonic() - began)} \x1b[K")
            sys.stderr.flush()
        sys.stderr.write("\r\x1b[K")
        sys.stderr.flush()

    thread = threading.Thread(target=tick, name="progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
