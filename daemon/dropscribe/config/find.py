"""Finds the config file, without reading it and the imports that this needs, and the folders it implies."""

from __future__ import annotations

import contextlib
import os
import pwd
from collections.abc import Mapping
from pathlib import Path

from dropscribe.core.errors import ConfigError, Problem

SYSTEM_CONFIG = Path("/etc/dropscribe/config.yaml")
LOCAL_CONFIG = Path("dropscribe.yaml")

_ABSENT = "there is no such file"


def find_config(explicit: str | None, *, environ: Mapping[str, str] | None = None) -> Path:
    """The config file: ``-c``, ``$DROPSCRIBE_CONFIG``, ./dropscribe.yaml, the user's, the system's.

    Without ``-c`` and the variable, a file that cannot be read counts as absent, and so does a
    ./dropscribe.yaml that another user could have written: it could send recordings and keys anywhere.

    Raises:
        ConfigError: There is none. The problems name the files that were skipped, and why.
    """
    environ = os.environ if environ is None else environ
    variable = environ.get("DROPSCRIBE_CONFIG")
    if name := explicit or variable:
        path, giver = Path(name), "-c" if explicit else "$DROPSCRIBE_CONFIG"
        if not os.path.lexists(name) and _why_not_readable(path) == _ABSENT:
            hint = "'dropscribe init' writes one"
            raise ConfigError((Problem(f"{giver} names {path}, and there is no such file", hint=hint),))
        return path  # readable or not: reading it names the reason
    candidates = [LOCAL_CONFIG, *default_configs(environ)]
    skipped = []
    for path in candidates:
        reason = (_why_not_trusted(path) if path == LOCAL_CONFIG else "") or _why_not_readable(path)
        if not reason:
            return path
        if reason != _ABSENT:
            skipped.append(Problem(f"skipped: {reason}", file=str(path), warning=True))
    names = ", ".join("./dropscribe.yaml" if path == LOCAL_CONFIG else str(path) for path in candidates)
    hint = "'dropscribe init' writes one; -c CONFIG names another"
    raise ConfigError((Problem(f"no config: looked for {names}", hint=hint), *skipped))


def default_configs(environ: Mapping[str, str]) -> list[Path]:
    """The user's config and the system's, there or not."""
    return [xdg_folder(environ, "XDG_CONFIG_HOME", ".config") / "dropscribe" / "config.yaml", SYSTEM_CONFIG]


def _why_not_readable(path: Path) -> str:
    """Reason why *path* is no file that can be read, or ""; a FIFO is not waited for."""
    try:
        os.close(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC))
        return "" if path.is_file() else "it cannot be read: not a regular file"
    except (FileNotFoundError, NotADirectoryError):
        return _ABSENT
    except OSError as error:
        return f"it cannot be read: {error.strerror}"


def _why_not_trusted(path: Path) -> str:
    """Reason why another user could have written *path*; "" if only the caller or root could."""
    with contextlib.suppress(OSError):  # opening it names the reason
        for status, what in ((path.stat(), "the file"), (path.absolute().parent.stat(), "its folder")):
            if status.st_uid not in {os.geteuid(), 0}:
                return f"{what} belongs to another user (uid {status.st_uid})"
            if status.st_mode & 0o022 and not _is_private_group(status):
                return f"other users may write to {what} (mode {status.st_mode & 0o7777:04o})"
    return ""


def _is_private_group(status: os.stat_result) -> bool:
    """Whether the write bit is only the group's, and only the caller is in that group."""
    import grp  # noqa: PLC0415 - for a file that its group may write

    try:
        user, group = pwd.getpwuid(os.geteuid()), grp.getgrgid(status.st_gid)
    except KeyError:
        return False
    is_alone = group.gr_name == user.pw_name and set(group.gr_mem) <= {user.pw_name}
    return is_alone and not status.st_mode & 0o002


def absolute_path(text: str, folder: Path, environ: Mapping[str, str]) -> Path:
    """*text*, a path in a config in *folder*, as an absolute path; ``~`` is the home of *environ*."""
    if text == "~" or text.startswith("~/"):
        return home_folder(environ) / text[2:]
    return folder / text


def default_state_dir(folder: Path, environ: Mapping[str, str]) -> Path:
    """The default: systemd's folder, the system's for a config in /etc/dropscribe, else the user's."""
    if given := environ.get("STATE_DIRECTORY", "").split(":")[0]:
        return Path(given)
    if folder == SYSTEM_CONFIG.parent:
        return Path("/var/lib/dropscribe")
    return xdg_folder(environ, "XDG_STATE_HOME", ".local/state") / "dropscribe"


def home_folder(environ: Mapping[str, str]) -> Path:
    """``$HOME``; if it is unset, empty or relative, the home in the password database."""
    home = environ.get("HOME", "")
    if not home.startswith("/"):
        with contextlib.suppress(KeyError):
            home = pwd.getpwuid(os.geteuid()).pw_dir
    return Path(home if home.startswith("/") else "/nonexistent")


def xdg_folder(environ: Mapping[str, str], variable: str, below_home: str) -> Path:
    """The folder in *variable*, such as ``XDG_STATE_HOME``; else its default below the home."""
    given = environ.get(variable, "")
    return Path(given) if given.startswith("/") else home_folder(environ) / below_home
