"""Usage of budgets: the rest of a day's or month's amount, its end, and the scopes stopped until then.

Guarantees: pure; the clock and the time zone come in as arguments. None as a zone is the system's.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING

from dropscribe.core.limits import Limit, Period
from dropscribe.core.model import Hold, Scope

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import tzinfo

LOW_SHARE = 0.8
"""Share of a budget at which a warning is sent, once in its day or month."""

BUDGET_CODE = "budget"
"""The code of a hold that ends when the day or month turns, and not by a probe."""


LEAST_BYTES_PER_SECOND = 25
"""Speech needs a higher rate in any format; only silence in FLAC or Opus comes near this one."""

SMALL_FILE_SECONDS = 3600.0
"""Longest plausible length of the smallest files: their rate in bytes has no meaning."""


def longest_plausible_seconds(size_bytes: int) -> float:
    """Upper bound of a plausible length for a recording of *size_bytes*.

    A header can claim anything: 59 bytes of FLAC can state two thousand years. A longer length, from a
    header or a provider, counts as unknown and is not charged to a budget.
    """
    return max(SMALL_FILE_SECONDS, size_bytes / LEAST_BYTES_PER_SECOND)


@dataclass(frozen=True, slots=True)
class Account:
    """The spending under one limit in the current day or month.

    Attributes:
        begins_on: The first day of the period.
        turns_at: Unix seconds when the next one begins.
        turns_on: The same as text, in the time zone.
        spent: In the limit's unit.
        unknown: Files of unknown length; they are not in *spent*.
        last_at: Unix seconds of the last entry, or None.
    """

    scope: Scope
    period: Period
    limit: Limit
    begins_on: date
    turns_at: float
    turns_on: str
    spent: float
    unknown: int
    last_at: float | None

    @property
    def left(self) -> float:
        """The amount that may still be spent; never below 0."""
        return max(0.0, self.limit.amount - self.spent)

    @property
    def is_low(self) -> bool:
        """Whether the warning share is spent."""
        return self.spent >= LOW_SHARE * self.limit.amount

    @property
    def is_spent(self) -> bool:
        """Whether nothing is left."""
        return self.spent >= self.limit.amount


def day_of(at: float, zone: tzinfo | None) -> date:
    """The day that *at* (Unix seconds) falls on."""
    return datetime.fromtimestamp(at, zone).date()


def first_day(period: Period, today: date) -> date:
    """The first day of the period that contains *today*."""
    return today if period is Period.DAY else today.replace(day=1)


def turn_after(period: Period, today: date, zone: tzinfo | None) -> tuple[float, str]:
    """The beginning of the next period: (Unix seconds, the same as text)."""
    if period is Period.DAY:
        following = today + timedelta(days=1)
    else:
        following = (today.replace(day=1) + timedelta(days=32)).replace(day=1)
    midnight = datetime(following.year, following.month, following.day, tzinfo=zone)
    return midnight.timestamp(), f"{following.isoformat()} 00:00"


def stops_of(accounts: Iterable[Account]) -> list[Hold]:
    """Holds for spent budgets; if two limits of a scope are spent, the one that ends later."""
    longest: dict[Scope, Account] = {}
    for account in accounts:
        before = longest.get(account.scope)
        if account.is_spent and (before is None or account.turns_at > before.turns_at):
            longest[account.scope] = account
    return [_stop(account) for account in longest.values()]


def _stop(account: Account) -> Hold:
    reason = f"the budget of {account.limit} a {account.period} is spent; it resets at {account.turns_on}"
    since = account.last_at or 0.0
    return Hold(account.scope, BUDGET_CODE, reason, since, account.turns_at, account.turns_at - since)
