"""Builds the provider that a config describes.

A vendor's module, with its imports, is loaded only when a provider of its type is built. Other packages
add types by an entry point in the group ``dropscribe.providers``: a function from a ProviderConfig to a
Provider.
"""

from __future__ import annotations

from pkgutil import resolve_name
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from collections.abc import Callable

    from dropscribe.config.model import ProviderConfig
    from dropscribe.providers.base import Provider

ENTRY_POINTS = "dropscribe.providers"

BUILDERS = {
    "assemblyai": "dropscribe.providers.vendors.assemblyai:AssemblyAI.build",
    "azure": "dropscribe.providers.vendors.azure:Azure.build",
    "deepgram": "dropscribe.providers.vendors.deepgram:Deepgram.build",
    "elevenlabs": "dropscribe.providers.vendors.elevenlabs:ElevenLabs.build",
    "gladia": "dropscribe.providers.vendors.gladia:Gladia.build",
    "http": "dropscribe.providers.described.api:build",
    "local": "dropscribe.providers.local:LocalProvider",
    "openai": "dropscribe.providers.vendors.openai:OpenAI.build",
    "pulse": "dropscribe.providers.vendors.pulse:Pulse.build",
    "reson8": "dropscribe.providers.vendors.reson8:Reson8.build",
    "soniox": "dropscribe.providers.vendors.soniox:Soniox.build",
    "speechmatics": "dropscribe.providers.vendors.speechmatics:Speechmatics.build",
    "whisper-asr": "dropscribe.providers.vendors.whisper_asr:WhisperAsr.build",
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
        builder = resolve_name(BUILDERS[kind])
    else:
        from importlib.metadata import entry_points  # noqa: PLC0415  # only for types that are not built in

        builder = entry_points(group=ENTRY_POINTS)[kind].load()
    return cast("Callable[[ProviderConfig], Provider]", builder)
