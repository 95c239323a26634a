"""Differences between the types of providers, and the services that `preset` knows: one entry each."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from dropscribe.core.requests.params import ParamValue

_REMOTE = ("url", "api_key")
_DESCRIBED = "key_header body file_field media_type params_in answer errors poll"


@dataclass(frozen=True, slots=True)
class ProviderFacts:
    """Differences of one type of provider from the others."""

    words: str  # its description, for the reference
    # Defaults of keys that differ from the common ones, by attribute.
    defaults: Mapping[str, Any] = field(default_factory=dict)
    key_variable: str = ""  # the vendor's usual environment variable for the key; "" where there is no key
    key_domain: str = ""  # the only domain that may be sent that variable's value
    params: Mapping[str, ParamValue] = field(default_factory=dict)  # those that a preset sends
    is_key_optional: bool = False  # whether a server outside *key_domain* may need no key
    own: tuple[str, ...] = _REMOTE  # its keys that not all types have
    needs: tuple[tuple[str, ...], ...] = ()  # groups of keys of which one must be given


PROVIDER_TYPES: Mapping[str, ProviderFacts] = {
    "pulse": ProviderFacts(
        "Smallest AI Pulse.",
        {
            "concurrency": 2,
            "timeout_seconds": 300.0,
            "max_upload_bytes": 250_000_000,
            "requests_per_minute": 20.0,
        },
        "SMALLEST_API_KEY",
        "smallest.ai",
    ),
    "reson8": ProviderFacts(
        "Reson8, pre-recorded.",
        {"timeout_seconds": 300.0, "auth": "apikey"},
        "RESON8_API_KEY",
        "reson8.dev",
        own=(*_REMOTE, "auth"),
    ),
    "openai": ProviderFacts(
        "OpenAI, and every server with its `/audio/transcriptions`. Without `model` in `params` it is "
        "`whisper-1`. At api.openai.com the default of `max_upload` is 25MiB less the form.",
        {"concurrency": 2, "timeout_seconds": 600.0},
        "OPENAI_API_KEY",
        "openai.com",
        is_key_optional=True,
        own=(*_REMOTE, "preset"),
    ),
    "deepgram": ProviderFacts(
        "Deepgram, pre-recorded. In the EU: `url: https://api.eu.deepgram.com`.",
        {"concurrency": 4, "timeout_seconds": 660.0, "max_upload_bytes": 2_000_000_000},
        "DEEPGRAM_API_KEY",
        "deepgram.com",
    ),
    "elevenlabs": ProviderFacts(
        "ElevenLabs Scribe. In the EU: `url: https://api.eu.residency.elevenlabs.io`.",
        {"concurrency": 2, "timeout_seconds": 900.0, "max_upload_bytes": 3_000_000_000},
        "ELEVENLABS_API_KEY",
        "elevenlabs.io",
    ),
    "azure": ProviderFacts(
        "Azure Speech, fast transcription, in the `region` of your resource or at its own `url`.",
        {
            "concurrency": 4,
            "timeout_seconds": 600.0,
            "max_upload_bytes": 200_000_000,
            "requests_per_minute": 300.0,
        },
        "AZURE_SPEECH_KEY",
        "microsoft.com",
        needs=(("region", "url"),),
        own=(*_REMOTE, "region"),
    ),
    "whisper-asr": ProviderFacts(
        "whisper-asr-webservice on a server of your own; a key is for a proxy in front of it.",
        {"timeout_seconds": 3600.0},
        needs=(("url",),),
    ),
    "http": ProviderFacts(
        "Any API that takes the audio and answers with JSON, at once or in jobs, described here.",
        {"timeout_seconds": 600.0},
        needs=(("url",), ("answer",)),
        own=(*_REMOTE, *_DESCRIBED.split()),
    ),
    "assemblyai": ProviderFacts(
        "AssemblyAI, pre-recorded, in jobs. In the EU: `url: https://api.eu.assemblyai.com`.",
        {"concurrency": 4, "timeout_seconds": 300.0, "max_upload_bytes": 2_200_000_000},
        "ASSEMBLYAI_API_KEY",
        "assemblyai.com",
    ),
    "soniox": ProviderFacts(
        "Soniox, async, in jobs. In the EU: `url: https://api.eu.soniox.com`.",
        {"concurrency": 4, "timeout_seconds": 300.0, "max_upload_bytes": 1_073_741_824},
        "SONIOX_API_KEY",
        "soniox.com",
    ),
    "speechmatics": ProviderFacts(
        "Speechmatics, batch, in jobs; in the EU. Elsewhere: `url: https://us1.asr.api.speechmatics.com`.",
        {"concurrency": 4, "timeout_seconds": 300.0, "max_upload_bytes": 1_000_000_000},
        "SPEECHMATICS_API_KEY",
        "speechmatics.com",
    ),
    "gladia": ProviderFacts(
        "Gladia, pre-recorded, in jobs.",
        {"concurrency": 3, "timeout_seconds": 300.0, "max_upload_bytes": 1_000_000_000},
        "GLADIA_API_KEY",
        "gladia.io",
    ),
    "local": ProviderFacts(
        "The embedded engine: faster-whisper on this machine; no key, and no audio leaves the machine.",
        {"model": "auto"},
        own=("model", "device", "compute_type", "cpu_threads", "idle_unload"),
    ),
}

SPECIAL_KEYS = frozenset(name for facts in PROVIDER_TYPES.values() for name in facts.own)
"""Keys that a type has only if its entry lists them."""

_OF_OTHER_PACKAGES = ProviderFacts("A type of another package.")


def _service(
    url: str,
    params: Mapping[str, ParamValue] = MappingProxyType({}),
    key_variable: str = "",
    key_domain: str = "",
    **defaults: Any,
) -> ProviderFacts:
    """A service with OpenAI's transcription API, which asks for no key if *key_variable* is empty."""
    openai = PROVIDER_TYPES["openai"]
    defaults = {**openai.defaults, "url": url, **defaults}
    facts = dataclasses.replace(openai, defaults=defaults, params=params)
    return dataclasses.replace(facts, key_variable=key_variable, key_domain=key_domain)


