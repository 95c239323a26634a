"""One TCP connection: received bytes, the end of the other side, the progress of a write; and TLS on it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import ssl
from typing import cast

MOST_UNREAD_BYTES = 256 * 1024  # Bytes that arrive beyond this wait at the sender
_READ_BYTES = 64 * 1024
_RECORDS_BYTES = 256 * 1024

_TURNS_TO_READ = 3  # Turns of the event loop until bytes in the socket are in :attr:`Connection.unread`


class Connection(asyncio.BufferedProtocol):
    """An asyncio protocol whose owner polls its attributes and waits with :meth:`changed`.

    Attributes:
        unread: Bytes that arrived.
        is_over: The other side has ended its half, or the connection is lost.
        is_full: The system has not taken everything that was written.
        error: Why the connection was lost, where the system gave a reason.
        transport: Asyncio's.
    """

    def __init__(self) -> None:
        self.unread = bytearray()
        self._received = bytearray(_READ_BYTES)
        self.is_over = False
        self.is_full = False
        self.error: Exception | None = None
        self._is_lost = False
        self._waiter: asyncio.Future[None] | None = None
        self.transport: asyncio.Transport  # create_connection returns after connection_made

    @property
    def has_failed(self) -> bool:
        """Whether nothing more can be written."""
        return self._is_lost or self.transport.is_closing()

    @property
    def is_readable(self) -> bool:
        """Whether bytes or the end wait in the socket, which the event loop has not read yet."""
        socket = self.transport.get_extra_info("socket")
        if socket is None or socket.fileno() < 0:
            return True
        poll = select.poll()
        poll.register(socket.fileno(), select.POLLIN)
        return bool(poll.poll(0))

    def take(self) -> bytes:
        """Remove and return the received bytes; b"" if there are none."""
        data = bytes(self.unread)
        self.unread.clear()
        self.transport.resume_reading()
        return data

    def send(self, data: bytes | memoryview) -> None:
        """Write *data*; :attr:`is_full` tells whether the system has taken it."""
        self.transport.write(cast("bytes", data))  # asyncio takes any buffer

    async def let_arrive(self) -> None:
        """Let the event loop read the bytes that wait in the socket."""
        for _ in range(_TURNS_TO_READ):
            if self.unread or self.is_over or not self.is_readable:
                break
            await asyncio.sleep(0)

    async def changed(self, seconds: float | None = None) -> None:
        """Wait until bytes arrive, the connection ends or the system has accepted the written bytes.

        Raises:
            TimeoutError: None of it happened within *seconds*.
        """
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(seconds):
                await self._waiter
        finally:
            self._waiter = None

    async def close(self) -> None:
        """Close at once and discard unsent bytes. Safe to call twice."""
        self.transport.abort()
        await asyncio.sleep(0)  # the transport closes its socket in the loop's next turn

    # asyncio's interface ----------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The connection is open."""
        self.transport = cast("asyncio.Transport", transport)
        # "Full" then lasts until the system has taken everything, since sent bytes may be paid for.
        self.transport.set_write_buffer_limits(0)

    def get_buffer(self, sizehint: int) -> bytearray:  # noqa: ARG002 - asyncio's interface
        """One for all reads: without it asyncio makes, and the system maps, 256 KiB for each."""
        return self._received

    def buffer_updated(self, nbytes: int) -> None:
        """Bytes arrived."""
        with memoryview(self._received) as received:
            self.unread += received[:nbytes]
        if len(self.unread) > MOST_UNREAD_BYTES:
            self.transport.pause_reading()
        self._wake()

    def eof_received(self) -> bool:
        """The other side has ended its half; this half stays open."""
        self.is_over = True
        self._wake()
        return True

    def connection_lost(self, error: Exception | None) -> None:
        """The connection is gone; the kernel may still hold an answer that arrived before a reset."""
        socket = self.transport.get_extra_info("socket")
        with contextlib.suppress(OSError, ValueError):
            while len(self.unread) <= MOST_UNREAD_BYTES and (data := os.read(socket.fileno(), 65536)):
                self.unread += data
        self.is_over = self._is_lost = True
        self.error = error
        self._wake()

    def pause_writing(self) -> None:
        """The system takes no more for now."""
        self.is_full = True

    def resume_writing(self) -> None:
        """The system has taken everything."""
        self.is_full = False
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class TlsLayer:
    """One TLS session on OpenSSL's memory buffers: plain bytes to records and back.

    asyncio's TLS transport hides two facts that uploads need: the bytes that arrived before a connection
    broke, and whether the system has taken everything that was written.

    Attributes:
        object: OpenSSL's session.
        is_over: The other side has ended the session.
    """

    def __init__(self, context: ssl.SSLContext, host: str | None) -> None:
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.object = context.wrap_bio(self._incoming, self._outgoing, server_hostname=host)
        self.is_over = False

    def handshake(self, received: bytes) -> bool:
        """Continue the handshake; returns whether it is complete. :meth:`records` must be sent.

        Raises:
            ssl.SSLError: It failed.
        """
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
        """The plain bytes in *received*; an incomplete record is kept for the next call.

        Raises:
            ssl.SSLError: A record is broken.
        """
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
