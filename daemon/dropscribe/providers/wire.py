"""The sockets under httpx: an answer that comes before the upload's end is heard, not lost.

A server may refuse an upload (401, 413) before it has read all of it, and close. Left alone, the
next write then fails, asyncio closes the socket, and the answer that lay in it is gone: a file that is too
large would look like a lost connection and be sent again for days. So each stream listens while it
writes, unless all of it goes out at once.

Guarantees: once the server has begun to answer, no further piece of the body is sent, and a write that
hangs is let go; the answer is then read as if the body had ended.
"""

from __future__ import annotations

import asyncio
import importlib.util
import re
import sys
import time
from typing import TYPE_CHECKING, Any, cast
from urllib.request import getproxies, proxy_bypass

import httpcore
import httpx

from dropscribe.providers.sockets import SocketBackend

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator, Iterable

PIECE_BYTES = 64 * 1024
"""What one write takes. The write timeout counts per piece: 1.1 KB/s is still progress."""

MOST_PIECE_BYTES = 512 * 1024
QUICK_SECONDS = 0.05
QUICK_SHARE = 32
"""On a fast line the number of pieces is what costs: there a piece may be this part of what went out since
one last took longer than QUICK_SECONDS, which is more than both ends' kernels hold. A line that falls from
10 MB/s to below 9 KB/s is given up."""

AT_ONCE_BYTES = 14 * 1024
"""What a new connection takes without a wait (an initial window, RFC 6928): no listening meanwhile."""

GRACE_SECONDS = 0.25
"""For the piece in flight when an answer comes: an answer to the last piece may overtake its write."""

KEEPALIVE_SECONDS = 2.0
"""Shorter than common servers' 5 s: a connection that closes under an upload costs an ambiguous attempt."""

if importlib.util.find_spec("sniffio") is None:
    # httpcore imports it a dozen times a request. Where it is missing, each of these would walk the whole
    # path in vain, a fifth of a small upload's CPU; with this entry the import fails at once.
    sys.modules["sniffio"] = None  # type: ignore[assignment]  # documented: None means "not found"

_READ_BYTES = 64 * 1024
_TURNS_TO_READ = 4
"""Of the event loop: the selector, the protocol, the listener, and one to spare."""
_ONLY_INFORMATIONAL = re.compile(rb"(HTTP/1\.[01] 1\d\d[^\r\n]*\r\n([^\r\n]+\r\n)*\r\n)+")


