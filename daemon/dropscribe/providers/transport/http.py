"""One HTTP request at a time, for every vendor.

Guarantees: one attempt, no redirect followed, no cookie kept; TLS verified; the audio is streamed with its
length in the header; connecting ends after CONNECT_SECONDS, an upload without progress after
SEND_STALL_SECONDS, and the whole answer must arrive within ``timeout_seconds`` of the last byte sent; an
answer is bounded; every network failure becomes a ProviderError whose kind says whether the body had been
sent whole; no error, log line or repr holds the key. Cancellation closes the connection.
"""

from __future__ import annotations

import asyncio
import binascii
import errno
import os
import re
import socket
import ssl
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Iterator, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from functools import partial
from typing import Any, cast

from dropscribe import __version__
from dropscribe.core.errors import (
    AmbiguousFailure,
    AudioRejected,
    ProviderError,
    ProviderUnusable,
    TemporaryFailure,
)
from dropscribe.providers.redaction import Redactor
from dropscribe.providers.transport.connections import Connections, Target, target_of
from dropscribe.providers.transport.content import STEP_BYTES, decoded, in_utf8
from dropscribe.providers.transport.http_library import httpcore
from dropscribe.providers.transport.network import ANSWER_BODY_BYTES
from dropscribe.providers.transport.requests import Upload

CONNECT_SECONDS = 30.0
SEND_STALL_SECONDS = 60.0
ANSWER_BYTES = 64 * 1024 * 1024
ANSWER_TOO_LARGE = "answer_too_large"
ERROR_ANSWER_BYTES = 64 * 1024  # Enough for any error's message; the rest is not read
ERROR_ANSWER_SECONDS = 5.0  # The same for its time, after the head; or `timeout`, where that is less

_FAILURES = (httpcore.NetworkError, httpcore.ProtocolError, httpcore.ProxyError, httpcore.TimeoutException)

_SENDING, _ANSWERING = "http11.send_request_headers.started", "http11.receive_response_headers.started"
_ERRNO = re.compile(r"\[Errno (-?\d+)\] ?")
# OpenSSL's name of an error and its line, h11's type of what it read: they say nothing to a reader.
_NOISE = re.compile(rf"{_ERRNO.pattern}|\[(?:SSL|X509)[^]]*\] ?| \(_ssl\.c:\d+\)|(?<=: )bytearray(?=\()")
_UNKNOWN_NAME = frozenset({socket.EAI_NONAME, socket.EAI_NODATA})
_UNTRUSTED = frozenset({18, 19, 20, 21})  # OpenSSL's X509_V_ERR_… of a chain that ends in no known authority
# httpcore's words for a refused login at an HTTP or SOCKS proxy; it has no code for them.
_PROXY_LOGIN = re.compile("^407|username/password|AUTHENTICATION")
_HEADERS = {"User-Agent": f"dropscribe/{__version__}", "Accept": "*/*", "Accept-Encoding": "identity"}


class EncodingError(Exception):
    """The answer's content encoding is broken or not supported."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A complete answer; of an error answer only the beginning."""

    status: int  # 200 or above
    headers: Mapping[str, str]  # By names in lower case; values of one name are joined by commas
    body: bytes = field(repr=False)  # Without its content encoding

    @property
    def content_type(self) -> str:
        """The media type without parameters, in lower case, or ""."""
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()


