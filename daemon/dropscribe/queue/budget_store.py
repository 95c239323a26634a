"""Usage of budgets, and marks of the warnings that were sent."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dropscribe.core.budget import day_of, stops_of
from dropscribe.queue.sql import budget_usage

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from dropscribe.core.budget import Account
    from dropscribe.core.model import Hold, Scope
    from dropscribe.queue.admission import Admission
    from dropscribe.queue.retrying_database import RetryingDatabase
    from dropscribe.queue.signals import Signals
    from dropscribe.queue.sql.database import Connection


class BudgetStore:
    """Reads the accounts of all budgets, and stops providers and folders whose budget is spent.

    Args:
        void_claims: See :class:`~dropscribe.queue.hold_store.HoldStore`.
    """

    def __init__(
        self,
        database: RetryingDatabase,
        signals: Signals,
        admission: Admission,
        void_claims: Callable[[Connection, Scope], None],
    ) -> None:
        self._database = database
        self._signals = signals
        self._admission = admission
        self._void_claims = void_claims

    async def check(self) -> Sequence[Account]:
        """Read every account; where one is spent, nothing is claimed until its day or month turns."""
        now, plan = self._database.now(), self._admission.plan

        def read(db: Connection) -> tuple[Sequence[Account], Sequence[Hold]]:
            accounts = budget_usage.read_accounts(db, plan.budgets, plan.zone, now)
            stops = stops_of(accounts)
            for stop in stops:
                self._void_claims(db, stop.scope)
            return accounts, stops

        accounts, stops = await self._database.do(read)
        self._admission.holds.replace_stops(stops)
        self._signals.wake.set()
        return accounts

    async def mark_once(self, mark: str) -> bool:
        """Whether *mark* was never written before, in this run or an earlier one; writes it."""
        today = day_of(self._database.now(), self._admission.plan.zone)
        return await self._database.do(lambda db: budget_usage.write_mark(db, mark, today))
