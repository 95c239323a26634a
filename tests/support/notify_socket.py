"""A service manager's ear: the datagram socket that NOTIFY_SOCKET names."""

from __future__ import annotations

import contextlib
import socket
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


class NotifySocket:
    """Collects datagrams; ``address`` is what NOTIFY_SOCKET holds."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind("\0" + address[1:] if address.startswith("@") else address)
        self._socket.settimeout(5)

    def receive(self) -> str:
        """The next datagram, waiting at most five seconds."""
        return self._socket.recv(65536).decode()

    def receive_until(self, word: str) -> str:
        """The first datagram that has *word* in it."""
        while word not in (text := self.receive()):
            pass
        return text

    def close(self) -> None:
        self._socket.close()


@contextlib.contextmanager
def listening(address: str) -> Iterator[NotifySocket]:
    """A NotifySocket that is closed at the end."""
    ear = NotifySocket(address)
    try:
        yield ear
    finally:
        ear.close()
