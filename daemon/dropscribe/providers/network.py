"""A network backend for httpcore that hears an answer while the request is still being sent.

A server may refuse an upload (401, 413) before it has read all of it, and close. httpcore reads the answer
after a failed write, but asyncio's transport closes at the first failed write and drops what it had not read.
This backend looks for bytes from the server before each piece of the body, and stops writing once a final
answer has begun: httpcore then reads it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import time
from typing import TYPE_CHECKING, Any, cast

from dropscribe.providers.http_library import httpcore

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterable

PIECE_BYTES = 64 * 1024
"""A write must make this much progress within httpx's write timeout."""

GRACE_SECONDS = 0.25
"""How long the piece in flight may still take once an answer has begun: the answer to a whole request may
arrive before the last write is known to be complete."""

ANSWER_BODY_BYTES = "answer_body_bytes"
"""Name for get_extra_info: how many bytes arrived after the head of the last answer."""

_MOST_UNREAD_BYTES = 256 * 1024
_NEXT_ADDRESS_SECONDS = 0.25
"""RFC 8305's delay before a name's next address is tried beside the first."""

_TURNS_TO_READ = 6
"""Of the event loop: the selector, TLS and the protocol; as many again for TLS in TLS."""

_STATUS_CLASS_AT = len("HTTP/1.1 ")
_INFORMATIONAL = ord("1")
_END_OF_HEAD = b"\r\n\r\n"


class EarlyAnswerBackend(httpcore.AsyncNetworkBackend):
    """Opens connections on asyncio's transports."""

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - httpcore's interface
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Connect to the first address of *host* that answers."""
        local = None if local_address is None else (local_address, 0)
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(timeout):
                transport, stream = await loop.create_connection(
                    _Stream, host, port, local_addr=local, happy_eyeballs_delay=_NEXT_ADDRESS_SECONDS
                )
        except TimeoutError as error:
            raise httpcore.ConnectTimeout("no connection in time") from error
        except (OSError, UnicodeError) as error:  # UnicodeError: a host name that cannot be encoded
            raise httpcore.ConnectError(str(error)) from error
        for option in socket_options or ():
            transport.get_extra_info("socket").setsockopt(*option)
        return stream

    async def sleep(self, seconds: float) -> None:
        """Sleep, between httpcore's own retries (which are off)."""
        await asyncio.sleep(seconds)


