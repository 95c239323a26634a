"""The keys of the extra ``media``: what they become, and how a mistake in them is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from dropscribe.config.extras import LIBRARIES, install_hint
from dropscribe.config.load import parse_config
from dropscribe.core.errors import ConfigError

KEYS = [("prepare", "when_needed"), ("prepare", "always"), ("silence", "skip"), ("channels", "split")]


@pytest.fixture(autouse=True)
def _with_media(monkeypatch):
    """The extra counts as installed, so that the answers do not depend on the machine."""
    monkeypatch.setitem(LIBRARIES, "media", ())


def parsed(rule="", provider=""):
    """A config with one rule ``f``, a line a key, and its warnings."""
    text = (
        f"providers: {{p: {{type: openai, url: 'http://127.0.0.1/v1'{provider and ', ' + provider}}}}}\n"
        f"folders:\n  f:\n    inbox: in\n    provider: p\n    {rule}\n"
    )
    return parse_config(text, folder=Path("/srv"), environ={})


def problem_of(rule="", provider=""):
    """The one error."""
    with pytest.raises(ConfigError) as caught:
        parsed(rule, provider)
    (problem,) = (problem for problem in caught.value.problems if not problem.warning)
    return problem


def test_by_default_nothing_is_done_with_recordings():
    """No key, no change: the rule does not even look into its recordings."""
    rule = parsed()[0].folders["f"]
    assert (rule.prepare, rule.silence, rule.channels) == ("never", "send", "mix")
    assert not rule.reads_media


@pytest.mark.parametrize(("key", "value"), KEYS)
def test_each_key_makes_its_rule_look(key, value):
    """The value arrives, and the rule reads its recordings."""
    rule = parsed(f"{key}: {value}")[0].folders["f"]
    assert getattr(rule, key) == value
    assert rule.reads_media


@pytest.mark.parametrize("written", ["-42", "-42.0", "-42dB", "-42 dBFS", '"-42"'])
def test_a_threshold_is_a_level_below_full_scale(written):
    """A number of decibels, with or without its unit."""
    rule = parsed(f"silence_threshold: {written}")[0].folders["f"]
    assert rule.silence_threshold_dbfs == -42.0


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ("prepare: sometimes", "'sometimes' is not one of never, when_needed, always"),
        ("silence: drop", "'drop' is not one of send, skip"),
        ("channels: stereo", "'stereo' is not one of mix, split"),
        ("silence_threshold: 50", "'50' is not a level below 0 and not below -120"),
        ("silence_threshold: -200dBFS", "'-200dBFS' is not a level below 0 and not below -120"),
        ("silence_threshold: quiet", "'quiet' is not a level below 0 and not below -120"),
        ("silense: skip", "unknown key 'silense'"),
    ],
)
def test_a_mistake_in_a_rule_has_its_place(rule, message):
    """Line 6, at the key or its value."""
    problem = problem_of(rule)
    assert problem.message == message
    assert (problem.line, problem.column > 0) == (6, True)


@pytest.mark.parametrize("written", ["0", "long", "-5m"])
def test_a_longest_duration_is_a_duration(written):
    """More than nothing."""
    problem = problem_of("prepare: always", f"max_duration: {written}")
    assert problem.path == "providers.p.max_duration"
    assert problem.line == 1


def test_a_longest_duration_below_the_shortest_piece_is_refused():
    """Each longer recording would fail, once a rule cuts recordings."""
    problem = problem_of("prepare: when_needed", "max_duration: 4.9s")
    assert problem.path == "providers.p.max_duration"
    assert "is below 5 s, the shortest piece" in problem.message
    assert not parsed("prepare: when_needed", "max_duration: 5s")[1]


def test_a_limit_that_no_rule_heeds_is_a_warning():
    """max_duration without prepare cuts nothing."""
    _, (warning, *rest) = parsed("", "max_duration: 10m")
    assert rest == []
    assert warning.path == "providers.p.max_duration"
    assert not parsed("prepare: when_needed", "max_duration: 10m")[1]


@pytest.mark.parametrize(("key", "value"), KEYS)
def test_without_the_extra_the_config_says_what_to_install(monkeypatch, key, value):
    """An error at the key, which names the extra; a rule that asks for nothing is none of it."""
    monkeypatch.setitem(LIBRARIES, "media", ("no_such_library",))
    problem = problem_of(f"{key}: {value}")
    assert problem.path == f"folders.f.{key}"
    assert problem.hint == install_hint("media")
    assert parsed()[0].folders["f"].prepare == "never"
