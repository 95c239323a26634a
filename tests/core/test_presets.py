"""A preset is a service in one word; the user's own keys win over it."""

from __future__ import annotations

from pathlib import Path

import pytest

from dropscribe.config.load import parse_config
from dropscribe.config.sections.provider_types import PRESETS
from dropscribe.core.errors import ConfigError

FOLDERS = "folders: {calls: {inbox: /srv/in, provider: mine}}\n"
GROQ = {"GROQ_API_KEY": "groq-key", "OPENAI_API_KEY": "openai-key"}


def provider(keys: str, environ=None):
    text = f"providers: {{mine: {{type: openai, {keys}}}}}\n{FOLDERS}"
    config, _ = parse_config(text, folder=Path("/srv"), environ=environ or {})
    return config.providers["mine"]


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_enough(name):
    """With its key in the usual variable, where it needs one."""
    preset = PRESETS[name]
    environ = {preset.key_variable: "the-key"} if preset.key_variable else {}
    made = provider(f"preset: {name}", environ)
    assert made.url == preset.defaults["url"]
    assert (made.api_key is not None) is bool(preset.key_variable)
    assert preset.params.items() <= made.params.items()


def test_what_is_written_wins():
    """Url, limits, model and key."""
    url = "https://eu.groq.com/v1"
    keys = f"preset: groq, url: {url}, requests_per_minute: 300, params: {{model: x}}, api_key: mine"
    made = provider(keys, GROQ)
    assert (made.url, made.requests_per_minute, made.params["model"]) == (url, 300, "x")
    assert made.api_key.reveal() == "mine"
    assert made.max_upload_bytes == PRESETS["groq"].defaults["max_upload_bytes"]


@pytest.mark.parametrize("language", ["language: auto", "language: de"])
def test_a_rule_asks_for_detection_as_the_service_knows_it(language):
    """whisper.cpp assumes English where no language is sent."""
    text = (
        f"providers: {{mine: {{type: openai, preset: whisper.cpp, {language}}}}}\n"
        "folders: {calls: {inbox: /srv/in, provider: mine, language: auto}}\n"
    )
    config, _ = parse_config(text, folder=Path("/srv"), environ={})
    assert config.folders["calls"].params_for("mine")["language"] == "auto"


def test_a_key_goes_to_its_own_service_only():
    """Neither OpenAI's key to Groq, nor Groq's to another server."""
    assert provider("preset: groq", GROQ).api_key.reveal() == "groq-key"
    assert provider("preset: groq, url: http://127.0.0.1:1/v1", GROQ).api_key is None
    assert provider("preset: speaches", GROQ).api_key is None


def test_a_missing_key_is_named():
    """By the service's own variable."""
    with pytest.raises(ConfigError) as caught:
        provider("preset: mistral", {"OPENAI_API_KEY": "x"})
    assert "MISTRAL_API_KEY" in caught.value.problems[0].hint


def test_an_unknown_preset_is_refused():
    """With a guess."""
    with pytest.raises(ConfigError) as caught:
        provider("preset: grok")
    assert "did you mean 'groq'?" in caught.value.problems[0].hint


def test_mistral_takes_vocabulary_and_speakers():
    """The preset's model decides how hints are sent."""
    made = provider("preset: mistral, vocabulary: [Ada], speakers: true", {"MISTRAL_API_KEY": "x-key"})
    assert made.params["context_bias[]"] == ["Ada"]
    assert made.params["diarize"] is True