class _Answer:
    """How far one answer has arrived, by its bytes: informational heads (1xx), the final head, the body.

    Attributes:
        has_begun: A status line other than an informational one has arrived.
        body_bytes: What arrived after the final head.
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
            if head[_STATUS_CLASS_AT] != _INFORMATIONAL:
                self.has_begun = True
                self._has_head = bool(end)
                self.body_bytes = len(rest)
                return
            if not end:
                return
            self._head = rest


class _Stream(httpcore.AsyncNetworkStream, asyncio.Protocol):
    """One connection, plain or TLS. Unread bytes are bounded; the sender waits."""

    def __init__(self) -> None:
        self._unread = bytearray()
        self._answer = _Answer()
        self._is_answer_read = False
        self._is_over = False  # the server has ended its side, or the connection is lost
        self._is_lost = False
        self._is_full = False  # the system has not taken everything that was written
        self._error: Exception | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._transport: asyncio.Transport | None = None

    # httpcore's interface ---------------------------------------------------------------------------

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ASYNC109
        """What has arrived, once something has; b"" at the end."""
        while not (self._unread or self._is_over):
            await self._changed(timeout, httpcore.ReadTimeout("no answer in time"))
        if not self._unread and self._error is not None:
            raise httpcore.ReadError(str(self._error)) from self._error
        self._is_answer_read = True
        data = bytes(self._unread[:max_bytes])
        del self._unread[:max_bytes]
        self._opened.resume_reading()
        return data

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ASYNC109
        """Hand *buffer* to the system; return once it has taken all of it.

        In TLS up to 64 KiB and a piece may then still be in asyncio's buffers.

        Raises:
            httpcore.WriteError: An answer began before that, or the connection was lost.
            httpcore.WriteTimeout: A piece made no progress within *timeout*.
        """
        if self._is_answer_read:
            self._answer, self._is_answer_read = _Answer(), False
            self._answer.add(self._unread)
        rest = memoryview(buffer)
        while rest:
            if await self._answer_begins():
                raise httpcore.WriteError("the server answered or closed before the request was sent")
            self._opened.write(cast("bytes", rest[:PIECE_BYTES]))  # asyncio and ssl take any buffer
            rest = rest[PIECE_BYTES:]
            await self._taken(timeout)

    async def aclose(self) -> None:
        """Close at once, whatever is unsent. Safe to call twice."""
        with contextlib.suppress(AttributeError):  # TLS in TLS, closed already: see start_tls
            self._opened.abort()
        await asyncio.sleep(0)  # the transport closes its socket in the loop's next turn

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109
    ) -> httpcore.AsyncNetworkStream:
        """Continue in TLS."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(timeout):
                transport = await loop.start_tls(
                    self._opened, self, ssl_context, server_hostname=server_hostname
                )
            if transport is None:
                raise ConnectionResetError("closed during the TLS handshake")
        except TimeoutError as error:
            await self.aclose()
            raise httpcore.ConnectTimeout("no TLS handshake in time") from error
        except (OSError, UnicodeError) as error:  # ssl.SSLError is an OSError
            await self.aclose()
            raise httpcore.ConnectError(str(error)) from error
        except (TypeError, AttributeError) as error:
            # TLS in TLS: where the inner handshake fails, asyncio of 3.11 trips over its own abort.
            await self.aclose()
            raise httpcore.ConnectError(str(error.__context__ or error)) from error
        self.connection_made(transport)
        return self

    def get_extra_info(self, info: str) -> Any:
        """Asyncio's information, ANSWER_BODY_BYTES, and ``is_readable``: this must not be used again."""
        if info == "is_readable":
            return bool(self._unread) or self._is_over or self._is_readable()
        if info == ANSWER_BODY_BYTES:
            return self._answer.body_bytes
        names = {"client_addr": "sockname", "server_addr": "peername"}
        return self._opened.get_extra_info(names.get(info, info))

    # asyncio's interface ----------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The connection is open, or continues in TLS."""
        self._transport = opened = cast("asyncio.Transport", transport)
        # "Full" then lasts until the system has taken everything, since what was sent may be paid for.
        # asyncio's TLS would pause for an empty buffer at 0.
        is_tls = opened.get_extra_info("ssl_object") is not None
        opened.set_write_buffer_limits(1 if is_tls else 0, 0)

    def data_received(self, data: bytes) -> None:
        """Bytes arrived."""
        self._unread += data
        self._answer.add(data)
        if len(self._unread) > _MOST_UNREAD_BYTES:
            self._opened.pause_reading()
        self._wake()

    def eof_received(self) -> bool:
        """The server has ended its side; a plain connection may still be written to."""
        self._is_over = True
        self._wake()
        return self._opened.get_extra_info("ssl_object") is None

    def connection_lost(self, error: Exception | None) -> None:
        """The connection is gone; the kernel may still hold an answer that arrived before the reset."""
        socket = self._opened.get_extra_info("socket")
        if socket is not None and self._opened.get_extra_info("ssl_object") is None:
            with contextlib.suppress(OSError, ValueError):
                while len(self._unread) <= _MOST_UNREAD_BYTES and (data := os.read(socket.fileno(), 65536)):
                    self._unread += data
                    self._answer.add(data)
        self._is_over = self._is_lost = True
        self._error = error
        self._wake()

    def pause_writing(self) -> None:
        """The system takes no more for now."""
        self._is_full = True

    def resume_writing(self) -> None:
        """The system has taken everything."""
        self._is_full = False
        self._wake()

    # ------------------------------------------------------------------------------------------------

    @property
    def _opened(self) -> asyncio.Transport:
        assert self._transport is not None  # noqa: S101 - create_connection returns after connection_made
        return self._transport

    @property
    def _has_failed(self) -> bool:
        return self._is_lost or self._opened.is_closing()

    async def _answer_begins(self) -> bool:
        # An answer and the reset behind it may be in the socket together; a write would meet the reset first.
        for _ in range(_TURNS_TO_READ):
            if self._unread or self._is_over or not self._is_readable():
                break
            await asyncio.sleep(0)
        return self._is_over or self._has_failed or self._answer.has_begun

    async def _taken(self, seconds: float | None) -> None:
        """Wait until the system has taken what was written."""
        has_answered = False
        give_up_at = None if seconds is None else time.monotonic() + seconds
        while self._is_full and not self._has_failed:
            if not has_answered and (self._is_over or self._answer.has_begun):
                has_answered, give_up_at = True, time.monotonic() + GRACE_SECONDS
            left = None if give_up_at is None else max(0.0, give_up_at - time.monotonic())
            error = (
                httpcore.WriteError("the server answered before the request was sent")
                if has_answered
                else httpcore.WriteTimeout("the server takes no more of the request")
            )
            await self._changed(left, error)
        if self._has_failed:
            raise httpcore.WriteError(str(self._error or "the connection was lost"))

    async def _changed(self, seconds: float | None, error: Exception) -> None:
        """Wait until bytes arrive, the connection ends or the system has taken everything."""
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(seconds):
                await self._waiter
        except TimeoutError:
            raise error from None
        finally:
            self._waiter = None

    def _is_readable(self) -> bool:
        socket = self._opened.get_extra_info("socket")
        # TLS drops its socket one turn before it reports the loss of the connection.
        if socket is None or socket.fileno() < 0:
            return True
        poll = select.poll()
        poll.register(socket.fileno(), select.POLLIN)
        return bool(poll.poll(0))

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
