"""The unix socket that the listener may have in place of an address; light, for ``check`` too."""

from __future__ import annotations

import os
import socket
from pathlib import Path

_SOCKET_MODE = 0o660


def has_listener(path: Path) -> bool:
    """Whether a program listens at *path*, also one that is too busy to accept; never waits for it."""
    if not path.is_socket():
        return False
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as probe:
        try:
            probe.connect(str(path))
        except BlockingIOError:  # its queue of connections is full
            return True
        except ConnectionRefusedError:
            return False
    return True


def bind_unix(path: Path) -> socket.socket:
    """A bound socket at *path*; one that a dead process left there is replaced.

    Raises OSError: another program listens there, something else is there, or it may not be made.
    """
    if path.is_socket() and not has_listener(path):
        os.unlink(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.bind(str(path))
        os.chmod(path, _SOCKET_MODE)  # nobody can connect before it listens
    except BaseException:
        listener.close()
        raise
    return listener
