"""Access control: host names, methods, token, sessions, cross-site requests, security headers.

A pure ASGI middleware around the whole application. An error inside is logged and answered with a plain
500; the client learns nothing of it.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import re
import time
from http import HTTPStatus
from typing import TYPE_CHECKING
from urllib.parse import urlencode, urlsplit

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect, HTTPConnection
from starlette.responses import PlainTextResponse, RedirectResponse, Response

from dropscribe.core.hosts import is_address, matches_host

if TYPE_CHECKING:
    from collections.abc import Iterable

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from dropscribe.config.model import HttpConfig

SESSION_SECONDS = 30 * 86400
WRONG_TOKEN_SECONDS = 1.0
MOST_WRONG_AT_ONCE = 8  # Wrong tokens that are being slowed down at once; more are refused without a wait
MOST_REQUESTS = 192
"""Requests for pages, forms and files at once; further connections are kept for the endpoints of programs."""
SEND_SECONDS = 60.0  # How long a client may take to accept one piece of an answer
_DEFAULT_PORTS = {"https": ":443", "http": ":80"}
_LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})
_OPEN_PATHS = ("/login", "/static/")  # Paths served without a token: the login form and its style
_PROGRAMS_PATHS = frozenset({"/healthz", "/readyz", "/status", "/metrics"})

_SECURITY_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    # "no-referrer" would make browsers send "Origin: null" with our own forms (Fetch Standard, 3.2).
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}

log = structlog.get_logger()


class Access:
    """Checks of host names, tokens and sessions by the section *http* of the config, which a reload swaps."""

    def __init__(self, http: HttpConfig) -> None:
        self.http = http
        self._slowed = 0

    @property
    def token(self) -> str | None:
        """Required of every request where set."""
        return self.http.token.reveal() if self.http.token else None

    @property
    def cookie(self) -> str:
        """Name of the session's cookie: one for each token, as a browser sends it to all ports of a host."""
        return f"dropscribe_session_{self._sign('name')[:8]}"

    def is_own_name(self, host: str) -> bool:
        """Whether a Host header names this listener; a rebound name of a web page does not."""
        name, own = _host_name(host).lower(), self.http.host.lower()
        if not name:
            return False
        if name in _LOOPBACK_NAMES or name == own or self._is_allowed(host):
            return True
        # Bound to every address, it is reached by any of them; rebinding needs a name.
        return own in {"0.0.0.0", "::"} and is_address(name)  # noqa: S104  # compared, not bound

    def is_own_origin(self, origin: str, host: str) -> bool:
        """Whether *origin*, a name with its port, is that of our pages for a request with the Host *host*.

        A proxy may replace the Host, or cut off its port; then `allowed_hosts` has to list *origin* itself.
        A pattern does not prove it: any site below ``*.lan`` could post with a reader's session.
        """
        origin, host = origin.lower(), host.lower()
        is_replaced = origin.startswith(f"{host}:") or not self._is_allowed(host)
        names = [name for name in self.http.allowed_hosts if not name.startswith("*.")]
        return origin == host or (is_replaced and _is_listed(origin, names))

    def _is_allowed(self, host: str) -> bool:
        hosts = self.http.allowed_hosts
        return _is_listed(_host_name(host), hosts) or _is_listed(host, hosts)

    def has_token(self, given: str) -> bool:
        """Whether *given* is the token, compared in constant time."""
        return bool(self.token) and _is_same(given, self.token or "")

    def new_session(self, now: float) -> str:
        """A cookie's value that proves knowledge of the token until it expires."""
        expires = str(int(now) + SESSION_SECONDS)
        return f"{expires}.{self._sign(expires)}"

    def has_session(self, cookie: str, now: float) -> bool:
        """Whether *cookie* was made by :meth:`new_session` under the token of now, and has not expired."""
        expires, _, signature = cookie.partition(".")
        return expires.isdecimal() and _is_same(signature, self._sign(expires)) and now < int(expires)

    async def slow_down(self) -> Response | None:
        """Delay the answer to a wrong token; 429 where too many are being delayed already."""
        if self._slowed >= MOST_WRONG_AT_ONCE:
            return _plain(HTTPStatus.TOO_MANY_REQUESTS)
        self._slowed += 1
        try:
            await asyncio.sleep(WRONG_TOKEN_SECONDS)
        finally:
            self._slowed -= 1
        return None

    def _sign(self, words: str) -> str:
        signed = f"dropscribe session {words}".encode()
        return hmac.new((self.token or "").encode(), signed, hashlib.sha256).hexdigest()


