"""Derives the engine's plan from a config, also for commands that run nothing. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dropscribe.core.model import Scope, ScopeKind
from dropscribe.core.retry import RetryLimits
from dropscribe.queue.model import Plan, ProviderLimits

if TYPE_CHECKING:
    from dropscribe.config.model import Config


def build_plan(config: Config) -> Plan:
    """The folders, providers and budgets that the engine works with."""
    limits = {
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
    return Plan(limits, chains, strict_order, budgets, config.time_zone, served, retry_limits(config))


def retry_limits(config: Config) -> RetryLimits:
    """The limits of the config's ``retry`` section."""
    retry = config.retry
    return RetryLimits(
        first_seconds=retry.first_seconds,
        max_seconds=retry.max_seconds,
        give_up_after_seconds=retry.give_up_after_seconds,
        max_ambiguous=retry.max_ambiguous,
        max_crashes=retry.max_crashes,
    )