class _ListeningStream(httpcore.AsyncNetworkStream):
    """A stream that reads while it writes; see the module."""

    def __init__(self, inner: httpcore.AsyncNetworkStream) -> None:
        self._inner = inner
        self._early = b""
        self._listener: asyncio.Task[None] | None = None
        self._writing: asyncio.Timeout | None = None
        self._sent_bytes = 0
        self._quick_bytes = 0

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ASYNC109 - httpcore's
        self._sent_bytes += len(buffer)
        if self._listener is None:
            if self._sent_bytes <= AT_ONCE_BYTES and not self.get_extra_info("is_readable"):
                await self._inner.write(buffer, timeout)
                return
            self._listener = asyncio.create_task(self._listen())
            self._listener.add_done_callback(self._answer_begins)
        await self._write_pieces(buffer, timeout)

    async def _write_pieces(self, buffer: bytes, timeout: float | None) -> None:  # noqa: ASYNC109
        rest = memoryview(buffer)
        while rest:
            size_bytes = min(max(PIECE_BYTES, self._quick_bytes // QUICK_SHARE), MOST_PIECE_BYTES)
            piece, rest = rest[:size_bytes], rest[size_bytes:]
            began = time.monotonic()
            await self._write_piece(cast("bytes", piece), timeout)  # asyncio and ssl take any buffer
            is_quick = time.monotonic() - began < QUICK_SECONDS
            self._quick_bytes = self._quick_bytes + len(piece) if is_quick else 0

    async def _write_piece(self, piece: bytes, timeout: float | None) -> None:  # noqa: ASYNC109
        await self._let_listener_read()
        if self._listener is not None and self._listener.done():
            raise httpcore.WriteError("answered before the body's end")
        try:
            async with asyncio.timeout(None) as self._writing:
                await self._inner.write(piece, timeout)
        except TimeoutError as error:
            raise httpcore.WriteError("answered before the body's end") from error
        finally:
            self._writing = None

    async def _let_listener_read(self) -> None:
        # An answer and the reset behind it may wait in the socket together; a write would meet the reset
        # first and lose the answer.
        for _ in range(_TURNS_TO_READ):
            if self._listener is None or self._listener.done() or not self.get_extra_info("is_readable"):
                return
            await asyncio.sleep(0)

    async def _listen(self) -> None:
        while True:
            data = await self._inner.read(_READ_BYTES)
            self._early += data
            if not data or not _ONLY_INFORMATIONAL.fullmatch(self._early):
                return

    def _answer_begins(self, listener: asyncio.Task[None]) -> None:
        if not listener.cancelled():
            listener.exception()  # read() raises it; here it only counts as retrieved
        if self._writing is not None:
            loop = asyncio.get_running_loop()
            self._writing.reschedule(loop.time() + GRACE_SECONDS)

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ASYNC109
        self._sent_bytes = 0
        if self._listener is not None and not self._early:
            await asyncio.wait({self._listener}, timeout=timeout)
            if not self._listener.done():
                raise httpcore.ReadTimeout("no answer in time")
        self._retire_listener()
        if self._early:
            data, self._early = self._early[:max_bytes], self._early[max_bytes:]
            return data
        return await self._inner.read(max_bytes, timeout)

    def _retire_listener(self) -> None:
        if self._listener is not None and self._listener.done():
            listener, self._listener = self._listener, None
            if not self._early:
                listener.result()

    async def aclose(self) -> None:
        await self._stop_listening()
        await self._inner.aclose()

    async def _stop_listening(self) -> None:
        listener, self._listener = self._listener, None
        if listener is not None:
            listener.cancel()
            await asyncio.wait({listener})

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109
    ) -> httpcore.AsyncNetworkStream:
        await self._stop_listening()
        return _ListeningStream(await self._inner.start_tls(ssl_context, server_hostname, timeout))

    def get_extra_info(self, info: str) -> Any:
        return self._inner.get_extra_info(info)


class _ListeningBackend(SocketBackend):
    async def connect_tcp(self, *args: Any, **kwargs: Any) -> httpcore.AsyncNetworkStream:
        return _ListeningStream(await super().connect_tcp(*args, **kwargs))


class Wire(httpx.AsyncBaseTransport):
    """One connection to one origin, through the environment's proxy where there is one.

    Raises httpcore's exceptions, not httpx's.
    """

    def __init__(self, url: str, ssl_context: ssl.SSLContext | None) -> None:
        self._settings: dict[str, Any] = {
            "ssl_context": ssl_context,
            "keepalive_expiry": KEEPALIVE_SECONDS,
            "network_backend": _ListeningBackend(),
        }
        self._pool = _proxy_pool(httpx.URL(url), self._settings)
        self._connection: httpcore.AsyncHTTPConnection | None = None

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send *request*; the response's body is streamed."""
        core_request = _core_request(request)
        line = self._pool or await self._direct(core_request.url)
        response = await line.handle_async_request(core_request)
        return httpx.Response(
            response.status, headers=response.headers, stream=_Body(response), extensions=response.extensions
        )

    async def _direct(self, url: httpcore.URL) -> httpcore.AsyncHTTPConnection:
        """The connection that stands, or another one: a pool for a single one costs as much as the rest."""
        if url.scheme not in {b"http", b"https"}:
            raise httpcore.UnsupportedProtocol(url.scheme.decode())
        connection = self._connection
        if connection is None or not _is_usable(connection, url.origin):
            await self.aclose()
            connection = self._connection = httpcore.AsyncHTTPConnection(url.origin, **self._settings)
        return connection

    async def aclose(self) -> None:
        """Close the connection."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.aclose()
        if self._pool is not None:
            await self._pool.aclose()


def _is_usable(connection: httpcore.AsyncHTTPConnection, origin: httpcore.Origin) -> bool:
    return connection.can_handle_request(origin) and connection.is_idle() and not connection.has_expired()


def _core_request(request: httpx.Request) -> httpcore.Request:
    url = request.url
    return httpcore.Request(
        method=request.method,
        url=httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path),
        headers=request.headers.raw,
        content=cast("AsyncIterator[bytes]", request.stream),
        extensions=request.extensions,
    )


class _Body(httpx.AsyncByteStream):
    def __init__(self, response: httpcore.Response) -> None:
        self._response = response

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for block in self._response.aiter_stream():
            yield block

    async def aclose(self) -> None:
        await self._response.aclose()


def _proxy_pool(url: httpx.URL, settings: dict[str, Any]) -> httpcore.AsyncConnectionPool | None:
    proxy = _environment_proxy(url)
    if proxy is None:
        return None
    settings = {**settings, "max_connections": 1, "proxy_auth": proxy.raw_auth}
    if proxy.url.scheme.startswith("socks"):
        return httpcore.AsyncSOCKSProxy(str(proxy.url), **settings)
    return httpcore.AsyncHTTPProxy(str(proxy.url), **settings)


def _environment_proxy(url: httpx.URL) -> httpx.Proxy | None:
    proxies = getproxies()
    found = proxies.get(url.scheme) or proxies.get("all")
    if not found or proxy_bypass(url.host):
        return None
    return httpx.Proxy(found if "://" in found else f"http://{found}")


def causes(error: BaseException) -> Iterable[BaseException]:
    """*error* and what led to it, outermost first."""
    found: BaseException | None = error
    while found is not None:
        yield found
        found = found.__cause__ or found.__context__
