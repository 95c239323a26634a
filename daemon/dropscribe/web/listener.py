"""One listener as the config describes it: a server with the application and its guard."""

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
    from dropscribe.web.site import PageSource


class Listener(WebServer):
    """Serves the endpoints and pages of *http*."""

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
        super().__init__(app, http.host, http.port, http.socket)
        if not self._access.token and not http.socket and not is_loopback(http.host):
            raise ListenError(self.address, "beyond the loopback a token is needed")

    def can_become(self, http: HttpConfig) -> bool:
        """Whether *http* differs in nothing that needs a new socket."""
        old = self._http
        return (http.listen, http.pages, http.uploads) == (old.listen, old.pages, old.uploads)

    def become(self, http: HttpConfig) -> None:
        """Take over token, allowed hosts and root path of a new config, without a new socket."""
        fresh = _access_of(http)
        self._access.token, self._access.allowed_hosts = fresh.token, fresh.allowed_hosts
        self._access.root_path = fresh.root_path
        self._http = http


def _access_of(http: HttpConfig) -> Access:
    token = http.token.reveal() if http.token else None
    return Access(http.host, token, tuple(http.allowed_hosts), http.root_path)
