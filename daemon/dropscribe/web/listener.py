"""One listener as the config describes it: the application, its guard and its server."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dropscribe.core.errors import ListenError
from dropscribe.core.text.addresses import is_loopback
from dropscribe.web.app import create_app
from dropscribe.web.guard import Access
from dropscribe.web.server import WebServer

if TYPE_CHECKING:
    from dropscribe.config.model import HttpConfig
    from dropscribe.web.endpoints import Endpoints
    from dropscribe.web.pages import PageSource


class Listener:
    """Serves the endpoints and pages of *http*, between :meth:`start` and :meth:`close`."""

    def __init__(self, http: HttpConfig, endpoints: Endpoints, source: PageSource | None = None) -> None:
        """Prepare the listener; nothing is bound yet.

        Args:
            http: The section of the config.
            endpoints: What programs ask for.
            source: Data and actions of the pages; None leaves them out, as ``http.pages: false`` does.

        Raises:
            ListenError: The address is reached from other machines, and there is no token.
        """
        self._http = http
        self._access = _access_of(http)
        app = create_app(endpoints, self._access, source if http.pages else None)
        self._server = WebServer(app, http.host, http.port, http.socket)
        if not self._access.token and not http.socket and not is_loopback(http.host):
            raise ListenError(self._server.address, "beyond the loopback a token is needed")

    @property
    def port(self) -> int:
        """The port that is bound."""
        return self._server.port

    @property
    def address(self) -> str:
        """Address of the listener: host and port, or the unix socket."""
        if self._http.socket:
            return f"unix:{self._http.socket}"
        return (
            f"[{self._http.host}]:{self.port}" if ":" in self._http.host else f"{self._http.host}:{self.port}"
        )

    async def start(self) -> None:
        """Bind and serve.

        Raises:
            ListenError: The address cannot be had.
        """
        await self._server.start()

    async def close(self) -> None:
        """Stop listening; safe to call twice."""
        await self._server.close()

    def can_become(self, http: HttpConfig) -> bool:
        """Whether *http* differs in nothing that needs a new socket."""
        return (http.listen, http.pages, http.uploads) == (
            self._http.listen,
            self._http.pages,
            self._http.uploads,
        )

    def become(self, http: HttpConfig) -> None:
        """Take over token, allowed hosts and root path of a new config, without a new socket."""
        fresh = _access_of(http)
        self._access.token, self._access.allowed_hosts = fresh.token, fresh.allowed_hosts
        self._access.root_path = fresh.root_path
        self._http = http


def _access_of(http: HttpConfig) -> Access:
    token = http.token.reveal() if http.token else None
    return Access(http.host, token, tuple(http.allowed_hosts), http.root_path)
