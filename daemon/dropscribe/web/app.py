"""Builds the ASGI application: endpoints, pages where they are configured, and the guard around both."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.applications import Starlette

from dropscribe.web.guard import Guard

if TYPE_CHECKING:
    from starlette.types import ASGIApp

    from dropscribe.web.endpoints import Endpoints
    from dropscribe.web.guard import Access


def create_app(endpoints: Endpoints, access: Access) -> ASGIApp:
    """The whole application of one listener."""
    app = Starlette(routes=endpoints.routes())
    app.router.redirect_slashes = False
    return Guard(app, access)
