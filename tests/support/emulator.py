"""A server that answers as the vendors document it, on a real socket, and can misbehave.

Strict about what the vendors document (method, path, key, content type, parameters); each answer
holds the size and the digest of the audio that was received, so that a test can prove which audio a
sidecar belongs to. The answers to the next requests can be scripted.

As a program, ``python emulator.py --port 0`` prints its URL as its first line; ``--delay`` makes it slow.
``GET /_requests`` lists the requests received, ``/_count`` gives their number; ``POST /_script`` with a list
of faults sets the behaviour for the next requests.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hashlib
import json
import socket
import struct
import sys
import threading
import time
from collections import deque
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Self
from urllib.parse import parse_qsl, urlsplit

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))

from support.received import Received
from support.vendors import KEY, Vendors

_TURNS_TO_BEGIN = 10
_TURNS_TO_END = 25

REASONS = {200: "OK", 400: "Bad Request", 401: "Unauthorized", 404: "Not Found", 413: "Content Too Large"}


@dataclass
class Fault:
    """Behaviour for one request in place of the documented answer.

    Attributes:
        status, body, headers: The answer to give; a body that is neither a string nor bytes is sent as JSON.
        delay_seconds: Wait before the answer.
        drip_seconds: Wait between the answer's bytes.
        cut_at: Send so many bytes of the answer's body, then close.
        reset: "before_body", "after_body" or "in_answer": an RST there.
        close: Close without an answer after the body.
        early: Answer before the body is read, and read no more.
        linger_seconds: With *early*: keep the connection open so long, unread.
        endless: An answer that never ends.
        huge_bytes: An answer of so many bytes.
        garbage: These bytes in place of HTTP.
        informational: Send "102 Processing" before the body is read.
    """

    status: int | None = None
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    delay_seconds: float = 0.0
    drip_seconds: float = 0.0
    cut_at: int | None = None
    reset: str = ""
    close: bool = False
    early: bool = False
    linger_seconds: float = 0.0
    endless: bool = False
    huge_bytes: int = 0
    garbage: str = ""
    informational: bool = False


class Emulator:
    """The server, in a thread and loop of its own; use it as a context manager.

    Attributes:
        url: "http://127.0.0.1:PORT".
        requests: The requests received, oldest first.
        script: The faults of the next requests; None, or an empty script, means the documented answer.
        vendors: The source of the documented answers.
        delay_seconds: Before every answer that nothing is scripted for.
        began_at: The arrival of each request's head, by the monotonic clock.
        most_at_once: Requests under way at one time, at most; one whose client has hung up is under way
            no more.
    """

    def __init__(
        self, port: int = 0, *, key: str = KEY, instant: bool = False, host: str = "127.0.0.1"
    ) -> None:
        self.requests: list[Received] = []
        self.script: deque[Fault | None] = deque()
        self.vendors = Vendors(key)
        self.delay_seconds = 0.0
        self.count = 0
        self.open_connections = 0
        self.began_at: list[float] = []
        self.most_at_once = 0
        self._under_way: set[Exchange] = set()
        self._instant = instant
        self._socket = socket.create_server((host, port), backlog=512)
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        self._loop = asyncio.new_event_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        self._thread = threading.Thread(target=self._run, name="emulator", daemon=True)
        self._stop = asyncio.Event()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    def fail(self, *faults: Fault | None) -> None:
        """Script the next requests, after those that are scripted already."""
        self.script.extend(faults)

    def _run(self) -> None:
        with contextlib.closing(self._loop):
            self._loop.run_until_complete(self.serve())

    async def serve(self) -> None:
        """Serve until stopped."""
        server = await asyncio.start_server(self._connected, sock=self._socket, limit=1 << 20)
        async with server:
            await self._stop.wait()
            # A connection that was just accepted takes some turns of the loop to begin, and more to end;
            # asyncio leaves its socket open where the server closes in between.
            for _ in range(_TURNS_TO_BEGIN):
                await asyncio.sleep(0)
            server.close()
            for _ in range(_TURNS_TO_END):
                for task in self._tasks:
                    task.cancel()
                await asyncio.gather(*self._tasks, return_exceptions=True)
                await asyncio.sleep(0)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.open_connections += 1
        try:
            while await Exchange(self, reader, writer).run():
                pass
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            self.open_connections -= 1
            self._tasks.discard(task)
            with contextlib.suppress(OSError, asyncio.CancelledError):
                writer.close()

    def begin(self, exchange: Exchange) -> None:
        """A request's head came."""
        self.began_at.append(time.monotonic())
        self._under_way.add(exchange)
        self.most_at_once = max(self.most_at_once, self.at_once)

    def end(self, exchange: Exchange) -> None:
        """Its answer is out, or nobody waits for it."""
        self._under_way.discard(exchange)

    @property
    def at_once(self) -> int:
        """Requests under way now."""
        return sum(not each.reader.at_eof() for each in tuple(self._under_way))

    @property
    def instant(self) -> bool:
        """Whether requests are answered without being looked at."""
        return self._instant


