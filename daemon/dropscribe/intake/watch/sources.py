"""Chooses an inbox's hint source: inotify, else the watchdog library, else none and the inbox is polled."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import structlog

from dropscribe.intake.watch.hints import HintSource, HintsUnavailable
from dropscribe.intake.watch.inotify import InotifyHints

if TYPE_CHECKING:
    from dropscribe.config.model import FolderRule
    from dropscribe.files.mounts import Mount

log = structlog.get_logger()


def open_hints(rule: FolderRule, mount: Mount) -> HintSource | None:
    """The source for *rule*'s inbox on *mount*, or None if it must be polled."""
    if rule.watch == "poll" or (rule.watch == "auto" and not mount.gives_events):
        return None
    try:
        return InotifyHints()
    except HintsUnavailable as error:
        reason = str(error)
    log.warning("watch.unavailable", folder=rule.name, source="inotify", reason=reason)
    try:
        return _open_watchdog(os.fsencode(rule.inbox), recursive=rule.recursive)
    except HintsUnavailable as error:
        log.warning("watch.unavailable", folder=rule.name, source="watchdog", reason=str(error))
        return None


def _open_watchdog(root: bytes, *, recursive: bool) -> HintSource:
    # Loaded only here: where inotify works, its threads and tables are never needed.
    from dropscribe.intake.watch.watchdog_hints import WatchdogHints  # noqa: PLC0415

    return WatchdogHints(root, recursive=recursive)
