"""Names the state directory of a running daemon, for commands whose config file does not name it any more.

The pointer is a symbolic link to the state directory, under a name derived from the config's path. It lies in
the system service's runtime directory, else in the user's own state home.

Guarantees: only a pointer of the caller, of root or of the system service is followed. A pointer that is left
over is harmless: the stored config that it leads to names its own file, and its daemon is seen to be down.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

from dropscribe.config.home import xdg_folder

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

SERVICE_FOLDER = Path("/run/dropscribe")
"""RuntimeDirectory= of the packaged unit. Only root makes folders in /run, so its owner may be trusted."""


def canonical_paths(path: Path) -> tuple[Path, ...]:
    """*path* in its folder's real place; also the file that it links to there.

    A link into another folder is a config of its own: its relative paths begin at the link's folder.
    """
    folder = Path(os.path.realpath(path.parent))
    here, target = folder / path.name, Path(os.path.realpath(path))
    return (here, target) if target.parent == folder and target != here else (here,)


def point_to(state_dir: Path, path: Path, environ: Mapping[str, str]) -> None:
    """Leave a pointer from the config at *path* to *state_dir*. Without a place for it there is none."""
    where = _writing_folder(environ) / _name_of(canonical_paths(path)[0])
    temporary = where.with_suffix(f".{os.getpid()}.tmp")
    with contextlib.suppress(OSError):
        where.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        temporary.symlink_to(state_dir)
        temporary.replace(where)


def remove_pointer(state_dir: Path, path: Path, environ: Mapping[str, str]) -> None:
    """Remove the pointer of the config at *path*, unless it leads to another state directory by now."""
    where = _writing_folder(environ) / _name_of(canonical_paths(path)[0])
    with contextlib.suppress(OSError):
        if where.readlink() == state_dir:
            where.unlink()


def pointed_state_dirs(path: Path, environ: Mapping[str, str]) -> Iterator[Path]:
    """The state directories that pointers of the config at *path* name."""
    for folder in (SERVICE_FOLDER, _user_folder(environ)):
        for each in canonical_paths(path):
            where = folder / _name_of(each)
            with contextlib.suppress(OSError):
                if _is_trusted(where):
                    yield where.readlink()


def _is_trusted(where: Path) -> bool:
    trusted = {0, os.geteuid()}
    if where.parent == SERVICE_FOLDER:
        trusted.add(where.parent.stat().st_uid)
    return where.lstat().st_uid in trusted


def _name_of(path: Path) -> str:
    return "running-" + hashlib.sha256(os.fsencode(path)).hexdigest()[:32]


def _writing_folder(environ: Mapping[str, str]) -> Path:
    is_service = str(SERVICE_FOLDER) in environ.get("RUNTIME_DIRECTORY", "").split(":")
    return SERVICE_FOLDER if is_service else _user_folder(environ)


def _user_folder(environ: Mapping[str, str]) -> Path:
    return xdg_folder(environ, "XDG_STATE_HOME", ".local/state") / "dropscribe"
