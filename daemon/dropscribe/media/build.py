"""Puts around each provider what the rules want done with their recordings.

Guarantees: PyAV is imported only where a rule asks for something; a rule that asks for nothing keeps the
plain provider.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dropscribe.media.spool import Spool

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dropscribe.config.model import Config
    from dropscribe.providers.base import Provider


def add_fitted_providers(
    config: Config, providers: Mapping[str, Provider], decorated: dict[tuple[str, str], Provider]
) -> None:
    """Put into *decorated* what the rules of *config* ask for, around what is there or the plain provider."""
    rules = [rule for rule in config.folders.values() if rule.reads_media]
    if not rules:
        return
    # The codecs behind this import take 40 MB; a daemon whose rules ask for nothing never pays them.
    from dropscribe.media.fitted import FittedProvider  # noqa: PLC0415 - see above

    spool = Spool(config.state_dir)
    for rule in rules:
        for name in rule.providers:
            inner = decorated.get((rule.name, name)) or providers[name]
            decorated[rule.name, name] = FittedProvider(inner, config.providers[name], rule, spool)


def sweep_spool(config: Config) -> None:
    """At the start: remove what an earlier daemon left in the spool."""
    Spool(config.state_dir).sweep()
