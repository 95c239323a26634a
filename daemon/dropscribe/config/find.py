"""Which file is the config; nothing is read here, and nothing imported that reading takes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from dropscribe.core.errors import ConfigError, Problem

if TYPE_CHECKING:
    from collections.abc import Mapping

SYSTEM_CONFIG = Path("/etc/dropscribe/config.yaml")
LOCAL_CONFIG = Path("dropscribe.yaml")


def find_config(explicit: str | None, *, environ: Mapping[str, str] | None = None) -> Path:
    """Which file is the config (CONTRACT.md §2).

    Args:
        explicit: What ``-c`` gave, or None.
        environ: Default: the process's own.

    Raises:
        ConfigError: There is none; names what was looked for.
    """
    named = (environ if environ is not None else os.environ).get("DROPSCRIBE_CONFIG")
    for path, giver in ((explicit, "-c"), (named, "$DROPSCRIBE_CONFIG")):
        if path:
            return _existing(Path(path), giver)
    for candidate in (LOCAL_CONFIG, SYSTEM_CONFIG):
        if candidate.exists():
            return candidate
    message = f"no config: looked for ./{LOCAL_CONFIG} and {SYSTEM_CONFIG}"
    raise ConfigError((Problem(message, hint="'dropscribe init' writes one; -c CONFIG names another"),))


def _existing(path: Path, giver: str) -> Path:
    if not path.exists():
        raise ConfigError(
            (
                Problem(
                    f"{giver} names {path}, and there is no such file", hint="'dropscribe init' writes one"
                ),
            )
        )
    return path
