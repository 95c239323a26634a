"""Wraps each provider for the rules that want something done with their recordings before they are sent."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dropscribe.media.fitted import FittedProvider
from dropscribe.media.spool import Spool

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dropscribe.config.model import Config
    from dropscribe.media.sending import WaitForTurn
    from dropscribe.providers.base import Provider


def add_fitted_providers(
    config: Config,
    providers: Mapping[str, Provider],
    decorated: dict[tuple[str, str], Provider],
    wait_for_turn: WaitForTurn | None = None,
) -> None:
    """Wrap the provider in *decorated*, else the plain one, for each rule of *config* that asks for it.

    Args:
        wait_for_turn: Waits until a provider's rate allows another request: for all pieces but the first.
    """
    spool = Spool(config.state_dir)
    for rule in config.folders.values():
        for name in rule.providers if rule.reads_media else ():
            inner = decorated.get((rule.name, name)) or providers[name]
            decorated[rule.name, name] = FittedProvider(
                inner, config.providers[name], rule, spool, wait_for_turn
            )


def sweep_spool(config: Config) -> None:
    """Remove the files of an earlier daemon from the spool; called at the start."""
    Spool(config.state_dir).sweep()
