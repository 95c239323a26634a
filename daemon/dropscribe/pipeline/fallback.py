"""From one provider of a list to the next, when a file was refused as itself (``fallback``)."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from dropscribe.core.errors import AudioRejected
from dropscribe.core.model import Retry, Scope, ScopeKind
from dropscribe.core.routing import next_after_refusal

if TYPE_CHECKING:
    from dropscribe.core.errors import ProviderError
    from dropscribe.core.model import AttemptEnd, Job
    from dropscribe.pipeline.runtime_config import RuntimeConfig
    from dropscribe.queue.engine import Engine

_OURS = frozenset({"empty_file", "crashed_daemon", "link_refused", "duplicate", "internal_error"})
"""Refusals that are dropscribe's own: no other provider would get the file either."""


class Fallback:
    """Finds the next provider for a file that others have refused."""

    def __init__(self, queue: Engine) -> None:
        self._queue = queue

    async def onward(
        self, job: Job, runtime: RuntimeConfig, error: ProviderError, ended: AttemptEnd
    ) -> Retry | None:
        """The way to the next provider; None where there is none, or *error* is no refusal of the file."""
        if not isinstance(error, AudioRejected) or error.maybe_rule or error.code in _OURS:
            return None
        if not _falls_back(job, runtime):
            return None
        rule = runtime.rule(job.folder)
        refused = {provider for provider, _ in await self.refusals(job, runtime)} | {job.provider}
        held = {name for name in rule.providers if self._is_held(name)} if rule.fallback == "both" else set()
        following = next_after_refusal(rule.providers, refused, held)
        if following is None:
            return None
        told = replace(ended, refused=True)
        return Retry(0.0, error.code, error.reason, told, ended.seconds, following)

    async def refusals(self, job: Job, runtime: RuntimeConfig) -> list[tuple[str, str]]:
        """(provider, code) of the refusals so far, in order."""
        if not _falls_back(job, runtime):
            return []
        return [
            (tried.provider, tried.code) for tried in await self._queue.results.attempts(job) if tried.refused
        ]

    def _is_held(self, provider: str) -> bool:
        scope = Scope(ScopeKind.PROVIDER, provider)
        return self._queue.holds.get(scope) is not None or self._queue.holds.is_stopped(scope)


def _falls_back(job: Job, runtime: RuntimeConfig) -> bool:
    rule = runtime.rule(job.folder)
    return rule.fallback != "held" and len(rule.providers) > 1
