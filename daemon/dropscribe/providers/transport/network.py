"""A network backend for httpcore that reads an answer while the request is still being sent.

A server may refuse an upload (401, 413) before it has read all of it, and close. httpcore reads the answer
after a failed write, but asyncio's transport closes at the first failed write and drops unread bytes; it also
hides whether the system has taken all that was written. This backend therefore works on the socket itself. It
looks for bytes from the server before each piece of the body, and stops writing once a final answer has
begun: httpcore then reads it.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from collections.abc import Iterable
from typing import Any

from dropscribe.core.hosts import is_address
from dropscribe.providers.transport.http_library import httpcore

PIECE_BYTES = 64 * 1024  # a write must make this much progress within httpx's write timeout
GRACE_SECONDS = 0.25
"""How long the piece in flight may still take once an answer has begun: the answer to a whole request may
arrive before the last write is known to be complete."""

ANSWER_BODY_BYTES = "answer_body_bytes"
"""Name for get_extra_info: how many bytes arrived after the head of the last answer."""

_NEXT_ADDRESS_SECONDS = 0.25  # Delay before a name's next address is tried beside the first
_MOST_UNREAD_BYTES = 256 * 1024  # Bytes that arrive beyond this wait at the sender
_READ_BYTES = 64 * 1024
_RECORDS_BYTES = 256 * 1024
_STATUS_CLASS_AT = len("HTTP/1.1 ")
_INFORMATIONAL = b"1"
_END_OF_HEAD = b"\r\n\r\n"


class EarlyAnswerBackend(httpcore.AsyncNetworkBackend):
    """Opens connections by asyncio, which tries several addresses of a name (RFC 8305)."""

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ARG002, ASYNC109 - httpcore's interface
        local_address: str | None = None,  # noqa: ARG002
        socket_options: Iterable[Any] | None = None,  # noqa: ARG002
    ) -> httpcore.AsyncNetworkStream:
        """Connect to the first address of *host* that answers."""
        # RFC 8305's delay for a name; an address has no other to try, and asyncio loses the socket of a race
        # that is cancelled in the instant of its end.
        delay_seconds = None if is_address(host) else _NEXT_ADDRESS_SECONDS
        loop, connected = asyncio.get_running_loop(), _Connected()
        try:
            await loop.create_connection(lambda: connected, host, port, happy_eyeballs_delay=delay_seconds)
            return Stream(connected.taken())
        except BaseException as error:
            if connected.sock is not None:  # it was cancelled in the instant of its begin
                connected.sock.close()
            if isinstance(error, OSError | UnicodeError):  # UnicodeError: a host name that cannot be encoded
                raise httpcore.ConnectError(str(error)) from error
            raise


class _Connected(asyncio.BaseProtocol):
    """Takes the socket of a connection away from the transport that asyncio makes for it."""

    sock: socket.socket | None = None
    _error: OSError | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Before the transport has read anything."""
        try:
            self.sock = transport.get_extra_info("socket").dup()
        except OSError as error:  # no descriptor is left; asyncio would only log it
            self._error = error
        transport.close()

    def taken(self) -> socket.socket:
        """The socket; raises OSError where it could not be taken."""
        if self.sock is None:
            raise self._error or ConnectionAbortedError("lost in the instant of its begin")
        return self.sock