PRESETS: Mapping[str, ProviderFacts] = {
    # https://console.groq.com/docs/speech-to-text: 25 MB on the free tier, 20 requests a minute
    "groq": _service(
        "https://api.groq.com/openai/v1",
        {"model": "whisper-large-v3-turbo"},
        "GROQ_API_KEY",
        "groq.com",
        requests_per_minute=20.0,
        max_upload_bytes=25_000_000,
    ),
    # https://docs.mistral.ai/capabilities/audio_transcription
    "mistral": _service(
        "https://api.mistral.ai/v1", {"model": "voxtral-mini-latest"}, "MISTRAL_API_KEY", "mistral.ai"
    ),
    "deepinfra": _service(
        "https://api.deepinfra.com/v1/openai",
        {"model": "openai/whisper-large-v3-turbo"},
        "DEEPINFRA_API_KEY",
        "deepinfra.com",
    ),
    "fireworks": _service(
        "https://audio-prod.us-virginia-1.direct.fireworks.ai/v1",
        {"model": "whisper-v3"},
        "FIREWORKS_API_KEY",
        "fireworks.ai",
    ),
    "speaches": _service("http://127.0.0.1:8000/v1"),
    # Its own default for uploads is 15 MB.
    "localai": _service("http://127.0.0.1:8080/v1", max_upload_bytes=15_000_000),
    # VLLM_MAX_AUDIO_CLIP_FILESIZE_MB is 25.
    "vllm": _service("http://127.0.0.1:8000/v1", max_upload_bytes=25_000_000),
    # It assumes English unless a language or "auto" is given, and transcribes one file at a time.
    "whisper.cpp": _service("http://127.0.0.1:8080/inference", {"language": "auto"}, concurrency=1),
}


def facts_of(kind: str, preset: str = "") -> ProviderFacts:
    """The facts of the service *preset*, else of *kind*; types from other packages share one entry."""
    return PRESETS.get(preset) or PROVIDER_TYPES.get(kind, _OF_OTHER_PACKAGES)
