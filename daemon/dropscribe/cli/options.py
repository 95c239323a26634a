"""Loads the config for commands that do not run the daemon, and finds providers and folders in it."""

from __future__ import annotations

import argparse
import contextlib
import os
import pwd
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TypeVar

from dropscribe.cli.messages import say
from dropscribe.config.find import default_configs, find_config
from dropscribe.config.load import load_config
from dropscribe.config.model import Config, ProviderConfig
from dropscribe.config.running import is_edited, load_running_config
from dropscribe.core.errors import ConfigError, Problem
from dropscribe.core.text.printing import did_you_mean
from dropscribe.reports.queue_reader import is_running_here
from dropscribe.reports.wording import printable_line

T = TypeVar("T")


def read_config(options: argparse.Namespace, *, acts: bool = True, keys_needed: bool = False) -> Config:
    """The config that *options* name, or ConfigError.

    A command that *acts*, changes or sends something, names it on a terminal. With *keys_needed* a key that
    is unavailable here is an error.
    """
    path = find_config(options.config)
    config = load_config(_path_of_daemon(load_running_config(path), path), keys_needed=keys_needed)[0]
    if acts and sys.stderr.isatty():
        say(f"config: {printable_line(str(config.path))}")
    return config


def read_reporting_config(options: argparse.Namespace) -> Config:
    """The config that the daemon runs on, from its copy in the state directory; without one, the file's.

    If the file has become invalid, reports use the last config that a daemon ran on; a message says so.
    ConfigError: the file cannot be used, and no daemon has run on it.
    """
    path = _path_of(options)
    written, broken, running = None, ConfigError(()), load_running_config(path)
    try:
        written = load_config(_path_of_daemon(running, path), keys_needed=False)[0]
    except ConfigError as error:
        broken = error
    if running is None or (running.queue and not running.queue.dsn.reveal()):
        running = written
    if running is None:
        raise broken
    is_up = bool(is_running_here(running))
    if written is not None and not (is_up and is_edited(written, running)):
        return written
    state = "was edited since" if written else "cannot be used as it is now ('dropscribe check' tells why)"
    runs = "runs" if is_up else "last ran"
    say(f"{printable_line(str(path))} {state}; this is from the config that dropscribe {runs} on")
    return running


def _path_of_daemon(running: Config | None, path: Path) -> Path:
    """The config's path as the daemon has it, else *path*: the queue knows files by paths that begin so.

    Not one with a folder or a link of another user, who could lead root's commands to a config of his own.
    """
    known = None if running is None else running.path
    with contextlib.suppress(OSError):
        if known is not None and all(each.lstat().st_uid in {0, os.geteuid()} for each in known.parents):
            return known
    return path


def _path_of(options: argparse.Namespace) -> Path:
    """The config's path, even if a file that was named is gone."""
    try:
        return find_config(options.config)
    except ConfigError:
        if given := options.config or os.environ.get("DROPSCRIBE_CONFIG"):
            return Path(given)
        for path in default_configs(os.environ):
            if load_running_config(path) is not None:
                return path
        raise


def act_as_owner(config: Config) -> None:
    """Change permanently from root to the owner of the state directory.

    Droppers can write in the folders that a command works in; if they won a race against root, it would give
    them any file of the machine. Nothing changes for other users, or if no daemon has run yet.
    """
    try:
        owner = os.stat(config.state_dir)
    except OSError:
        return
    if os.geteuid() != 0 or owner.st_uid == 0:
        return
    try:
        user = pwd.getpwuid(owner.st_uid)
    except KeyError:
        os.setgroups([])
        group = owner.st_gid
    else:
        group = user.pw_gid
        os.initgroups(user.pw_name, group)
    os.setresgid(group, group, group)
    os.setresuid(owner.st_uid, owner.st_uid, owner.st_uid)


def named(parts: Mapping[str, T], kind: str, name: str, config: Config) -> T:
    """The provider or folder called *name*; ConfigError, with the likely name, if there is none."""
    if name not in parts:
        words, hint = f"there is no {kind} {name!r}", did_you_mean(name, parts)
        raise ConfigError((Problem(words, file=str(config.path or ""), hint=hint),))
    return parts[name]


def log_to_stderr(providers: Iterable[ProviderConfig]) -> None:
    """Send log lines of warnings and errors to standard error, because standard output is the command's."""
    from dropscribe.service.logs import configure_logging  # noqa: PLC0415  # commands without a log do not load it

    configure_logging("warning", secrets=[each.api_key.reveal() for each in providers if each.api_key])
