"""Requests to the admin's urls: the heartbeat to a monitor, and the webhook as a recipient of notifications.

Guarantees: no redirect is followed; an answer's body is not read; urls, which work like passwords, and
secrets are neither logged nor kept in the outbox; a monitor that is away costs one log line, not one a ping;
a receiver that drops events whose id it has seen gets each once.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import time
from typing import TYPE_CHECKING

import structlog

from dropscribe import __version__
from dropscribe.providers.transport.http_library import httpx
from dropscribe.service.notifications import Recipient

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from dropscribe.queue.sql.outbox import Notification

PING_SECONDS = 10.0
WEBHOOK_SECONDS = 15.0

log = structlog.get_logger()


class Heartbeat:
    """Pings *url*, and its ``/fail`` while the daemon is degraded (as healthchecks.io understands it)."""

    def __init__(self, url: str, every_seconds: float, is_degraded: Callable[[], bool]) -> None:
        self._url = httpx.URL(url)
        self._every_seconds = every_seconds
        self._is_degraded = is_degraded
        self._is_missing = False

    async def run(self) -> None:
        """Ping until cancelled, so that the monitor notices when the daemon is down."""
        async with httpx.AsyncClient(timeout=PING_SECONDS, follow_redirects=False) as client:
            while True:
                await self.ping(client)
                await asyncio.sleep(self._every_seconds)

    async def ping(self, client: httpx.AsyncClient) -> bool:
        """Send one ping; returns whether the monitor accepted it."""
        url = self._url
        if self._is_degraded():
            url = url.copy_with(path=url.path.rstrip("/") + "/fail")
        try:
            async with asyncio.timeout(PING_SECONDS), client.stream("GET", url) as answer:
                reason = "" if answer.is_success else f"http_{answer.status_code}"
        except (httpx.HTTPError, TimeoutError) as error:
            reason = type(error).__name__
        if reason and not self._is_missing:
            log.warning("heartbeat.missed", server_address=self._url.host, reason=reason)
        elif self._is_missing and not reason:
            log.info("heartbeat.restored", server_address=self._url.host)
        self._is_missing = bool(reason)
        return not reason


class Webhook(Recipient):
    """A recipient behind one url; it gets each event at once and by itself, in a signed POST."""

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
            "X-Dropscribe-Signature": _signature(self._secret, timestamp, body),
        }
        try:
            async with (
                asyncio.timeout(WEBHOOK_SECONDS),
                httpx.AsyncClient(timeout=WEBHOOK_SECONDS, follow_redirects=False) as client,
                client.stream("POST", self._url, content=body, headers=headers) as answer,
            ):
                return "" if answer.is_success else f"http_{answer.status_code}"
        except (httpx.HTTPError, httpx.InvalidURL, TimeoutError) as error:
            return type(error).__name__


def _signature(secret: str, timestamp: str, body: bytes) -> str:
    """``sha256=`` and the hex HMAC of ``TIMESTAMP.BODY`` under *secret*; it proves sender and time."""
    signed = f"{timestamp}.".encode() + body
    return f"sha256={hmac.new(secret.encode(), signed, hashlib.sha256).hexdigest()}"
