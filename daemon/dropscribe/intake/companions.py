"""Waits for the companions of a recording that is complete itself."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from dropscribe.core.errors import AudioError
from dropscribe.core.naming import companion_name, spellings
from dropscribe.core.settling import Seen, Settled, decide

if TYPE_CHECKING:
    from dropscribe.config.model import FolderRule
    from dropscribe.core.model import FileSnapshot
    from dropscribe.core.settling import QuietTimes
    from dropscribe.files.mounts import MountCache
    from dropscribe.intake.probe import OpenInbox, ProbeResult


@dataclass(slots=True)
class CompanionState:
    """State of one recording's companions at the last probe.

    Attributes:
        since: Monotonic time from which the recording waits for them.
        snapshots: At the last probe; None for a companion that was not there.
        changed_at: Monotonic time of their last observed change.
    """

    since: float
    snapshots: list[FileSnapshot | None] | None = None
    changed_at: float = 0.0


class Companions:
    """The companions of a rule's recordings.

    Args:
        times: The quiet times of its recordings.
    """

    def __init__(self, rule: FolderRule, times: QuietTimes) -> None:
        self._patterns = rule.companions
        self._times = replace(times, min_age_seconds=0.0)
        self.wait_seconds = rule.companions_wait_seconds

    def missing(
        self, inbox: OpenInbox, mounts: MountCache, path: bytes, seen: CompanionState, now: float
    ) -> bytes | None:
        """The companion that is not there or not complete; None where the recording *path* may be taken."""
        if not self._patterns or seen.since + self.wait_seconds <= now:
            return None
        looks = [_look_at(inbox, mounts, path, pattern) for pattern in self._patterns]
        snapshots = [look.snapshot if look else None for look in looks]
        if snapshots != seen.snapshots:
            seen.snapshots, seen.changed_at = snapshots, now
        for pattern, look in zip(self._patterns, looks, strict=True):
            if look is None or not isinstance(
                decide(look.signs(Seen.CLOSED), now - seen.changed_at, self._times), Settled
            ):
                return companion_name(pattern.encode(), path.rpartition(b"/")[2])
        return None


def _look_at(inbox: OpenInbox, mounts: MountCache, path: bytes, pattern: str) -> ProbeResult | None:
    directory, _, audio = path.rpartition(b"/")
    for spelling in spellings(pattern):
        try:
            return inbox.probe(os.path.join(directory, companion_name(spelling, audio)), mounts)
        except (AudioError, OSError):
            continue  # absent, no regular file, or not to be read
    return None
