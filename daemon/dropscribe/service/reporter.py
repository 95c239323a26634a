"""Reports each event once to each output: a log line, a metric, a hook, a notification."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import structlog

from dropscribe.core.naming import TEMPLATE
from dropscribe.core.text.printing import path_text, utc_text
from dropscribe.transcripts.document import is_error

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dropscribe.core.budget import Account
    from dropscribe.core.model import AttemptEnd, Hold, Job, OutputNames
    from dropscribe.service.hooks import Hooks
    from dropscribe.service.metrics import Metrics
    from dropscribe.service.notifications import Notifications

log = structlog.get_logger()


@dataclass
class Reporter:
    """Observer of the pipeline; its methods do not raise and are quick. A reload replaces its outputs.

    *failed* has hashes, because there may be many, of files that failed and have not succeeded since.
    """

    metrics: Metrics | None = None
    hooks: Hooks | None = None
    notifications: Notifications | None = None
    failed: set[int] = field(default_factory=set)

    def attempt_ended(self, job: Job, ended: AttemptEnd) -> None:
        """Count each in a metric; log failures only."""
        if self.metrics:
            self.metrics.observe_attempt(job.provider, ended.seconds, job.snapshot.size_bytes)
        if not ended.code:
            return
        if self.metrics:
            self.metrics.observe_retry(job.provider, ended.code)
        failure = {"code": ended.code, "status": ended.status, "reason": ended.reason}
        log.warning("attempt.failed", folder=job.folder, path=job.path, provider=job.provider, **failure)

    def filed(self, job: Job, filed: bytes, document: Mapping[str, Any], names: OutputNames) -> None:
        """Report a file that was moved to done or failed, where its absolute path is *filed*.

        Args:
            document: The transcript, or the error.
            names: The files in place.
        """
        file = hash((job.folder, job.path))  # a file that is retried and fails again is one file
        has_failed = is_error(document)
        if has_failed:
            self.failed.add(file)
        else:
            self.failed.discard(file)
        event, say = ("failed", log.warning) if has_failed else ("done", log.info)
        facts = {
            "provider": job.provider,
            "attempts": job.attempts,
            "waited_seconds": round(max(0.0, time.time() - job.received_at), 3),
            "audio_seconds": document.get("duration"),
            "audio_bytes": job.snapshot.size_bytes,
        }
        failure = {"code": document.get("code", ""), "reason": document.get("reason", "")}
        more = (failure if has_failed else {}) | ({"reused": True} if document.get("reused") else {})
        say(f"file.{event}", folder=job.folder, path=job.path, filed=filed, **facts, **more)
        if self.metrics:
            self.metrics.observe_filed(job.folder, event, time.time(), job.provider, document.get("duration"))
        if self.hooks or self.notifications:
            places = _places(job, filed, names, document.get("recorded_at"))
            self._tell(event, {**places, **facts, **failure})

    def held(self, hold: Hold) -> None:
        """Report the beginning of a hold, once; its probes are not reported."""
        event = f"{hold.scope.kind}.held"
        fields = {
            str(hold.scope.kind): hold.scope.name,
            "code": hold.code,
            "reason": hold.reason,
            "next_probe": utc_text(hold.next_probe_at),
        }
        log.error(event, **fields)
        self._tell("held", {**fields, "since": utc_text(hold.since)})

    def released(self, hold: Hold) -> None:
        """Report the end of a hold, once."""
        event = f"{hold.scope.kind}.released"
        fields = {str(hold.scope.kind): hold.scope.name, "held_seconds": round(time.time() - hold.since, 1)}
        log.info(event, **fields)
        self._tell("released", fields)

    def budget_low(self, account: Account) -> None:
        """Report that most of a budget is spent, once in its day or month."""
        share = account.spent / account.limit.amount
        fields = {
            str(account.scope.kind): account.scope.name,
            "period": str(account.period),
            "limit": account.limit.amount,
            "spent": round(account.spent, 6),
            "unit": account.limit.unit,
            "reason": f"{share:.0%} of {account.limit} a {account.period} is spent",
        }
        log.warning("budget.low", **fields)
        self._tell("budget", {**fields, "turns_at": utc_text(account.turns_at)})

    def _tell(self, event: str, payload: Mapping[str, object]) -> None:
        if self.hooks:
            self.hooks.notify(event, payload)
        if self.notifications:
            self.notifications.notify(event, payload)


def _places(job: Job, filed: bytes, names: OutputNames, recorded_at: str | None) -> dict[str, object]:
    outputs = [(form, path_text(names.path(name))) for form, name in names.sidecars]
    return {
        "folder": job.folder,
        "path": path_text(job.path),
        "filed": path_text(filed),
        "outputs": {form.removeprefix(TEMPLATE): path for form, path in outputs},
        "transcript": next((path for form, path in outputs if form == "json"), None),
        "companions": [path_text(names.path(companion.name)) for companion in names.companions],
        "recorded_at": recorded_at,
    }
