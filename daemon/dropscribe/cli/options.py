"""The config as commands that do not run the daemon want it, and the names in it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, TypeVar

from dropscribe.cli.messages import say
from dropscribe.config.errors import did_you_mean, format_problem
from dropscribe.config.find import find_config
from dropscribe.config.load import load_config
from dropscribe.core.errors import ConfigError, Problem

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable, Mapping

    from dropscribe.config.model import Config, ProviderConfig

T = TypeVar("T")


def read_config(options: argparse.Namespace, *, warn: bool = False, keys_needed: bool = False) -> Config:
    """The config that *options* name; with *warn* its warnings go to standard error.

    Args:
        keys_needed: Whether a key that cannot be had here is an error.

    Raises:
        ConfigError: It cannot be used, or there is none.
    """
    config, warnings = load_config(find_config(options.config), environ=os.environ, keys_needed=keys_needed)
    for warning in warnings if warn else ():
        say(format_problem(warning))
    return config


def named(parts: Mapping[str, T], kind: str, name: str, config: Config) -> T:
    """The provider or folder called *name*.

    Raises:
        ConfigError: There is none; the hint says what was probably meant.
    """
    if name not in parts:
        place = str(config.path) if config.path else ""
        hint = did_you_mean(name, parts)
        raise ConfigError((Problem(f"there is no {kind} {name!r}", file=place, hint=hint),))
    return parts[name]


def log_to_stderr(providers: Iterable[ProviderConfig]) -> None:
    """Log lines of the *providers* from warnings up; standard output belongs to the command."""
    from dropscribe.service.logs import configure_logging  # noqa: PLC0415  # not paid for by what never logs

    configure_logging("warning", secrets=[each.api_key.reveal() for each in providers if each.api_key])
