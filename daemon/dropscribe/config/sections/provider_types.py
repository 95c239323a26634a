"""Differences between the types of providers: one entry each."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from dropscribe.core.requests.params import FIXED_PARAMS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dropscribe.core.requests.params import ParamValue


@dataclass(frozen=True, slots=True)
class ProviderFacts:
    """Differences of one type of provider from the others.

    Attributes:
        words: Its description, for the reference.
        own: Its keys that not all types have.
        defaults: Of keys, by attribute, where they are not the common ones.
        params: The request parameters that are sent where the user gives none.
        key_variable: The vendor's usual environment variable for the key; "" where there is no key.
        key_domain: The only domain that may be sent that variable's value.
        is_key_needed: Whether there is no use without a key, wherever the endpoint is.
        needs: Groups of keys of which one must be given.
    """

    words: str
    own: tuple[str, ...]
    defaults: Mapping[str, Any] = field(default_factory=dict)
    params: Mapping[str, ParamValue] = field(default_factory=dict)
    key_variable: str = ""
    key_domain: str = ""
    is_key_needed: bool = False
    needs: tuple[tuple[str, ...], ...] = ()


_REMOTE = ("url", "api_key")

PROVIDER_TYPES: Mapping[str, ProviderFacts] = MappingProxyType(
    {
        "pulse": ProviderFacts(
            "Smallest AI Pulse.",
            _REMOTE,
            {
                "concurrency": 2,
                "requests_per_minute": 20.0,
                "timeout_seconds": 300.0,
                "max_upload_bytes": 250_000_000,
            },
            FIXED_PARAMS["pulse"],
            "SMALLEST_API_KEY",
            "smallest.ai",
            is_key_needed=True,
        ),
        "reson8": ProviderFacts(
            "Reson8, pre-recorded.",
            (*_REMOTE, "auth"),
            {"timeout_seconds": 300.0, "auth": "apikey"},
            FIXED_PARAMS["reson8"],
            "RESON8_API_KEY",
            "reson8.dev",
            is_key_needed=True,
        ),
        "openai": ProviderFacts(
            "OpenAI, and every server with its `/audio/transcriptions`. At api.openai.com the default of "
            "`max_upload` is 25MiB less the form.",
            (*_REMOTE, "preset"),
            {"concurrency": 2, "timeout_seconds": 600.0},
            key_variable="OPENAI_API_KEY",
            key_domain="openai.com",
        ),
        "deepgram": ProviderFacts(
            "Deepgram, pre-recorded. In the EU: `url: https://api.eu.deepgram.com`.",
            _REMOTE,
            {"concurrency": 4, "timeout_seconds": 660.0, "max_upload_bytes": 2_000_000_000},
            FIXED_PARAMS["deepgram"],
            "DEEPGRAM_API_KEY",
            "deepgram.com",
            is_key_needed=True,
        ),
        "elevenlabs": ProviderFacts(
            "ElevenLabs Scribe. In the EU: `url: https://api.eu.residency.elevenlabs.io`.",
            _REMOTE,
            {"concurrency": 2, "timeout_seconds": 900.0, "max_upload_bytes": 3_000_000_000},
            FIXED_PARAMS["elevenlabs"],
            "ELEVENLABS_API_KEY",
            "elevenlabs.io",
            is_key_needed=True,
        ),
        "azure": ProviderFacts(
            "Azure Speech, fast transcription, in the `region` of your resource or at its own `url`.",
            (*_REMOTE, "region"),
            {
                "concurrency": 4,
                "requests_per_minute": 300.0,
                "timeout_seconds": 600.0,
                "max_upload_bytes": 200_000_000,
            },
            FIXED_PARAMS["azure"],
            "AZURE_SPEECH_KEY",
            "microsoft.com",
            is_key_needed=True,
            needs=(("region", "url"),),
        ),
        "whisper-asr": ProviderFacts(
            "whisper-asr-webservice on a server of your own; a key is for a proxy in front of it.",
            _REMOTE,
            {"timeout_seconds": 3600.0},
            FIXED_PARAMS["whisper-asr"],
            needs=(("url",),),
        ),
        "http": ProviderFacts(
            "Any API that takes the audio and answers with JSON, at once or in jobs, described here.",
            (
                *_REMOTE,
                "key_header",
                "body",
                "file_field",
                "media_type",
                "params_in",
                "answer",
                "errors",
                "poll",
            ),
            {"timeout_seconds": 600.0},
            needs=(("url",), ("answer",)),
        ),
        "assemblyai": ProviderFacts(
            "AssemblyAI, pre-recorded, in jobs. In the EU: `url: https://api.eu.assemblyai.com`.",
            _REMOTE,
            {"concurrency": 4, "timeout_seconds": 300.0, "max_upload_bytes": 2_200_000_000},
            FIXED_PARAMS["assemblyai"],
            "ASSEMBLYAI_API_KEY",
            "assemblyai.com",
            is_key_needed=True,
        ),
        "soniox": ProviderFacts(
            "Soniox, async, in jobs. In the EU: `url: https://api.eu.soniox.com`.",
            _REMOTE,
            {"concurrency": 4, "timeout_seconds": 300.0, "max_upload_bytes": 1_073_741_824},
            FIXED_PARAMS["soniox"],
            "SONIOX_API_KEY",
            "soniox.com",
            is_key_needed=True,
        ),
        "speechmatics": ProviderFacts(
            "Speechmatics, batch, in jobs; in the EU. Elsewhere: `url: https://us1.asr.api.speechmatics.com`.",
            _REMOTE,
            {"concurrency": 4, "timeout_seconds": 300.0, "max_upload_bytes": 1_000_000_000},
            key_variable="SPEECHMATICS_API_KEY",
            key_domain="speechmatics.com",
            is_key_needed=True,
        ),
        "gladia": ProviderFacts(
            "Gladia, pre-recorded, in jobs.",
            _REMOTE,
            {"concurrency": 3, "timeout_seconds": 300.0, "max_upload_bytes": 1_000_000_000},
            key_variable="GLADIA_API_KEY",
            key_domain="gladia.io",
            is_key_needed=True,
        ),
        "local": ProviderFacts(
            "The embedded engine: faster-whisper on this machine; no key, and no audio leaves the machine.",
            ("model", "device", "compute_type", "cpu_threads", "idle_unload"),
            {"model": "auto"},
        ),
    }
)

SPECIAL_KEYS = frozenset(name for facts in PROVIDER_TYPES.values() for name in facts.own)
"""Keys that only the types that list them have."""

_OF_OTHER_PACKAGES = ProviderFacts("A type of another package.", _REMOTE)


def facts_of(kind: str) -> ProviderFacts:
    """Differences of the type *kind*; types from other packages share one entry."""
    return PROVIDER_TYPES.get(kind, _OF_OTHER_PACKAGES)
