"""Admission control in memory, by slots, rates, pauses, holds and closed folders."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from dropscribe.core.model import Scope, ScopeKind
from dropscribe.core.routing import Route, routes_for
from dropscribe.queue.model import Plan
from dropscribe.queue.sql.rows import ClaimRequest

if TYPE_CHECKING:
    from collections.abc import Collection

    from dropscribe.core.model import Job
    from dropscribe.queue.folder_gate import FolderGate
    from dropscribe.queue.hold_store import HoldStore
    from dropscribe.queue.in_flight import InFlight
    from dropscribe.queue.model import ProviderLimits
    from dropscribe.queue.provider_rates import ProviderRates


class Admission:
    """Selects the jobs that may start now, from the plan and the state in memory.

    Attributes:
        plan: Folders, providers and limits of the config; swapped by :meth:`replan`.
        in_flight: The jobs in flight.
        folders: The closed folders.
        holds: Holds and spent budgets.
        rates: Rate limits and pauses of the providers.
    """

    def __init__(
        self, in_flight: InFlight, folders: FolderGate, holds: HoldStore, rates: ProviderRates
    ) -> None:
        self.plan = Plan({}, {})
        self.in_flight = in_flight
        self.folders = folders
        self.holds = holds
        self.rates = rates
        self._turn = itertools.count(1)
        self._turns: dict[tuple[str, str], int] = {}

    def replan(self, plan: Plan) -> None:
        """Swap the plan; jobs in flight continue as they began."""
        self.plan = plan
        self.rates.replan(plan.providers.values())

    def started(self, job: Job) -> None:
        """Count a request of *job* towards its provider's rate, and note its folder's turn."""
        self.rates.started(job.provider)
        self._turns[job.provider, job.folder] = next(self._turn)

    def requests(self) -> list[ClaimRequest]:
        """The claim requests of all providers that can start a job now."""
        return [request for limits in self.plan.providers.values() for request in self._requests_of(limits)]

    def open_routes(self) -> list[tuple[str, tuple[Route, ...]]]:
        """(provider, routes) of the jobs that neither a hold nor a closed folder stops."""
        held = self.holds.names(ScopeKind.PROVIDER)
        closed = self.folders.closed | self.holds.names(ScopeKind.FOLDER)
        return [(name, self._routes(name, closed)) for name in self.plan.providers if name not in held]

    def open_folders(self) -> list[str]:
        """Folders whose stored results can be published, as far as is known."""
        return [folder for folder in self.plan.chains if folder not in self.folders.closed]

    def is_busy(self) -> bool:
        """Whether anything is in flight, other than publications that hang."""
        return self.in_flight.is_busy(self.folders.hanging)

    def waits(self) -> list[float]:
        """Seconds until something changes by itself: probes, rates, pauses."""
        return self.holds.waits() + self.rates.waits()

    def _requests_of(self, limits: ProviderLimits) -> list[ClaimRequest]:
        provider = limits.provider
        scope = Scope(ScopeKind.PROVIDER, provider)
        free = self._free_slots(limits)
        if free <= 0 or self.holds.is_stopped(scope):
            return []
        routes = self._routes(provider, self.folders.closed | self.holds.names(ScopeKind.FOLDER))
        if self.holds.get(scope) is None:
            in_flight = self.in_flight.uploads_by_folder(provider)
            turns = {route.folder: self._turns.get((provider, route.folder), 0) for route in routes}
            # One slot is left to smaller files, where there is more than one.
            most_large = max(limits.slots - 1, 1) - self.in_flight.large_uploads(provider)
            request = ClaimRequest(provider, routes, free, False, in_flight, turns, most_large)
            return [request, *self._folder_probes(provider)]
        if provider not in self.holds.due_probes(ScopeKind.PROVIDER) or self.in_flight.at(provider):
            return []
        return [ClaimRequest(provider, routes, 1, is_probe=True)]

    def _free_slots(self, limits: ProviderLimits) -> int:
        provider, taken = limits.provider, self.in_flight.at(limits.provider)
        remote = sum(each == provider for each in self.in_flight.at_provider.values())
        return min(
            limits.slots - taken,
            limits.remote_jobs - remote - taken,
            self.rates.allowance(provider, taken),
        )

    def _folder_probes(self, provider: str) -> list[ClaimRequest]:
        """One job of each held folder whose probe is due, if none of it is in flight."""
        due = self.holds.due_probes(ScopeKind.FOLDER)
        return [
            ClaimRequest(provider, (route,), 1, is_probe=True)
            for route in self._routes(provider, self.folders.closed)
            if route.folder in due and not self.in_flight.folders[route.folder]
        ]

    def _routes(self, provider: str, closed: Collection[str]) -> tuple[Route, ...]:
        held = self.holds.names(ScopeKind.PROVIDER)
        return tuple(routes_for(provider, self.plan.chains, held, closed, self.plan.strict_order))