class Stream(httpcore.AsyncNetworkStream):
    """A connection as httpcore uses it: plain, in TLS, or in TLS through a proxy that speaks TLS itself."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._loop = asyncio.get_running_loop()
        self._is_listening = False
        self._waiter: asyncio.Future[None] | None = None
        self._layers: list[TlsLayer] = []  # outermost first
        self._unread = bytearray()
        self._is_over = False  # the other side has ended its half, or the connection is lost
        self._error: OSError | None = None  # why it was lost, where the system gave a reason
        self._answer = _Answer()
        self._is_answer_read = False
        self._listen()

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ARG002, ASYNC109
        """Wait for bytes and return them; b"" at the end."""
        while not (self._unread or self._is_over):
            await self._ready()
        if not self._unread and self._error is not None:
            raise httpcore.ReadError(str(self._error)) from self._error
        self._is_answer_read = True
        data = bytes(self._unread[:max_bytes])
        del self._unread[:max_bytes]
        self._listen()
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
            self._take_in()
            if self._unread or self._is_over:  # bytes beyond the last answer, or its end
                raise httpcore.ConnectionNotAvailable
            self._expect_answer()
        rest = memoryview(buffer)
        while rest:
            if not is_further:
                self._take_in()
                if self._is_over or self._answer.has_begun:
                    raise httpcore.WriteError("the server answered or closed before the request was sent")
            piece, rest, is_further = rest[:PIECE_BYTES], rest[PIECE_BYTES:], False
            await self._send(self._encrypted(piece), timeout)

    def _expect_answer(self) -> None:
        self._answer, self._is_answer_read = _Answer(), False
        self._answer.add(self._unread)

    async def aclose(self) -> None:
        """Close at once and discard unsent bytes. Safe to call twice."""
        self._is_over = True
        self._listen()
        if self._socket.fileno() >= 0:
            self._loop.remove_writer(self._socket)
        self._socket.close()
        self._wake()

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ARG002, ASYNC109
    ) -> httpcore.AsyncNetworkStream:
        """Continue in TLS."""
        try:
            # An IPv6 address comes in brackets where it is reached through a proxy.
            host = server_hostname and server_hostname.strip("[]")
            await self._shake_hands(TlsLayer(ssl_context, host))
        except BaseException as error:
            await self.aclose()
            if isinstance(error, OSError | ValueError | httpcore.NetworkError):  # ValueError: not a host name
                raise httpcore.ConnectError(str(error)) from error
            raise
        self._expect_answer()
        return self

    def get_extra_info(self, info: str) -> Any:
        """ANSWER_BODY_BYTES, or ``is_readable``: not to be used again. OpenSSL's object is for HTTP/2 alone.

        httpcore asks that several times a request, so the socket itself is not asked: :meth:`write` does it.
        """
        if info == ANSWER_BODY_BYTES:
            return self._answer.body_bytes
        if info == "is_readable":
            return bool(self._unread) or self._is_over
        return None

    def _listen(self) -> None:
        """Have the event loop read what arrives, unless the connection is over or enough is unread."""
        is_wanted = not self._is_over and len(self._unread) <= _MOST_UNREAD_BYTES
        if is_wanted and not self._is_listening:
            self._loop.add_reader(self._socket, self._arrived)
        elif self._is_listening and not is_wanted:
            self._loop.remove_reader(self._socket)
        self._is_listening = is_wanted

    def _arrived(self) -> None:
        self._take_in()
        self._listen()
        self._wake()

    def _take_in(self) -> None:
        """Read, decrypt and count the bytes that have arrived."""
        may_be_more = True
        while may_be_more and not self._is_over and len(self._unread) <= _MOST_UNREAD_BYTES:
            try:
                data = self._socket.recv(_READ_BYTES)
                may_be_more, self._is_over = len(data) == _READ_BYTES, not data
                for layer in self._layers:
                    data = layer.decrypted(data)
                    self._is_over |= layer.is_over
            except BlockingIOError:
                return
            except OSError as error:
                # An alert says more than the reset behind it, which a write may have met first.
                if self._error is None or isinstance(error, ssl.SSLError):
                    self._error = error
                self._is_over = True
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
                    await self._send(self._encrypted(records))
            if not is_complete and not (received := await self.read(_MOST_UNREAD_BYTES)):
                raise ConnectionResetError("closed during the TLS handshake")
        self._layers.append(layer)
        self._unread += layer.decrypted(b"")  # an answer that came with the end of the handshake
        self._is_over |= layer.is_over

    async def _send(self, data: bytes | memoryview, seconds: float | None = None) -> None:
        """Wait until the system has taken *data*."""
        rest, has_answered = memoryview(data), False
        give_up_at = None if seconds is None else time.monotonic() + seconds
        while True:
            try:
                rest = rest[self._socket.send(rest) :]
            except BlockingIOError:
                pass
            except OSError as error:
                self._error = self._error or error
                raise httpcore.WriteError(str(self._error)) from error
            if not rest:
                return
            self._take_in()
            if not has_answered and (self._is_over or self._answer.has_begun):
                has_answered, give_up_at = True, time.monotonic() + GRACE_SECONDS
            left = None if give_up_at is None else max(0.0, give_up_at - time.monotonic())
            try:
                async with asyncio.timeout(left):
                    await self._ready(is_writing=True)
            except TimeoutError:
                if has_answered:
                    raise httpcore.WriteError("the server answered before the request was sent") from None
                raise httpcore.WriteTimeout("the server takes no more of the request") from None

    async def _ready(self, *, is_writing: bool = False) -> None:
        """Wait until bytes arrive, or the end, or room with *is_writing*."""
        self._waiter = self._loop.create_future()
        if is_writing:
            self._loop.add_writer(self._socket, self._wake)
        try:
            await self._waiter
        finally:
            self._waiter = None
            if is_writing and self._socket.fileno() >= 0:
                self._loop.remove_writer(self._socket)

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class TlsLayer:
    """One TLS session on OpenSSL's memory buffers: plain bytes to records and back."""

    def __init__(self, context: ssl.SSLContext, host: str | None) -> None:
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.object = context.wrap_bio(self._incoming, self._outgoing, server_hostname=host)
        self.is_over = False  # the other side has ended the session

    def handshake(self, received: bytes) -> bool:
        """Continue the handshake; returns whether it is complete. :meth:`records` must be sent, always."""
        self._incoming.write(received)
        try:
            self.object.do_handshake()
        except ssl.SSLWantReadError:
            return False
        return True

    def records(self) -> bytes:
        """Records to be sent."""
        return self._outgoing.read()

    def encrypted(self, data: bytes | memoryview) -> bytes:
        """*data* as records."""
        rest = memoryview(data)
        while rest:
            rest = rest[self.object.write(rest) :]
        return self.records()

    def decrypted(self, received: bytes) -> bytes:
        """The plain bytes in *received*; an incomplete record is kept for the next call."""
        self._incoming.write(received)
        found = bytearray()
        try:
            while block := self.object.read(_RECORDS_BYTES):
                found += block
            self.is_over = True
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            self.is_over = True
        return bytes(found)


class _Answer:
    """Progress of one answer, by its bytes: informational heads (1xx), the final head, the body."""

    def __init__(self) -> None:
        self.has_begun = False  # a status line other than an informational one has arrived
        self.body_bytes = 0  # after the final head
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
