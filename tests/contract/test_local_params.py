"""What a rule may ask of the embedded engine."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dropscribe.config.extras import LIBRARIES
from dropscribe.config.load import parse_config
from dropscribe.core.errors import ConfigError
from dropscribe.native.recording import RawForm
from dropscribe.providers.local import parse_params


def test_defaults_are_the_measured_ones():
    """Nothing asked: the language is detected, silence is filtered, words are timed."""
    request = parse_params({})
    assert request["language"] is None
    assert request["options"] == {
        "beam_size": 5,
        "vad_filter": True,
        "word_timestamps": True,
        "condition_on_previous_text": False,
    }


def test_engine_parameters_pass_and_override():
    """What faster-whisper takes is passed as given; a whole number will do for a number."""
    options = parse_params({"beam_size": 1, "initial_prompt": "Dashwood", "temperature": 0})["options"]
    assert (options["beam_size"], options["initial_prompt"], options["temperature"]) == (1, "Dashwood", 0.0)


@pytest.mark.parametrize(
    ("given", "code"),
    [
        *(("en", "en"), ("en-GB", "en"), ("PT_br", "pt"), ("jw", "jw"), ("auto", None), ("", None)),
        *(("english", "en"), ("eng", "en"), ("yue", "yue"), ("multi", None), ("unknown", None)),
    ],
)
def test_language_is_reduced_to_its_code(given, code):
    """Regions, case and names are the user's; the model knows codes."""
    assert parse_params({"language": given})["language"] == code


@pytest.mark.parametrize(
    ("provider", "rule", "language", "hotwords"),
    [
        ("language: de, vocabulary: [Dashwood]", "outputs: [txt]", "de", "Dashwood"),
        (
            "language: de, vocabulary: [Dashwood]",
            "language: en, vocabulary: [Ada, Reson8]",
            "en",
            "Ada, Reson8",
        ),
        ("language: de", "language: auto", None, None),
        ("vocabulary: [Dashwood]", "params: {language: fr, hotwords: own}", "fr", "own"),
        ("params: {language: de}", "language: pt-BR", "pt", None),
    ],
)
def test_a_rules_language_and_vocabulary_reach_the_engine(monkeypatch, provider, rule, language, hotwords):
    """The rule's win over the provider's, `auto` among them; `params` over both of the same place."""
    monkeypatch.setitem(LIBRARIES, "local", ())
    text = (
        f"providers: {{here: {{type: local, model: base, {provider}}}}}\n"
        f"folders: {{f: {{inbox: in, provider: here, {rule}}}}}\n"
    )
    config, _ = parse_config(text, folder=Path("/srv"), environ={})
    request = parse_params(config.folders["f"].params_for("here"))
    assert (request["language"], request["options"].get("hotwords")) == (language, hotwords)


def test_raw_format_is_ours():
    """encoding, sample_rate and channels describe files without a header and never reach the engine."""
    request = parse_params({"encoding": "pcm_mulaw", "sample_rate": 8000, "channels": 2})
    assert request["form"] == RawForm("pcm_mulaw", 8000, 2)
    assert not {"encoding", "sample_rate", "channels"} & request["options"].keys()


@pytest.mark.parametrize(
    "params",
    [
        {"beam_sise": 5},
        {"model": "base"},
        {"beam_size": "5"},
        {"beam_size": True},
        {"beam_size": 0},
        {"vad_filter": 1},
        {"task": "summarise"},
        {"encoding": "opus"},
        {"language": ["en", "de"]},
        {"patience": 0},
        {"repetition_penalty": 0.0},
        {"no_repeat_ngram_size": -1},
        {"max_new_tokens": 1000},
        {"length_penalty": 1e300},
        {"max_initial_timestamp": -1},
    ],
)
def test_a_wrong_parameter_is_refused_by_the_config(monkeypatch, params):
    """It would fail every file of its rule."""
    monkeypatch.setitem(LIBRARIES, "local", ())
    text = f"providers: {{here: {{type: local, model: base, params: {json.dumps(params)}}}}}\n"
    with pytest.raises(ConfigError) as refused:
        parse_config(text, folder=Path("/srv"), environ={})
    assert f"providers.here.params.{next(iter(params))}" in {each.path for each in refused.value.problems}
