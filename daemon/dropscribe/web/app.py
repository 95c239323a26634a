"""Builds the ASGI application: endpoints, pages where they are configured, and the guard around both."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from dropscribe.web.guard import COOKIE, Guard

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.types import ASGIApp

    from dropscribe.web.changes import Changes
    from dropscribe.web.endpoints import Endpoints
    from dropscribe.web.guard import Access
    from dropscribe.web.site import PageSource, Site

    Handler = Callable[[Site, Request], Coroutine[None, None, Response]]


def create_app(endpoints: Endpoints, access: Access, source: PageSource | None = None) -> ASGIApp:
    """The whole application of one listener.

    Args:
        endpoints: What programs ask for.
        access: Who may ask.
        source: Data and actions of the pages; None leaves the pages out.
    """
    app = Starlette(routes=endpoints.routes()) if source is None else _with_pages(endpoints, access, source)
    app.router.redirect_slashes = False
    return Guard(app, access)


def _with_pages(endpoints: Endpoints, access: Access, source: PageSource) -> Starlette:
    from dropscribe.web import actions, pages  # noqa: PLC0415
    from dropscribe.web.changes import Changes  # noqa: PLC0415
    from dropscribe.web.site import NotHere, Site  # noqa: PLC0415  # Jinja2: only where there are pages

    site, changes = Site(source, access), Changes(source.change_token)
    shared = partial(_shared, site, changes)

    def post(path: str, action: Handler) -> Route:
        return Route(path, partial(action, site), methods=["POST"])

    routes = [
        *endpoints.routes(),
        Route("/", partial(shared, pages.overview)),
        Route("/events", changes.respond),
        Route("/search", partial(pages.search_page, site)),
        Route("/login", partial(actions.log_in, site), methods=["GET", "POST"]),
        post("/logout", actions.log_out),
        Route("/folders/{folder}", partial(shared, pages.folder)),
        post("/folders/{folder}/retry", actions.retry_shown),
        post("/folders/{folder}/release", actions.release),
        post("/folders/{folder}/try", actions.try_folder),
        post("/folders/{folder}/upload", actions.upload),
        post("/providers/{provider}/try", actions.try_provider),
        Route("/files/{id}", partial(pages.file, site)),
        Route("/files/{id}/audio", partial(pages.audio, site)),
        post("/files/{id}/retry", actions.retry_file),
        post("/files/{id}/forget", actions.forget),
        Route("/files/{id}/{form}", partial(pages.sidecar, site)),
        Mount("/static", StaticFiles(packages=[("dropscribe.web", "static")])),
    ]
    return Starlette(routes=routes, exception_handlers={NotHere: site.not_here})


async def _shared(site: Site, changes: Changes, page: Handler, request: Request) -> Response:
    """*page*, made once for many readers who are told of the same change."""
    key = str(request.url), COOKIE in request.cookies
    return await changes.share(key, lambda: page(site, request))
