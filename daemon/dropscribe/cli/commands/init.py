"""``dropscribe init [DIR]``: writes a commented config and makes its folders, ready for ``run``.

Guarantees: nothing that is there is changed.
"""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from dropscribe.cli import exit_codes
from dropscribe.config.describe.example import example_text
from dropscribe.config.extras import can_install, install_hint, is_installed
from dropscribe.config.load import load_config
from dropscribe.config.sections.provider_types import PROVIDER_TYPES
from dropscribe.reports.wording import printable

if TYPE_CHECKING:
    import argparse

CONFIG_NAME = "dropscribe.yaml"
_ONLINE_PROVIDER = "pulse"
"""Provider type in the new config if the embedded engine is not installed and pip cannot install it."""
_EXAMPLE_FOLDERS = ("inbox", "done", "failed")


def execute(options: argparse.Namespace) -> int:
    """Write the missing files and print the next commands."""
    directory = Path(options.directory)
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / CONFIG_NAME
    provider = "local" if is_installed("local") or can_install() else _ONLINE_PROVIDER
    is_new = _write_new(path, example_text(provider))
    _tell(f"wrote {path}" if is_new else f"{path} is there already, and stays as it is")
    for folder in _wanted_folders(path, is_new=is_new):
        if not folder.is_dir():
            folder.mkdir(parents=True)
            _tell(f"made {folder}")
    _tell(_next_words(path, is_new=is_new))
    return exit_codes.OK


def _tell(text: str) -> None:
    sys.stdout.write(printable(text) + "\n")


def _write_new(path: Path, text: str) -> bool:
    """Write a config that only its owner can read, because it may hold a key."""
    try:
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        return False
    with open(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
    return True


def _wanted_folders(path: Path, *, is_new: bool) -> list[Path]:
    """The rules' folders; the example's are listed by name, because its engine may not be installed yet.

    Raises:
        ConfigError: The config that is there cannot be used.
    """
    if is_new:
        return [path.parent / name for name in _EXAMPLE_FOLDERS]
    config, _ = load_config(path, environ=os.environ)
    return [folder for rule in config.folders.values() for folder in (rule.inbox, rule.done, rule.failed)]


def _next_words(path: Path, *, is_new: bool) -> str:
    lines = []
    if is_new and not is_installed("local"):
        lines += _words_without_engine()
    option = "" if path.parent.resolve() == Path.cwd() else f" -c {shlex.quote(str(path))}"
    return "\n".join([*lines, "\nNext:", f"  dropscribe check{option}", f"  dropscribe run{option}"])


def _words_without_engine() -> list[str]:
    if can_install():
        return [
            "\nThe config uses the embedded engine, which is not installed yet:",
            f"  {install_hint('local')}",
            "or name another provider in the config.",
        ]
    variable = PROVIDER_TYPES[_ONLINE_PROVIDER].key_variable
    return [
        f"\nThe config names the provider {_ONLINE_PROVIDER}, whose key it takes from {variable}.",
        f"The embedded engine is not installed: {install_hint('local')}",
    ]
