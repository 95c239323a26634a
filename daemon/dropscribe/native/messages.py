"""Messages between the daemon and its worker processes: JSON, an optional binary part, an optional open file.

Guarantees: a message that is malformed, or longer than the limits below, ends the conversation and nothing
else; a received descriptor is never inherited by a child process.
"""

from __future__ import annotations

import array
import json
import os
import socket
import struct
from dataclasses import dataclass
from typing import Any

MAX_HEADER_BYTES = 256 * 2**20
"""The transcript of a week of speech, with its words."""

MAX_PAYLOAD_BYTES = 16 * 2**20

_PREFIX = struct.Struct("<II")


class ConnectionLost(Exception):
    """Raised when the other side has ended, or has sent an invalid message."""


@dataclass(frozen=True, slots=True)
class Message:
    """One message.

    Attributes:
        kind: The name of an operation, or "result", "error", "phase", "write", "piece".
        body: Plain JSON values.
        payload: Binary data.
        descriptor: An open file that belongs to the receiver, or None.
    """

    kind: str
    body: dict[str, Any]
    payload: bytes = b""
    descriptor: int | None = None


def send(connection: socket.socket, message: Message) -> None:
    """Send *message*; its descriptor is duplicated and stays open here.

    Raises:
        ConnectionLost: The other side has ended.
    """
    header = json.dumps([message.kind, message.body]).encode()
    prefix = _PREFIX.pack(len(header), len(message.payload))
    try:
        if message.descriptor is None:
            connection.sendall(prefix)
        else:
            rights = array.array("i", [message.descriptor])
            connection.sendmsg([prefix], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
        connection.sendall(header)
        connection.sendall(message.payload)
    except OSError as error:
        raise ConnectionLost(error.strerror) from error


def receive(connection: socket.socket) -> Message:
    """Wait for the next message, as long as the socket's timeout allows.

    Raises:
        ConnectionLost: See the class.
        TimeoutError: Nothing came in time.
    """
    descriptor: int | None = None
    try:
        prefix, descriptor = _receive_prefix(connection)
        prefix += _exactly(connection, _PREFIX.size - len(prefix)) if prefix else b""
        if not prefix:
            raise ConnectionLost("the other side has ended")
        header_bytes, payload_bytes = _PREFIX.unpack(prefix)
        if header_bytes > MAX_HEADER_BYTES or payload_bytes > MAX_PAYLOAD_BYTES:
            raise ConnectionLost("a message is too long")
        kind, body = json.loads(_exactly(connection, header_bytes))
        message = Message(str(kind), dict(body), _exactly(connection, payload_bytes), descriptor)
    except TimeoutError:
        _close(descriptor)
        raise
    except (OSError, ValueError, TypeError, RecursionError) as error:
        _close(descriptor)
        raise ConnectionLost(str(error)) from error
    return message


def _receive_prefix(connection: socket.socket) -> tuple[bytes, int | None]:
    # Not socket.recv_fds: it ignores its flags, and a child process would inherit the descriptor.
    descriptors = array.array("i")
    room = socket.CMSG_SPACE(descriptors.itemsize)
    prefix, ancillary, _, _ = connection.recvmsg(_PREFIX.size, room, socket.MSG_CMSG_CLOEXEC)
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            descriptors.frombytes(data[: descriptors.itemsize])
    return prefix, descriptors[0] if descriptors else None


def _exactly(connection: socket.socket, count: int) -> bytes:
    parts = bytearray()
    while len(parts) < count:
        part = connection.recv(min(count - len(parts), 2**20))
        if not part:
            raise ConnectionLost("the other side ended within a message")
        parts += part
    return bytes(parts)


def _close(descriptor: int | None) -> None:
    if descriptor is not None:
        os.close(descriptor)
