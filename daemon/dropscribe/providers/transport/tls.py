"""TLS as a translation of bytes, on OpenSSL's memory buffers.

asyncio's TLS transport hides two facts that uploads need: the bytes that arrived before a connection broke,
and whether the system has taken everything that was written.
"""

from __future__ import annotations

import ssl

_READ_BYTES = 256 * 1024


class TlsLayer:
    """One TLS session: plain bytes to records and back.

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
            while block := self.object.read(_READ_BYTES):
                found += block
            self.is_over = True
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            self.is_over = True
        return bytes(found)
