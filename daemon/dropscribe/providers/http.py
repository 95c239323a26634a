"""One request at a time over HTTP, for every vendor.

Guarantees: one attempt, never a redirect followed; TLS verified; the audio is streamed with its length
told; a stalled upload ends after SEND_STALL_SECONDS, and the whole answer must come within
``timeout_seconds`` of the last byte sent, however it drips; an answer is bounded; every way in which
the network fails becomes a ProviderError whose kind says whether the body had been sent whole; no
error, log line or repr holds the key. Cancellation closes the connection.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from contextlib import aclosing
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, cast

import httpx

from dropscribe import __version__
from dropscribe.core.errors import AmbiguousFailure, ProviderError, ProviderUnusable, TemporaryFailure
from dropscribe.providers.line import ConnectFailed, LineError, NoProgress
from dropscribe.providers.wire import BadAnswer, ProxyFailed, Target, Wire, causes

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Mapping

    from dropscribe.files.audio import AudioFile
    from dropscribe.providers.redaction import Redactor
    from dropscribe.providers.wire import Head

ANSWER_BYTES = 64 * 1024 * 1024
ERROR_ANSWER_BYTES = 64 * 1024
"""Enough for any error's words; the rest is not read."""

_SLICE_BYTES = 4 * 1024
_HEADERS = {"User-Agent": f"dropscribe/{__version__}", "Accept": "*/*", "Accept-Encoding": "identity"}


@dataclass(frozen=True, slots=True)
class Upload:
    """One POST of an audio file.

    Attributes:
        url: With its whole query.
        headers: Authorization among them, hence no repr.
        audio: Streamed between *before* and *after*; None sends no audio at all.
        before: The form's bytes ahead of the audio.
        after: The form's closing bytes.
    """

    url: str
    headers: Mapping[str, str] = field(repr=False)
    audio: AudioFile | None = field(default=None, repr=False)
    before: bytes = field(default=b"", repr=False)
    after: bytes = field(default=b"", repr=False)

    @property
    def size_bytes(self) -> int:
        """The Content-Length."""
        audio_bytes = 0 if self.audio is None else self.audio.size_bytes
        return len(self.before) + audio_bytes + len(self.after)


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back, read whole; of an error only its beginning.

    Attributes:
        status: From 200 up.
        headers: By names in lower case.
        body: Without its content encoding.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes = field(repr=False)

    @property
    def content_type(self) -> str:
        """The media type without parameters, in lower case, or ""."""
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()


class _Sending:
    """How far one request is: decides what a failure means, and when time is up."""

    def __init__(self, timeout_seconds: float | None) -> None:
        self._timeout_seconds = timeout_seconds
        self.scope = asyncio.timeout(None)
        self.is_whole = False

    def body_is_whole(self) -> None:
        """The last byte was handed to the system: from now on it may be paid for."""
        self.is_whole = True
        self.start_clock()

    def start_clock(self) -> None:
        """Limit what is left of the exchange, once."""
        if self._timeout_seconds is not None and self.scope.when() is None:
            self.scope.reschedule(asyncio.get_running_loop().time() + self._timeout_seconds)


class HttpTransport:
    """Sends requests to one provider's origin.

    Each request in flight has a connection of its own, and the last one used is used again first. All share
    one SSL context. httpx parses the URLs, trusts the certificates and decodes what is encoded; its client is
    left out: redirects and cookies are what must not happen here, and it does not hear an early answer.

    Args:
        timeout_seconds: From the last byte sent to the whole answer; None is no limit.
        redactor: For the system's words that go into errors.
    """

    def __init__(self, *, timeout_seconds: float | None, redactor: Redactor) -> None:
        self._timeout_seconds = timeout_seconds
        self._redactor = redactor
        self._idle: list[Wire] = []

    async def post(self, upload: Upload) -> Answer:
        """POST *upload* once and read the answer, whatever its status.

        Raises:
            TemporaryFailure: The network failed before the body was sent whole.
            AmbiguousFailure: It failed, or time was up, after; or the answer is too large.
            ProviderUnusable: The URL is none.
            AudioChanged: The file shrank while it was being sent.
        """
        headers = {**upload.headers, "Content-Length": str(upload.size_bytes)}
        return await self._exchange("POST", upload.url, headers, upload)

    async def get(self, url: str, headers: Mapping[str, str]) -> Answer:
        """GET *url* once; raises as :meth:`post`, less what concerns audio."""
        return await self._exchange("GET", url, headers, None)

    async def close(self) -> None:
        """Close the idle connections. Safe to call twice."""
        while self._idle:
            await self._idle.pop().close()

    async def _exchange(
        self, method: str, url: str, headers: Mapping[str, str], upload: Upload | None
    ) -> Answer:
        sending = _Sending(self._timeout_seconds)
        try:
            target = _parsed(url)
            wire = self._take(target.origin)
        except httpx.InvalidURL:
            raise ProviderUnusable("bad_url", "the provider's url is none") from None
        except ProxyFailed as error:
            raise ProviderUnusable("proxy_failed", str(error)) from None
        try:
            async with sending.scope, aclosing(_body(upload, sending)) as body:
                content = body if upload is not None and upload.size_bytes else None
                if content is None:
                    sending.body_is_whole()
                return await _answer(
                    wire, wire.ask(method, target, {**_HEADERS, **headers}, content), sending
                )
        except TimeoutError as error:
            if not sending.scope.expired():
                raise  # the audio's file system said it
            raise self._failure(error, sending) from None
        except LineError as error:
            raise self._failure(error, sending) from None
        finally:
            await wire.rest()
            self._idle.append(wire)

    def _take(self, origin: httpx.URL) -> Wire:
        if self._idle and self._idle[-1].origin == origin:
            return self._idle.pop()
        return Wire(origin)

    def _failure(self, error: Exception, sending: _Sending) -> ProviderError:
        code = _network_code(error, sent=sending.is_whole)
        reason = self._redactor.reason(str(error)) or code.replace("_", " ")
        kind = AmbiguousFailure if sending.is_whole else TemporaryFailure
        return kind(code, reason)


