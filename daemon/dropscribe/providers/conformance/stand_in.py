"""A real HTTP server that stands for a vendor, on this machine's loopback."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

from dropscribe.config.model import ProviderConfig
from dropscribe.config.notation.secret import Secret
from dropscribe.files.audio import AudioFile

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from dropscribe.providers.base import Provider


KEY = "sk_conformance_key"
AUDIO = b"RIFF\x24\0\0\0WAVEfmt speech"
SPOKEN = "Hello there, this is what was said."
_END_SECONDS = 5.0  # Time of the provider's connections to end, once it is closed
_TURNS_TO_BEGIN = 5  # Turns of the event loop until a connection that was just accepted is served


@dataclass(frozen=True, slots=True)
class Fault:
    """Answer to one request in place of the vendor's documented one."""

    status: int = 200
    body: Any = ""  # A text, or a value that is sent as JSON
    headers: Mapping[str, str] = field(default_factory=dict)
    close: bool = False  # Close the connection after the request, without an answer


@dataclass(frozen=True, slots=True)
class Request:
    """A request as it came; names of headers are in lower case."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes


class StandIn:
    """One vendor and a bench for its provider; use it as an async context manager.

    Args:
        build: Makes the provider, as the entry point does.
        documented: Status and body (a text, or JSON values) that the vendor documents for a request.
            The second argument is the text that the vendor transcribes. It refuses all keys but :data:`KEY`.
        folder: An empty folder for the audio.
        settings: Of ProviderConfig, for every provider.
    """

    key = KEY

    def __init__(
        self,
        build: Callable[[ProviderConfig], Provider],
        documented: Callable[[Request, str], tuple[int, Any]],
        folder: Path,
        **settings: Any,
    ) -> None:
        self.requests: list[Request] = []
        self._build = build
        self._documented = documented
        self._folder = folder
        self._settings = settings
        self._text = SPOKEN
        self._faults: deque[Fault | None] = deque()
        self._stack = contextlib.AsyncExitStack()
        self._serving: set[asyncio.Task[None] | None] = set()
        self.url = ""

    async def __aenter__(self) -> Self:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self._stack.push_async_callback(self._end, server)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    def provider(self, **settings: Any) -> Provider:
        """A new provider for the server; *settings* are ProviderConfig's. It is closed with the server."""
        keys = {"name": "mine", "type": "mine", "url": self.url, "api_key": Secret(KEY, "test")}
        config = ProviderConfig(**{**keys, "timeout_seconds": 10.0, **self._settings, **settings})
        provider = self._build(config)
        self._stack.push_async_callback(provider.close)
        return provider

    def audio(self, content: bytes = AUDIO) -> AudioFile:
        """An open file with *content*. It is closed with the server."""
        (self._folder / "call.wav").write_bytes(content)
        audio = AudioFile.open(os.fsencode(self._folder), b"call.wav")
        self._stack.callback(audio.close)
        return audio

    def shrink(self, audio: AudioFile) -> None:  # noqa: ARG002 - there is one
        """Cut the content of *audio* to a byte."""
        os.truncate(self._folder / "call.wav", 1)

    def hear(self, text: str) -> None:
        """Make the vendor transcribe all audio as *text*."""
        self._text = text

    def fail(self, *faults: Fault | None) -> None:
        """Set the answer to the next requests; None is the documented one."""
        self._faults.extend(faults)

    def request_count(self) -> int:
        """Number of requests that the server has received."""
        return len(self.requests)

    def times_received(self, content: bytes) -> int:
        """Number of requests with the audio *content*, whole and unchanged."""
        return sum(content in request.body for request in self.requests)

    async def _end(self, server: asyncio.Server) -> None:
        # asyncio leaves a socket open that was accepted and not served yet when its server closed.
        for _ in range(_TURNS_TO_BEGIN):
            await asyncio.sleep(0)
        server.close()
        if tasks := [task for task in self._serving if task is not None]:
            _, left = await asyncio.wait(tasks, timeout=_END_SECONDS)
            for task in left:
                task.cancel()
        await server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._serving.add(asyncio.current_task())
        try:
            await self._answer(reader, writer)
            with contextlib.suppress(OSError):
                await writer.wait_closed()
        finally:
            self._serving.discard(asyncio.current_task())

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError), contextlib.closing(writer):
            request = await _read(reader)
            self.requests.append(request)
            fault = self._faults.popleft() if self._faults else None
            if fault is None:
                fault = Fault(*self._documented(request, self._text))
            if not fault.close:
                writer.write(_rendered(fault))
                await writer.drain()


async def _read(reader: asyncio.StreamReader) -> Request:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    first, *lines = head.rstrip().split("\r\n")
    method, target, _ = first.split(" ")
    headers = {name.lower(): text.strip() for name, _, text in (line.partition(":") for line in lines)}
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Request(method, target, headers, body)


def _rendered(answer: Fault) -> bytes:
    is_text = isinstance(answer.body, str)
    payload = answer.body.encode() if is_text else json.dumps(answer.body).encode()
    headers = {
        "Content-Type": "text/plain" if is_text else "application/json",
        "Content-Length": str(len(payload)),
        "Connection": "close",
        **answer.headers,
    }
    head = [f"HTTP/1.1 {answer.status} Said", *(f"{name}: {text}" for name, text in headers.items())]
    return ("\r\n".join(head) + "\r\n\r\n").encode("latin-1") + payload