class _Progress:
    """Phase of one request: connecting, sending or answering. Sets the time limit of each phase."""

    def __init__(self, timeout_seconds: float | None, *, is_whole: bool) -> None:
        self.timeout_seconds = timeout_seconds
        self.is_answering = False
        self.limit = asyncio.timeout(None)
        self._timer: asyncio.TimerHandle | None = None
        self.host = ""  # The provider or proxy that a connection is being made to
        self.awaited = ""  # The step of connecting that is under way, in words; "" before and after
        self._stream: httpcore.AsyncNetworkStream | None = None
        # Whether the system has taken the last byte: from then on the request may be paid for.
        self.is_whole = is_whole

    async def trace(self, event: str, details: Mapping[str, Any]) -> None:
        """Httpcore's trace extension."""
        if event.endswith(".connect_tcp.started"):  # not where a connection was kept, and is still there
            self.end_after(CONNECT_SECONDS)
            self.host = details["host"]
            host = f"[{self.host}]" if ":" in self.host else self.host
            self.awaited = f"connection to {host}:{details['port']}"
            return
        if event.endswith(".connect_tcp.complete"):
            self._stream = details["return_value"]
        if event.endswith(".start_tls.started"):
            self.awaited = f"TLS handshake with {details['server_hostname']}"
            return
        if event.endswith(".start_tls.complete"):
            self.awaited = f"tunnel through {self.host}"  # where that is a proxy
        if event not in {_SENDING, _ANSWERING} or details["request"].method == b"CONNECT":
            return  # a proxy's tunnel is still connecting
        self.awaited = ""
        self.is_answering = event == _ANSWERING
        self.end_after(self.timeout_seconds if self.is_answering else None)

    def end_after(self, seconds: float | None) -> None:
        """Let the request end in *seconds* from now; None is no limit."""
        self.stop()
        self.limit.reschedule(None)  # a suspension may have put off that of the phase before
        if seconds is not None:
            self._timer = asyncio.get_running_loop().call_later(seconds, self._time_is_up, seconds)

    def stop(self) -> None:
        """Cancel the timer."""
        if self._timer is not None:
            self._timer.cancel()

    async def end(self) -> None:
        """End the request; httpcore leaves a connection open that fails in a SOCKS proxy's handshake."""
        self.stop()
        if self.awaited and self._stream is not None:
            await self._stream.aclose()

    def _time_is_up(self, seconds: float) -> None:
        # After a suspension of the process, an answer that has arrived, or is sent again, is still read.
        now = asyncio.get_running_loop().time()
        late_seconds = now - self._timer.when() if self._timer else 0.0
        self.limit.reschedule(now + min(late_seconds, seconds))

    def limit_error(self) -> float:
        """Replace the answer's limit by the shorter one of an error, which is returned, in seconds."""
        self.end_after(None)
        return min(self.timeout_seconds or ERROR_ANSWER_SECONDS, ERROR_ANSWER_SECONDS)


class HttpTransport:
    """Sends requests to one provider, with *headers* in each; *redactor* is for the reasons of errors."""

    def __init__(self, *, redactor: Redactor, headers: Mapping[str, str] | None = None) -> None:
        self._redactor = redactor
        self._headers = _by_name({**_HEADERS, **(headers or {})})
        self._connections = Connections()

    async def send(
        self, method: str, upload: Upload, *, timeout_seconds: float | None, reads_body: bool = True
    ) -> Answer:
        """Send *upload* once and read the answer, with any status; without *reads_body* the status alone.

        *timeout_seconds* is from the last byte sent to the whole answer; None is no limit.

        Raises:
            TemporaryFailure: The network failed before the body was sent whole.
            AmbiguousFailure: It failed, or time was up, after that.
            AudioRejected: The answer is too large.
            ProviderUnusable: The URL, the environment's proxy, its login or a certificate is not accepted.
            AudioChanged: The file shrank while it was being sent.
        """
        progress = _Progress(timeout_seconds, is_whole=not upload.size_bytes)
        target = target_of(upload.url)
        failure: ProviderError
        try:
            async with progress.limit, aclosing(_body(upload, progress)) as body:
                request = self._request(method, target, upload, body, progress)
                read = partial(_answer, progress=progress, reads_body=reads_body)
                return await self._connections.exchange(target, request, read)
        except TimeoutError as error:
            if not progress.limit.expired():
                raise  # from the audio's file system
            failure = self._failure(error, progress)
        except (httpcore.LocalProtocolError, UnicodeEncodeError):
            failure = ProviderUnusable("bad_request", "a header holds characters that cannot be sent")
        except (*_FAILURES, EncodingError) as error:
            failure = self._failure(error, progress)
        finally:
            await progress.end()
        raise failure

    def _request(
        self, method: str, target: Target, upload: Upload, body: AsyncGenerator[bytes], progress: _Progress
    ) -> httpcore.Request:
        headers = {"host": ("Host", target.host)} | self._headers | _by_name(upload.headers)
        if method != "GET":
            headers["content-length"] = ("Content-Length", str(upload.size_bytes))
        limits = {"write": SEND_STALL_SECONDS}  # _Progress limits the rest
        content = body if upload.size_bytes else None
        extensions = {"timeout": limits, "trace": progress.trace}
        request = httpcore.Request(method, target.at, content=content, extensions=extensions)
        # Not by the constructor, which checks the type of each name and value.
        request.headers = [(name.encode("ascii"), value.encode("ascii")) for name, value in headers.values()]
        return request

    async def close(self) -> None:
        """Close the connections, also those in use when their requests end. Safe to call twice."""
        await self._connections.close()

    def _failure(self, error: Exception, progress: _Progress) -> ProviderError:
        code = _network_code(error, is_whole=progress.is_whole)
        reason = self._redactor.reason(_reason(error, progress)) or code.replace("_", " ")
        if code == "timeout" and progress.is_answering and progress.timeout_seconds is not None:
            reason = (
                f"no whole answer within {progress.timeout_seconds:g} s of the upload; "
                "the provider's 'timeout' can be raised"
            )
        if lasting := _lasting(error):
            return ProviderUnusable(lasting[0], self._redactor.reason(f"{reason}{lasting[1]}"))
        kind = AmbiguousFailure if progress.is_whole else TemporaryFailure
        return kind(code, reason)


