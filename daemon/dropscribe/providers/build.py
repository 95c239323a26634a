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

BUILDERS = {
    "assemblyai": "vendors.assemblyai:AssemblyAI.build",
    "azure": "vendors.azure:Azure.build",
    "deepgram": "vendors.deepgram:Deepgram.build",
    "elevenlabs": "vendors.elevenlabs:ElevenLabs.build",
    "gladia": "vendors.gladia:Gladia.build",
    "http": "vendors.described:build",
    "local": "local:LocalProvider",
    "openai": "vendors.openai:OpenAI.build",
    "pulse": "vendors.pulse:Pulse.build",
    "reson8": "vendors.reson8:Reson8.build",
    "soniox": "vendors.soniox:Soniox.build",
    "speechmatics": "vendors.speechmatics:Speechmatics.build",
    "whisper-asr": "vendors.whisper_asr:WhisperAsr.build",
}
"""By type: the module in this room, and its function from a ProviderConfig to a Provider."""


def build_provider(config: ProviderConfig) -> Provider:
    """The provider that *config* describes; nothing is connected or loaded yet.

    Raises:
        KeyError: There is no such type; the config has refused it before.
    """
    if config.type in BUILDERS:
        builder = resolve_name(f"dropscribe.providers.{BUILDERS[config.type]}")
    else:
        from importlib.metadata import entry_points  # noqa: PLC0415  # only for types that are not built in

        builder = entry_points(group="dropscribe.providers")[config.type].load()
    return cast("Callable[[ProviderConfig], Provider]", builder)(config)
