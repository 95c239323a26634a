"""Checks of a config against this system, for ``check`` alone: ``run`` never waits for them."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
from concurrent.futures import wait
from pathlib import Path
from typing import TYPE_CHECKING

from dropscribe.config.sections.templates import TEMPLATE_NAMES, problem_of, undeclared_names
from dropscribe.core.errors import Problem
from dropscribe.files.threads import DaemonThreads

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dropscribe.config.model import Config

WAIT_SECONDS = 5.0
_LONGEST_SOCKET_BYTES = 107  # limit of Linux (unix(7)), less the zero byte at the end


def system_problems(config: Config) -> tuple[Problem, ...]:
    """Problems of programs, files and folders that *config* names.

    Returns after at most :data:`WAIT_SECONDS`: a file system that does not answer is a problem itself.
    """
    problems: list[Problem] = []

    def look() -> None:
        for is_warning, found in ((False, _looks(config)), (True, _doubts(config))):
            for path, message, hint in found:
                file = str(config.path or "")
                problems.append(Problem(message, file=file, path=path, hint=hint, warning=is_warning))

    thread = DaemonThreads(1, "system-checks")
    answer = thread.submit(look)
    thread.shutdown(cancel_futures=False)
    done, _ = wait((answer,), WAIT_SECONDS)
    if not done:
        return (*problems, Problem("a file system that the config names does not answer", warning=True))
    answer.result()
    return tuple(problems)


def _doubts(config: Config) -> Iterator[tuple[str, str, str]]:
    """(path, message, hint) of each warning."""
    for name, rule in config.folders.items():
        if rule.template is not None and (names := undeclared_names(rule.template)):
            message = f"{rule.template} uses {', '.join(names)}, which no transcript gives it"
            yield f"folders.{name}.template", message, f"a template has {', '.join(TEMPLATE_NAMES)}"


def _looks(config: Config) -> Iterator[tuple[str, str, str]]:
    """(path, message, hint) of each error."""
    yield from _hooks(config)
    yield from _socket(config)
    if config.metrics and not config.metrics.file.parent.is_dir():
        yield "metrics.file", f"{config.metrics.file.parent} is not a folder", "make it, or name another"
    elif config.metrics and config.metrics.file.is_dir():
        yield "metrics.file", f"{config.metrics.file} is a folder", "name a file in it"
    for name, provider in config.providers.items():
        model = Path(provider.model or "")
        if provider.type == "local" and model.is_absolute() and not (model / "model.bin").is_file():
            hint = "name a directory with a model in CTranslate2's format"
            yield f"providers.{name}.model", f"{model} holds no model.bin", hint
    for name, rule in config.folders.items():
        if rule.template is not None and (problem := problem_of(rule.template)):
            yield f"folders.{name}.template", *problem


def _socket(config: Config) -> Iterator[tuple[str, str, str]]:
    path = config.http.socket if config.http else None
    if path is None:
        return
    if len(os.fsencode(path)) > _LONGEST_SOCKET_BYTES:
        message = f"the path of the socket is longer than {_LONGEST_SOCKET_BYTES} bytes"
        yield "http.listen", message, "choose a shorter one"
    elif not path.parent.is_dir() and not path.is_relative_to("/run"):  # units make folders there
        yield "http.listen", f"{path.parent} is not a folder", "make it, or name another"
    else:
        with contextlib.suppress(OSError):
            if not stat.S_ISSOCK(os.lstat(path).st_mode):
                yield "http.listen", f"{path} is there and is not a socket", "choose another path"


def _hooks(config: Config) -> Iterator[tuple[str, str, str]]:
    for event, argv in config.hooks.commands.items() if config.hooks else ():
        if shutil.which(argv[0], path=os.environ.get("PATH", os.defpath)) is None:
            is_there = "/" in argv[0] and os.path.exists(argv[0])
            hint = f"chmod +x {argv[0]}" if is_there else "name a program that is there, with its whole path"
            yield f"hooks.on_{event}", f"'{argv[0]}' cannot be run", hint
