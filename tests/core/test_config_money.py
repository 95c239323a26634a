"""The keys that are about money: what they become, and how a mistake in them is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from dropscribe.config.load import parse_config
from dropscribe.core.budget import Budget, Limit
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


def test_skipping_duplicates_without_stored_answers_is_warned_of():
    """Each would be paid for again."""
    text = f"{PROVIDERS}folders: {{f: {{inbox: in, provider: p, duplicates: skip}}}}\nledger_keep: 0\n"
    (warning,) = parse_config(text, folder=Path("/srv"), environ={})[1]
    assert (warning.warning, warning.path, warning.line) == (True, "folders.f.duplicates", 2)


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


PRICED = "providers: {p: {type: openai, url: 'http://127.0.0.1/v1', price_per_minute: 0.006%s}}\n"


def test_a_budget_is_money_or_minutes():
    """A number is money; minutes of audio say so."""
    config = config_of("budget: {per_month: 600 min}", providers=PRICED % ", budget: {per_day: 5.00}")
    assert config.providers["p"].budget == Budget(per_day=Limit(5.0, is_money=True))
    assert config.folders["f"].budget == Budget(per_month=Limit(600.0, is_money=False))


def test_no_budget_is_no_budget():
    """Absent, and empty."""
    assert config_of().folders["f"].budget is None
    assert config_of("budget: {}").folders["f"].budget is None


def test_a_time_zone_is_one_of_this_system():
    """An IANA name; without it the system's own."""
    assert str(config_of(top="time_zone: Europe/Berlin").time_zone) == "Europe/Berlin"
    assert config_of().time_zone is None
    assert said_of(top="time_zone: Mars/Olympus") == [
        ("time_zone", "'Mars/Olympus' is not a time zone of this system")
    ]
    assert said_of(top="time_zone: ../../etc/passwd")[0][0] == "time_zone"


@pytest.mark.parametrize("written", ["0", "-1", "5m", "10h", "much", "'5.00 EUR'", "[1]", "'0min'", "true"])
def test_what_is_no_budget_is_told(written):
    """A limit of nothing, a duration that is none here, a currency."""
    ((path, message),) = said_of(f"budget: {{per_day: {written}}}", providers=PRICED % "")
    assert path == "folders.f.budget.per_day"
    assert message.endswith("is not a budget")


def test_a_budget_of_money_needs_prices():
    """Of the provider itself, and of each that the folder asks; minutes need none."""
    message = "a budget in money needs the price_per_minute of p"
    unpriced = PRICED.replace(", price_per_minute: 0.006", "") % ", budget: {per_day: 5}"
    assert said_of(providers=unpriced) == [("providers.p.budget", message)]
    assert said_of("budget: {per_month: 5}") == [("folders.f.budget", message)]
    assert config_of("budget: {per_month: 5min}").folders["f"].budget


def test_a_misspelt_key_of_a_budget_is_told():
    """With what was probably meant."""
    with pytest.raises(ConfigError) as caught:
        config_of("budget: {per_dya: 5min}")
    (problem,) = caught.value.problems
    assert (problem.path, problem.hint) == ("folders.f.budget.per_dya", "did you mean 'per_day'?")
    assert said_of(providers=PRICED % ", budget: {per_week: 5}") == [
        ("providers.p.budget.per_week", "unknown key 'per_week'")
    ]


def test_a_backlog_is_taken_unless_said():
    """The default changes nothing; a word that is none is told."""
    assert config_of().folders["f"].backlog == "take"
    assert config_of("backlog: ask").folders["f"].backlog == "ask"
    message = "'wait' is not one of take, ask"
    assert said_of("backlog: wait") == [("folders.f.backlog", message)]
