"""Connections to targets: each is used by one request at a time, and kept a moment for the next.

httpcore's own pool looks at all its connections twice a request, because requests may wait there for a free
one. Here no request waits: there are as many connections as requests in flight.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from functools import cache, lru_cache
from typing import Any, NamedTuple, TypeVar, cast

from dropscribe.core.errors import ProviderUnusable
from dropscribe.providers.transport.http_library import httpcore, httpx
from dropscribe.providers.transport.network import EarlyAnswerBackend

T = TypeVar("T")

KEEPALIVE_SECONDS = 2.0
"""Shorter than common servers' 5 s: a connection that closes under an upload costs an attempt."""

HIGHEST_PORT = 65_535
_TLS_VARIABLES = ("SSL_CERT_FILE", "SSL_CERT_DIR", "SSLKEYLOGFILE")  # read by httpx and by Python


class Target(NamedTuple):
    """The target of a request."""

    url: httpx.URL
    at: httpcore.URL  # The same URL for httpcore
    host: str  # The header of that name


@lru_cache(maxsize=64)  # a provider is asked again and again at one URL
def target_of(address: str) -> Target:
    """The target that a URL names, which the config takes; raises ProviderUnusable if httpx does not."""
    try:
        url = httpx.URL(address)
    except httpx.InvalidURL:
        raise ProviderUnusable("bad_url", "the provider's url is invalid") from None
    at = httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path)
    return Target(url, at, url.netloc.decode("ascii"))


class Connections:
    """Opens connections, through the environment's proxies, and keeps those that may be used again."""

    def __init__(self) -> None:
        self._client: httpx.AsyncClient | None = None
        self._idle: list[httpcore.AsyncConnectionInterface] = []  # in the order of their last requests
        self._is_closed = False

    async def exchange(
        self, target: Target, request: httpcore.Request, read: Callable[[httpcore.Response], Awaitable[T]]
    ) -> T:
        """Send *request* to *target*; returns what *read* makes of its answer.

        Raises ProviderUnusable if the environment names a proxy or certificates that cannot be used.
        """
        pool = self._pool_for(target)
        if b":" in target.at.host and isinstance(pool, httpcore.AsyncHTTPProxy):
            request.url = _in_brackets(target.at)
        origin = request.url.origin
        connection = await self._take(origin) or pool.create_connection(origin)
        try:
            try:
                response = await connection.handle_async_request(request)
            except httpcore.ConnectionNotAvailable:  # it has ended while it was idle: nothing was sent
                await connection.aclose()
                connection = pool.create_connection(origin)
                response = await connection.handle_async_request(request)
            async with aclosing(response):
                return await read(response)
        finally:
            await self._rest(connection)

    async def _take(self, origin: httpcore.Origin) -> httpcore.AsyncConnectionInterface | None:
        """The connection to *origin* that was used last, if one may be used again."""
        for connection in reversed(self._idle):
            if connection.can_handle_request(origin):
                self._idle.remove(connection)
                if not connection.has_expired():
                    return connection
                await connection.aclose()
        return None

    async def _rest(self, connection: httpcore.AsyncConnectionInterface) -> None:
        """Keep the connection if it may be used again; close the oldest idle one if it has expired."""
        may_stay = connection.is_available() and not connection.has_expired()
        if may_stay and not self._is_closed:
            self._idle.append(connection)
        else:
            await connection.aclose()
        if self._idle and self._idle[0].has_expired():
            await self._idle.pop(0).aclose()

    async def close(self) -> None:
        """Close the connections, also those in use when their requests end. Safe to call twice."""
        self._is_closed = True
        while self._idle:
            await self._idle.pop().aclose()
        if self._client is not None:
            await self._client.aclose()

    def _pool_for(self, target: Target) -> httpcore.AsyncConnectionPool:
        """The pool that makes connections to *target*, through its proxy; it keeps none of them.

        httpx reads the environment's proxies. The rest of its work on a request (redirects, cookies, its
        own response) took almost a fifth of a small upload's time on the event loop.
        """
        if self._client is None:
            self._client = _open_client()
        transport = self._client._transport_for_url(target.url)  # noqa: SLF001
        pool = cast("Any", transport)._pool  # noqa: SLF001
        proxy = getattr(pool, "_proxy_url", None)
        if proxy is not None and proxy.port is not None and not 0 < proxy.port <= HIGHEST_PORT:
            reason = f"the environment's proxy has the port {proxy.port}; ports are 1 to {HIGHEST_PORT}"
            raise ProviderUnusable("proxy_failed", reason)
        return pool  # type: ignore[no-any-return]


def _in_brackets(url: httpcore.URL) -> httpcore.URL:
    """*url* for an HTTP proxy: httpcore writes the host into the request line as it stands."""
    return httpcore.URL(scheme=url.scheme, host=b"[" + url.host + b"]", port=url.port, target=url.target)


def _open_client() -> httpx.AsyncClient:
    """A client that verifies TLS and knows the environment's proxies."""
    try:
        client = httpx.AsyncClient(
            verify=trusted(),
            limits=httpx.Limits(max_connections=None, keepalive_expiry=KEEPALIVE_SECONDS),
            timeout=None,
        )
    except (ValueError, httpx.InvalidURL, ImportError):
        reason = (
            "the environment's proxy is not a URL of an http, https or socks5 proxy "
            "(socks5 needs the extra 'socks')"
        )
        raise ProviderUnusable("proxy_failed", reason) from None
    # httpx has no parameter for these that keeps its own reading of the proxy variables.
    for transport in (client._transport, *client._mounts.values()):  # noqa: SLF001
        if transport is not None:
            pool = cast("Any", transport)._pool  # noqa: SLF001
            pool._network_backend = EarlyAnswerBackend()  # noqa: SLF001
            pool._proxy_ssl_context = trusted()  # noqa: SLF001
    return client


@cache
def trusted() -> ssl.SSLContext:
    """The TLS context of all connections: loading the certificates takes about 20 ms.

    Raises ProviderUnusable if the environment names certificates that cannot be loaded.
    """
    try:
        return httpx.create_ssl_context()
    except OSError as error:  # ssl.SSLError is one
        named = [f"{name}={os.environ[name]}" for name in _TLS_VARIABLES if os.environ.get(name)]
        by = f" with {', '.join(named)}" if named else ""
        reason = f"TLS cannot be set up{by}: {error.strerror or error}"
        raise ProviderUnusable("tls_unusable", reason) from None
