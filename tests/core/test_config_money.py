"""The keys that are about money: what they become, and how a mistake in them is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from dropscribe.config.load import parse_config
from dropscribe.core.errors import ConfigError

PROVIDERS = "providers: {p: {type: openai, url: 'http://127.0.0.1/v1'}}\n"


def config_of(rule="", top="", providers=PROVIDERS):
    """A config with one rule ``f``."""
    text = f"{providers}folders: {{f: {{inbox: in, provider: p{rule and ', ' + rule}}}}}\n{top}\n"
    return parse_config(text, folder=Path("/srv"), environ={})[0]


def said_of(rule="", top="", providers=PROVIDERS):
    """(path, message) of the errors; each has its line and column."""
    with pytest.raises(ConfigError) as caught:
        config_of(rule, top, providers)
    problems = [problem for problem in caught.value.problems if not problem.warning]
    assert all(problem.line and problem.column for problem in problems)
    return [(problem.path, problem.message) for problem in problems]


def test_answers_are_kept_and_reused_by_default():
    """Ninety days, and reuse."""
    config = config_of()
    assert config.ledger_keep_seconds == 90 * 86400
    assert config.folders["f"].duplicates == "reuse"


def test_the_ledger_can_be_shorter_or_off():
    """A duration, or 0."""
    assert config_of(top="ledger_keep: 12h").ledger_keep_seconds == 43200
    assert config_of(top="ledger_keep: 0").ledger_keep_seconds == 0


def test_mistakes_about_duplicates_are_told():
    """A word that is none, and a time that is none."""
    assert said_of("duplicates: again", "ledger_keep: ever") == [
        ("folders.f.duplicates", "'again' is not one of reuse, transcribe, skip"),
        ("ledger_keep", "'ever' is not a duration"),
    ]


def test_a_fallback_is_for_held_providers_unless_said():
    """The default changes nothing."""
    assert config_of().folders["f"].fallback == "held"


def test_mistakes_about_fallback_are_told():
    """A word that is none; and a fallback to nobody is worth a warning."""
    message = "'always' is not one of held, refused, both"
    assert said_of("fallback: always") == [("folders.f.fallback", message)]
    text = f"{PROVIDERS}folders: {{f: {{inbox: in, provider: p, fallback: both}}}}\n"
    (warning,) = parse_config(text, folder=Path("/srv"), environ={})[1]
    assert warning.warning
    assert (warning.path, warning.line) == ("folders.f.fallback", 2)
