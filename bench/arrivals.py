"""A provider that notes when each request came: files are told apart by their size."""

from __future__ import annotations

import asyncio
import json
import re
import threading
import time
from typing import Self

_ANSWER = json.dumps({"status": "success", "transcription": "at once", "words": []}).encode()
_REPLY = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(_ANSWER)
_LENGTH = re.compile(rb"content-length: (\d+)", re.IGNORECASE)


class Arrivals:
    """Serves in a thread of its own; *at* is body size → monotonic time of the request's head."""

    def __init__(self) -> None:
        self.at: dict[int, float] = {}
        self.port = 0
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self._thread.start()
        self._ready.wait()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def _run(self) -> None:
        server = self._loop.run_until_complete(
            self._loop.create_server(lambda: _Exchange(self), "127.0.0.1", 0)
        )
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        self._loop.run_forever()


class _Exchange(asyncio.Protocol):
    def __init__(self, arrivals: Arrivals) -> None:
        self._arrivals = arrivals
        self._head = b""
        self._left = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        if not self._left:
            self._head += data
            head, end, data = self._head.partition(b"\r\n\r\n")
            if not end:
                return
            found = _LENGTH.search(head)
            assert found is not None
            self._head, self._left = b"", int(found[1])
            self._arrivals.at.setdefault(self._left, time.monotonic())
        self._left -= len(data)
        if not self._left:
            self._transport.write(_REPLY + _ANSWER)  # type: ignore[attr-defined]
