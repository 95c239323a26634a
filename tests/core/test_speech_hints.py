"""`language`, `vocabulary` and `speakers` as parameters of each provider."""

from __future__ import annotations

import pytest

from dropscribe.config.extras import LIBRARIES
from dropscribe.config.load import parse_config
from dropscribe.core.errors import ConfigError
from dropscribe.core.requests.speech_hints import SpeechHints, hint_params, ignored_hints

ALL = SpeechHints("pt-BR", ("Dropscribe", "Reson8"), speakers=True)


@pytest.fixture(autouse=True)
def _with_all_engines(monkeypatch):
    """The extras count as installed, so that the answers do not depend on the machine."""
    monkeypatch.setitem(LIBRARIES, "local", ())


@pytest.mark.parametrize(
    ("kind", "model", "params", "ignored"),
    [
        ("pulse", "pulse", {"language": "pt", "diarize": True}, ["vocabulary"]),
        ("reson8", "", {"language": "pt", "diarize": True}, ["vocabulary"]),
        ("openai", "whisper-1", {"language": "pt", "prompt": "Dropscribe, Reson8"}, ["speakers"]),
        ("openai", "gpt-4o-transcribe-diarize", {"language": "pt"}, ["vocabulary"]),
        (
            "openai",
            "voxtral-mini-latest",
            {"language": "pt", "diarize": True, "context_bias[]": ["Dropscribe", "Reson8"]},
            [],
        ),
        ("local", "", {"language": "pt", "hotwords": "Dropscribe, Reson8"}, ["speakers"]),
    ],
)
def test_each_provider_gets_what_it_can_take(kind, model, params, ignored):
    """What cannot be sent is named; it never becomes an unknown parameter."""
    assert hint_params(kind, model, ALL) == params
    assert ignored_hints(kind, model, ALL) == ignored


def test_nothing_is_sent_where_nothing_is_known():
    """`speakers: false` is something."""
    assert hint_params("pulse", "", SpeechHints()) == {}
    assert hint_params("pulse", "", SpeechHints(speakers=False)) == {"diarize": False}
    assert ignored_hints("openai", "", SpeechHints(speakers=False)) == []


def _params(folder, provider, rule):
    text = (
        f"providers: {{p: {{type: pulse, api_key: k, {provider}}}}}\n"
        f"folders: {{f: {{inbox: in, provider: p, {rule}}}}}\n"
    )
    config, problems = parse_config(text, folder=folder, environ={})
    warned = [problem.path for problem in problems if "takes no" in problem.message]
    return config.folders["f"].params_for("p"), warned


def test_the_nearest_setting_wins(tmp_path):
    """The rule's params, then its settings, then the provider's params, then the provider's settings."""
    assert _params(tmp_path, "language: en", "speakers: true")[0]["language"] == "en"
    assert _params(tmp_path, "language: en, params: {language: fr}", "outputs: [txt]")[0]["language"] == "fr"
    assert _params(tmp_path, "params: {language: fr}", "language: de")[0]["language"] == "de"
    found, _ = _params(tmp_path, "language: en", "language: de, params: {language: multi-eu}")
    assert found["language"] == "multi-eu"


def test_auto_takes_a_language_away(tmp_path):
    """A rule can ask for detection where its provider names a language."""
    assert _params(tmp_path, "language: en", "language: auto")[0]["language"] == []


def test_a_setting_without_effect_is_a_warning(tmp_path):
    """At the place where it is written."""
    assert _params(tmp_path, "language: en", "vocabulary: [Reson8]")[1] == ["folders.f.vocabulary"]


@pytest.mark.parametrize(
    ("provider", "rule", "warned"),
    [
        ("language: de", "", ["providers.p.language"]),
        ("params: {language: fr}", "", ["providers.p.params"]),
        ("", "language: pt-BR", ["folders.f.language"]),
        ("", "language: en-GB", []),
        ("params: {language: english}", "", []),
        ("language: auto", "", []),
    ],
)
def test_an_english_model_and_another_language_are_warned_of(tmp_path, provider, rule, warned):
    """Every file would be refused: that is known before the first one."""
    text = (
        f"providers: {{p: {{type: local, model: tiny.en, {provider}}}}}\n"
        f"folders: {{f: {{inbox: in, provider: p, {rule}}}}}\n"
    )
    _, problems = parse_config(text, folder=tmp_path, environ={})
    assert [problem.path for problem in problems if "knows only English" in problem.message] == warned


@pytest.mark.parametrize(
    ("written", "sent"), [("English", "en"), ("EN", "en"), ("eng", "en"), ("pt_br", "pt"), ("deutsch", "de")]
)
def test_a_language_as_people_write_it(tmp_path, written, sent):
    """Becomes what the provider takes."""
    assert _params(tmp_path, f"language: {written}", "outputs: [txt]")[0]["language"] == sent


def test_a_language_that_is_none_is_refused(tmp_path):
    """With the remedy."""
    with pytest.raises(ConfigError) as caught:
        _params(tmp_path, "language: klingon", "outputs: [txt]")
    assert [problem.hint for problem in caught.value.problems] == ["write its code, such as en or pt-BR"]
