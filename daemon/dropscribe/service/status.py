"""The object of ``status --json`` and /status, and its part that only a running daemon knows (``live.json``).

That part (the inboxes, how each is watched, the reason that each settling file waits for) is a small file in
the state directory, which ``status`` and ``why`` read. It is replaced atomically and never synced: nothing
depends on it.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dropscribe.config.model import Config
from dropscribe.core.budget import Account, Period
from dropscribe.core.model import Scope, ScopeKind
from dropscribe.core.text.printing import utc_text
from dropscribe.queue.model import FolderStats, NodeStats, Pause, Stats, probes_at

LIVE_NAME = "live.json"
WAITING_STATES = ("settling", "queued", "deferred", "held", "publishing", "blocked")
"""Counts of a folder that together are the files that wait; each file is in one of them."""

_LIVE_COUNTS = ("settling", "blocked", "found_without_hint", "hint_overflows")
_COUNTS = (
    *("queued", "transcribing", "at_provider", "deferred", "held", "backlog", "publishing", "stuck"),
    *("done", "failed", "suspect", "maybe_paid_twice"),
)
WATCHED_ELSEWHERE = "others"  # the value of ``watch`` for an inbox that other nodes serve
ELSEWHERE: dict[str, Any] = {"watch": WATCHED_ELSEWHERE}


def write_live(state_dir: Path, live: Mapping[str, Any]) -> None:
    """Replace the file; a full disk is no reason to stop."""
    temp = state_dir / f".{LIVE_NAME}.tmp"
    with contextlib.suppress(OSError):
        descriptor = os.open(temp, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(json.dumps(live))
        os.replace(temp, state_dir / LIVE_NAME)


def read_live(state_dir: Path) -> dict[str, Any]:
    """The last state that a daemon wrote; {} if there is none."""
    try:
        live = json.loads((state_dir / LIVE_NAME).read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return live if isinstance(live, dict) else {}


def status_document(
    config: Config, stats: Stats, live: Mapping[str, Any], *, running: bool, now: float
) -> dict[str, Any]:
    """Everything that waits, is in flight, is held, was done or failed.

    Args:
        stats: The queue's counts and holds.
        live: As :func:`read_live`; of a daemon that is down only the last state of the inboxes is used.
        running: Whether a daemon has the state directory, or any node of the cluster beats.
        now: Unix seconds by the queue's clock.
    """
    folders, daemon = live.get("folders", {}), live if running else {}
    if running and stats.nodes is not None:
        daemon = {**live, "providers": stats.in_flight}
    return {
        "schema": "dropscribe.status/1",
        "running": running,
        "nodes": None if stats.nodes is None else [_node(node, now) for node in stats.nodes],
        "trouble": daemon.get("trouble"),
        "folders": {
            name: _folder(name, stats, folders.get(name, {}) if config.watches(rule) else ELSEWHERE, now)
            for name, rule in config.folders.items()
        },
        "providers": {name: _provider(name, stats, daemon, now) for name in config.providers},
        "removed_folders": dict(stats.removed),
    }


def _node(node: NodeStats, now: float) -> dict[str, Any]:
    return {
        **{key: getattr(node, key) for key in ("name", "host", "role", "version", "in_flight")},
        "started_at": utc_text(node.started_at),
        "last_beat": utc_text(node.beat_at),
        "silent": node.is_silent(now),
    }


def _folder(name: str, stats: Stats, live: Mapping[str, Any], now: float) -> dict[str, Any]:
    counts, scope = stats.folders.get(name, FolderStats()), Scope(ScopeKind.FOLDER, name)
    oldest = [at for at in (counts.oldest_received_at, live.get("oldest_settling_at")) if at is not None]
    return {
        "available": bool(live.get("available", True)),
        "reason": live.get("reason"),
        "watch": live.get("watch", "native"),
        **{key: int(live.get(key, 0)) for key in _LIVE_COUNTS},
        **{key: getattr(counts, key) for key in _COUNTS},
        "at_provider_since": utc_text(counts.at_provider_since) if counts.at_provider_since else None,
        "stuck_reason": counts.stuck_reason or None,
        "idle_writers": list(live.get("idle_writers", ())),
        "oldest_waiting": round(max(0.0, now - min(oldest)), 1) if oldest else None,
        "hold": _hold(stats, scope, None),
        "budget": _budget(stats.accounts, scope),
    }


def _provider(name: str, stats: Stats, daemon: Mapping[str, Any], now: float) -> dict[str, Any]:
    scope, pause = Scope(ScopeKind.PROVIDER, name), stats.pauses.get(name)
    hold = _hold(stats, scope, pause)
    next_start_at = daemon.get("next_starts", {}).get(name, 0.0)
    return {
        "state": "held" if hold else "ready",
        **(hold or dict.fromkeys(("code", "reason", "since", "next_probe"))),
        "paused_until": utc_text(pause.until) if pause else None,
        "next_request": utc_text(next_start_at) if next_start_at > now else None,
        "in_flight": daemon.get("providers", {}).get(name, 0),
        "budget": _budget(stats.accounts, scope),
    }


def _hold(stats: Stats, scope: Scope, pause: Pause | None) -> dict[str, Any] | None:
    hold = {hold.scope: hold for hold in stats.holds}.get(scope)
    if hold is None:
        return None
    return {
        "code": hold.code,
        "reason": hold.reason,
        "since": utc_text(hold.since),
        "next_probe": utc_text(probes_at(hold, pause)),
    }


def _budget(accounts: Sequence[Account], scope: Scope) -> dict[str, Any] | None:
    found = {account.period: account for account in accounts if account.scope == scope}
    if not found:
        return None
    return {f"per_{period}": found.get(period) and _account(found[period]) for period in Period}


def _account(account: Account) -> dict[str, Any]:
    return {
        "limit": account.limit.amount,
        "spent": round(account.spent, 6),
        "left": round(account.left, 6),
        "unit": account.limit.unit,
        "unknown_files": account.unknown,
        "turns_at": utc_text(account.turns_at),
    }
