"""``dropscribe init [DIR]``: writes a commented config and makes its folders, ready for ``run``.

Guarantees: nothing that is there is changed; nothing is written where something has the place of a folder.
"""

from __future__ import annotations

import argparse
import errno
import os
import sys
from collections.abc import Iterable
from pathlib import Path

from dropscribe.cli.process import write_new
from dropscribe.config.describe import example_text
from dropscribe.config.extras import can_install, install_hint, is_installed
from dropscribe.config.find import find_config
from dropscribe.config.load import load_config
from dropscribe.config.sections.provider_types import PROVIDER_TYPES
from dropscribe.core.errors import ConfigError
from dropscribe.core.text.printing import shell_word
from dropscribe.reports.wording import printable, printable_line

CONFIG_NAME = "dropscribe.yaml"
_ONLINE_PROVIDER = "pulse"
"""Provider type in the new config if the embedded engine is not installed and pip cannot install it."""
_EXAMPLE_FOLDERS = ("inbox", "done", "failed")


def execute(options: argparse.Namespace) -> None:
    """Write the missing files and print the next commands."""
    path = Path(options.directory) / CONFIG_NAME
    is_new = not os.path.lexists(path)
    # The example's folders are listed by name, because its engine may not be installed yet.
    folders = [path.parent / name for name in _EXAMPLE_FOLDERS]
    if not is_new:
        config, _ = load_config(path, keys_needed=False, queue_needed=False)
        folders = [folder for rule in config.folders.values() for folder in rule.paths.values()]
    _refuse_obstacles([path.parent, *folders])
    path.parent.mkdir(parents=True, exist_ok=True)
    if is_new:
        provider = "local" if is_installed("local") or can_install() else _ONLINE_PROVIDER
        # Only its owner can read it, because it may hold a key.
        write_new(str(path), example_text(provider).encode(), mode=0o600)
    name = printable_line(str(path))
    sys.stdout.write(f"wrote {name}\n" if is_new else f"{name} is there already, and stays as it is\n")
    for folder in folders:
        if not folder.is_dir():
            folder.mkdir(parents=True)
            sys.stdout.write(f"made {printable_line(str(folder))}\n")
    sys.stdout.write(printable(_next_words(path, is_new=is_new)) + "\n")


def _refuse_obstacles(folders: Iterable[Path]) -> None:
    """Raise an OSError if something else has the place of one of the *folders* or of one above it."""
    for folder in folders:
        for place in (folder, *folder.parents):
            if place.is_dir():
                break
            if os.path.lexists(place):
                raise NotADirectoryError(errno.ENOTDIR, "is not a folder; move it away", str(place))


def _next_words(path: Path, *, is_new: bool) -> str:
    lines = []
    if is_new and not is_installed("local") and can_install():
        lines = [
            "\nThe config uses the embedded engine, which is not installed yet:",
            f"  {install_hint('local')}",
            "or name another provider in the config.",
        ]
    elif is_new and not is_installed("local"):
        variable = PROVIDER_TYPES[_ONLINE_PROVIDER].key_variable
        lines = [
            f"\nThe config names the provider {_ONLINE_PROVIDER}, whose key it takes from {variable}.",
            f"The embedded engine is not installed: {install_hint('local')}",
        ]
    name = f"./{path}" if str(path).startswith("-") else str(path)
    option = "" if _is_found(path) else f" -c {shell_word(name)}"
    return "\n".join([*lines, "\nNext:", f"  dropscribe check{option}", f"  dropscribe run{option}"])


def _is_found(path: Path) -> bool:
    """Whether a command without ``-c`` takes the config *path*."""
    try:
        return find_config(None).resolve() == path.resolve()
    except ConfigError:
        return False
