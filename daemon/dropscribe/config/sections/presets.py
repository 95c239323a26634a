"""Values of `preset` for services with OpenAI's transcription API; keys in the config override them."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dropscribe.config.sections.provider_types import ProviderFacts
    from dropscribe.core.requests.params import ParamValue


@dataclass(frozen=True, slots=True)
class Preset:
    """Values for one service.

    Attributes:
        defaults: Of the provider's keys, by attribute.
        params: The request parameters that are sent where the user gives none.
        key_variable: The service's usual environment variable for the key; "" where it asks for none.
        key_domain: The only domain that may be sent that variable's value.
    """

    url: str
    defaults: Mapping[str, Any] = field(default_factory=dict)
    params: Mapping[str, ParamValue] = field(default_factory=dict)
    key_variable: str = ""
    key_domain: str = ""

    def applied_to(self, facts: ProviderFacts) -> ProviderFacts:
        """*facts* with this service's differences."""
        return dataclasses.replace(
            facts,
            defaults={**facts.defaults, **self.defaults},
            params={**facts.params, **self.params},
            key_variable=self.key_variable,
            key_domain=self.key_domain,
        )


PRESETS: Mapping[str, Preset] = MappingProxyType(
    {
        # https://console.groq.com/docs/speech-to-text: 25 MB on the free tier, 20 requests a minute
        "groq": Preset(
            "https://api.groq.com/openai/v1",
            {"requests_per_minute": 20.0, "max_upload_bytes": 25_000_000},
            {"model": "whisper-large-v3-turbo"},
            "GROQ_API_KEY",
            "groq.com",
        ),
        # https://docs.mistral.ai/capabilities/audio_transcription
        "mistral": Preset(
            "https://api.mistral.ai/v1", {}, {"model": "voxtral-mini-latest"}, "MISTRAL_API_KEY", "mistral.ai"
        ),
        "deepinfra": Preset(
            "https://api.deepinfra.com/v1/openai",
            {},
            {"model": "openai/whisper-large-v3-turbo"},
            "DEEPINFRA_API_KEY",
            "deepinfra.com",
        ),
        "fireworks": Preset(
            "https://audio-prod.us-virginia-1.direct.fireworks.ai/v1",
            {},
            {"model": "whisper-v3"},
            "FIREWORKS_API_KEY",
            "fireworks.ai",
        ),
        "speaches": Preset("http://127.0.0.1:8000/v1"),
        # Its own default for uploads is 15 MB.
        "localai": Preset("http://127.0.0.1:8080/v1", {"max_upload_bytes": 15_000_000}),
        # VLLM_MAX_AUDIO_CLIP_FILESIZE_MB is 25.
        "vllm": Preset("http://127.0.0.1:8000/v1", {"max_upload_bytes": 25_000_000}),
        # It assumes English unless a language or "auto" is given, and transcribes one file at a time.
        "whisper.cpp": Preset("http://127.0.0.1:8080/inference", {"concurrency": 1}, {"language": "auto"}),
    }
)