def _by_name(headers: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """*headers* by their names in lower case, so that a later one replaces an earlier one."""
    return {name.lower(): (name, value) for name, value in headers.items()}


async def _body(upload: Upload, progress: _Progress) -> AsyncGenerator[bytes]:
    if upload.before:
        yield upload.before
    if upload.audio is not None:
        upload.audio.progress.sent_bytes = 0
        async with aclosing(cast("AsyncGenerator[bytes]", upload.audio.blocks())) as blocks:
            async for block in _in_base64(blocks) if upload.is_base64 else blocks:
                yield block
                upload.audio.progress.sent_bytes += len(block)
    if upload.after:
        yield upload.after
    progress.is_whole = True


async def _in_base64(blocks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """*blocks* in base64, as one text: three bytes become four letters, and up to two wait for the next."""
    rest = b""
    async for block in blocks:
        content = rest + block
        whole = len(content) - len(content) % 3
        rest = content[whole:]
        yield binascii.b2a_base64(content[:whole], newline=False)
    yield binascii.b2a_base64(rest, newline=False)


async def _answer(response: httpcore.Response, progress: _Progress, *, reads_body: bool) -> Answer:
    if not reads_body:
        return Answer(response.status, {}, b"")
    is_success = response.status // 100 == 2
    if is_success and not progress.is_whole:
        raise AmbiguousFailure("bad_answer", "answered before the audio was sent whole")
    headers = _headers_of(response)
    most_bytes = ANSWER_BYTES if is_success else ERROR_ANSWER_BYTES
    seconds = None if is_success else progress.limit_error()
    blocks = cast("AsyncGenerator[bytes]", aiter(cast("AsyncIterable[bytes]", response.stream)))
    body = bytearray()
    try:
        async with asyncio.timeout(seconds), aclosing(blocks):
            async for block in blocks:
                body += block
                if len(body) > most_bytes:
                    break
    except (*_FAILURES, TimeoutError):
        if is_success:
            raise  # of an error, the status alone decides; as much of its message as arrives is kept
    await _close_unless_exact(response, headers)
    encoding = headers.get("content-encoding", "")
    if encoding and len(body) > STEP_BYTES:  # a hostile one takes seconds
        content, problem = await asyncio.to_thread(decoded, bytes(body), encoding, most_bytes + 1)
    else:
        content, problem = decoded(bytes(body), encoding, most_bytes + 1)
    if is_success and max(len(body), len(content)) > most_bytes:
        raise too_large(f"more than {most_bytes} bytes", response.status)
    if is_success and problem:
        raise EncodingError(problem)
    return Answer(response.status, headers, in_utf8(content[:most_bytes], headers.get("content-type", "")))


def too_large(words: str, status: int) -> AudioRejected:
    """The error of a success out of all proportion: the same recording would be paid for to get it again."""
    return AudioRejected(ANSWER_TOO_LARGE, f"the answer has {words}", status=status, maybe_rule=True)


def _headers_of(response: httpcore.Response) -> dict[str, str]:
    headers: dict[str, str] = {}
    for raw_name, raw_value in response.headers:
        name, value = raw_name.decode("ascii").lower(), raw_value.decode(errors="replace")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return headers


async def _close_unless_exact(response: httpcore.Response, headers: Mapping[str, str]) -> None:
    """Close a connection on which more arrived than one answer of known length.

    httpcore would take the surplus for the answer to the next request: the transcript of another file.
    """
    stream = response.extensions["network_stream"]
    if headers.get("content-length") != str(stream.get_extra_info(ANSWER_BODY_BYTES)):
        await stream.aclose()


def _network_code(error: Exception, *, is_whole: bool) -> str:
    causes = list(_causes(error))
    match error:
        case TimeoutError() | httpcore.TimeoutException():
            return "timeout"
        case httpcore.ProxyError():
            return "proxy_failed"
        case httpcore.ConnectError():
            if any(isinstance(cause, socket.gaierror) for cause in causes):
                return "dns_failed"
            is_tls = any(isinstance(cause, ssl.SSLError) for cause in causes)
            return "tls_failed" if is_tls else "connect_failed"
    if not is_whole:
        return "connection_lost"
    # The library's own "no response" has no cause; a protocol error has the parser's.
    is_parsers = isinstance(error, httpcore.RemoteProtocolError) and len(causes) > 1
    return "bad_answer" if is_parsers or isinstance(error, EncodingError) else "no_answer"


def _lasting(error: Exception) -> tuple[str, str] | None:
    """Code and remedy, or "", of a failure that every file would meet; None for all others."""
    for cause in _causes(error):
        if isinstance(cause, ssl.SSLCertVerificationError):
            hint = " (SSL_CERT_FILE can name a private authority)"
            return "tls_failed", hint if cause.verify_code in _UNTRUSTED else ""
        # TLS 1.3 asks for it after its handshake: the request may be written by then, but is not read.
        if isinstance(cause, ssl.SSLError) and "CERTIFICATE_REQUIRED" in (cause.reason or ""):
            return "tls_failed", " (dropscribe has no client certificates)"
    if isinstance(error, httpcore.ProxyError) and _PROXY_LOGIN.search(str(error)):
        return "proxy_failed", " (check the proxy's login)"
    return None


def _reason(error: Exception, progress: _Progress) -> str:
    """The failure in words, with the host; "" where the error has none."""
    if progress.awaited and isinstance(error, TimeoutError | httpcore.TimeoutException):
        hint = "; the port may not speak https" if progress.awaited.startswith("TLS") else ""
        return f"no {progress.awaited} within {CONNECT_SECONDS:g} s{hint}"
    for cause in _causes(error):
        if isinstance(cause, socket.gaierror):
            is_unknown = cause.errno in _UNKNOWN_NAME
            end = "is not known" if is_unknown else f"cannot be looked up now: {cause.strerror}"
            return f"the name {progress.host} {end}"
    found = {int(number) for number in _ERRNO.findall(str(error))}  # one of each address of the name
    if not found or not progress.awaited:
        place = f"proxy {progress.host}: " if isinstance(error, httpcore.ProxyError) else ""
        place = f"no {progress.awaited}: " if progress.awaited.startswith("TLS") else place
        return place + _NOISE.sub("", str(error))
    if errno.ECONNREFUSED in found:
        return f"{progress.awaited} refused"
    return f"no {progress.awaited}: {', '.join(os.strerror(number) for number in sorted(found))}"


def _causes(error: BaseException) -> Iterator[BaseException]:
    """*error* and its causes, outermost first."""
    found: BaseException | None = error
    while found is not None:
        yield found
        found = found.__cause__ or found.__context__
