"""One connection, on asyncio's own transports: bytes out and in, and who has fallen silent.

Guarantees: what the other side says is heard while bytes go out; what nobody reads is bounded and waits at
the sender; every failure is a LineError with what the system said as its cause.
"""

from __future__ import annotations

import asyncio
import contextlib
import select
from typing import TYPE_CHECKING, Self, cast

if TYPE_CHECKING:
    import ssl

_MOST_UNREAD_BYTES = 256 * 1024
_NEXT_ADDRESS_SECONDS = 0.25
"""RFC 8305's delay before a name's next address is tried beside the first."""


class LineError(Exception):
    """A connection failed; the cause is the system's error where it had one."""


class ConnectFailed(LineError):
    """None was made: a name, an address or a certificate."""


class NoProgress(LineError):
    """Nothing came or went in the time that was given."""


class LineLost(LineError):
    """It broke."""


class Line(asyncio.Protocol):
    """One connection, plain or in TLS, made by :meth:`connect`.

    Attributes:
        is_over: The other side has ended, or the connection is lost. One that has only ended its own
            side may still read what is sent.
        is_full: The system has not taken all yet of what was sent. In TLS what is taken may still lie in
            asyncio, 64 KiB and a piece at most.
    """

    def __init__(self) -> None:
        self.is_over = False
        self.is_full = False
        self._is_gone = False
        self._error: Exception | None = None
        self._unread = bytearray()
        self._transport: asyncio.Transport | None = None
        self._waiter: asyncio.Future[None] | None = None

    @classmethod
    async def connect(cls, host: str, port: int, tls: ssl.SSLContext | None) -> Self:
        """A connection to the first address of *host* that answers.

        Raises:
            ConnectFailed: None does, or TLS was not agreed upon.
        """
        loop = asyncio.get_running_loop()
        try:
            _, line = await loop.create_connection(
                cls, host, port, ssl=tls, happy_eyeballs_delay=_NEXT_ADDRESS_SECONDS
            )
        except (OSError, UnicodeError) as error:  # ssl.SSLError is one; a name that is none is the other
            raise ConnectFailed(str(error)) from error
        return line

    async def start_tls(self, tls: ssl.SSLContext, host: str) -> None:
        """From now on in TLS with *host*.

        Raises:
            ConnectFailed: It was not agreed upon.
        """
        loop = asyncio.get_running_loop()
        try:
            transport = await loop.start_tls(self._opened, self, tls, server_hostname=host)
        except (OSError, UnicodeError) as error:
            raise ConnectFailed(str(error)) from error
        except (TypeError, AttributeError) as error:
            # TLS in TLS: where the inner handshake fails, asyncio of 3.11 stumbles over its own abort.
            raise ConnectFailed(str(error.__context__ or error)) from error
        if transport is None:
            raise ConnectFailed("closed during the TLS handshake")
        self.connection_made(transport)

    @property
    def is_lost(self) -> bool:
        """Whether it is gone: nothing more goes out, and what did not yet never will."""
        return self._is_gone or self._opened.is_closing()

    @property
    def has_unread(self) -> bool:
        """Whether something has come that was not taken."""
        return bool(self._unread)

    @property
    def may_be_heard(self) -> bool:
        """Whether something has come, or waits in the socket that the loop has not seen yet.

        True as well of a connection that has ended.
        """
        return bool(self._unread) or self.is_over or self._is_readable()

    def send(self, data: bytes | memoryview) -> None:
        """Hand *data* to the system, as far as it takes it now; whether it did is :attr:`is_lost`'s to say.

        Raises:
            LineLost: It was lost before.
        """
        if self.is_lost:
            raise LineLost(str(self._error or "closed")) from self._error
        self._opened.write(cast("bytes", data))  # asyncio and ssl take any buffer

    async def receive(self) -> bytes:
        """What has come, once something has; b"" at the end.

        Raises:
            LineLost: It broke, and all that came before was received.
        """
        while not (self._unread or self.is_over):
            await self.changed()
        if not self._unread and self._error is not None:
            raise LineLost(str(self._error)) from self._error
        return self.take()

    def take(self) -> bytes:
        """What has come until now, b"" where nothing has."""
        taken = bytes(self._unread)
        self._unread.clear()
        self._opened.resume_reading()
        return taken

    async def changed(self, timeout_seconds: float | None = None) -> None:
        """Wait until something comes, the other side ends, or what was sent has been taken.

        Raises:
            NoProgress: None of it happened in *timeout_seconds*.
        """
        loop = asyncio.get_running_loop()
        self._waiter = waiter = loop.create_future()
        timer = None
        if timeout_seconds is not None:
            timer = loop.call_later(timeout_seconds, _give_up, waiter)
        try:
            await waiter
        finally:
            self._waiter = None
            if timer is not None:
                timer.cancel()

    async def close(self) -> None:
        """Let go at once, whatever is unsent. Safe to call twice."""
        with contextlib.suppress(AttributeError):  # TLS in TLS, closed already: as in start_tls
            self._opened.abort()
        await asyncio.sleep(0)  # the transport closes its socket in the loop's next turn

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """asyncio's: it stands, or from now on in TLS."""
        self._transport = opened = cast("asyncio.Transport", transport)
        # is_full is then true until the system has all of it: what was sent may be paid for. At 0 asyncio's
        # TLS would pause for an empty buffer.
        is_tls = opened.get_extra_info("ssl_object") is not None
        opened.set_write_buffer_limits(1 if is_tls else 0, 0)

    def data_received(self, data: bytes) -> None:
        """asyncio's: something has come."""
        self._unread += data
        if len(self._unread) > _MOST_UNREAD_BYTES:
            self._opened.pause_reading()
        self._wake()

    def eof_received(self) -> bool:
        """asyncio's: the other side has ended; whether this one stays open."""
        self.is_over = True
        self._wake()
        # A peer that has ended its side may still read what is sent; in TLS there is no half-closing.
        return self._opened.get_extra_info("ssl_object") is None

    def connection_lost(self, error: Exception | None) -> None:
        """asyncio's: it is gone."""
        self.is_over = self._is_gone = True
        self._error = error
        self._wake()

    def pause_writing(self) -> None:
        """asyncio's: the system takes no more for now."""
        self.is_full = True

    def resume_writing(self) -> None:
        """asyncio's: the system has taken all."""
        self.is_full = False
        self._wake()

    @property
    def _opened(self) -> asyncio.Transport:
        assert self._transport is not None  # noqa: S101 - connect() hands out no other
        return self._transport

    def _is_readable(self) -> bool:
        socket = self._opened.get_extra_info("socket")
        # TLS lets go of its socket a turn before it says that the connection is lost.
        if socket is None or socket.fileno() < 0:
            return True
        poll = select.poll()
        poll.register(socket.fileno(), select.POLLIN)
        return bool(poll.poll(0))

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


def _give_up(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_exception(NoProgress("no progress in time"))