class Guard:
    """The middleware around an application."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self._app = app
        self._access = access
        self._requests = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse, or pass the request on and add the security headers to its answer."""
        if scope["type"] != "http":
            # Before it is accepted, a server answers it with 403 (ASGI specification, "websocket.close").
            await send({"type": "websocket.close"})
            return
        started = False

        async def send_safely(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                headers = MutableHeaders(scope=message)
                for name, value in _SECURITY_HEADERS.items():
                    headers.setdefault(name, value)
                headers.setdefault("Cache-Control", "no-store")
            try:
                async with asyncio.timeout(SEND_SECONDS):
                    await send(message)
            except TimeoutError as error:
                raise ClientDisconnect from error

        counts = scope["path"] not in _PROGRAMS_PATHS
        self._requests += counts
        try:
            is_full = counts and self._requests > MOST_REQUESTS
            refusal = _plain(HTTPStatus.SERVICE_UNAVAILABLE) if is_full else await self._refuse(scope)
            await (refusal or self._app)(scope, receive, send_safely)
        except (ConnectionError, ClientDisconnect):
            pass  # the client went away, or does not take its answer
        except Exception:  # any error: the daemon goes on, and the client learns nothing
            log.exception("http.failed", path=scope["path"])
            if not started:
                await _plain(HTTPStatus.INTERNAL_SERVER_ERROR)(scope, receive, send_safely)
        finally:
            self._requests -= counts

    async def _refuse(self, scope: Scope) -> Response | None:
        headers = Headers(scope=scope)
        # With both a proxy may see another end of the body than we do (RFC 9112, 6.1).
        has_two_lengths = "transfer-encoding" in headers and "content-length" in headers
        if has_two_lengths or not scope["raw_path"].startswith(b"/"):
            return _plain(HTTPStatus.BAD_REQUEST, {"Connection": "close"})
        if scope["method"] not in {"GET", "HEAD", "POST"}:
            return _plain(HTTPStatus.METHOD_NOT_ALLOWED, {"Allow": "GET, HEAD, POST"})
        hosts = headers.getlist("host")
        if len(hosts) != 1 or not self._access.is_own_name(hosts[0]):
            return _plain(HTTPStatus.MISDIRECTED_REQUEST)
        if scope["method"] == "POST" and not self._is_same_site(headers, hosts[0]):
            return _plain(HTTPStatus.FORBIDDEN)
        if self._access.token is None or scope["path"].startswith(_OPEN_PATHS):
            return None
        return await self._refuse_stranger(scope, headers)

    def _is_same_site(self, headers: Headers, host: str) -> bool:
        """Whether a POST comes from one of our own pages, or from a program that is no browser."""
        if headers.get("sec-fetch-site", "same-origin") not in {"same-origin", "none"}:
            return False
        if (origin := headers.get("origin")) is None:
            return True
        try:
            parts = urlsplit(origin)
        except ValueError:
            return False
        # Some proxies add the default port to the Host; browsers leave it out of the Origin.
        host = host.removesuffix(_DEFAULT_PORTS.get(parts.scheme, ""))
        return bool(parts.netloc) and self._access.is_own_origin(parts.netloc, host)

    async def _refuse_stranger(self, scope: Scope, headers: Headers) -> Response | None:
        if self._access.has_session(HTTPConnection(scope).cookies.get(self._access.cookie, ""), time.time()):
            return None
        scheme, _, given = headers.get("authorization", "").partition(" ")
        if given:
            if scheme.lower() == "bearer" and self._access.has_token(given.strip()):
                return None
            if refusal := await self._access.slow_down():
                return refusal
        http = self._access.http
        if http.pages and "text/html" in headers.get("accept", ""):  # also of a form, whose session has ended
            return RedirectResponse(f"{http.root_path}/login{_way_back(scope)}", HTTPStatus.SEE_OTHER)
        return _plain(HTTPStatus.UNAUTHORIZED, {"WWW-Authenticate": "Bearer"})


def _way_back(scope: Scope) -> str:
    """The query for the login that leads back to the page that was asked for; "" where it is the first."""
    page = scope["raw_path"] + (b"?" + scope["query_string"] if scope["query_string"] else b"")
    return "" if scope["method"] == "POST" or page == b"/" else f"?{urlencode({'next': page})}"


def _plain(status: HTTPStatus, headers: dict[str, str] | None = None) -> Response:
    return PlainTextResponse(f"{status.phrase}\n", status, headers)


def _is_same(given: str, expected: str) -> bool:
    return hmac.compare_digest(given.encode("utf-8", "replace"), expected.encode())


def _host_name(host: str) -> str:
    """The name of a Host header, without port and brackets; "" where it is malformed."""
    match = re.fullmatch(r"(?:\[([0-9A-Fa-f:.]+)\]|([^:\[\]@/\\\s]+))(?::\d{1,5})?", host)
    return (match[1] or match[2]) if match else ""


def _is_listed(host: str, patterns: Iterable[str]) -> bool:
    bare = host.lower().strip("[]") if host.endswith("]") else host.lower()
    return any(matches_host(bare, pattern) for pattern in patterns)
