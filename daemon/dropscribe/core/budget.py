"""Budgets: their limits, the entries that are charged to them, and the scopes that a spent one stops.

Guarantees: pure; the clock and the time zone come in as arguments. None as a zone is the system's.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, datetime, timedelta, tzinfo

from dropscribe.core.model import Hold, Scope
from dropscribe.core.text.printing import amount_words

LOW_SHARE = 0.8  # share of a budget at which a warning is sent, once in its day or month
BUDGET_CODE = "budget"  # the code of a hold that ends when the day or month turns, and not by a probe
LEAST_BYTES_PER_SECOND = 25
"""Speech needs a higher rate in any format; only silence in FLAC or Opus comes near this one."""

SMALL_FILE_SECONDS = 3600.0
"""Longest plausible length of the smallest files: their rate in bytes has no meaning."""


class Period(enum.StrEnum):
    """The period of a limit."""

    DAY = "day"
    MONTH = "month"


@dataclass(frozen=True, slots=True)
class Limit:
    """A limit in money or in minutes of audio; more than 0."""

    amount: float
    is_money: bool

    @property
    def unit(self) -> str:
        """``money`` or ``min``."""
        return "money" if self.is_money else "min"

    def __str__(self) -> str:
        return amount_words(self.amount) if self.is_money else f"{self.amount:.15g} min"


@dataclass(frozen=True, slots=True)
class Budget:
    """The budget of a provider or folder: at least one of the two limits."""

    per_day: Limit | None = None
    per_month: Limit | None = None

    @property
    def limits(self) -> tuple[tuple[Period, Limit], ...]:
        """Those that are set."""
        both = ((Period.DAY, self.per_day), (Period.MONTH, self.per_month))
        return tuple((period, limit) for period, limit in both if limit is not None)

    @property
    def is_money(self) -> bool:
        """Whether a limit is in money, so that a price is needed."""
        return any(limit.is_money for _, limit in self.limits)


@dataclass(frozen=True, slots=True)
class AnswerKey:
    """The key of an answer in the result cache."""

    sha256: str  # hex digest of the audio
    settings: str  # hex digest of all settings that affect an answer (provider, parameters, rule)


@dataclass(frozen=True, slots=True)
class Spending:
    """The cost of one answer, charged to a provider or a folder."""

    scope: Scope
    day: str  # in the configured time zone, "2026-11-21"
    money: float
    seconds: float | None  # of audio; None if unknown


@dataclass(frozen=True, slots=True)
class Booking:
    """Entries of an answer in the result cache and the budgets, written in the transaction that stores it."""

    answer: AnswerKey | None = None  # None where it is not cached
    keep_seconds: float = 0.0  # cached answers that are older than this are deleted
    spending: tuple[Spending, ...] = ()
    document: bytes = b""  # the document for the cache, if it differs from the stored result's; else b""


@dataclass(frozen=True, slots=True)
class Account:
    """The spending under one limit in the current day or month."""

    scope: Scope
    period: Period
    limit: Limit
    begins_on: date  # the first day of the period
    turns_at: float  # Unix seconds when the next one begins
    turns_on: str  # the same as text, in the time zone
    spent: float  # in the limit's unit
    unknown: int  # files of unknown length; they are not in *spent*
    last_at: float | None  # Unix seconds of the last entry, or None

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


def longest_plausible_seconds(size_bytes: int) -> float:
    """Upper bound of a plausible length for a recording of *size_bytes*.

    A header can claim anything: 59 bytes of FLAC can state two thousand years. A longer length, from a
    header or a provider, counts as unknown and is not charged to a budget.
    """
    return max(SMALL_FILE_SECONDS, size_bytes / LEAST_BYTES_PER_SECOND)


def day_of(at: float, zone: tzinfo | None) -> date:
    """The day that *at* (Unix seconds) falls on."""
    return datetime.fromtimestamp(at, zone).date()


def first_day(period: Period, today: date) -> date:
    """The first day of the period that contains *today*."""
    return today if period is Period.DAY else today.replace(day=1)


def turn_after(period: Period, today: date, zone: tzinfo | None) -> tuple[float, str]:
    """The beginning of the next period: (Unix seconds, the same as text)."""
    a_period_later = timedelta(days=1 if period is Period.DAY else 32)
    following = first_day(period, first_day(period, today) + a_period_later)
    midnight = datetime(following.year, following.month, following.day, tzinfo=zone)
    return midnight.timestamp(), f"{following.isoformat()} 00:00"


def stops_of(accounts: Iterable[Account]) -> list[Hold]:
    """Holds for spent budgets; if two limits of a scope are spent, the one that ends later."""
    longest: dict[Scope, Account] = {}
    for account in accounts:
        before = longest.get(account.scope)
        if account.is_spent and (before is None or account.turns_at > before.turns_at):
            longest[account.scope] = account
    stops = []
    for scope, account in longest.items():
        reason = f"the budget of {account.limit} a {account.period} is spent; it resets at {account.turns_on}"
        since = account.last_at or 0.0
        stops.append(Hold(scope, BUDGET_CODE, reason, since, account.turns_at, account.turns_at - since))
    return stops
