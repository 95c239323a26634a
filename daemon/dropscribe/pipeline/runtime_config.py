"""One config with the objects built from it, an immutable value that a reload replaces; the queue's plan."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from dropscribe.core.model import Scope, ScopeKind
from dropscribe.queue.model import Plan, ProviderLimits

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dropscribe.config.model import Config, FolderRule
    from dropscribe.core.model import Job
    from dropscribe.providers.base import Provider


@dataclass(frozen=True, slots=True)
class RuntimeConfig:
    """One config and the providers built for it.

    A call for a job works with the value it began with, also when a reload swaps it meanwhile.

    Attributes:
        decorated: (folder, provider) → the provider wrapped with the rule's preparation; only where
            a rule wants something.
        digests: (folder, provider) → the digest of all settings that affect an answer.
    """

    config: Config
    providers: Mapping[str, Provider]
    decorated: Mapping[tuple[str, str], Provider] = field(default_factory=dict)
    digests: Mapping[tuple[str, str], str] = field(default_factory=dict)

    def serves(self, job: Job) -> bool:
        """Whether this config still has the rule and the provider of a job claimed under another one."""
        rule = self.config.folders.get(job.folder)
        return rule is not None and (job.result is not None or job.provider in rule.providers)

    def rule(self, folder: str) -> FolderRule:
        """The rule by name; KeyError is a bug: the engine dispatches no folder without a rule."""
        return self.config.folders[folder]

    def provider(self, job: Job) -> Provider:
        """The provider of *job*, wrapped with its rule's preparation."""
        return self.decorated.get((job.folder, job.provider)) or self.providers[job.provider]

    def settings(self, job: Job) -> str:
        """The digest of all settings that affect an answer to *job*."""
        return self.digests[job.folder, job.provider]

    def inbox(self, folder: str) -> bytes:
        """The rule's inbox as bytes."""
        return os.fsencode(self.rule(folder).inbox)


class IntakeSide(Protocol):
    """The pipeline's requests to the intake: list an inbox, or wait longer for a file that changed."""

    def look_again(self, folder: str) -> None:
        """A file is not where its row says: list the inbox soon."""
        ...

    def note_late_change(self, folder: str, path: bytes) -> None:
        """The file changed after it had settled: give it twice the quiet time."""
        ...


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
    return Plan(limits, chains, strict_order, budgets, config.time_zone, served, config.retry)
