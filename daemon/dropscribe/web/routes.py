"""The routes of the listener: endpoints for programs, pages for people, the guard around both."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from dropscribe.core.errors import StoreBusy
from dropscribe.web.guard import Access, Guard

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

    from starlette.requests import Request
    from starlette.types import ASGIApp

    from dropscribe.web.site import PageSource, Site

ANSWER_SECONDS = 10.0
MOST_STREAMS = 64
LOOK_SECONDS = 1.0
PAGES_A_SECOND = 2.0
"""Open pages that may load anew in a second: with more of them the checks are rarer, and files go first."""

COMMENT_SECONDS = 20.0
"""How often a comment is sent: proxies keep the connection, and a client that went away is noticed."""

_METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Endpoints:
    """The endpoints for programs: /metrics, /healthz, /readyz, /status."""

    metrics: Callable[[], Awaitable[bytes]]  # the body of /metrics
    status: Callable[[], Awaitable[Mapping[str, Any]]]  # the object of ``status --json``
    find_stuck: Callable[[], str]  # "" while loop and intake live, else the stuck part: /healthz is 503
    find_unready: Callable[[], str]  # "" once all is watched, else the missing part: /readyz is 503

    def routes(self) -> list[Route]:
        """Routes for a Starlette application."""
        return [
            Route("/metrics", partial(_in_time, self._metrics)),
            Route("/status", partial(_in_time, self._status)),
            Route("/healthz", partial(_health, self.find_stuck)),
            Route("/readyz", partial(_health, self.find_unready)),
        ]

    async def _metrics(self, _request: Request) -> Response:
        return Response(await self.metrics(), media_type=_METRICS_TYPE)

    async def _status(self, _request: Request) -> Response:
        return Response(json.dumps(await self.status()) + "\n", media_type="application/json")


async def _in_time(answer: Callable[[Request], Awaitable[Response]], request: Request) -> Response:
    async with asyncio.timeout(ANSWER_SECONDS):
        return await answer(request)


async def _health(find_trouble: Callable[[], str], _request: Request) -> Response:
    trouble = find_trouble()
    status = HTTPStatus.SERVICE_UNAVAILABLE if trouble else HTTPStatus.OK
    return PlainTextResponse(f"{trouble or 'ok'}\n".encode("utf-8", "backslashreplace"), status)


async def _too_late(_request: Request, _error: Exception) -> Response:
    return PlainTextResponse("no answer in time\n", HTTPStatus.SERVICE_UNAVAILABLE)


def create_app(endpoints: Endpoints, access: Access, source: PageSource | None) -> ASGIApp:
    """The endpoints, the pages where there is a source for them, and the guard around both."""
    if source is None:
        app = Starlette(routes=endpoints.routes(), exception_handlers={TimeoutError: _too_late})
    else:
        app = _with_pages(endpoints, access, source)
    app.router.redirect_slashes = False
    return Guard(app, access)


def _with_pages(endpoints: Endpoints, access: Access, source: PageSource) -> Starlette:
    from dropscribe.pipeline.disk_threads import FolderHangs  # noqa: PLC0415
    from dropscribe.web import actions, pages  # noqa: PLC0415
    from dropscribe.web.site import Refused, Site  # noqa: PLC0415  # Jinja2: only where there are pages

    site = Site(source, access)

    def page(path: str, answer: Callable[[Site, Request], Awaitable[Response]]) -> Route:
        async def make(request: Request) -> Response:
            request.state.version = site.version()  # older than its data: it asks for changes since then
            return await answer(site, request)

        return Route(path, partial(_in_time, make))

    def form(path: str, answer: Callable[[Site, Request], Awaitable[Response]]) -> Route:
        return Route(path, partial(answer, site), methods=["POST"])

    routes = [
        *endpoints.routes(),
        page("/", pages.overview),
        Route("/events", Changes(site.version).respond),
        page("/search", pages.search_page),
        page("/login", actions.show_login),
        form("/login", actions.log_in),
        form("/logout", actions.log_out),
        page("/folders/{folder}", pages.folder),
        form("/folders/{folder}/retry", actions.retry_shown),
        form("/folders/{folder}/release", actions.release),
        form("/folders/{folder}/try", actions.try_held),
        form("/folders/{folder}/upload", actions.upload),
        form("/providers/{provider}/try", actions.try_held),
        page("/files/{id}", pages.file),
        page("/files/{id}/audio", pages.part_of_file),
        form("/files/{id}/retry", actions.retry_file),
        form("/files/{id}/forget", actions.forget),
        page("/files/{id}/{form}", pages.part_of_file),
        Mount("/static", StaticFiles(packages=[("dropscribe.web", "static")])),
    ]
    refused = (Refused, HTTPStatus.NOT_FOUND, FolderHangs, StoreBusy, TimeoutError)
    return Starlette(routes=routes, exception_handlers=dict.fromkeys(refused, site.refuse))


class Changes:
    """Tells open pages of changes, by server-sent events (HTML Living Standard, "Server-sent events").

    *version* returns a cheap value that differs after every change. A page names its own (``since``).
    """

    def __init__(self, version: Callable[[], str]) -> None:
        self._version = version
        self._streams = 0

    async def respond(self, request: Request) -> Response:
        """Open a stream; 503 where too many are open."""
        if self._streams >= MOST_STREAMS:
            return PlainTextResponse("too many pages are open\n", 503, {"Retry-After": "30"})
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        if request.method == "HEAD":
            return Response(media_type="text/event-stream", headers=headers)
        return StreamingResponse(self._stream(request), media_type="text/event-stream", headers=headers)

    async def _stream(self, request: Request) -> AsyncIterator[bytes]:
        last, sent_at = request.query_params.get("since") or self._version(), time.monotonic()
        self._streams += 1
        try:
            yield b"retry: 3000\n\n"
            while not await request.is_disconnected():
                await asyncio.sleep(max(LOOK_SECONDS, self._streams / PAGES_A_SECOND))
                version, now = self._version(), time.monotonic()
                if version != last:
                    yield b"event: change\ndata: 1\n\n"
                elif now - sent_at >= COMMENT_SECONDS:
                    yield b": alive\n\n"
                else:
                    continue
                last, sent_at = version, now
        finally:
            self._streams -= 1
