"""A network backend for httpcore that reads an answer while the request is still being sent.

A server may refuse an upload (401, 413) before it has read all of it, and close. httpcore reads the answer
after a failed write, but asyncio's transport closes at the first failed write and drops unread bytes.
This backend looks for bytes from the server before each piece of the body, and stops writing once a final
answer has begun: httpcore then reads it.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

from dropscribe.core.hosts import is_address
from dropscribe.providers.transport.connection import MOST_UNREAD_BYTES, Connection, TlsLayer
from dropscribe.providers.transport.http_library import httpcore

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterable

PIECE_BYTES = 64 * 1024  # a write must make this much progress within httpx's write timeout
GRACE_SECONDS = 0.25
"""How long the piece in flight may still take once an answer has begun: the answer to a whole request may
arrive before the last write is known to be complete."""

ANSWER_BODY_BYTES = "answer_body_bytes"
"""Name for get_extra_info: how many bytes arrived after the head of the last answer."""

_NEXT_ADDRESS_SECONDS = 0.25  # Delay before a name's next address is tried beside the first
_STATUS_CLASS_AT = len("HTTP/1.1 ")
_INFORMATIONAL = b"1"
_END_OF_HEAD = b"\r\n\r\n"


class EarlyAnswerBackend(httpcore.AsyncNetworkBackend):
    """Opens connections on asyncio's transports."""

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - httpcore's interface
        local_address: str | None = None,  # noqa: ARG002
        socket_options: Iterable[Any] | None = None,  # noqa: ARG002
    ) -> httpcore.AsyncNetworkStream:
        """Connect to the first address of *host* that answers."""
        # RFC 8305's delay for a name; an address has no other to try, and asyncio loses the socket of a race
        # that is cancelled in the instant of its end.
        delay_seconds = None if is_address(host) else _NEXT_ADDRESS_SECONDS
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(timeout):
                _, connection = await loop.create_connection(
                    Connection, host, port, happy_eyeballs_delay=delay_seconds
                )
        except TimeoutError as error:
            raise httpcore.ConnectTimeout("no connection in time") from error
        except (OSError, UnicodeError) as error:  # UnicodeError: a host name that cannot be encoded
            raise httpcore.ConnectError(str(error)) from error
        return Stream(connection)


