"""Checks of a config against this system, for ``check`` alone: ``run`` never waits for them."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import stat
from collections.abc import Iterator
from concurrent.futures import wait
from dataclasses import replace
from pathlib import Path

from dropscribe.config.model import Config
from dropscribe.config.sections.provider_types import PROVIDER_TYPES
from dropscribe.config.sections.templates import template_problems
from dropscribe.core.errors import Problem
from dropscribe.core.text.printing import shell_word
from dropscribe.files.threads import DaemonThreads

WAIT_SECONDS = 5.0
_LONGEST_SOCKET_BYTES = 107  # limit of Linux (unix(7)), less the zero byte at the end


def system_problems(config: Config) -> tuple[Problem, ...]:
    """Problems of packages, programs, files and folders that *config* names; errors first.

    Files are waited for no longer than :data:`WAIT_SECONDS`: a file system that does not answer is a problem
    itself.
    """
    problems = list(_packages(config))  # without a limit: a large library is loaded for seconds
    thread = DaemonThreads(1, "system-checks")
    answer = thread.submit(problems.extend, _looks(config))
    thread.shutdown(cancel_futures=False)
    done, _ = wait((answer,), WAIT_SECONDS)
    found = [replace(problem, file=str(config.path or "")) for problem in list(problems)]
    found.sort(key=lambda problem: problem.warning)
    if not done:
        return (*found, Problem("a file system that the config names does not answer", warning=True))
    answer.result()
    return tuple(found)


def _looks(config: Config) -> Iterator[Problem]:
    yield from _hooks(config)
    if config.http and config.http.socket:
        yield from _socket(config.http.socket)
    file = config.metrics and config.metrics.file
    if file and not os.path.isdir(file.parent):
        yield Problem(f"{file.parent} is not a folder", path="metrics.file", hint="make it, or name another")
    elif file and os.path.exists(file) and not os.path.isfile(file):
        hint = "name another path"
        yield Problem(f"{file} is there and is not a file", path="metrics.file", hint=hint)
    for name, provider in config.providers.items():
        model = Path(provider.model or "")
        if provider.type == "local" and model.is_absolute() and not os.path.isfile(model / "model.bin"):
            hint = "name a directory with a model in CTranslate2's format"
            yield Problem(f"{model} holds no model.bin", path=f"providers.{name}.model", hint=hint)
    for name, rule in config.folders.items():
        for problem in template_problems(rule.template) if rule.template is not None else ():
            yield replace(problem, path=f"folders.{name}.template")


def _packages(config: Config) -> Iterator[Problem]:
    from importlib.metadata import entry_points  # noqa: PLC0415 - only for `check`

    for name, provider in config.providers.items():
        if provider.type not in PROVIDER_TYPES:
            try:
                entry_points(group="dropscribe.providers")[provider.type].load()
            except KeyboardInterrupt:
                raise
            except BaseException as error:  # noqa: BLE001 - third-party code, which may call sys.exit
                reason = f"its package cannot be loaded: {type(error).__name__}: {error}"
                yield Problem(reason, path=f"providers.{name}.type")


def _socket(path: Path) -> Iterator[Problem]:
    if len(os.fsencode(path)) > _LONGEST_SOCKET_BYTES:
        message = f"the path of the socket is longer than {_LONGEST_SOCKET_BYTES} bytes"
        yield Problem(message, path="http.listen", hint="choose a shorter one")
    elif not os.path.isdir(path.parent) and not path.is_relative_to("/run"):  # units make folders there
        yield Problem(f"{path.parent} is not a folder", path="http.listen", hint="make it, or name another")
    else:
        with contextlib.suppress(OSError):
            if not stat.S_ISSOCK(os.lstat(path).st_mode):
                message = f"{path} is there and is not a socket"
                yield Problem(message, path="http.listen", hint="choose another path")


def _hooks(config: Config) -> Iterator[Problem]:
    for event, (program, *_) in config.hooks.commands.items() if config.hooks else ():
        found = shutil.which(program, path=os.environ.get("PATH", os.defpath))
        hint = "name a program that is there, with its whole path"
        if found is not None and os.path.isfile(found):  # a FIFO may be executable, and is never opened
            hint = _interpreter_hint(found)
        elif "/" in program and os.path.isfile(program):
            hint = f"chmod +x {shell_word(program)}"
        if hint:
            yield Problem(f"'{program}' cannot be run", path=f"hooks.on_{event}", hint=hint)


def _interpreter_hint(program: str) -> str:
    """How to give the script *program* an interpreter that is there; "" if it has one or needs none."""
    try:
        with open(program, "rb") as file:
            first = file.read(256)
    except OSError:
        return ""
    if not first.startswith(b"#!"):
        return "" if b"\0" in first else "its first line must name its interpreter: #!/bin/sh"
    line = first[2:].partition(b"\n")[0].strip(b" \t")
    interpreter = os.fsdecode(re.split(rb"[ \t]", line)[0])
    is_there = os.path.isfile(interpreter)
    if line.endswith(b"\r") and (not is_there or os.path.basename(interpreter) == "env"):
        return "its lines end with carriage returns: remove them (sed -i 's/\\r$//')"
    return "" if is_there else f"its first line names {interpreter}, which is not there"
