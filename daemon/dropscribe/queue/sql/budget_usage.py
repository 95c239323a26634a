"""Rows of spending, and their sums for each budget."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, timedelta, tzinfo

from dropscribe.core.budget import Account, Budget, Limit, Period, Spending, day_of, first_day, turn_after
from dropscribe.core.model import Scope, ScopeKind
from dropscribe.queue.sql.database import Connection

MARK_PREFIX = "told:"
_MARK_DAYS = 62  # marks are kept for this time: longer than any month
_ADDED = (
    " ON CONFLICT (kind, name, day) DO UPDATE SET money = spending.money + excluded.money,"
    " seconds = spending.seconds + excluded.seconds, unknown = spending.unknown + excluded.unknown,"
    " at = excluded.at"
)


def write_spending(db: Connection, spending: Spending, now: float) -> None:
    """Add one answer's cost to its day."""
    scope, is_unknown = spending.scope, spending.seconds is None
    db.execute(
        f"INSERT INTO spending VALUES (?, ?, ?, ?, ?, ?, ?){_ADDED}",
        (scope.kind, scope.name, spending.day, spending.money, spending.seconds or 0.0, int(is_unknown), now),
    )


def rename_folder(db: Connection, old: str, new: str) -> None:
    """Add the spending of a rule to that of its new name."""
    of_old = "FROM spending WHERE kind = ? AND name = ?"
    moved = f"SELECT kind, ?, day, money, seconds, unknown, at {of_old}"
    db.execute(f"INSERT INTO spending {moved}{_ADDED}", (new, ScopeKind.FOLDER, old))
    db.execute(f"DELETE {of_old}", (ScopeKind.FOLDER, old))


def read_accounts(
    db: Connection, budgets: Mapping[Scope, Budget], zone: tzinfo | None, now: float
) -> list[Account]:
    """An account for each limit, of the day or month that *now* (Unix seconds) is in."""
    if not budgets:
        return []
    today = day_of(now, zone)
    limits = [(scope, *limit) for scope, budget in budgets.items() for limit in budget.limits]
    return [_account(db, scope, period, limit, today, zone) for scope, period, limit in limits]


def _account(
    db: Connection, scope: Scope, period: Period, limit: Limit, today: date, zone: tzinfo | None
) -> Account:
    begins_on = first_day(period, today)
    money, seconds, unknown, last_at = db.execute(
        "SELECT coalesce(sum(money), 0.0), coalesce(sum(seconds), 0.0), coalesce(sum(unknown), 0), max(at)"
        " FROM spending WHERE kind = ? AND name = ? AND day BETWEEN ? AND ?",
        (scope.kind, scope.name, begins_on.isoformat(), today.isoformat()),
    ).fetchone()
    spent = money if limit.is_money else seconds / 60
    turns_at, turns_on = turn_after(period, today, zone)
    return Account(scope, period, limit, begins_on, turns_at, turns_on, spent, int(unknown), last_at)


def write_mark(db: Connection, mark: str, today: date) -> bool:
    """Write *mark*, and delete old ones; False if it was written before."""
    oldest = (today - timedelta(days=_MARK_DAYS)).isoformat()
    old = (len(MARK_PREFIX), MARK_PREFIX, oldest)
    db.execute("DELETE FROM facts WHERE substr(name, 1, ?) = ? AND value < ?", old)
    row = (f"{MARK_PREFIX}{mark}", today.isoformat())
    return db.execute("INSERT INTO facts VALUES (?, ?) ON CONFLICT DO NOTHING", row).rowcount == 1
