"""Schedules the search of the queue for stored results that no task is publishing.

Almost every result is published by the task that stored it. Left over are results found at a start, results
without a free publishing slot, and results whose disk was full. A search also reads the results that are
being published, so it is not repeated each time a file ends.
"""

from __future__ import annotations

PUBLISHING_SLOTS = 64
"""Jobs whose files are being written at once; those of a folder go to its disk together."""

_GAP_SECONDS = 1.0


class PublishSchedule:
    """The times of the searches, monotonic.

    Attributes:
        next_at: No search before this; 0 plans one now.
    """

    def __init__(self) -> None:
        self.next_at = 0.0

    def search(self, at: float = 0.0) -> None:
        """Search at the time *at*, or sooner where that is planned."""
        self.next_at = min(self.next_at, at)

    def search_limit(self, now: float, in_flight: int) -> int:
        """The number of stored results to read now; 0 while it is too soon. Schedules the next search."""
        if now < self.next_at:
            return 0
        self.next_at = now + _GAP_SECONDS
        # The results in flight are read too: a row has its result before its attempt has ended in memory.
        return PUBLISHING_SLOTS + in_flight
