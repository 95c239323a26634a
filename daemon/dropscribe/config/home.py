"""Finds the user's own folders in the environment."""

from __future__ import annotations

import os
import pwd
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


def home_folder(environ: Mapping[str, str]) -> Path:
    """``$HOME``; if it is unset, empty or relative, the home in the password database."""
    home = environ.get("HOME", "")
    if not home.startswith("/"):
        try:
            home = pwd.getpwuid(os.geteuid()).pw_dir
        except KeyError:
            home = ""
    return Path(home if home.startswith("/") else "/nonexistent")


def xdg_folder(environ: Mapping[str, str], variable: str, below_home: str) -> Path:
    """The folder in *variable*, such as ``XDG_STATE_HOME``; else its default below the home."""
    given = environ.get(variable, "")
    return Path(given) if given.startswith("/") else home_folder(environ) / below_home
