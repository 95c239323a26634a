"""Days and months of budgets, and what is stopped until they turn."""

from __future__ import annotations

from datetime import UTC, date, datetime
from zoneinfo import ZoneInfo

import pytest

from dropscribe.core.budget import Account, Budget, Limit, Period, day_of, first_day, stops_of, turn_after
from dropscribe.core.model import Scope, ScopeKind

PULSE = Scope(ScopeKind.PROVIDER, "pulse")


def account(spent, *, amount=5.0, period=Period.DAY, turns_at=100.0, is_money=True):
    """One limit of the provider pulse."""
    limit = Limit(amount, is_money)
    return Account(
        PULSE, period, limit, date(2026, 11, 21), turns_at, "2026-11-22 00:00", spent, 0, last_at=50.0
    )


def at(text, zone):
    """Unix seconds of a moment in *zone*."""
    return datetime.fromisoformat(text).replace(tzinfo=zone).timestamp()


@pytest.mark.parametrize(
    ("period", "now", "zone", "turn"),
    [
        (Period.DAY, "2026-11-21T23:59:59", "UTC", "2026-11-22T00:00"),
        (Period.DAY, "2026-12-31T12:00", "Asia/Tokyo", "2027-01-01T00:00"),
        (Period.DAY, "2026-10-25T01:30", "Europe/Berlin", "2026-10-26T00:00"),
        (Period.DAY, "2026-03-29T01:30", "Europe/Berlin", "2026-03-30T00:00"),
        (Period.MONTH, "2026-01-31T12:00", "UTC", "2026-02-01T00:00"),
        (Period.MONTH, "2028-02-29T12:00", "America/New_York", "2028-03-01T00:00"),
        (Period.MONTH, "2026-12-01T00:00", "UTC", "2027-01-01T00:00"),
    ],
)
def test_a_period_turns_at_midnight_of_the_zone(period, now, zone, turn):
    """Also on days of 23 and 25 hours, at the end of a year, and in February."""
    info = ZoneInfo(zone)
    turns_at, words = turn_after(period, day_of(at(now, info), info), info)
    assert turns_at == at(turn, info)
    assert words == turn.replace("T", " ")


def test_the_day_is_that_of_the_zone():
    """One instant falls on different days."""
    instant = at("2026-11-21T23:30", UTC)
    assert day_of(instant, UTC) == date(2026, 11, 21)
    assert day_of(instant, ZoneInfo("Asia/Tokyo")) == date(2026, 11, 22)
    assert first_day(Period.MONTH, date(2026, 11, 22)) == date(2026, 11, 1)


@pytest.mark.parametrize(
    ("spent", "is_low", "is_spent"),
    [(3.99, False, False), (4.0, True, False), (4.99, True, False), (5.0, True, True), (9.0, True, True)],
)
def test_a_budget_is_low_at_80_and_spent_at_100_percent(spent, is_low, is_spent):
    """The bounds belong to the higher state; what is left is never negative."""
    found = account(spent)
    assert (found.is_low, found.is_spent) == (is_low, is_spent)
    assert found.left == max(0.0, 5.0 - spent)


def test_a_stop_explains_itself():
    """The limit, its period, and when it goes on."""
    (stop,) = stops_of([account(5.0)])
    assert stop.reason == "the budget of 5.00 a day is spent; it resets at 2026-11-22 00:00"
    assert (stop.scope, stop.next_probe_at, stop.since) == (PULSE, 100.0, 50.0)
    (stop,) = stops_of([account(600.0, amount=600.0, is_money=False)])
    assert stop.reason.startswith("the budget of 600 min a day")


def test_of_two_spent_limits_the_longer_one_stops():
    """A spent month outlasts a spent day; what is not spent stops nothing."""
    month = account(9.0, period=Period.MONTH, turns_at=900.0)
    (stop,) = stops_of([account(9.0), month, account(1.0)])
    assert stop.next_probe_at == 900.0
    assert stops_of([account(1.0)]) == []


def test_a_budget_counts_money_if_one_of_its_limits_does():
    """Then it takes a price."""
    assert Budget(Limit(1, is_money=False), Limit(1, is_money=True)).is_money
    assert not Budget(per_day=Limit(1, is_money=False)).is_money


def test_a_large_limit_is_written_out():
    """As its config has it."""
    assert str(Limit(2_000_000.5, is_money=False)) == "2000000.5 min"
