"""Builds the provider that a config describes.

A vendor's module, with its imports, is loaded only when a provider of its type is built. Other packages
add types by an entry point in the group ``dropscribe.providers``: a function from a ProviderConfig to a
Provider.
"""

from __future__ import annotations

from collections.abc import Callable
from pkgutil import resolve_name
from typing import NoReturn, cast

from dropscribe.config.model import ProviderConfig
from dropscribe.core.errors import ProviderUnusable
from dropscribe.core.text.printing import one_line
from dropscribe.providers.base import Provider, Unfinished

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
    """The provider that *config* describes; nothing is connected or loaded yet."""
    if config.type in BUILDERS:
        builder = resolve_name(f"dropscribe.providers.{BUILDERS[config.type]}")
        return cast("Callable[[ProviderConfig], Provider]", builder)(config)
    from importlib.metadata import entry_points  # noqa: PLC0415  # only for types that are not built in

    try:
        return cast("Provider", entry_points(group="dropscribe.providers")[config.type].load()(config))
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # noqa: BLE001 - third-party code, which may call sys.exit
        return _BrokenPackage(config, error)


class _BrokenPackage:
    """A provider of a package that cannot be used: it is held, and the other providers work.

    It counts as one with jobs, so that jobs of the package are kept until it works again.
    """

    def __init__(self, config: ProviderConfig, error: BaseException) -> None:
        words = one_line(f"the package of type {config.type} cannot be used: {type(error).__name__}: {error}")
        self._error = ProviderUnusable("package_broken", words[:500])

    async def transcribe(self, *_: object) -> NoReturn:
        raise self._error

    probe = start_job = delete_job = transcribe

    def poll_seconds(self, *_: object) -> float:
        return 60.0

    async def poll_job(self, *_: object) -> Unfinished:
        return Unfinished(self._error)

    async def close(self) -> None:
        """Does nothing: nothing is open."""
