"""One listener as the config describes it: a server, the routes that it answers, and their guard."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from dropscribe.core.errors import ListenError
from dropscribe.core.text.addresses import is_loopback
from dropscribe.web.guard import COOKIE, Access, Guard
from dropscribe.web.server import WebServer

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.types import ASGIApp

    from dropscribe.config.model import HttpConfig
    from dropscribe.web.changes import Changes
    from dropscribe.web.endpoints import Endpoints
    from dropscribe.web.site import PageSource, Site

    Handler = Callable[[Site, Request], Coroutine[None, None, Response]]


class Listener(WebServer):
    """Serves the endpoints and pages of *http*."""

    def __init__(self, http: HttpConfig, endpoints: Endpoints, source: PageSource | None = None) -> None:
        """Prepare the listener; nothing is bound yet. Without *source* it has no pages.

        Raises:
            ListenError: The address is reached from other machines, and there is no token.
        """
        self._access = Access(http)
        app = _create_app(endpoints, self._access, source if http.pages else None)
        super().__init__(app, http.host, http.port, http.socket)
        if not self._access.token and not http.socket and not is_loopback(http.host):
            raise ListenError(self.address, "beyond the loopback a token is needed")

    def can_become(self, http: HttpConfig) -> bool:
        """Whether *http* differs in nothing that needs a new socket."""
        old = self._access.http
        return (http.listen, http.pages, http.uploads) == (old.listen, old.pages, old.uploads)

    def become(self, http: HttpConfig) -> None:
        """Take over token, allowed hosts and root path of a new config, without a new socket."""
        self._access.http = http


def _create_app(endpoints: Endpoints, access: Access, source: PageSource | None) -> ASGIApp:
    """The endpoints, the pages where there is a source for them, and the guard around both."""
    app = Starlette(routes=endpoints.routes()) if source is None else _with_pages(endpoints, access, source)
    app.router.redirect_slashes = False
    return Guard(app, access)


def _with_pages(endpoints: Endpoints, access: Access, source: PageSource) -> Starlette:
    from dropscribe.pipeline.disk_threads import FolderHangs  # noqa: PLC0415
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
    return Starlette(routes=routes, exception_handlers={NotHere: site.not_here, FolderHangs: site.hangs})


async def _shared(site: Site, changes: Changes, page: Handler, request: Request) -> Response:
    """*page*, made once for all readers that are notified of the same change."""
    key = str(request.url), COOKIE in request.cookies
    return await changes.share(key, lambda: page(site, request))
