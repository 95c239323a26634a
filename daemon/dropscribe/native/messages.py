"""Messages between the daemon and its worker processes: JSON and an optional binary part, with their lengths.

Guarantees: a message that is malformed, or longer than the limits below, ends the conversation and nothing
else; only a worker accepts descriptors, and no child process inherits them.
"""

from __future__ import annotations

import json
import os
import socket
import struct
from typing import Any, NamedTuple

MAX_HEADER_BYTES = 256 * 2**20  # the transcript of a week of speech, with its words
MAX_PAYLOAD_BYTES = 16 * 2**20

_PREFIX = struct.Struct("<II")


class ConnectionLost(Exception):
    """Raised when the other side has ended, or has sent an invalid message."""


class Message(NamedTuple):
    """A request or a part of its answer."""

    kind: str  # The name of an operation, or of a part of its answer
    body: dict[str, Any]  # Plain JSON values
    payload: bytes = b""


def send(connection: socket.socket, message: Message, descriptor: int | None = None) -> None:
    """Send *message*, and after it a duplicate of *descriptor*; raises ConnectionLost."""
    header = json.dumps([message.kind, message.body]).encode()
    try:
        connection.sendall(_PREFIX.pack(len(header), len(message.payload)) + header)
        connection.sendall(message.payload)
        if descriptor is not None:
            socket.send_fds(connection, [b"\0"], [descriptor])
    except OSError as error:
        raise ConnectionLost(error.strerror) from error


def receive(connection: socket.socket) -> Message:
    """The next message; raises ConnectionLost, and TimeoutError after the socket's timeout."""
    try:
        header_bytes, payload_bytes = _PREFIX.unpack(_exactly(connection, _PREFIX.size))
        if header_bytes > MAX_HEADER_BYTES or payload_bytes > MAX_PAYLOAD_BYTES:
            raise ConnectionLost("a message is too long")
        kind, body = json.loads(_exactly(connection, header_bytes))
        return Message(str(kind), dict(body), _exactly(connection, payload_bytes))
    except TimeoutError:
        raise
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise ConnectionLost(str(error)) from error


def receive_descriptor(connection: socket.socket) -> int:
    """The descriptor that follows a message, for the caller to close; raises ConnectionLost."""
    try:
        _, (descriptor,), _, _ = socket.recv_fds(connection, 1, 1)
    except (OSError, ValueError) as error:
        raise ConnectionLost(str(error)) from error
    os.set_inheritable(descriptor, False)
    return descriptor


def _exactly(connection: socket.socket, count: int) -> bytes:
    parts = bytearray()
    while len(parts) < count:
        part = connection.recv(min(count - len(parts), 2**20))
        if not part:
            raise ConnectionLost("the other side has ended")
        parts += part
    return bytes(parts)
