"""HTTP/1.1 over one connection, by h11: a request out, its answer in.

A server may refuse an upload (401, 413) before it has read all of it, and close. A client that only
writes then meets a broken connection, and the answer that lay in it is gone: a file that is too large would
look like a lost connection and be sent again for days. So the answer is listened for while the body goes out.

Guarantees: once the server has begun to answer, no further piece of the body is sent, and a piece that
hangs is let go; the answer is then read as if the body had ended. A connection is used again only after a
whole exchange, and only for a moment.
"""

from __future__ import annotations

import asyncio
import time
from base64 import b64encode
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING
from urllib.request import getproxies, proxy_bypass

import h11
import httpx

from dropscribe.providers.line import Line, LineError, NoProgress

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Mapping

CONNECT_SECONDS = 30.0
SEND_STALL_SECONDS = 60.0
"""For one piece of the body."""

PIECE_BYTES = 64 * 1024
"""What SEND_STALL_SECONDS are for: 1.1 KB/s is still progress."""

MOST_PIECE_BYTES = 512 * 1024
QUICK_SECONDS = 0.05
QUICK_SHARE = 32
"""On a fast line the number of pieces is what costs: there a piece may be this part of what went out since
one last took longer than QUICK_SECONDS, which is more than both ends' kernels hold. A line that falls from
10 MB/s to below 9 KB/s is given up."""

GRACE_SECONDS = 0.25
"""For the piece in flight when an answer comes: an answer to the last piece may overtake its write."""

KEEPALIVE_SECONDS = 2.0
"""Shorter than common servers' 5 s: a connection that closes under an upload costs an ambiguous attempt."""

_HEAD_BYTES = 100 * 1024
"""An answer's head may be so long."""

_TURNS_TO_READ = 6
"""Of the event loop: the selector, TLS, the protocol, as many again for TLS in TLS."""


class BadAnswer(LineError):
    """What came is no HTTP, or ended before its own length."""


class NoAnswer(LineError):
    """The other side ended without a word."""


class ProxyFailed(LineError):
    """The environment's proxy did not make the connection."""


@dataclass(frozen=True, slots=True)
class Head:
    """The beginning of an answer.

    Attributes:
        status: From 200 up; what is informational is passed over.
        headers: By names in lower case; several of one name are joined by commas.
    """

    status: int
    headers: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Target:
    """Where a request goes, and by which way.

    Attributes:
        origin: Scheme, host and port: of which wires it may use.
        path: With its query.
        headers: Host, and what a name and password in the URL stand for.
    """

    origin: httpx.URL = field(repr=False)
    path: bytes = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)

    @classmethod
    def of(cls, url: str) -> Target:
        """Parse *url*.

        Raises:
            httpx.InvalidURL: It is none, or not of HTTP.
        """
        parsed = httpx.URL(url)
        if parsed.scheme not in {"http", "https"} or not parsed.host:
            raise httpx.InvalidURL("neither http nor https")
        headers = {"Host": parsed.netloc.decode("ascii")}
        if parsed.userinfo:
            headers["Authorization"] = _basic(parsed.username, parsed.password)
        origin = httpx.URL(scheme=parsed.scheme, host=parsed.host, port=parsed.port)
        return cls(origin, parsed.raw_path, headers)


