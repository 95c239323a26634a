"""Notifies open pages of changes: one check for all of them, none without a page."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

from starlette.responses import PlainTextResponse, StreamingResponse

from dropscribe.web.guard import COOKIE

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine

    from starlette.requests import Request
    from starlette.responses import Response

MOST_LISTENERS = 64
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
        self._listeners: set[asyncio.Event] = set()
        self._answers: dict[object, asyncio.Task[Response]] = {}
        self._looking: asyncio.Task[None] | None = None

    async def respond(self, request: Request) -> Response:
        """Open a stream; 503 where too many are open."""
        if len(self._listeners) >= MOST_LISTENERS:
            return PlainTextResponse("too many pages are open\n", 503, {"Retry-After": "30"})
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        return StreamingResponse(self._stream(request), media_type="text/event-stream", headers=headers)

    def shared(self, page: Callable[[Request], Coroutine[None, None, Response]]) -> Callable[..., Any]:
        """*page*, made once for all readers that are notified of the same change; an error is not kept."""

        async def answer(request: Request) -> Response:
            if self._looking is None:  # without open streams no check renews a shared answer
                return await page(request)
            key = str(request.url), COOKIE in request.cookies
            made = self._answers.get(key)
            if made is None:
                made = asyncio.create_task(page(request))
                if len(self._answers) < MOST_LISTENERS:
                    self._answers[key] = made
            try:
                return await asyncio.shield(made)
            except Exception:
                if self._answers.get(key) is made:
                    del self._answers[key]
                raise

        return answer

    async def _stream(self, request: Request) -> AsyncIterator[bytes]:
        changed = asyncio.Event()
        self._listeners.add(changed)
        if self._looking is None:
            self._looking = asyncio.create_task(self._look())
        try:
            yield b"retry: 3000\n\n"
            while not await request.is_disconnected():
                try:
                    async with asyncio.timeout(COMMENT_SECONDS):
                        await changed.wait()
                except TimeoutError:
                    yield b": alive\n\n"
                    continue
                changed.clear()
                yield b"event: change\ndata: 1\n\n"
        finally:
            self._listeners.discard(changed)
            if not self._listeners and self._looking is not None:
                self._looking.cancel()
                self._looking = None
                self._answers.clear()

    async def _look(self) -> None:
        last = self._token()
        with contextlib.suppress(asyncio.CancelledError):
            while True:
                await asyncio.sleep(max(LOOK_SECONDS, len(self._listeners) / PAGES_A_SECOND))
                now = self._token()
                if now != last:
                    last = now
                    self._answers.clear()
                    for listener in self._listeners:
                        listener.set()
