"""Loads the config, or raises ConfigError with all problems."""

from __future__ import annotations

import codecs
import errno
import os
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from dropscribe.config.checks import check_config
from dropscribe.config.credentials import NO_KEY
from dropscribe.config.disk_reads import read_small_file
from dropscribe.config.document import UNSET, Document
from dropscribe.config.find import default_state_dir
from dropscribe.config.keys import Reader, keys_of
from dropscribe.config.model import Config
from dropscribe.core.errors import ConfigError, Problem

LONGEST_BYTES = 1_000_000

_KEYS = re.compile(
    r"providers\..+\.api_key(?:_file|_credential)?|(?:http\.token|notify\.webhook\.secret)(?:_file)?"
)
_SECRET_URLS = re.compile(r"heartbeat\.url|notify\.webhook\.url|notify\.urls(?:\[\d+\])?")
_DSN = re.compile(r"queue\.dsn(?:_file|_credential)?")


def load_config(
    path: Path,
    *,
    environ: Mapping[str, str] | None = None,
    keys_needed: bool = True,
    queue_needed: bool = True,
) -> tuple[Config, tuple[Problem, ...]]:
    """The config at *path*, and its warnings.

    Args:
        environ: For ``${NAME}``, keys and default places; default: the process's own.
        keys_needed: False for commands that send nothing: a missing key is then a warning, because the
            admin's shell often cannot read a service's keys (its environment file, its credentials).
        queue_needed: False for commands that only read the config: the same for the queue's dsn, which is
            empty if it is unavailable.

    Raises:
        ConfigError: There are errors; it carries all of them, and the warnings.
    """
    try:
        document = _read(path, environ if environ is not None else os.environ)
    except OSError as error:
        said, hint = f"cannot be read: {error.strerror}", ""
        if error.errno == errno.EFBIG:
            said = f"{error.strerror}: this is not a config"
        elif isinstance(error, FileNotFoundError):
            hint = "'dropscribe init' writes one"
        elif isinstance(error, PermissionError):
            hint = f"it must be readable by the user that runs dropscribe (uid {os.geteuid()} here)"
        raise ConfigError((Problem(said, file=str(path), hint=hint),)) from None
    whole = document.folder / path.name
    return checked_config(document, whole, keys_needed=keys_needed, queue_needed=queue_needed)


def locate_problems(problems: tuple[Problem, ...], path: Path) -> tuple[Problem, ...]:
    """Add the places of their keys in the config at *path* to *problems* that were found after loading."""
    try:
        document = _read(path, os.environ)
    except (OSError, ConfigError):
        return problems  # the file has been changed since it was loaded
    return tuple(map(document.located, problems))


def parse_config(
    text: str, *, folder: Path, environ: Mapping[str, str], keys_needed: bool = True
) -> tuple[Config, tuple[Problem, ...]]:
    """As :func:`load_config`, for text in memory; its relative paths begin at *folder*."""
    document = Document(text, "dropscribe.yaml", environ, folder=folder)
    return checked_config(document, keys_needed=keys_needed)


def checked_config(
    document: Document, path: Path | None = None, *, keys_needed: bool, queue_needed: bool = True
) -> tuple[Config, tuple[Problem, ...]]:
    """As :func:`load_config`, for a document that was read from *path*, or None for text in memory."""
    data = {name: value for name, value in document.data.items() if value is not None}
    values = Reader(document).section((), data, keys_of(Config)) or {}
    values.setdefault("state_dir", default_state_dir(document.folder, document.environ))
    config = Config(path=path, source=document.without_secrets((), document.data), **values)
    check_config(config, document)
    found = [
        replace(each, warning=each.warning or _is_excused(each, keys_needed, queue_needed))
        for each in document.problems
    ]
    problems = tuple(sorted(dict.fromkeys(found), key=lambda each: (each.line, each.column)))
    if any(not problem.warning for problem in problems):
        raise ConfigError(problems)
    return config, problems


def _is_excused(problem: Problem, keys_needed: bool, queue_needed: bool) -> bool:
    """Whether *problem* is one of a key or dsn that the command does not need."""
    if _DSN.fullmatch(problem.path):
        return not queue_needed
    # Whole urls in a variable; a mistake in a written one stays one.
    is_unset = problem.message.startswith(UNSET) and _SECRET_URLS.fullmatch(problem.path)
    is_of_key = problem.message == NO_KEY or _KEYS.fullmatch(problem.path)
    return not keys_needed and bool(is_unset or is_of_key)


def _read(path: Path, environ: Mapping[str, str]) -> Document:
    content, status = read_small_file(path, LONGEST_BYTES)
    try:
        text = content.removeprefix(codecs.BOM_UTF8).decode()
    except UnicodeDecodeError as error:
        *above, line = error.object[: error.start].split(b"\n")
        message, column = f"not UTF-8 (byte 0x{error.object[error.start]:02x})", len(line.decode()) + 1
        hint = "save the file as UTF-8"
        raise ConfigError((Problem(message, str(path), len(above) + 1, column, hint=hint),)) from None
    folder = Path(os.path.abspath(path)).parent
    return Document(text, str(path), environ, folder=folder, status=status)
