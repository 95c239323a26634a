"""Requests a monitor's url at intervals, so that the monitor notices when the daemon is down.

Guarantees: a monitor that is away costs one log line, not one a ping; the url, which works like a password,
is never logged; the answer is not read.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import structlog

from dropscribe.providers.transport.http_library import httpx

if TYPE_CHECKING:
    from collections.abc import Callable

TIMEOUT_SECONDS = 10.0

log = structlog.get_logger()


class Heartbeat:
    """Pings *url*, and its ``/fail`` while the daemon is degraded (as healthchecks.io understands it)."""

    def __init__(self, url: str, every_seconds: float, is_degraded: Callable[[], bool]) -> None:
        self._url = httpx.URL(url)
        self._every_seconds = every_seconds
        self._is_degraded = is_degraded
        self._is_missing = False

    async def run(self) -> None:
        """Ping until cancelled."""
        async with httpx.AsyncClient(timeout=TIMEOUT_SECONDS, follow_redirects=False) as client:
            while True:
                await self.ping(client)
                await asyncio.sleep(self._every_seconds)

    async def ping(self, client: httpx.AsyncClient) -> bool:
        """Send one ping; returns whether the monitor accepted it."""
        url = self._fail_url() if self._is_degraded() else self._url
        try:
            async with asyncio.timeout(TIMEOUT_SECONDS), client.stream("GET", url) as answer:
                reason = "" if answer.is_success else f"http_{answer.status_code}"
        except (httpx.HTTPError, TimeoutError) as error:
            reason = type(error).__name__
        self._log_change(reason)
        return not reason

    def _fail_url(self) -> httpx.URL:
        return self._url.copy_with(path=self._url.path.rstrip("/") + "/fail")

    def _log_change(self, reason: str) -> None:
        if bool(reason) == self._is_missing:
            return
        self._is_missing = bool(reason)
        if reason:
            log.warning("heartbeat.missed", server_address=self._url.host, reason=reason)
        else:
            log.info("heartbeat.restored", server_address=self._url.host)
