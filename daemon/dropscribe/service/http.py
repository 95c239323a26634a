"""The small http listener: /metrics, /healthz, /readyz, /status; GET and HEAD, nothing else.

Guarantees: bounded in connections, bytes and seconds, so that a slow or hostile client costs the daemon
nothing; answers only to Host names of its own (a web page cannot reach it by DNS rebinding); beyond the
loopback it asks for a token; an error inside answers 500 and tells the client nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import ipaddress
import json
import os
import re
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import structlog

from dropscribe.core.addresses import is_loopback
from dropscribe.core.errors import ListenError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

MOST_CONNECTIONS = 32
MOST_HEAD_BYTES = 8192
HEAD_SECONDS = 5.0
"""From the connection to the blank line after the headers."""
ANSWER_SECONDS = 10.0
"""For making the answer, and again for the client to take it."""

_TEXT = "text/plain; charset=utf-8"
_METRICS_TEXT = "text/plain; version=0.0.4; charset=utf-8"
_LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Endpoints:
    """What the listener shows.

    Attributes:
        metrics: The body of /metrics.
        status: The object of /status (CONTRACT.md §6).
        find_stuck: "" while the loop and intake live, else what is stuck: /healthz is 503 then.
        find_unready: "" once everything is watched and served, else what is not: /readyz is 503 then.
    """

    metrics: Callable[[], Awaitable[bytes]]
    status: Callable[[], Awaitable[Mapping[str, Any]]]
    find_stuck: Callable[[], str]
    find_unready: Callable[[], str]


@dataclass(frozen=True, slots=True)
class _Answer:
    status: HTTPStatus
    body: bytes = b""
    content_type: str = _TEXT
    headers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Request:
    method: str
    path: str
    headers: dict[str, str]


class HttpListener:
    """Serves *endpoints* between :meth:`start` and :meth:`close`.

    Attributes:
        token: Asked of every request where set; may be changed at any time, as by a reload.
    """

    def __init__(self, host: str, port: int, endpoints: Endpoints, token: str | None = None) -> None:
        """Check the address; nothing is bound yet.

        Args:
            host: A name or an address, IPv6 without brackets.
            port: 0 lets the kernel choose.
            endpoints: What is shown.
            token: Asked of every request where given.

        Raises:
            ListenError: *host* is beyond the loopback, and there is no token.
        """
        self._host, self._port = host, port
        if not token and not is_loopback(host):
            raise ListenError(self._address, "beyond the loopback a token is needed")
        self.token = token
        self._endpoints = endpoints
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()

    @property
    def port(self) -> int:
        """The port that is bound."""
        return int(self._server.sockets[0].getsockname()[1]) if self._server else self._port

    @property
    def _address(self) -> str:
        return f"[{self._host}]:{self._port}" if ":" in self._host else f"{self._host}:{self._port}"

    async def start(self) -> None:
        """Bind and serve.

        Raises:
            ListenError: The port is in use, or the address is not one of this machine.
        """
        try:
            self._server = await asyncio.start_server(
                self._accept, self._host, self._port, limit=MOST_HEAD_BYTES, backlog=MOST_CONNECTIONS
            )
        except OSError as error:
            # asyncio's own text repeats the address; the errno's does not.
            known = error.errno is not None and error.errno > 0
            reason = os.strerror(error.errno or 0) if known else str(error.strerror or error)
            raise ListenError(self._address, reason) from error

    async def close(self) -> None:
        """Stop listening and cut what is still connected; safe to call twice."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for connection in self._connections:
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._connections) >= MOST_CONNECTIONS:
            writer.transport.abort()
            return
        connection = asyncio.create_task(self._serve(reader, writer))
        self._connections.add(connection)
        connection.add_done_callback(self._connections.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            answer, has_body = await self._read_and_answer(reader)
            writer.write(_render_answer(answer, has_body=has_body))
            async with asyncio.timeout(ANSWER_SECONDS):
                await writer.drain()
                writer.close()
                await writer.wait_closed()
        except OSError:  # TimeoutError and the client's going away among them
            pass
        finally:
            writer.transport.abort()

    async def _read_and_answer(self, reader: asyncio.StreamReader) -> tuple[_Answer, bool]:
        try:
            async with asyncio.timeout(HEAD_SECONDS):
                head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.LimitOverrunError:
            return _Answer(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE), True
        except asyncio.IncompleteReadError as error:
            raise ConnectionResetError from error
        request = _parse_head(head)
        if request is None:
            return _Answer(HTTPStatus.BAD_REQUEST), True
        return await self._answer(request), request.method != "HEAD"

    async def _answer(self, request: _Request) -> _Answer:
        refusal = self._refuse(request)
        if refusal is not None:
            return refusal
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                return await self._route(request.path)
        except Exception:  # whatever it is: the daemon goes on, and the client learns nothing
            log.exception("http.failed", path=request.path)
            return _Answer(HTTPStatus.INTERNAL_SERVER_ERROR)

    def _refuse(self, request: _Request) -> _Answer | None:
        if request.method not in {"GET", "HEAD"}:
            return _Answer(HTTPStatus.METHOD_NOT_ALLOWED, headers=("Allow: GET, HEAD",))
        if not self._is_own_name(request.headers.get("host", "")):
            return _Answer(HTTPStatus.MISDIRECTED_REQUEST)
        if self.token and not _has_token(request.headers.get("authorization", ""), self.token):
            return _Answer(HTTPStatus.UNAUTHORIZED, headers=("WWW-Authenticate: Bearer",))
        return None

    def _is_own_name(self, host: str) -> bool:
        name = _host_name(host).lower()
        if name in _LOOPBACK_NAMES or name == self._host.lower():
            return True
        # Bound to every address, it is reached by any of them; rebinding needs a name.
        return self._host in {"0.0.0.0", "::"} and _is_address(name)  # noqa: S104  # compared, not bound

    async def _route(self, path: str) -> _Answer:
        if path == "/metrics":
            return _Answer(HTTPStatus.OK, await self._endpoints.metrics(), _METRICS_TEXT)
        if path == "/status":
            body = json.dumps(await self._endpoints.status()).encode() + b"\n"
            return _Answer(HTTPStatus.OK, body, "application/json")
        if path == "/healthz":
            return _render_health(self._endpoints.find_stuck())
        if path == "/readyz":
            return _render_health(self._endpoints.find_unready())
        return _Answer(HTTPStatus.NOT_FOUND)


def _parse_head(head: bytes) -> _Request | None:
    first, *lines = head.decode("latin-1").rstrip("\r\n").split("\r\n")
    words = first.split(" ")
    if len(words) != 3 or not words[2].startswith("HTTP/1.") or not words[1].startswith("/"):
        return None
    headers: dict[str, str] = {}
    for line in lines:
        name, separator, value = line.partition(":")
        name = name.lower()
        # Two Host headers are two opinions about who is meant; a folded line is nobody's.
        if not separator or not name or name != name.strip() or (name == "host" and name in headers):
            return None
        headers[name] = value.strip()
    return _Request(words[0], words[1].partition("?")[0], headers)


def _host_name(host: str) -> str:
    """The name of a Host header, without port and brackets; "" where it is malformed."""
    match = re.fullmatch(r"(?:\[([0-9A-Fa-f:.]+)\]|([^:\[\]]+))(?::\d{1,5})?", host)
    return (match[1] or match[2]) if match else ""


def _has_token(authorization: str, token: str) -> bool:
    scheme, _, given = authorization.partition(" ")
    is_same = hmac.compare_digest(given.strip().encode("latin-1"), token.encode())
    return scheme.lower() == "bearer" and is_same


def _is_address(name: str) -> bool:
    with contextlib.suppress(ValueError):
        ipaddress.ip_address(name)
        return True
    return False


def _render_health(trouble: str) -> _Answer:
    status = HTTPStatus.SERVICE_UNAVAILABLE if trouble else HTTPStatus.OK
    return _Answer(status, (trouble or "ok").encode("utf-8", "backslashreplace") + b"\n")


def _render_answer(answer: _Answer, *, has_body: bool) -> bytes:
    body = answer.body or f"{answer.status.phrase}\n".encode()
    head = (
        f"HTTP/1.1 {answer.status.value} {answer.status.phrase}",
        f"Content-Type: {answer.content_type}",
        f"Content-Length: {len(body)}",
        "Cache-Control: no-store",
        "X-Content-Type-Options: nosniff",
        "Connection: close",
        *answer.headers,
    )
    return "\r\n".join((*head, "", "")).encode("latin-1") + (body if has_body else b"")
