"""One request at a time over HTTP, for every vendor: the only user of httpx.

Guarantees: one attempt, never a redirect followed; TLS verified; the audio is streamed with its length
told; a stalled upload ends after SEND_STALL_SECONDS, and the whole answer must come within
``timeout_seconds`` of the last byte sent, however it drips; an answer is bounded; every way in which
the network fails becomes a ProviderError whose kind says whether the body had been sent whole; no
error, log line or repr holds the key. Cancellation closes the connection.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from contextlib import aclosing
from dataclasses import dataclass, field
from functools import cache, lru_cache
from typing import TYPE_CHECKING, cast

import httpcore
import httpx

from dropscribe import __version__
from dropscribe.core.errors import AmbiguousFailure, ProviderError, ProviderUnusable, TemporaryFailure
from dropscribe.providers.wire import Wire, causes

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping

    from dropscribe.disk.audio import AudioFile
    from dropscribe.providers.redaction import Redactor

CONNECT_SECONDS = 30.0
SEND_STALL_SECONDS = 60.0
ANSWER_BYTES = 64 * 1024 * 1024
ERROR_ANSWER_BYTES = 64 * 1024
"""Enough for any error's words; the rest is not read."""

# The stall limits stand here; the limit on the answer is _Sending's.
_TIMEOUTS = httpx.Timeout(None, connect=CONNECT_SECONDS, write=SEND_STALL_SECONDS).as_dict()
_HEADERS = {"User-Agent": f"dropscribe/{__version__}", "Accept": "*/*", "Accept-Encoding": "identity"}
_NETWORK_ERRORS = (httpcore.NetworkError, httpcore.ProtocolError, httpcore.TimeoutException)


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
    """What came back, read whole; of an error only its beginning."""

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

    Each request in flight has a connection of its own, because httpx's pool slows with many requests in
    flight (DESIGN.md §5); the last one used is used again first. All share one SSL context. httpx's client
    is left out: redirects, cookies and its choice of transport are what must not happen here.

    Args:
        url: Any URL of the provider; its origin and the environment decide about a proxy.
        timeout_seconds: From the last byte sent to the whole answer; None is no limit.
        redactor: For the system's words that go into errors.
    """

    def __init__(self, url: str, *, timeout_seconds: float | None, redactor: Redactor) -> None:
        self._url = url
        self._timeout_seconds = timeout_seconds
        self._redactor = redactor
        self._idle: list[Wire] = []
        for chatty in ("httpx", "httpcore"):  # they log URLs, which may hold secrets
            logging.getLogger(chatty).setLevel(logging.WARNING)

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
            await self._idle.pop().aclose()

    async def _exchange(
        self, method: str, url: str, headers: Mapping[str, str], upload: Upload | None
    ) -> Answer:
        sending = _Sending(self._timeout_seconds)
        wire = self._take()
        try:
            async with sending.scope, aclosing(_body(upload, sending)) as body:
                content = body if upload is not None and upload.size_bytes else None
                request = _request(method, url, headers, content)
                if content is None:
                    sending.body_is_whole()
                return await self._answer(wire, request, sending)
        except TimeoutError as error:
            if not sending.scope.expired():
                raise  # the audio's file system said it
            raise self._failure(error, sending) from None
        except _NETWORK_ERRORS as error:
            raise self._failure(error, sending) from None
        except (httpx.InvalidURL, httpcore.UnsupportedProtocol, httpx.UnsupportedProtocol):
            raise ProviderUnusable("bad_url", "the provider's url is none") from None
        finally:
            self._idle.append(wire)

    def _take(self) -> Wire:
        if self._idle:
            return self._idle.pop()
        try:
            is_plain = self._url.lower().startswith("http:")
            return Wire(self._url, None if is_plain else _ssl_context())
        except httpx.InvalidURL:
            raise ProviderUnusable("bad_url", "the provider's url is none") from None

    async def _answer(self, wire: Wire, request: httpx.Request, sending: _Sending) -> Answer:
        response = await wire.handle_async_request(request)
        sending.start_clock()
        try:
            if response.is_success and not sending.is_whole:
                raise AmbiguousFailure("bad_answer", "answered before the audio was sent whole")
            read = _read_whole if response.is_success else _read_beginning
            return Answer(response.status_code, response.headers, await read(response))
        finally:
            await response.aclose()

    def _failure(self, error: Exception, sending: _Sending) -> ProviderError:
        code = _network_code(error, sent=sending.is_whole)
        reason = self._redactor.reason(str(error)) or code.replace("_", " ")
        kind = AmbiguousFailure if sending.is_whole else TemporaryFailure
        return kind(code, reason)


def _request(
    method: str, url: str, headers: Mapping[str, str], content: AsyncGenerator[bytes] | None
) -> httpx.Request:
    request = httpx.Request(
        method,
        _parsed(url),
        headers={**_HEADERS, **headers},
        content=content,
        extensions={"timeout": _TIMEOUTS},
    )
    if request.url.userinfo:
        # As httpx's client does it: a name and password in the URL go before any key.
        auth = httpx.BasicAuth(request.url.username, request.url.password)
        request = next(auth.auth_flow(request))
    return request


@lru_cache(maxsize=64)
def _parsed(url: str) -> httpx.URL:
    """A provider is asked again and again at one URL, and to parse it takes longer than to send it."""
    return httpx.URL(url)


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


async def _read_whole(response: httpx.Response) -> bytes:
    body = bytearray()
    try:
        async for block in response.aiter_bytes():
            body += block
            if len(body) > ANSWER_BYTES:
                raise AmbiguousFailure(
                    "answer_too_large", f"more than {ANSWER_BYTES} bytes", status=response.status_code
                )
    except httpx.DecodingError:
        raise AmbiguousFailure(
            "bad_answer", "the answer's content encoding is broken", status=response.status_code
        ) from None
    return bytes(body)


async def _read_beginning(response: httpx.Response) -> bytes:
    # The status alone decides; an error's words are worth having as far as they come.
    body = bytearray()
    try:
        async for block in response.aiter_bytes():
            body += block
            if len(body) >= ERROR_ANSWER_BYTES:
                break
    except (*_NETWORK_ERRORS, httpx.DecodingError):
        pass
    return bytes(body[:ERROR_ANSWER_BYTES])


def _network_code(error: Exception, *, sent: bool) -> str:
    if isinstance(error, (TimeoutError, httpcore.TimeoutException)):
        return "timeout"
    if isinstance(error, httpcore.ConnectError):
        return _connect_code(error)
    if isinstance(error, httpcore.ProxyError):
        return "proxy_failed"
    if not sent:
        return "connection_lost"
    # Behind what is no HTTP, or ends before its own Content-Length, stands h11's error; behind an
    # orderly close without a word stands none.
    is_broken = isinstance(error, httpcore.RemoteProtocolError) and len(list(causes(error))) > 1
    return "bad_answer" if is_broken else "no_answer"


def _connect_code(error: Exception) -> str:
    for cause in causes(error):
        if isinstance(cause, socket.gaierror):
            return "dns_failed"
        if isinstance(cause, ssl.SSLError):
            return "tls_failed"
    return "connect_failed"


@cache
def _ssl_context() -> ssl.SSLContext:
    # Loading the certificates takes about 20 ms; SSL_CERT_FILE and SSL_CERT_DIR are honoured.
    return httpx.create_ssl_context()
