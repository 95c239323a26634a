"""Serves the endpoints and pages on one address inside the daemon's event loop.

Guarantees: bounded in connections, header bytes and seconds. A client that never finishes its request
headers is cut off, and new connections take the place of the oldest unfinished ones, so that slow clients
never keep others out.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from functools import partial
from typing import TYPE_CHECKING

import h11
from uvicorn import Config as UvicornConfig
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from dropscribe.core.errors import ListenError
from dropscribe.web.guard import MOST_REQUESTS, Access
from dropscribe.web.routes import create_app
from dropscribe.web.unix_socket import bind_unix

if TYPE_CHECKING:
    from dropscribe.config.model import HttpConfig
    from dropscribe.web.routes import Endpoints
    from dropscribe.web.site import PageSource

MOST_CONNECTIONS = 256  # Beyond this a request is answered with 503
MOST_UNFINISHED = 32
"""Connections whose request headers have not arrived. Beyond this the oldest is cut off, unless it is younger
than :data:`FIRST_SECONDS` and there is room: many clients may come at once."""
FIRST_SECONDS = 1.0
MOST_HEAD_BYTES = 8192
HEAD_SECONDS = 5.0
"""Limit from the connection, or the end of an answer, to the end of the next request's headers."""
LAST_BYTES_SECONDS = 60.0
KEEP_ALIVE_SECONDS = 5
CLOSE_SECONDS = 1.0  # How long requests that are being answered get when the listener closes


class Listener:
    """Serves the endpoints and pages of a config's ``http`` between :meth:`start` and :meth:`close`."""

    def __init__(self, http: HttpConfig, endpoints: Endpoints, source: PageSource | None = None) -> None:
        """Prepare the listener; nothing is bound yet. Without *source* it has no pages."""
        self._access = Access(http)
        self._config = UvicornConfig(
            create_app(endpoints, self._access, source),
            http=H11Protocol,
            workers=1,  # the default reads WEB_CONCURRENCY, which other programs set to words
            ws="none",  # a request to upgrade is answered as any other request (RFC 9110, 7.8)
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            date_header=False,
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
            limit_concurrency=MOST_CONNECTIONS,
            h11_max_incomplete_event_size=MOST_HEAD_BYTES,
        )
        self._state = ServerState()
        self._server: asyncio.Server | None = None

    @property
    def port(self) -> int:
        """The port that is bound."""
        return int(self._server.sockets[0].getsockname()[1] if self._server else self._access.http.port)

    @property
    def address(self) -> str:
        """The address: host and port, as soon as it is bound the real one; or the unix socket."""
        http = self._access.http
        if http.socket:
            return f"unix:{http.socket}"
        return f"[{http.host}]:{self.port}" if ":" in http.host else f"{http.host}:{self.port}"

    def take_over(self, http: HttpConfig) -> bool:
        """Use a new config from now on; False, without a change, if it needs a new socket or application."""
        old = self._access.http
        if (http.listen, http.pages) != (old.listen, old.pages):
            return False
        self._access.http = http
        return True

    async def start(self) -> None:
        """Bind and serve; raises ListenError if the address is in use, or is not one of this machine."""
        # Malformed requests and forms are answered with 400; these libraries would write a line for each.
        for name in ("uvicorn.error", "python_multipart"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
        loop, http = asyncio.get_running_loop(), self._access.http
        self._config.load()
        protocol = partial(_BoundedProtocol, self._config, self._state, {})
        try:
            if http.socket:
                self._server = await loop.create_unix_server(protocol, sock=bind_unix(http.socket))
            else:
                self._server = await loop.create_server(protocol, http.host, http.port)
        except OSError as error:
            # asyncio's own text repeats the address; the errno's does not.
            known = error.errno is not None and error.errno > 0
            reason = os.strerror(error.errno or 0) if known else str(error.strerror or error)
            raise ListenError(self.address, reason) from error

    async def close(self) -> None:
        """Stop listening; answers under way get a second, then connections are cut. Safe to call twice."""
        if self._server is None:
            return
        self._server.close()
        self._server = None
        if path := self._access.http.socket:
            with contextlib.suppress(OSError):
                os.unlink(path)
        if tasks := set(self._state.tasks):
            await asyncio.wait(tasks, timeout=CLOSE_SECONDS)
        for connection in list(self._state.connections):
            connection.transport.abort()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class _BoundedProtocol(H11Protocol):
    """uvicorn's protocol with a limit on the time and number of unfinished requests.

    *unfinished*: connections whose request headers have not arrived, oldest first, and since when.
    """

    def __init__(
        self, config: UvicornConfig, state: ServerState, unfinished: dict[_BoundedProtocol, float]
    ) -> None:
        super().__init__(config, state, {})
        self._unfinished = unfinished
        self._head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's
        super().connection_made(transport)
        self._watch_head()

    def data_received(self, data: bytes) -> None:
        """Complete request headers end the time limit."""
        super().data_received(data)
        self._watch_head()

    def send_400_response(self, msg: str) -> None:
        """Refuse a malformed request or rest of one, unless its answer has begun, and end the connection."""
        if self.conn.our_state in {h11.IDLE, h11.SEND_RESPONSE}:
            with contextlib.suppress(
                h11.LocalProtocolError
            ):  # an answer to HEAD has no body, which uvicorn sends
                super().send_400_response(msg)
        self.transport.close()
        if self.cycle is not None:
            self.cycle.disconnected = True  # what its handler says no longer fits onto the connection
            self.cycle.message_event.set()

    def on_response_complete(self) -> None:
        """Wait for the next request, also where the client has not sent all of the last one."""
        super().on_response_complete()
        self._watch_head()

    def _watch_head(self) -> None:
        """Limit the time to the next request's headers while no request is being answered."""
        # uvicorn declares no None, which it has before the first request.
        if self.cycle is not None and not self.cycle.response_complete:  # type: ignore[redundant-expr]
            self._finish_head()
        elif self._head_timer is None and not self.transport.is_closing():
            self._head_timer = self.loop.call_later(HEAD_SECONDS, self._close)
            self._unfinished[self] = self.loop.time()
            self._make_room()

    def _make_room(self) -> None:
        while len(self._unfinished) > MOST_UNFINISHED:
            oldest, since = next(iter(self._unfinished.items()))
            is_young = self.loop.time() - since < FIRST_SECONDS
            if is_young and len(self.connections) < MOST_REQUESTS:
                break
            oldest.cut()

    def _close(self) -> None:
        """Close once the client has taken the rest of its answer, for which it has a bounded time too."""
        self.transport.close()
        self._head_timer = self.loop.call_later(LAST_BYTES_SECONDS, self.transport.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._finish_head()
        super().connection_lost(exc)

    def cut(self) -> None:
        """Drop the connection to make room for another."""
        self._finish_head()
        self.connections.discard(self)  # it is gone only after the next turn of the event loop
        self.transport.abort()

    def _finish_head(self) -> None:
        self._unfinished.pop(self, None)
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None
