"""Waits for the companions of a recording that is complete itself."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from dropscribe.core.errors import AudioError
from dropscribe.core.naming import companion_name, spellings
from dropscribe.core.settling import Seen, Settled, decide

if TYPE_CHECKING:
    from dropscribe.core.settling import QuietTimes
    from dropscribe.files.mounts import MountCache
    from dropscribe.intake.probe import OpenInbox, ProbeResult

_LONGEST_LOOK_SECONDS = 5.0


@dataclass(slots=True)
class CompanionState:
    """State of one recording's companions at the last probe.

    Attributes:
        since: Monotonic time from which the recording waits for them.
        signatures: At the last probe; None for a companion that was not there.
        changed_at: Monotonic time of their last observed change.
    """

    since: float
    signatures: tuple[tuple[int, ...] | None, ...] = ()
    changed_at: float = 0.0


class CompanionWait(NamedTuple):
    """A recording has to wait.

    Attributes:
        name: The companion that is not there, or not complete.
        look_seconds: Until the next look.
        until: Monotonic time at which the recording is taken without it.
    """

    name: bytes
    look_seconds: float
    until: float


class CompanionRule(NamedTuple):
    """A rule's companions.

    Attributes:
        patterns: Of names, such as ``{stem}.json``.
        wait_seconds: How long a recording waits for them.
        times: The quiet times of companions.
    """

    patterns: tuple[str, ...]
    wait_seconds: float
    times: QuietTimes

    def wait_of(
        self, inbox: OpenInbox, mounts: MountCache, path: bytes, seen: CompanionState, now: float
    ) -> CompanionWait | None:
        """The wait of the recording *path* for a companion; None where it may be taken."""
        left_seconds = seen.since + self.wait_seconds - now
        if not self.patterns or left_seconds <= 0:
            return None
        looks = [_look_at(inbox, mounts, path, pattern) for pattern in self.patterns]
        signatures = tuple(None if look is None else look.signature for look in looks)
        if signatures != seen.signatures:
            seen.signatures, seen.changed_at = signatures, now
        for pattern, look in zip(self.patterns, looks, strict=True):
            if look is None or not self._is_settled(look, now - seen.changed_at):
                name = companion_name(pattern.encode(), path.rpartition(b"/")[2])
                look_seconds = min(left_seconds, max(1.0, (now - seen.since) / 2), _LONGEST_LOOK_SECONDS)
                return CompanionWait(name, look_seconds, seen.since + self.wait_seconds)
        return None

    def _is_settled(self, look: ProbeResult, quiet_seconds: float) -> bool:
        return isinstance(decide(look.signs(Seen.CLOSED), quiet_seconds, self.times), Settled)


def _look_at(inbox: OpenInbox, mounts: MountCache, path: bytes, pattern: str) -> ProbeResult | None:
    directory, _, audio = path.rpartition(b"/")
    for spelling in spellings(pattern):
        try:
            return inbox.probe(os.path.join(directory, companion_name(spelling, audio)), mounts)
        except (AudioError, OSError):
            continue  # absent, no regular file, or not to be read
    return None
