"""Builds the provider that a config describes.

A vendor's module, with its imports, is loaded only when a provider of its type is built. Other packages
add types by an entry point in the group ``dropscribe.providers``: a function from a ProviderConfig to a
Provider.
"""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from collections.abc import Callable

    from dropscribe.config.model import ProviderConfig
    from dropscribe.providers.base import Provider

ENTRY_POINTS = "dropscribe.providers"

BUILDERS = {
    "assemblyai": "dropscribe.providers.vendors.assemblyai:build",
    "azure": "dropscribe.providers.vendors.azure:build",
    "deepgram": "dropscribe.providers.vendors.deepgram:build",
    "elevenlabs": "dropscribe.providers.vendors.elevenlabs:build",
    "gladia": "dropscribe.providers.vendors.gladia:build",
    "http": "dropscribe.providers.described.api:build",
    "local": "dropscribe.providers.local:LocalProvider",
    "openai": "dropscribe.providers.vendors.openai:build",
    "pulse": "dropscribe.providers.vendors.pulse:build",
    "reson8": "dropscribe.providers.vendors.reson8:build",
    "soniox": "dropscribe.providers.vendors.soniox:build",
    "speechmatics": "dropscribe.providers.vendors.speechmatics:build",
    "whisper-asr": "dropscribe.providers.vendors.whisper_asr:build",
}
"""By type, as in an entry point: the module, and its function from a ProviderConfig to a Provider."""


def build_provider(config: ProviderConfig) -> Provider:
    """The provider that *config* describes; nothing is connected or loaded yet.

    Raises:
        KeyError: There is no such type; the config has refused it before.
    """
    return _builder(config.type)(config)


def _builder(kind: str) -> Callable[[ProviderConfig], Provider]:
    if kind in BUILDERS:
        entry = EntryPoint(kind, BUILDERS[kind], ENTRY_POINTS)
    else:
        entry = entry_points(group=ENTRY_POINTS)[kind]
    return cast("Callable[[ProviderConfig], Provider]", entry.load())
