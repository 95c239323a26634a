"""Reports each event once to each output: a log line, a metric, a hook, a notification."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import structlog

from dropscribe.core.model import ScopeKind
from dropscribe.core.naming import TEMPLATE
from dropscribe.core.text.printing import path_text, utc_text

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dropscribe.core.budget import Account
    from dropscribe.core.model import AttemptEnd, Hold, Job
    from dropscribe.pipeline.observer import Filed
    from dropscribe.service.hooks import Hooks
    from dropscribe.service.metrics import Metrics
    from dropscribe.service.notifications import Notifications

log = structlog.get_logger()

_HELD = {ScopeKind.PROVIDER: "provider.held", ScopeKind.FOLDER: "folder.held"}
_RELEASED = {ScopeKind.PROVIDER: "provider.released", ScopeKind.FOLDER: "folder.released"}


@dataclass
class Reporter:
    """See :class:`dropscribe.pipeline.observer.Observer`.

    Attributes:
        metrics, hooks, notifications: Replaced at a reload; None where there are none.
        failed: Hashes of the files that failed since the start and have not succeeded since; hashes, because
            there may be many.
    """

    metrics: Metrics | None = None
    hooks: Hooks | None = None
    notifications: Notifications | None = None
    failed: set[int] = field(default_factory=set)

    def attempt_ended(self, job: Job, ended: AttemptEnd) -> None:
        """Count each in a metric; log failures only."""
        if self.metrics:
            self.metrics.observe_attempt(job.provider, ended.seconds, job.snapshot.size_bytes)
        if ended.code:
            log.warning(
                "attempt.failed",
                folder=job.folder,
                path=job.path,
                provider=job.provider,
                code=ended.code,
                status=ended.status,
                reason=ended.reason,
            )
            if self.metrics:
                self.metrics.observe_retry(job.provider, ended.code)

    def filed(self, filed: Filed) -> None:
        """Log one summary line for the file."""
        file = hash((filed.folder, filed.path))  # a file that is retried and fails again is one file
        if filed.is_done:
            self.failed.discard(file)
        else:
            self.failed.add(file)
        event = "done" if filed.is_done else "failed"
        say = log.info if filed.is_done else log.warning
        say(
            f"file.{event}",
            folder=filed.folder,
            path=filed.path,
            filed=filed.filed,
            provider=filed.provider,
            attempts=filed.attempts,
            waited_seconds=round(filed.waited_seconds, 3),
            audio_seconds=filed.audio_seconds,
            audio_bytes=filed.audio_bytes,
            **({"code": filed.code, "reason": filed.reason} if filed.code else {}),
            **({"reused": True} if filed.is_reused else {}),
        )
        if self.metrics:
            self.metrics.observe_filed(filed.folder, event, time.time(), filed.provider, filed.audio_seconds)
        if self.hooks or self.notifications:
            self._tell(event, _filed_payload(filed))

    def held(self, hold: Hold) -> None:
        """Report the beginning of a hold, once."""
        log.error(_HELD[hold.scope.kind], **_hold_fields(hold))
        self._tell("held", {**_hold_fields(hold), "since": utc_text(hold.since)})

    def released(self, hold: Hold) -> None:
        """Report the end of a hold, once."""
        fields = {str(hold.scope.kind): hold.scope.name, "held_seconds": round(time.time() - hold.since, 1)}
        log.info(_RELEASED[hold.scope.kind], **fields)
        if self.notifications:
            self.notifications.notify("released", fields)

    def budget_low(self, account: Account) -> None:
        """Report that most of a budget is spent, once in its day or month."""
        log.warning("budget.low", **_account_fields(account))
        self._tell("budget", {**_account_fields(account), "turns_at": utc_text(account.turns_at)})

    def _tell(self, event: str, payload: Mapping[str, object]) -> None:
        if self.hooks:
            self.hooks.notify(event, payload)
        if self.notifications:
            self.notifications.notify(event, payload)


def _account_fields(account: Account) -> dict[str, object]:
    share = account.spent / account.limit.amount
    return {
        str(account.scope.kind): account.scope.name,
        "period": str(account.period),
        "limit": account.limit.amount,
        "spent": round(account.spent, 6),
        "unit": account.limit.unit,
        "reason": f"{share:.0%} of {account.limit} a {account.period} is spent",
    }


def _hold_fields(hold: Hold) -> dict[str, object]:
    return {
        str(hold.scope.kind): hold.scope.name,
        "code": hold.code,
        "reason": hold.reason,
        "next_probe": utc_text(hold.next_probe_at),
    }


def _filed_payload(filed: Filed) -> dict[str, object]:
    return {
        "folder": filed.folder,
        "path": path_text(filed.path),
        "filed": path_text(filed.filed),
        "outputs": {form.removeprefix(TEMPLATE): path_text(path) for form, path in filed.outputs},
        "transcript": next((path_text(path) for form, path in filed.outputs if form == "json"), None),
        "companions": [path_text(path) for path in filed.companions],
        "recorded_at": filed.recorded_at,
        "provider": filed.provider,
        "attempts": filed.attempts,
        "waited_seconds": round(filed.waited_seconds, 3),
        "audio_seconds": filed.audio_seconds,
        "audio_bytes": filed.audio_bytes,
        "code": filed.code,
        "reason": filed.reason,
    }
