"""A real HTTP server that stands for a vendor, on this machine's loopback."""

from __future__ import annotations

import contextlib
import json
import os
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import ThreadingTCPServer
from threading import Thread
from typing import Any, Self

from dropscribe.config.model import ProviderConfig
from dropscribe.config.notation.secret import Secret
from dropscribe.files.audio import AudioFile
from dropscribe.providers.base import Provider

KEY = "sk_conformance_key"
AUDIO = b"RIFF\x24\0\0\0WAVEfmt speech"
SPOKEN = "Hello there, this is what was said."
_END_SECONDS = 0.01  # At most this long the server does not notice that it is to end


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
        self.url = ""

    async def __aenter__(self) -> Self:
        server = ThreadingTCPServer(("127.0.0.1", 0), partial(_Conversation, self._answer))
        self._stack.callback(server.server_close)
        Thread(target=server.serve_forever, args=(_END_SECONDS,), daemon=True).start()
        self._stack.callback(server.shutdown)
        self.url = f"http://127.0.0.1:{server.server_address[1]}"
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

    def _answer(self, request: Request) -> Fault:
        self.requests.append(request)
        fault = self._faults.popleft() if self._faults else None
        return fault or Fault(*self._documented(request, self._text))


class _Conversation(BaseHTTPRequestHandler):
    """One connection, with one request and its answer."""

    timeout = 10.0  # seconds without a byte from a client

    def __init__(self, answer: Callable[[Request], Fault], *connection: Any) -> None:
        self._answer = answer
        super().__init__(*connection)

    def handle(self) -> None:
        """Serve the connection; a client may close it at any time."""
        with contextlib.suppress(OSError):
            super().handle()

    def do_POST(self) -> None:
        """Read a request of any method and answer it."""
        length = int(self.headers.get("Content-Length", "0"))
        body = self.rfile.read(length)
        if len(body) < length:
            return
        headers = {name.lower(): text for name, text in self.headers.items()}
        answer = self._answer(Request(self.command, self.path, headers, body))
        if answer.close:
            return
        is_text = isinstance(answer.body, str)
        payload = answer.body.encode() if is_text else json.dumps(answer.body).encode()
        self.send_response(answer.status)
        kind = "text/plain" if is_text else "application/json"
        own = {"Content-Type": kind, "Content-Length": str(len(payload))}
        for name, text in {**own, **answer.headers}.items():
            self.send_header(name, text)
        self.end_headers()
        self.wfile.write(payload)

    do_GET = do_DELETE = do_PUT = do_POST  # noqa: N815

    def log_message(self, *_: object) -> None:
        """A test's output is its own."""
