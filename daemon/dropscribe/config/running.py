"""Stores the config that the daemon runs on in its state directory, for commands.

``status``, ``why`` and ``list`` need it after the file was edited and cannot be read any more.

Guarantees: the copy holds no secret and no section that only the daemon needs; a copy that is damaged, or
that was made from another file, counts as absent.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from dropscribe.config.credentials import Surroundings
from dropscribe.config.disk_reads import read_small_text
from dropscribe.config.load import default_state_dir, parse_config
from dropscribe.config.state_pointer import canonical_paths, point_to, pointed_state_dirs, remove_pointer
from dropscribe.config.yaml.document import substitute
from dropscribe.core.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from dropscribe.config.model import Config

RUNNING_NAME = "running-config.json"

_LONGEST_BYTES = 4_000_000
_LEFT_OUT = ("http", "metrics", "heartbeat", "hooks", "notify", "log")
"""Sections that no command needs: their secrets are missing in the copy."""

_STATE_DIR = re.compile(
    r"""^[ \t{]*["']?state_dir["']?[ \t]*:[ \t]*["']?([^"'#\n,}]+?)["']?[ \t]*(?:[,}#].*)?$""", re.MULTILINE
)


def store_running_config(config: Config) -> None:
    """Store *config* in its state directory, readable by its owner alone, and leave a pointer to it.

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
    if config.path is not None:
        point_to(config.state_dir, config.path, os.environ)


def load_last_config(config: Config) -> Config | None:
    """The config of the last daemon with *config*'s state directory and file; None where there is none."""
    return None if config.path is None else _load_from(config.state_dir, config.path, os.environ)


def remove_running_pointer(config: Config) -> None:
    """Remove the pointer at the daemon's end; the copy in the state directory remains."""
    if config.path is not None:
        remove_pointer(config.state_dir, config.path, os.environ)


def _reported(config: Config) -> dict[str, object]:
    """The sections that a command may need."""
    written = json.loads(config.source or "{}")
    return {name: value for name, value in written.items() if name not in _LEFT_OUT}


def is_edited(written: Config, running: Config) -> bool:
    """Whether *written*, just read from the file, differs from *running* in a section that commands need."""
    return _reported(written) != _reported(running)


def load_running_config(path: Path, *, environ: Mapping[str, str] | None = None) -> Config | None:
    """The config that a daemon made of the file at *path* when it last read it; None where there is none.

    The file itself may be broken or gone: only the path of the state directory is needed. These are tried:
    the running daemon's pointer, the line ``state_dir:``, the default, and ``state`` beside the file, where
    ``init`` puts it.
    """
    environ = os.environ if environ is None else environ
    path = path.absolute()
    found = (_load_from(state_dir, path, environ) for state_dir in _state_dirs(path, environ))
    return next((config for config in found if config is not None), None)


def _load_from(state_dir: Path, path: Path, environ: Mapping[str, str]) -> Config | None:
    try:
        stored = json.loads(read_small_text(state_dir / RUNNING_NAME, _LONGEST_BYTES))
        written = Path(stored["path"])
        if not set(canonical_paths(written)) & set(canonical_paths(path)):
            return None
        text = json.dumps(stored["config"], ensure_ascii=False)
        config, _ = parse_config(
            text,
            folder=written.parent,
            environ=environ,
            file=str(path),
            keys_needed=False,
            queue_needed=False,
        )
    except (OSError, ValueError, TypeError, KeyError, ConfigError):
        return None
    return config


def _state_dirs(path: Path, environ: Mapping[str, str]) -> Iterator[Path]:
    yield from pointed_state_dirs(path, environ)
    around = Surroundings(path.parent, environ)
    with contextlib.suppress(OSError):
        if found := _STATE_DIR.search(read_small_text(path, _LONGEST_BYTES)):
            yield around.absolute(substitute(found[1], environ)[0])
    yield default_state_dir(around)
    yield path.parent / "state"
