"""Budgets as limits of a day or month; their usage is in ``budget.py``. Pure."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from dropscribe.core.text.printing import amount_words


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
        return amount_words(self.amount) if self.is_money else f"{self.amount:g} min"


@dataclass(frozen=True, slots=True)
class Budget:
    """A provider's or a folder's; at least one of the two."""

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
