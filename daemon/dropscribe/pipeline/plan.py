"""Derives the engine's plan from a config, also for commands that run nothing. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dropscribe.core.model import Scope, ScopeKind
from dropscribe.queue.engine import Plan, ProviderLimits

if TYPE_CHECKING:
    from dropscribe.config.model import Config


def build_plan(config: Config) -> Plan:
    """The folders, providers and budgets that the engine works with."""
    lanes = {
        name: ProviderLimits(name, provider.concurrency, provider.requests_per_minute)
        for name, provider in config.providers.items()
    }
    chains = {name: rule.providers for name, rule in config.folders.items()}
    strict_order = frozenset(name for name, rule in config.folders.items() if rule.fallback == "refused")
    parts = ((ScopeKind.PROVIDER, config.providers), (ScopeKind.FOLDER, config.folders))
    budgets = {
        Scope(kind, name): part.budget
        for kind, named in parts
        for name, part in named.items()
        if part.budget is not None
    }
    queue = config.queue
    served = None
    if queue is not None:
        served = frozenset(name for name, rule in config.folders.items() if queue.serves(rule))
    return Plan(lanes, chains, strict_order, budgets, config.time_zone, served)