@lru_cache(maxsize=64)
def _parsed(url: str) -> Target:
    """A provider is asked again and again at one URL, and to parse it takes longer than to send it."""
    return Target.of(url)


async def _body(upload: Upload | None, sending: _Sending) -> AsyncGenerator[bytes]:
    if upload is None:
        return
    if upload.before:
        yield upload.before
    if upload.audio is not None:
        async with aclosing(cast("AsyncGenerator[bytes]", upload.audio.blocks())) as blocks:
            async for block in blocks:
                yield block
    if upload.after:
        yield upload.after
    sending.body_is_whole()


async def _answer(wire: Wire, asked: Awaitable[Head], sending: _Sending) -> Answer:
    head = await asked
    sending.start_clock()
    is_success = head.status // 100 == 2
    if is_success and not sending.is_whole:
        raise AmbiguousFailure("bad_answer", "answered before the audio was sent whole")
    read = _read_whole if is_success else _read_beginning
    async with aclosing(_decoded(head, wire)) as blocks:
        return Answer(head.status, head.headers, await read(blocks, head.status))


def _decoded(head: Head, wire: Wire) -> AsyncGenerator[bytes]:
    """The body without its content encoding: a server may use one that was not asked for."""
    encoding = head.headers.get("content-encoding")
    if encoding is None:
        return wire.blocks()
    encoded = httpx.Response(head.status, headers={"Content-Encoding": encoding}, content=_in_slices(wire))
    return cast("AsyncGenerator[bytes]", encoded.aiter_bytes())


async def _in_slices(wire: Wire) -> AsyncGenerator[bytes]:
    # A decoder unfolds what it is given in one go, a thousandfold at worst: the bounds must come between.
    async for block in wire.blocks():
        for start in range(0, len(block), _SLICE_BYTES):
            yield block[start : start + _SLICE_BYTES]


async def _read_whole(blocks: AsyncIterator[bytes], status: int) -> bytes:
    body = bytearray()
    try:
        async for block in blocks:
            body += block
            if len(body) > ANSWER_BYTES:
                raise AmbiguousFailure("answer_too_large", f"more than {ANSWER_BYTES} bytes", status=status)
    except httpx.DecodingError:
        reason = "the answer's content encoding is broken"
        raise AmbiguousFailure("bad_answer", reason, status=status) from None
    return bytes(body)


async def _read_beginning(blocks: AsyncIterator[bytes], _: int) -> bytes:
    # The status alone decides; an error's words are worth having as far as they come.
    body = bytearray()
    try:
        async for block in blocks:
            body += block
            if len(body) >= ERROR_ANSWER_BYTES:
                break
    except (LineError, httpx.DecodingError):
        pass
    return bytes(body[:ERROR_ANSWER_BYTES])


def _network_code(error: Exception, *, sent: bool) -> str:
    match error:
        case TimeoutError() | NoProgress():
            return "timeout"
        case ConnectFailed():
            return _connect_code(error)
        case ProxyFailed():
            return "proxy_failed"
    if not sent:
        return "connection_lost"
    return "bad_answer" if isinstance(error, BadAnswer) else "no_answer"


def _connect_code(error: Exception) -> str:
    for cause in causes(error):
        if isinstance(cause, socket.gaierror):
            return "dns_failed"
        if isinstance(cause, ssl.SSLError):
            return "tls_failed"
    return "connect_failed"
