"""Builds the ASGI application: endpoints, pages where they are configured, and the guard around both."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.applications import Starlette

from dropscribe.web.guard import Guard

if TYPE_CHECKING:
    from starlette.types import ASGIApp

    from dropscribe.web.endpoints import Endpoints
    from dropscribe.web.guard import Access
    from dropscribe.web.pages import PageSource


def create_app(endpoints: Endpoints, access: Access, source: PageSource | None = None) -> ASGIApp:
    """The whole application of one listener.

    Args:
        endpoints: What programs ask for.
        access: Who may ask.
        source: Data and actions of the pages; None leaves the pages out.
    """
    if source is None:
        app = Starlette(routes=endpoints.routes())
        app.router.redirect_slashes = False
        return Guard(app, access)
    from dropscribe.web.changes import Changes  # noqa: PLC0415
    from dropscribe.web.pages import Pages  # noqa: PLC0415  # Jinja2: only where there are pages

    pages = Pages(source, access, Changes(source.change_token))
    app = Starlette(routes=[*endpoints.routes(), *pages.routes()])
    app.router.redirect_slashes = False
    pages.guard = Guard(app, access)
    return pages.guard
