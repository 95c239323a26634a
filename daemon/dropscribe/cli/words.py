"""Errors into words: what happened, to which file, what to do; and the exit code."""

from __future__ import annotations

import sys
import traceback

from dropscribe.cli import exits
from dropscribe.config.problems import format_problem
from dropscribe.core.errors import (
    AudioError,
    ConfigError,
    DropscribeError,
    ProviderError,
    StoreError,
    StoreInUse,
)
from dropscribe.service.http import ListenError
from dropscribe.transcripts.document import path_text


def say(text: str) -> None:
    """One line, or more, to standard error; bytes that are no UTF-8 do not stop it."""
    sys.stderr.write(printable(text) + "\n")


def printable(text: str) -> str:
    """*text* with nothing in it that a terminal would obey or that cannot be encoded."""
    escaped = text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return "".join(
        letter if letter in "\n\t" or letter.isprintable() else letter.encode("unicode_escape").decode()
        for letter in escaped
    )


def show_path(path: bytes) -> str:
    """A path for people, on one line."""
    return printable(path_text(path)).replace("\n", "\\n").replace("\t", "\\t")


def explain(error: Exception) -> int:
    """Say what *error* means and return the exit code; a traceback only for a bug of ours."""
    match error:
        case ConfigError():
            for problem in error.problems:
                say(format_problem(problem))
            return exits.CONFIG
        case StoreError():
            say(f"dropscribe: {error.path}: {error.reason}" + (f"\n  {error.remedy}" if error.remedy else ""))
            return exits.IN_USE if isinstance(error, StoreInUse) else exits.IO_ERROR
        case ListenError():
            say(f"dropscribe: http.listen {error.address}: {error.reason}")
            return exits.IO_ERROR
        case AudioError():
            say(f"dropscribe: {show_path(error.path)}: {error.reason}")
            return exits.IO_ERROR
        case ProviderError():
            say(f"dropscribe: {error.reason} (code {error.code})")
            return exits.SOME_FAILED
        case OSError():
            place = f"{error.filename}: " if error.filename else ""
            say(f"dropscribe: {place}{error.strerror or error}")
            return exits.IO_ERROR
        case DropscribeError():
            say(f"dropscribe: {error}")
            return exits.IO_ERROR
        case _:
            traceback.print_exception(error)
            say("dropscribe: this is a bug; please report it with the lines above")
            return exits.BUG