class Stream(httpcore.AsyncNetworkStream):
    """A connection as httpcore uses it: plain, in TLS, or in TLS through a proxy that speaks TLS itself."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._layers: list[TlsLayer] = []  # outermost first
        self._unread = bytearray()
        self._answer = _Answer()
        self._is_answer_read = False

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ASYNC109
        """Wait for bytes and return them; b"" at the end."""
        self._take_in()
        while not (self._unread or self._is_over):
            await self._changed(timeout, httpcore.ReadTimeout("no answer in time"))
            self._take_in()
        if not self._unread and self._connection.error is not None:
            raise httpcore.ReadError(str(self._connection.error)) from self._connection.error
        self._is_answer_read = True
        data = bytes(self._unread[:max_bytes])
        del self._unread[:max_bytes]
        return data

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ASYNC109
        """Hand *buffer* to the system; return once it has taken all of it.

        Raises:
            httpcore.ConnectionNotAvailable: The connection has ended since its last answer: httpcore then
                sends the request on another one.
            httpcore.WriteError: An answer began before all was taken, or the connection was lost.
            httpcore.WriteTimeout: A piece made no progress within *timeout*.
        """
        # The head goes alone: if the server has just closed, that is seen before the body is sent whole.
        is_further = self._is_answer_read
        if is_further:
            await self._begin_request()
        rest = memoryview(buffer)
        while rest:
            if not is_further:
                await self._look_for_answer()
            piece, rest, is_further = rest[:PIECE_BYTES], rest[PIECE_BYTES:], False
            self._connection.send(self._encrypted(piece))
            await self._taken(timeout)

    async def _begin_request(self) -> None:
        """Begin another request, unless bytes have arrived since the last answer."""
        await self._connection.let_arrive()
        self._take_in()
        if self._unread or self._is_over or self._connection.has_failed:
            raise httpcore.ConnectionNotAvailable
        self._expect_answer()

    def _expect_answer(self) -> None:
        self._answer, self._is_answer_read = _Answer(), False
        self._answer.add(self._unread)

    async def _look_for_answer(self) -> None:
        # An answer and the reset behind it may be in the socket together, and writing meets the reset.
        await self._connection.let_arrive()
        self._take_in()
        if self._is_over or self._answer.has_begun or self._connection.has_failed:
            raise httpcore.WriteError("the server answered or closed before the request was sent")

    async def aclose(self) -> None:
        """Close at once and discard unsent bytes. Safe to call twice."""
        await self._connection.close()

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109
    ) -> httpcore.AsyncNetworkStream:
        """Continue in TLS."""
        try:
            async with asyncio.timeout(timeout):
                await self._shake_hands(TlsLayer(ssl_context, server_hostname))
        except BaseException as error:
            await self.aclose()
            match error:
                case TimeoutError():
                    raise httpcore.ConnectTimeout("no TLS handshake in time") from error
                case OSError() | ValueError() | httpcore.ReadError():  # ValueError: not a host name
                    raise httpcore.ConnectError(str(error)) from error
            raise
        self._expect_answer()
        return self

    def get_extra_info(self, info: str) -> Any:
        """The transport's information, ANSWER_BODY_BYTES, or ``is_readable``: not to be used again.

        httpcore asks that of each idle connection at each request, so the socket itself is not asked here:
        :meth:`write` does it for the one connection that is used.
        """
        match info:
            case "is_readable":
                self._take_in()
                return bool(self._unread) or self._is_over or self._connection.has_failed
            case "answer_body_bytes":
                return self._answer.body_bytes
            case "ssl_object":
                return self._layers[-1].object if self._layers else None
        return self._connection.transport.get_extra_info(info)

    @property
    def _is_over(self) -> bool:
        is_ended = any(layer.is_over for layer in self._layers)
        return is_ended or (self._connection.is_over and not self._connection.unread)

    def _take_in(self) -> None:
        """Decrypt and count the received bytes."""
        if not self._connection.unread or len(self._unread) > MOST_UNREAD_BYTES:
            return
        data = self._connection.take()
        try:
            for layer in self._layers:
                data = layer.decrypted(data)
        except OSError as error:
            self._connection.error = self._connection.error or error
            self._connection.is_over = True
            self._connection.transport.abort()
            return
        self._unread += data
        self._answer.add(data)

    def _encrypted(self, data: bytes | memoryview) -> bytes | memoryview:
        for layer in reversed(self._layers):
            data = layer.encrypted(data)
        return data

    async def _shake_hands(self, layer: TlsLayer) -> None:
        is_complete, received = False, b""
        while not is_complete:
            try:
                is_complete = layer.handshake(received)
            finally:
                if records := layer.records():  # also the alert that tells the server why it failed
                    self._connection.send(self._encrypted(records))
            if not is_complete and not (received := await self.read(MOST_UNREAD_BYTES)):
                raise ConnectionResetError("closed during the TLS handshake")
        self._layers.append(layer)

    async def _taken(self, seconds: float | None) -> None:
        """Wait until the system has accepted the written bytes."""
        has_answered = False
        give_up_at = None if seconds is None else time.monotonic() + seconds
        while self._connection.is_full and not self._connection.has_failed:
            self._take_in()
            if not has_answered and (self._is_over or self._answer.has_begun):
                has_answered, give_up_at = True, time.monotonic() + GRACE_SECONDS
            left = None if give_up_at is None else max(0.0, give_up_at - time.monotonic())
            error = (
                httpcore.WriteError("the server answered before the request was sent")
                if has_answered
                else httpcore.WriteTimeout("the server takes no more of the request")
            )
            await self._changed(left, error)
        if self._connection.has_failed:
            raise httpcore.WriteError(str(self._connection.error or "the connection was lost"))

    async def _changed(self, seconds: float | None, error: Exception) -> None:
        try:
            await self._connection.changed(seconds)
        except TimeoutError:
            raise error from None


class _Answer:
    """Progress of one answer, by its bytes: informational heads (1xx), the final head, the body.

    Attributes:
        has_begun: A status line other than an informational one has arrived.
        body_bytes: Number of bytes that arrived after the final head.
    """

    def __init__(self) -> None:
        self.has_begun = False
        self.body_bytes = 0
        self._head = bytearray()
        self._has_head = False

    def add(self, data: bytes | bytearray) -> None:
        """Count *data*, which arrived."""
        if self._has_head:
            self.body_bytes += len(data)
            return
        self._head += data
        while len(self._head) > _STATUS_CLASS_AT:
            head, end, rest = self._head.partition(_END_OF_HEAD)
            # A head that ends before its status has none, and is the parser's to refuse.
            if not head.startswith(_INFORMATIONAL, _STATUS_CLASS_AT):
                self.has_begun = True
                self._has_head = bool(end)
                self.body_bytes = len(rest)
                return
            if not end:
                return
            self._head = rest
