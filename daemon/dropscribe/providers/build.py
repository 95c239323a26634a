"""The one place that knows which class stands behind which ``type``.

Guarantees: a vendor's module, and what it loads, is imported only when a provider of its type is built.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from dropscribe.config.model import ProviderConfig
    from dropscribe.providers.base import Provider


def build_provider(config: ProviderConfig) -> Provider:
    """The provider that *config* describes; nothing is connected or loaded yet.

    Raises:
        KeyError: The type is none of ours; the config has refused it before.
    """
    return _BUILDERS[config.type](config)


def _pulse(config: ProviderConfig) -> Provider:
    from dropscribe.providers.pulse import PulseProvider  # noqa: PLC0415 - see the module

    return PulseProvider(config)


def _reson8(config: ProviderConfig) -> Provider:
    from dropscribe.providers.reson8 import Reson8Provider  # noqa: PLC0415

    return Reson8Provider(config)


def _openai(config: ProviderConfig) -> Provider:
    from dropscribe.providers.openai import OpenAIProvider  # noqa: PLC0415

    return OpenAIProvider(config)


def _local(config: ProviderConfig) -> Provider:
    from dropscribe.providers.local import LocalProvider  # noqa: PLC0415

    return LocalProvider(config)


_BUILDERS: dict[str, Callable[[ProviderConfig], Provider]] = {
    "pulse": _pulse,
    "reson8": _reson8,
    "openai": _openai,
    "local": _local,
}
