"""Sends each event to a url as a signed POST, so that the receiver can verify sender and time.

Guarantees: no redirect is followed; the answer's body is not read; neither url nor secret is logged or kept
in the outbox; a receiver that drops events whose id it has seen gets each once.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import time
from typing import TYPE_CHECKING

from dropscribe import __version__
from dropscribe.providers.transport.http_library import httpx
from dropscribe.service.notifications import Recipient

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dropscribe.queue.sql.outbox import Notification

TIMEOUT_SECONDS = 15.0


class Webhook(Recipient):
    """A recipient behind one url; it gets each letter at once and by itself."""

    kind = "webhook"

    def __init__(self, url: str, secret: str) -> None:
        self._url = url
        self._secret = secret
        self.name = f"webhook:{hashlib.sha256(url.encode()).hexdigest()[:12]}"

    async def deliver(self, letters: Sequence[Notification]) -> str:
        """POST the one letter; any 2xx is an arrival."""
        (letter,) = letters
        body = letter.content.encode("ascii")
        timestamp = str(int(time.time()))
        headers = {
            "Content-Type": "application/json",
            "User-Agent": f"dropscribe/{__version__}",
            "X-Dropscribe-Event-Id": letter.event_id,
            "X-Dropscribe-Timestamp": timestamp,
            "X-Dropscribe-Signature": signature(self._secret, timestamp, body),
        }
        try:
            async with (
                asyncio.timeout(TIMEOUT_SECONDS),
                httpx.AsyncClient(timeout=TIMEOUT_SECONDS, follow_redirects=False) as client,
                client.stream("POST", self._url, content=body, headers=headers) as answer,
            ):
                return "" if answer.is_success else f"http_{answer.status_code}"
        except (httpx.HTTPError, httpx.InvalidURL, TimeoutError) as error:
            return type(error).__name__


def signature(secret: str, timestamp: str, body: bytes) -> str:
    """``sha256=`` and the hex HMAC of ``TIMESTAMP.BODY`` under *secret*."""
    signed = f"{timestamp}.".encode() + body
    return f"sha256={hmac.new(secret.encode(), signed, hashlib.sha256).hexdigest()}"
