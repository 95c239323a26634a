"""Sockets for httpcore, on asyncio's own transports.

httpcore's seam for networks is public; its own backend goes through anyio, whose cancel scopes, locks and
typed attributes cost a small upload as much as the bytes themselves.

Guarantees: a write returns when the system has taken the bytes; reads and writes end by their timeout; every
failure is one of httpcore's exceptions, with what the system said as its cause.
"""

from __future__ import annotations

import asyncio
import select
from typing import TYPE_CHECKING, Any, cast

import httpcore

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterable

_MOST_UNREAD_BYTES = 256 * 1024
_NEXT_ADDRESS_SECONDS = 0.25
"""RFC 8305's delay before a name's next address is tried beside the first."""


class _Inlet(asyncio.Protocol):
    """What has come, and who waits for it; which write has not been taken yet.

    Attributes:
        unread: Received and not read.
        is_over: The other side has ended, or the connection is lost.
        error: Why it was lost, where it was not orderly.
    """

    def __init__(self) -> None:
        self.unread = bytearray()
        self.is_over = False
        self.error: Exception | None = None
        self._transport: asyncio.Transport | None = None
        self._reader: asyncio.Future[None] | None = None
        self._writer: asyncio.Future[None] | None = None
        self._is_full = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        # A write then waits until the system has all of it: what was sent may be paid for. At 0 asyncio's TLS
        # would pause for an empty buffer.
        is_tls = transport.get_extra_info("ssl_object") is not None
        self._transport.set_write_buffer_limits(1 if is_tls else 0, 0)

    def data_received(self, data: bytes) -> None:
        self.unread += data
        if len(self.unread) > _MOST_UNREAD_BYTES and self._transport is not None:
            self._transport.pause_reading()
        _wake(self._reader)

    def eof_received(self) -> bool:
        self.is_over = True
        _wake(self._reader)
        # A peer that has ended its side may still read what is sent; in TLS there is no half-closing.
        return self._transport is not None and self._transport.get_extra_info("ssl_object") is None

    def connection_lost(self, error: Exception | None) -> None:
        self.is_over = True
        self.error = self.error or error
        _wake(self._reader)
        _wake(self._writer)

    def pause_writing(self) -> None:
        self._is_full = True

    def resume_writing(self) -> None:
        self._is_full = False
        _wake(self._writer)

    async def readable(self, timeout_seconds: float | None) -> None:
        """Wait for bytes or the end."""
        if not self.unread and not self.is_over:
            self._reader = asyncio.get_running_loop().create_future()
            await _within(self._reader, timeout_seconds)

    async def drained(self, timeout_seconds: float | None) -> None:
        """Wait until the system has taken all, or the connection is lost."""
        if self._is_full and not self.is_over:
            self._writer = asyncio.get_running_loop().create_future()
            await _within(self._writer, timeout_seconds)

    def take(self, most_bytes: int) -> bytes:
        """What is unread, up to *most_bytes*."""
        taken = bytes(self.unread[:most_bytes])
        del self.unread[:most_bytes]
        if self._transport is not None and len(self.unread) <= _MOST_UNREAD_BYTES:
            self._transport.resume_reading()
        return taken


def _wake(waiter: asyncio.Future[None] | None) -> None:
    if waiter is not None and not waiter.done():
        waiter.set_result(None)


async def _within(waiter: asyncio.Future[None], seconds: float | None) -> None:
    if seconds is None:
        await waiter
        return
    timer = waiter.get_loop().call_later(seconds, _give_up, waiter)
    try:
        await waiter
    finally:
        timer.cancel()


def _give_up(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_exception(TimeoutError("no progress in time"))


class SocketStream(httpcore.AsyncNetworkStream):
    """One connection, plain or in TLS."""

    def __init__(self, transport: asyncio.Transport, inlet: _Inlet) -> None:
        self._transport = transport
        self._inlet = inlet

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ASYNC109 - httpcore's
        """See httpcore; b"" is the other side's end."""
        try:
            await self._inlet.readable(timeout)
        except TimeoutError as error:
            raise httpcore.ReadTimeout(str(error)) from error
        if not self._inlet.unread and self._inlet.error is not None:
            raise httpcore.ReadError(str(self._inlet.error)) from self._inlet.error
        return self._inlet.take(max_bytes)

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ASYNC109
        """See httpcore; returns when the system has all of it."""
        if not buffer:
            return
        self._raise_lost()
        self._transport.write(buffer)
        try:
            await self._inlet.drained(timeout)
        except TimeoutError as error:
            raise httpcore.WriteTimeout(str(error)) from error
        self._raise_lost()

    def _raise_lost(self) -> None:
        # A peer that has ended its own side may still read: only a lost connection takes nothing.
        if self._inlet.error is not None or self._transport.is_closing():
            raise httpcore.WriteError(str(self._inlet.error or "closed")) from self._inlet.error

    async def aclose(self) -> None:
        """Let go at once, whatever is unsent."""
        self._transport.abort()
        await asyncio.sleep(0)  # the transport closes its socket in the loop's next turn

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109
    ) -> httpcore.AsyncNetworkStream:
        """See httpcore; this stream is not to be used any more."""
        inlet = _Inlet()
        try:
            transport = await asyncio.get_running_loop().start_tls(
                self._transport,
                inlet,
                ssl_context,
                server_hostname=server_hostname,
                ssl_handshake_timeout=timeout,
            )
        except TimeoutError as error:
            raise httpcore.ConnectTimeout(str(error)) from error
        except OSError as error:  # ssl.SSLError is one
            raise httpcore.ConnectError(str(error)) from error
        if transport is None:
            raise httpcore.ConnectError("closed during the TLS handshake")
        inlet.connection_made(transport)
        return SocketStream(transport, inlet)

    def get_extra_info(self, info: str) -> Any:
        """See httpcore."""
        if info == "is_readable":
            return bool(self._inlet.unread) or self._inlet.is_over or _is_readable(self._transport)
        names = {"client_addr": "sockname", "server_addr": "peername"}
        return self._transport.get_extra_info(names.get(info, info))


def _is_readable(transport: asyncio.Transport) -> bool:
    """Whether something waits in the socket that the loop has not seen yet; True for a closed one."""
    number = transport.get_extra_info("socket").fileno()
    if number < 0:
        return True
    poll = select.poll()
    poll.register(number, select.POLLIN)
    return bool(poll.poll(0))


class SocketBackend(httpcore.AsyncNetworkBackend):
    """See :class:`httpcore.AsyncNetworkBackend`."""

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """See httpcore."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(timeout):
                transport, inlet = await loop.create_connection(
                    _Inlet,
                    host,
                    port,
                    local_addr=None if local_address is None else (local_address, 0),
                    happy_eyeballs_delay=_NEXT_ADDRESS_SECONDS,
                )
        except TimeoutError as error:
            raise httpcore.ConnectTimeout(str(error)) from error
        except OSError as error:
            raise httpcore.ConnectError(str(error)) from error
        for option in socket_options or ():
            transport.get_extra_info("socket").setsockopt(*option)
        return SocketStream(transport, inlet)

    async def sleep(self, seconds: float) -> None:
        """See httpcore."""
        await asyncio.sleep(seconds)
