"""The worker process: ``python -m dropscribe.native.worker REQUESTS HAS_GPU [FOLDER]...``."""

from __future__ import annotations

import os
import signal
import socket
import sys

from dropscribe.native.messages import ConnectionLost, Message, send
from dropscribe.native.worker import sandbox


def main(requests: str, has_gpu: str, *folders: str) -> None:
    """Answer requests until the daemon ends, which closes the pipe that is standard input.

    *requests* is the number of a connected Unix socket's descriptor, *has_gpu* is "1" where a graphics card
    is used, and *folders* may be read beside Python's own.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    connection = socket.socket(fileno=int(requests))
    sandbox.end_with(sys.stdin.fileno())
    sandbox.enter(folders, has_gpu=has_gpu == "1")
    try:
        try:
            from dropscribe.native.worker.server import Server  # noqa: PLC0415 - loads the native libraries
        except ImportError as error:
            body = {"type": "ProviderUnusable", "code": "engine_missing", "reason": str(error)}
            send(connection, Message("error", body))
        else:
            Server(connection).serve()
    except ConnectionLost:
        os._exit(0)  # threads of native libraries are not worth waiting for


main(*sys.argv[1:])
