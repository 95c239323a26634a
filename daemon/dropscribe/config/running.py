"""Stores the config that the daemon runs on in its state directory, for commands.

``status``, ``why`` and ``list`` need it after the file was edited and cannot be read any more.

Guarantees: the copy holds no secret and no section that only the daemon needs; a copy that is damaged, or
that was made from another file, counts as absent.
"""

from __future__ import annotations

import json
import os
import re
from typing import TYPE_CHECKING

from dropscribe.config.credentials import Surroundings
from dropscribe.config.disk_reads import read_small_text
from dropscribe.config.load import default_state_dir, parse_config
from dropscribe.config.yaml.document import substitute
from dropscribe.core.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from dropscribe.config.model import Config

RUNNING_NAME = "running-config.json"

_LONGEST_BYTES = 4_000_000
_LEFT_OUT = ("http", "metrics", "heartbeat", "hooks", "notify", "log")
"""Sections that no command needs: their secrets are missing in the copy."""

_STATE_DIR = re.compile(r"^state_dir:[ \t]*[\"']?([^\"'#\n]+?)[\"']?[ \t]*(?:#.*)?$", re.MULTILINE)


def store_running_config(config: Config) -> None:
    """Store *config* in its state directory, readable by its owner alone.

    Raises:
        OSError: It cannot be written.
    """
    data = _reported(config)
    where = config.state_dir / RUNNING_NAME
    temporary = where.with_suffix(f".{os.getpid()}.tmp")
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
    with open(os.open(temporary, flags, 0o600), "w", encoding="utf-8") as file:
        json.dump({"path": str(config.path), "config": data}, file)
    temporary.replace(where)


def _reported(config: Config) -> dict[str, object]:
    """The sections that a command may need."""
    written = json.loads(config.source or "{}")
    return {name: value for name, value in written.items() if name not in _LEFT_OUT}


def is_edited(written: Config, running: Config) -> bool:
    """Whether *written*, just read from the file, differs from *running* in a section that commands need."""
    return _reported(written) != _reported(running)


def load_running_config(path: Path, *, environ: Mapping[str, str] | None = None) -> Config | None:
    """The config that a daemon made of the file at *path* when it last read it; None where there is none.

    The file itself may be broken or gone: only the path of the state directory is needed. It is taken from
    the line ``state_dir:`` if that can be found; else the default is tried, and ``state`` beside the file,
    where ``init`` puts it.
    """
    environ = os.environ if environ is None else environ
    path = path.absolute()
    around = Surroundings(path.parent, environ)
    found = (_load_from(state_dir, path, environ) for state_dir in _state_dirs(path, around))
    return next((config for config in found if config is not None), None)


def _load_from(state_dir: Path, path: Path, environ: Mapping[str, str]) -> Config | None:
    try:
        stored = json.loads(read_small_text(state_dir / RUNNING_NAME, _LONGEST_BYTES))
        if stored["path"] != str(path):
            return None
        text = json.dumps(stored["config"], ensure_ascii=False)
        config, _ = parse_config(
            text, folder=path.parent, environ=environ, file=str(path), keys_needed=False, queue_needed=False
        )
    except (OSError, ValueError, TypeError, KeyError, ConfigError):
        return None
    return config


def _state_dirs(path: Path, around: Surroundings) -> list[Path]:
    try:
        found = _STATE_DIR.search(read_small_text(path, _LONGEST_BYTES))
    except OSError:
        found = None
    if found is None:
        return [default_state_dir(around), path.parent / "state"]
    return [around.absolute(substitute(found[1], around.environ)[0])]
