"""Stores the config that the daemon runs on in its state directory, for commands.

``status``, ``why`` and ``list`` need it after the file was edited and cannot be read any more. While the
daemon runs, a pointer leads them to the state directory: a symbolic link, named after the config's path, in
the system service's runtime directory or else in the user's own state home.

Guarantees: the copy holds no secret and no section that only the daemon needs; a copy that is damaged, or
that was made from another file, counts as absent. Only a pointer of the caller, of root or of the system
service is followed. A pointer that is left over is harmless: the copy that it leads to names its own file.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from dropscribe.config.disk_reads import read_small_text
from dropscribe.config.document import Document, substitute
from dropscribe.config.find import absolute_path, default_state_dir, xdg_folder
from dropscribe.config.load import checked_config
from dropscribe.config.model import Config
from dropscribe.core.errors import ConfigError

RUNNING_NAME = "running-config.json"
SERVICE_FOLDER = Path("/run/dropscribe")
"""RuntimeDirectory= of the packaged unit. Only root makes folders in /run, so its owner may be trusted."""

_LONGEST_BYTES = 4_000_000
_LEFT_OUT = ("http", "metrics", "heartbeat", "hooks", "notify", "log")
"""Sections that no command needs: their secrets are missing in the copy."""

_STATE_DIR = re.compile(
    r"""^[ \t{]*["']?state_dir["']?[ \t]*:[ \t]*["']?([^"'#\n,}]+?)["']?[ \t]*(?:[,}#].*)?$""", re.MULTILINE
)


def store_running_config(config: Config) -> None:
    """Store *config* in its state directory, readable by its owner alone, and leave a pointer to it.

    Raises:
        OSError: It cannot be written; a pointer that cannot be left is no error.
    """
    where = config.state_dir / RUNNING_NAME
    temporary = where.with_suffix(f".{os.getpid()}.tmp")
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
    with open(os.open(temporary, flags, 0o600), "w", encoding="utf-8") as file:
        json.dump({"path": str(config.path), "config": _reported(config)}, file)
    temporary.replace(where)
    if config.path is not None:
        point_to(config.state_dir, config.path, os.environ)


def load_running_config(path: Path, *, environ: Mapping[str, str] | None = None) -> Config | None:
    """The config that a daemon made of the file at *path* when it last read it; None where there is none.

    Its path is the one by which the daemon reads the file, such as through a link to the file's folder.

    The file itself may be broken or gone: only the path of the state directory is needed. These are tried:
    the running daemon's pointer, the line ``state_dir:``, the default, and ``state`` beside the file, where
    ``init`` puts it.
    """
    environ = os.environ if environ is None else environ
    path = path.absolute()
    for state_dir in _state_dirs(path, environ):
        with contextlib.suppress(OSError, ValueError, TypeError, KeyError, ConfigError):
            stored = json.loads(read_small_text(state_dir / RUNNING_NAME, _LONGEST_BYTES))
            written, text = Path(stored["path"]), json.dumps(stored["config"], ensure_ascii=False)
            if not set(canonical_paths(written)).isdisjoint(canonical_paths(path)):
                document = Document(text, str(path), environ, folder=written.parent)
                return checked_config(document, written, keys_needed=False, queue_needed=False)[0]
    return None


def is_edited(written: Config, running: Config) -> bool:
    """Whether *written*, just read from the file, differs from *running* in a section that commands need."""
    return _reported(written) != _reported(running)


def _reported(config: Config) -> dict[str, object]:
    """The sections that a command may need."""
    return {name: value for name, value in config.source.items() if name not in _LEFT_OUT}


def _state_dirs(path: Path, environ: Mapping[str, str]) -> Iterator[Path]:
    yield from pointed_state_dirs(path, environ)
    with contextlib.suppress(OSError):
        if found := _STATE_DIR.search(read_small_text(path, _LONGEST_BYTES)):
            yield absolute_path(substitute(found[1], environ)[0], path.parent, environ)
    yield default_state_dir(path.parent, environ)
    yield path.parent / "state"


def pointed_state_dirs(path: Path, environ: Mapping[str, str]) -> Iterator[Path]:
    """The state directories that pointers of the config at *path* name."""
    for folder in (SERVICE_FOLDER, _user_folder(environ)):
        for each in canonical_paths(path):
            where = folder / _name_of(each)
            with contextlib.suppress(OSError):
                service = {folder.stat().st_uid} if folder == SERVICE_FOLDER else set()
                if where.lstat().st_uid in {0, os.geteuid(), *service}:
                    yield where.readlink()


def point_to(state_dir: Path, path: Path, environ: Mapping[str, str]) -> None:
    """Leave a pointer from the config at *path* to *state_dir*. Without a place for it there is none."""
    where = _pointer_of(path, environ)
    temporary = where.with_suffix(f".{os.getpid()}.tmp")
    with contextlib.suppress(OSError):
        where.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        temporary.unlink(missing_ok=True)  # of a crash; in a container each daemon has the same process id
        temporary.symlink_to(state_dir)
        temporary.replace(where)


def remove_pointer(state_dir: Path, path: Path | None, environ: Mapping[str, str]) -> None:
    """Remove the pointer of the config at *path*, unless it leads to another state directory by now."""
    with contextlib.suppress(OSError):
        if path is not None and (where := _pointer_of(path, environ)).readlink() == state_dir:
            where.unlink()


def _pointer_of(path: Path, environ: Mapping[str, str]) -> Path:
    """The pointer that this process writes for the config at *path*."""
    is_service = str(SERVICE_FOLDER) in environ.get("RUNTIME_DIRECTORY", "").split(":")
    folder = SERVICE_FOLDER if is_service else _user_folder(environ)
    return folder / _name_of(canonical_paths(path)[0])


def _user_folder(environ: Mapping[str, str]) -> Path:
    return xdg_folder(environ, "XDG_STATE_HOME", ".local/state") / "dropscribe"


def _name_of(path: Path) -> str:
    return "running-" + hashlib.sha256(os.fsencode(path)).hexdigest()[:32]


def canonical_paths(path: Path) -> tuple[Path, ...]:
    """*path* in its folder's real place; also the file that it links to there.

    A link into another folder is a config of its own: its relative paths begin at the link's folder.
    """
    folder = Path(os.path.realpath(path.parent))
    here, target = folder / path.name, Path(os.path.realpath(path))
    return (here, target) if target.parent == folder and target != here else (here,)