class Exchange:
    """One request and its answer on a connection."""

    def __init__(
        self, emulator: Emulator, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.emulator = emulator
        self.reader = reader
        self.writer = writer

    async def run(self) -> bool:
        """Do it; True when the connection may be used again."""
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        request = _parsed_head(head)
        if request.path.startswith("/_"):
            return await self._control(request)
        self.emulator.count += 1
        if self.emulator.instant:
            return await self._instantly(request)
        self.emulator.requests.append(request)
        fault = self.emulator.script.popleft() if self.emulator.script else None
        self.emulator.begin(self)
        try:
            return await self._faulty(request, fault) if fault else await self._faultless(request)
        finally:
            self.emulator.end(self)

    async def _faultless(self, request: Received) -> bool:
        kept = await self._read_body(request)
        await asyncio.sleep(self.emulator.delay_seconds)
        status, body = self.emulator.vendors.documented(request, kept)
        return await self._reply(status, body)

    async def _faulty(self, request: Received, fault: Fault) -> bool:
        if fault.reset == "before_body":
            return self._reset()
        if fault.informational:
            self.writer.write(b"HTTP/1.1 102 Processing\r\n\r\n")
            await self.writer.drain()
        kept = b"" if fault.early else await self._read_body(request)
        await asyncio.sleep(fault.delay_seconds)
        if fault.reset == "after_body":
            return self._reset()
        if fault.close:
            return False
        if fault.garbage:
            self.writer.write(fault.garbage.encode("latin-1"))
            await self.writer.drain()
            return False
        status, body = (fault.status or 200, fault.body)
        if fault.status is None and fault.body is None:
            status, body = self.emulator.vendors.documented(request, kept)
        return await self._misanswer(fault, status, body)

    async def _misanswer(self, fault: Fault, status: int, body: Any) -> bool:
        payload = _payload(body)
        plain = isinstance(body, str | None)
        headers = {"Content-Type": "text/plain" if plain else "application/json", **fault.headers}
        if fault.endless or fault.huge_bytes:
            return await self._flood(status, headers, fault)
        self.writer.write(_head(status, {**headers, "Content-Length": str(len(payload))}))
        sent = payload if fault.cut_at is None else payload[: fault.cut_at]
        step = 1 if fault.drip_seconds else max(len(sent), 1)
        for start in range(0, len(sent), step):
            self.writer.write(sent[start : start + step])
            await self.writer.drain()
            await asyncio.sleep(fault.drip_seconds)
        await self.writer.drain()
        if fault.reset == "in_answer":
            return self._reset()
        await asyncio.sleep(fault.linger_seconds)
        return fault.cut_at is None and not fault.early

    async def _flood(self, status: int, headers: dict[str, str], fault: Fault) -> bool:
        size = "" if fault.endless else str(fault.huge_bytes)
        self.writer.write(_head(status, {**headers, **({"Content-Length": size} if size else {})}))
        block = b'{"text": "' + b"x" * 65536
        sent = 0
        while fault.endless or sent < fault.huge_bytes:
            self.writer.write(block)
            sent += len(block)
            await self.writer.drain()
        return False

    def _reset(self) -> bool:
        raw = self.writer.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()
        return False

    async def _instantly(self, request: Received) -> bool:
        left = int(request.headers.get("content-length", "0"))
        while left:
            block = await self.reader.read(min(left, 1 << 20))
            if not block:
                return False
            left -= len(block)
        self.writer.write(_INSTANT)
        await self.writer.drain()
        return True

    async def _control(self, request: Received) -> bool:
        body = await self.reader.readexactly(int(request.headers.get("content-length", "0")))
        if request.path == "/_script" and request.method == "POST":
            self.emulator.fail(*(Fault(**item) if item else None for item in json.loads(body)))
            return await self._reply(200, {"scripted": len(self.emulator.script)})
        if request.path == "/_requests":
            return await self._reply(200, [asdict(item) for item in self.emulator.requests])
        if request.path == "/_count":
            return await self._reply(200, {"count": self.emulator.count})
        return await self._reply(404, {"error": "no such control"})

    async def _read_body(self, request: Received) -> bytes:
        if request.headers.get("expect", "").lower() == "100-continue":
            self.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        digest, left = hashlib.sha256(), int(request.headers.get("content-length", "0"))
        is_json = request.headers.get("content-type") == "application/json"
        keep = request.headers.get("content-type", "").startswith("multipart/") or is_json
        kept = bytearray()
        while left:
            block = await self.reader.read(min(left, 1 << 18))
            if not block:
                raise ConnectionResetError
            left -= len(block)
            request.body_bytes += len(block)
            digest.update(block)
            if keep:
                kept += block
        request.complete = True
        request.audio_bytes, request.audio_sha256 = request.body_bytes, digest.hexdigest()
        return bytes(kept)

    async def _reply(self, status: int, body: Any) -> bool:
        payload = b"" if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json", "Content-Length": str(len(payload))}
        self.writer.write(_head(status, headers) + payload)
        await self.writer.drain()
        return True


def _parsed_head(head: str) -> Received:
    first, *lines = head.removesuffix("\r\n\r\n").split("\r\n")
    method, target, _ = first.split(" ")
    parts = urlsplit(target)
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    params = parse_qsl(parts.query, keep_blank_values=True)
    return Received(method, parts.path, params, headers)


def _payload(body: Any) -> bytes:
    if isinstance(body, bytes):
        return body
    return (body or "").encode() if isinstance(body, str | None) else json.dumps(body).encode()


def _head(status: int, headers: dict[str, str]) -> bytes:
    lines = [f"HTTP/1.1 {status} {REASONS.get(status, 'Said')}", *(f"{k}: {v}" for k, v in headers.items())]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


_INSTANT_BODY = json.dumps(
    {"status": "success", "transcription": "instant", "text": "instant", "words": [], "utterances": []}
).encode()
_INSTANT = _head(200, {"Content-Type": "application/json", "Content-Length": str(len(_INSTANT_BODY))})
_INSTANT += _INSTANT_BODY


def main() -> None:
    """Serve until interrupted; the first line printed is the URL."""
    parser = argparse.ArgumentParser(description="an emulator of speech-to-text providers")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--key", default=KEY)
    parser.add_argument("--instant", action="store_true", help="answer at once, look at nothing")
    parser.add_argument("--delay", type=float, default=0.0, metavar="SECONDS", help="before each answer")
    parser.add_argument("--script", help=f"JSON list of faults: {[item.name for item in fields(Fault)]}")
    given = parser.parse_args()
    emulator = Emulator(given.port, key=given.key, instant=given.instant)
    emulator.delay_seconds = given.delay
    emulator.fail(*(Fault(**item) if item else None for item in json.loads(given.script or "[]")))
    print(emulator.url, flush=True)  # noqa: T201 - this is its interface
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(emulator.serve())


if __name__ == "__main__":
    main()