class Wire:
    """One connection to one origin, through the environment's proxy where there is one.

    Args:
        origin: Of every request's :class:`Target`.

    Raises:
        ProxyFailed: The environment's proxy is not one that is spoken.
    """

    def __init__(self, origin: httpx.URL) -> None:
        self.origin = origin
        self._tls = _trusted() if origin.scheme == "https" else None
        self._proxy = _environment_proxy(origin)
        self._line: Line | None = None
        self._http = _conversation()
        self._early: h11.Response | None = None
        self._idle_since = 0.0
        self._was_looked_at = False
        self._quick_bytes = 0

    async def ask(
        self,
        method: str,
        target: Target,
        headers: Mapping[str, str],
        body: AsyncIterator[bytes] | None,
    ) -> Head:
        """Send a request and wait for the beginning of its answer; :meth:`blocks` are the rest.

        Args:
            method: GET or POST.
            target: Of this wire's origin.
            headers: All but the target's; with Content-Length where there is a *body*.
            body: Exhausted where all of it was sent.

        Raises:
            LineError: One of its kinds.
        """
        line = await self._connected()
        request = self._request(method, target, headers)
        if await self._send(line, self._written(request), body):
            self._written(h11.EndOfMessage())
        early, self._early = self._early, None
        return _head_of(early or await _answer(self._http, line))

    async def blocks(self) -> AsyncGenerator[bytes]:
        """The answer's body as it comes; raises as :meth:`ask`."""
        assert self._line is not None  # noqa: S101 - there is an answer
        while not isinstance(event := await _event(self._http, self._line), h11.EndOfMessage):
            if isinstance(event, h11.Data):
                yield bytes(event.data)

    async def rest(self) -> None:
        """Keep the connection for the next request where this exchange is whole, else close it."""
        http = self._http
        is_whole = http.our_state is http.their_state is h11.DONE and not http.trailing_data[0]
        if self._line is None or not is_whole:
            await self.close()
            return
        self._http.start_next_cycle()
        self._idle_since = time.monotonic()

    async def close(self) -> None:
        """Close the connection. Safe to call twice."""
        line, self._line = self._line, None
        if line is not None:
            await line.close()

    async def _connected(self) -> Line:
        if self._line is not None:
            is_fresh = time.monotonic() - self._idle_since < KEEPALIVE_SECONDS
            if is_fresh and not self._line.may_be_heard:
                self._was_looked_at = True
                return self._line
            await self.close()
        try:
            async with asyncio.timeout(CONNECT_SECONDS) as limit:
                self._line = await self._connect()
        except TimeoutError as error:
            if not limit.expired():
                raise
            raise NoProgress("no connection in time") from error
        self._http = _conversation()
        self._early = None
        self._was_looked_at = False
        self._quick_bytes = 0
        return self._line

    async def _connect(self) -> Line:
        if self._proxy is None:
            return await Line.connect(*_address(self.origin), self._tls)
        outer = _trusted() if self._proxy.url.scheme == "https" else None
        line = await Line.connect(*_address(self._proxy.url), outer)
        if self._tls is not None:
            try:
                await self._tunnel(line)
                await line.start_tls(self._tls, _address(self.origin)[0])
            except BaseException:
                await line.close()
                raise
        return line

    async def _tunnel(self, line: Line) -> None:
        """Ask the proxy to pass on what comes after (RFC 9110 §9.3.6)."""
        assert self._proxy is not None  # noqa: S101 - asked by _connect
        host, port = _address(self.origin)
        authority = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        headers = {"Host": authority, **_proxy_headers(self._proxy)}
        http = _conversation()
        request = h11.Request(method="CONNECT", target=authority, headers=list(headers.items()))
        line.send((http.send(request) or b"") + (http.send(h11.EndOfMessage()) or b""))
        answer = await _answer(http, line)
        if answer.status_code // 100 != 2:
            raise ProxyFailed(f"the proxy answered {answer.status_code}")

    def _request(self, method: str, target: Target, headers: Mapping[str, str]) -> h11.Request:
        path, all_headers = target.path, {**headers, **target.headers}
        if self._proxy is not None and self._tls is None:
            path = str(self.origin).rstrip("/").encode("ascii") + path
            all_headers |= _proxy_headers(self._proxy)
        try:
            return h11.Request(method=method, target=path, headers=list(all_headers.items()))
        except h11.LocalProtocolError as error:
            raise LineError("a header holds what no header can carry") from error

    def _written(self, event: h11.Event) -> bytes:
        try:
            return self._http.send(event) or b""
        except h11.LocalProtocolError as error:
            raise LineError(str(error)) from error

    async def _send(self, line: Line, unsent: bytes, body: AsyncIterator[bytes] | None) -> bool:
        """Whether all went out; False once the server begins to answer."""
        if body is not None:
            # A new connection may be one that is closed at once: the head finds out. On one that stood, head
            # and first block go out together: a small request is one segment, and one system call.
            if not self._was_looked_at:
                if not await self._send_pieces(line, unsent):
                    return False
                unsent = b""
            async for block in body:
                if not await self._send_pieces(line, unsent + self._written(h11.Data(data=block))):
                    return False
                unsent = b""
        return not unsent or await self._send_pieces(line, unsent)

    async def _send_pieces(self, line: Line, data: bytes) -> bool:
        rest = memoryview(data)
        while rest:
            size_bytes = min(max(PIECE_BYTES, self._quick_bytes // QUICK_SHARE), MOST_PIECE_BYTES)
            piece, rest = rest[:size_bytes], rest[size_bytes:]
            began = time.monotonic()
            if not self._was_looked_at and await self._answer_begins(line):
                return False
            self._was_looked_at = False
            line.send(piece)
            if line.is_lost or (line.is_full and not await self._taken(line)):
                return False
            is_quick = time.monotonic() - began < QUICK_SECONDS
            self._quick_bytes = self._quick_bytes + len(piece) if is_quick else 0
        return True

    async def _taken(self, line: Line) -> bool:
        """Wait until the system has the piece; False where the server answers in place of taking it."""
        give_up_at, answers = time.monotonic() + SEND_STALL_SECONDS, False
        while line.is_full and not line.is_lost:
            if not answers and self._hears_answer(line):
                answers, give_up_at = True, time.monotonic() + GRACE_SECONDS
            try:
                await line.changed(max(0.0, give_up_at - time.monotonic()))
            except NoProgress:
                if answers:
                    return False
                raise
        return not line.is_full

    async def _answer_begins(self, line: Line) -> bool:
        # An answer and the reset behind it may wait in the socket together; a write would meet the reset
        # first and lose the answer.
        for _ in range(_TURNS_TO_READ):
            if line.has_unread or line.is_over or not line.may_be_heard:
                break
            await asyncio.sleep(0)
        return self._hears_answer(line)

    def _hears_answer(self, line: Line) -> bool:
        """Whether the answer has begun, or will never; what is informational is passed over."""
        while line.has_unread and self._early is None:
            self._http.receive_data(line.take())
            while isinstance(event := _next(self._http), h11.InformationalResponse):
                pass
            if isinstance(event, h11.Response):
                self._early = event
        return self._early is not None or line.is_over


def _conversation() -> h11.Connection:
    return h11.Connection(h11.CLIENT, max_incomplete_event_size=_HEAD_BYTES)


async def _answer(http: h11.Connection, line: Line) -> h11.Response:
    while not isinstance(event := await _event(http, line), h11.Response):
        pass
    return event


async def _event(http: h11.Connection, line: Line) -> h11.Event:
    while not isinstance(event := _next(http), h11.Event):
        data = await line.receive()
        if not data and http.their_state is h11.SEND_RESPONSE and not http.trailing_data[0]:
            raise NoAnswer("closed without an answer")
        http.receive_data(data)
    return event


def _next(http: h11.Connection) -> type[h11.NEED_DATA | h11.PAUSED] | h11.Event:
    try:
        return http.next_event()
    except h11.RemoteProtocolError as error:
        raise BadAnswer(str(error)) from error


def _head_of(answer: h11.Response) -> Head:
    headers: dict[str, str] = {}
    for name, value in answer.headers:
        key, text = name.decode("ascii"), value.decode("latin-1")
        headers[key] = f"{headers[key]}, {text}" if key in headers else text
    return Head(answer.status_code, headers)


@cache
def _trusted() -> ssl.SSLContext:
    # Loading the certificates takes about 20 ms; SSL_CERT_FILE and SSL_CERT_DIR are honoured.
    context = httpx.create_ssl_context()
    context.set_alpn_protocols(["http/1.1"])
    return context


def _environment_proxy(origin: httpx.URL) -> httpx.Proxy | None:
    proxies = getproxies()
    found = proxies.get(origin.scheme) or proxies.get("all")
    if not found or proxy_bypass(origin.host):
        return None
    try:
        proxy = httpx.Proxy(found if "://" in found else f"http://{found}")
    except (ValueError, httpx.InvalidURL):
        raise ProxyFailed("the environment's proxy is no URL of one") from None
    if proxy.url.scheme not in {"http", "https"}:
        raise ProxyFailed(f"{proxy.url.scheme} proxies are not spoken, only http and https")
    return proxy


def _proxy_headers(proxy: httpx.Proxy) -> dict[str, str]:
    if proxy.auth is None:
        return {}
    return {"Proxy-Authorization": _basic(*proxy.auth)}


def _basic(name: str, password: str) -> str:
    return "Basic " + b64encode(f"{name}:{password}".encode()).decode("ascii")


def _address(url: httpx.URL) -> tuple[str, int]:
    return url.raw_host.decode("ascii"), url.port or {"http": 80, "https": 443}[url.scheme]


def causes(error: BaseException) -> Iterable[BaseException]:
    """*error* and what led to it, outermost first."""
    found: BaseException | None = error
    while found is not None:
        yield found
        found = found.__cause__ or found.__context__
