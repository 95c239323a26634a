"""Messages to people by the apprise library (the extra ``notify``), many events in one.

Guarantees: apprise is imported when the first message is sent and not before; a message comes at most once a
``batch``, the first one PROMPT_SECONDS after its event, none in the quiet hours; urls are never logged.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import socket
import time
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from dropscribe.service.messages import compose

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import tzinfo

    from dropscribe.queue.sql.outbox import Notification

PROMPT_SECONDS = 10.0
"""Events within this time of the first go into one message: one full disk fails many files."""

MOST_AT_ONCE = 1000
_CHATTY = ("apprise", "urllib3", "requests")
"""Loggers that would write messages and urls; apprise itself answers only yes or no."""


class AppriseNotifier:
    """A recipient behind one apprise url; see :class:`dropscribe.service.notifications.Recipient`.

    Args:
        url: As apprise takes it: a secret.
        batch_seconds: The least time between two messages.
        quiet_hours: (begin, end) in minutes of the day, or None.
        zone: Of the quiet hours; None is the system's.
    """

    kind = "apprise"
    most_at_once = MOST_AT_ONCE

    def __init__(
        self, url: str, batch_seconds: float, quiet_hours: tuple[int, int] | None, zone: tzinfo | None
    ) -> None:
        self._url = url
        self._batch_seconds = batch_seconds
        self._quiet_hours = quiet_hours
        self._zone = zone
        self._spoken_at = 0.0
        self.name = f"apprise:{hashlib.sha256(url.encode()).hexdigest()[:12]}"

    def wants(self, event: str) -> bool:
        """Everything but files that are done."""
        return event != "done"

    def not_before(self, due_at: float, now: float, *, is_last_chance: bool) -> float:
        """After the batch, and in the morning."""
        together_at = max(due_at + PROMPT_SECONDS, self._spoken_at + self._batch_seconds)
        begin_at = due_at if is_last_chance else together_at
        if self._quiet_hours is None:
            return begin_at
        return quiet_until(max(begin_at, now), self._quiet_hours, self._zone)

    async def deliver(self, letters: Sequence[Notification]) -> str:
        """One message about all *letters*."""
        self._spoken_at = time.time()
        title, text = compose([json.loads(letter.content) for letter in letters], socket.gethostname())
        return await asyncio.to_thread(self._send, title, text)

    def _send(self, title: str, text: str) -> str:
        import apprise  # noqa: PLC0415 - the extra `notify`; some 40 MB loaded only for notifications

        for name in _CHATTY:
            logging.getLogger(name).setLevel(logging.CRITICAL)
        try:
            service = apprise.Apprise.instantiate(self._url)
            if service is None:
                return "apprise does not know the url"
            was_sent = service.notify(body=text, title=title, body_format=apprise.NotifyFormat.TEXT)
        except Exception as error:  # noqa: BLE001 - a hundred plugins, each with errors of its own
            return type(error).__name__
        return "" if was_sent else "apprise could not deliver it"


def quiet_until(now: float, hours: tuple[int, int], zone: tzinfo | None) -> float:
    """The end of the quiet hours that *now* lies in, else *now*; Unix seconds.

    Args:
        hours: (begin, end) in minutes of the day; past midnight where the end is the smaller one.
        zone: None is the system's.
    """
    begin, end = hours
    here = datetime.fromtimestamp(now, zone)
    minute = here.hour * 60 + here.minute
    is_quiet = begin <= minute < end if begin < end else minute >= begin or minute < end
    if not is_quiet:
        return now
    day = here if minute < end else here + timedelta(days=1)
    morning = day.replace(hour=end // 60, minute=end % 60, second=0, microsecond=0)
    return morning.timestamp()
