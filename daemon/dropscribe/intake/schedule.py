"""When an inbox is listed again. Pure: durations in, times out."""

from __future__ import annotations

NATIVE_SECONDS = 60.0
POLL_SECONDS = 5.0
_STRETCH = 10.0
_GAP_SECONDS = 1.0
_GAP_STRETCH = 2.0
_CONFIRM_SECONDS = 2.0
_FULL_EVERY = 10


class Schedule:
    """The rhythm of one inbox's whole listings.

    Args:
        rescan_seconds: The rule's own interval, or None: 60 where every folder is watched, else 5.

    Attributes:
        next_at: Monotonic time of the next listing.
        last_work_seconds: Duration of the last one, without the waits between its slices.
    """

    def __init__(self, rescan_seconds: float | None) -> None:
        self._rescan_seconds = rescan_seconds
        self._work_seconds = 0.0
        self._began_at = float("-inf")
        self._count = 0
        self._is_full_asked = True
        self.next_at = 0.0
        self.last_work_seconds = 0.0

    def restart(self, now: float) -> None:
        """List everything at once, because the inbox has become available."""
        self._is_full_asked = True
        self.next_at = now

    def ask(self, now: float) -> None:
        """List everything soon, but at most once a second and for at most a third of the time."""
        self._is_full_asked = True
        gap_seconds = max(_GAP_SECONDS, _GAP_STRETCH * self.last_work_seconds)
        self.next_at = min(self.next_at, max(now, self._began_at + gap_seconds))

    def begin(self, now: float) -> bool:
        """A listing begins; whether it may skip folders that have not changed."""
        may_skip = not self._is_full_asked and self._count % _FULL_EVERY != 0
        self._count += 1
        self._is_full_asked = False
        self._work_seconds = 0.0
        self._began_at = now
        self.next_at = float("inf")
        return may_skip

    def worked(self, seconds: float) -> None:
        """A slice of the listing took *seconds*."""
        self._work_seconds += seconds

    def end(self, now: float, *, is_watched: bool, is_doubtful: bool) -> None:
        """The listing has ended.

        Args:
            now: Monotonic.
            is_watched: Hints come from every folder.
            is_doubtful: Files were missing, and another listing must confirm that.
        """
        self.last_work_seconds = self._work_seconds
        seconds = self._rescan_seconds or (NATIVE_SECONDS if is_watched else POLL_SECONDS)
        if is_doubtful:
            seconds = min(seconds, _CONFIRM_SECONDS)
        seconds = max(seconds, _STRETCH * self.last_work_seconds)
        # Requested while the listing ran, which may have passed the changed folder already.
        self.next_at = min(self.next_at, now + seconds)
