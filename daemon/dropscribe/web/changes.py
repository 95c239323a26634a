"""Notifies open pages of changes."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from starlette.responses import PlainTextResponse, StreamingResponse

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from starlette.requests import Request
    from starlette.responses import Response

MOST_STREAMS = 64
LOOK_SECONDS = 1.0
PAGES_A_SECOND = 4.0
"""Open pages that may load anew in a second: with more of them the checks are rarer, and files go first."""

COMMENT_SECONDS = 20.0
"""How often a comment is sent: proxies keep the connection, and a client that went away is noticed."""


class Changes:
    """Server-sent events (HTML Living Standard, "Server-sent events"): ``change`` whenever the token differs.

    Args:
        token: A cheap value that differs after every change; called in the event loop.
    """

    def __init__(self, token: Callable[[], object]) -> None:
        self._token = token
        self._streams = 0

    async def respond(self, request: Request) -> Response:
        """Open a stream; 503 where too many are open."""
        if self._streams >= MOST_STREAMS:
            return PlainTextResponse("too many pages are open\n", 503, {"Retry-After": "30"})
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        return StreamingResponse(self._stream(request), media_type="text/event-stream", headers=headers)

    async def _stream(self, request: Request) -> AsyncIterator[bytes]:
        last, sent_at = self._token(), time.monotonic()
        self._streams += 1
        try:
            yield b"retry: 3000\n\n"
            while not await request.is_disconnected():
                await asyncio.sleep(max(LOOK_SECONDS, self._streams / PAGES_A_SECOND))
                token, now = self._token(), time.monotonic()
                if token != last:
                    yield b"event: change\ndata: 1\n\n"
                elif now - sent_at >= COMMENT_SECONDS:
                    yield b": alive\n\n"
                else:
                    continue
                last, sent_at = token, now
        finally:
            self._streams -= 1
