"""Uploads through nginx, haproxy and squid: nothing is torn, doubled or lost, and no refusal goes unheard."""

from __future__ import annotations

import asyncio
import collections
import hashlib
import json
import os
import socket

import pytest

from dropscribe.core.errors import ProviderError
from dropscribe.providers.redaction import Redactor
from dropscribe.providers.transport import connections
from dropscribe.providers.transport.http import HttpTransport
from dropscribe.providers.transport.requests import Upload
from support.certificates import certified
from support.emulator import Emulator
from support.middle_boxes import haproxy, nginx, squid
from support.vendors import KEY, heard_text
from support.waiting import until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

PATH = "/api/v1/pulse/get_text?model=pulse"
HEADERS = {"Content-Type": "audio/wav", "Authorization": f"Bearer {KEY}"}
SMALL, LARGE = 40_000, 5_000_000


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch):
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def server():
    """A provider that answers with the digest of what it received."""
    with Emulator() as emulator:
        yield emulator


@pytest.fixture
def trusting(tmp_path, monkeypatch):
    """A certificate in tmp_path, which the client trusts."""
    server_tls, client_tls = certified(tmp_path)
    monkeypatch.setattr(connections, "trusted", lambda: client_tls)
    return server_tls


async def outcomes(url, *, uploads, at_once=8, size=SMALL, timeout_seconds=30.0):
    """How many of *uploads* uploads ended in which way; an answer about another upload is "torn"."""
    found = collections.Counter()
    turn = asyncio.Semaphore(at_once)
    transport = HttpTransport(redactor=Redactor(()))

    async def one():
        async with turn:
            body = os.urandom(64) * (size // 64)
            try:
                answer = await transport.send(
                    "POST", Upload(url, HEADERS, before=body), timeout_seconds=timeout_seconds
                )
            except ProviderError as error:
                found[f"{type(error).__name__} {error.code}"] += 1
                return
            if answer.status != 200:
                found[answer.status] += 1
                return
            expected = heard_text(len(body), hashlib.sha256(body).hexdigest())
            text = json.loads(answer.body)["transcription"]
            found["right" if text == expected else "torn"] += 1

    await asyncio.gather(*(one() for _ in range(uploads)))
    await transport.close()
    return dict(found)


@pytest.mark.parametrize("is_tls", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("linger", ["on", "off"])
async def test_nginx_refuses_large_uploads_early(server, trusting, tmp_path, is_tls, linger):
    """The 413 of client_max_body_size is heard; without lingering close some may be lost, none ambiguous."""
    settings = f"client_max_body_size 1m; lingering_close {linger};"
    with nginx(tmp_path, server.url, server=settings, tls=is_tls) as port:
        url = f"http{'s' * is_tls}://localhost:{port}{PATH}"
        found = await outcomes(url, uploads=400, size=LARGE)
        assert (await outcomes(url, uploads=5)) == {"right": 5}
    assert found.pop(413) >= 398
    assert set(found) <= {"TemporaryFailure connection_lost"}
    assert server.count == 5


@pytest.mark.parametrize("is_tls", [False, True], ids=["plain", "tls"])
async def test_haproxy_refuses_large_uploads_early(server, trusting, tmp_path, is_tls):
    """Every 413 is heard."""
    with haproxy(tmp_path, server.url, tls=is_tls) as port:
        url = f"http{'s' * is_tls}://localhost:{port}{PATH}"
        found = await outcomes(url, uploads=400, size=LARGE)
        assert (await outcomes(url, uploads=5)) == {"right": 5}
    assert found.pop(413) >= 398
    assert set(found) <= {"TemporaryFailure connection_lost"}


@pytest.mark.parametrize(
    "settings",
    ["keepalive_requests 10;", "keepalive_timeout 1s;", "keepalive_timeout 0;", "keepalive_requests 1;"],
)
async def test_connections_that_nginx_ends_lose_nothing(server, tmp_path, settings):
    """2,000 uploads in a row over connections that the server closes after a few."""
    with nginx(tmp_path, server.url, server=settings) as port:
        found = await outcomes(f"http://127.0.0.1:{port}{PATH}", uploads=2000, size=6400)
    assert found == {"right": 2000}
    assert server.count == 2000


async def test_idle_connections_that_end_under_an_upload_are_not_ambiguous(server, tmp_path):
    """haproxy ends an idle connection after a second; uploads start around that instant."""
    with haproxy(tmp_path, server.url, keepalive="timeout http-keep-alive 100ms") as port:
        url = f"http://127.0.0.1:{port}{PATH}"
        transport = HttpTransport(redactor=Redactor(()))
        kinds = collections.Counter()
        for number in range(150):
            try:
                answer = await transport.send(
                    "POST", Upload(url, HEADERS, before=os.urandom(SMALL)), timeout_seconds=30
                )
                kinds[answer.status] += 1
            except ProviderError as error:
                kinds[f"{type(error).__name__} {error.code}"] += 1
            await asyncio.sleep(0.09 + 0.0002 * (number % 100))
        await transport.close()
    assert kinds.pop(200) >= 140
    # 408 is haproxy's word for an idle connection; both are tried again, and neither can have been paid for.
    assert set(kinds) <= {"TemporaryFailure connection_lost", 408}


async def test_gateways_tell_whether_the_server_was_reached(server, tmp_path):
    """502 where nobody listens; 504 where the server was too slow."""
    with socket.create_server(("127.0.0.1", 0)) as gone:
        nobody = f"http://127.0.0.1:{gone.getsockname()[1]}"
    with nginx(tmp_path, nobody) as port:
        assert await outcomes(f"http://127.0.0.1:{port}{PATH}", uploads=5) == {502: 5}
    server.delay_seconds = 5.0
    with nginx(tmp_path, server.url, location="proxy_read_timeout 200ms;") as port:
        assert await outcomes(f"http://127.0.0.1:{port}{PATH}", uploads=5) == {504: 5}


async def test_squid_forwards_plain_requests(server, tmp_path, monkeypatch):
    """Every upload arrives, and a refusal of a large one by the proxy is heard."""
    with squid(tmp_path) as port:
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{port}")
        assert await outcomes(server.url + PATH, uploads=300) == {"right": 300}
    with squid(tmp_path, body_kilobytes=1000) as port:
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{port}")
        found = await outcomes(server.url + PATH, uploads=200, size=LARGE)
    assert found.pop(413) >= 199
    assert set(found) <= {"TemporaryFailure connection_lost"}


async def test_squid_tunnels_tls(server, trusting, tmp_path, monkeypatch):
    """TLS through CONNECT: every upload arrives, and an early 413 from beyond the tunnel is heard."""
    allow = "http_access allow all"
    with (
        nginx(tmp_path, server.url, server="client_max_body_size 1m;", tls=True) as far,
        squid(tmp_path, access=allow) as port,
    ):
        monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{port}")
        url = f"https://localhost:{far}{PATH}"
        assert await outcomes(url, uploads=300) == {"right": 300}
        found = await outcomes(url, uploads=200, size=LARGE)
    assert found.pop(413) >= 199
    assert set(found) <= {"TemporaryFailure connection_lost"}


LOGIN = """
auth_param basic program /usr/lib/squid/basic_fake_auth
acl login proxy_auth REQUIRED
http_access allow login
http_access deny all
"""


@pytest.mark.parametrize(
    ("access", "outcome"),
    [("http_access deny all", "TemporaryFailure proxy_failed"), (LOGIN, "ProviderUnusable proxy_failed")],
)
async def test_a_proxy_that_refuses_a_tunnel_is_named(server, tmp_path, monkeypatch, access, outcome):
    """A 403 may pass; a 407 meets every file until the proxy's login is mended."""
    with squid(tmp_path, access=access) as port:
        monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{port}")
        found = await outcomes("https://provider.invalid/", uploads=3)
    assert found == {outcome: 3}


async def test_a_cut_connection_says_whether_the_body_was_whole(server, tmp_path):
    """A box that dies under uploads: what had not arrived whole is temporary, nothing is torn."""
    server.delay_seconds = 0.05
    with nginx(tmp_path, server.url) as port:
        task = asyncio.create_task(outcomes(f"http://127.0.0.1:{port}{PATH}", uploads=400, size=400_000))
        await until(lambda: server.count >= 40)
    found = await task
    assert found["right"] >= 1
    assert "torn" not in found
    temporary = sum(count for kind, count in found.items() if str(kind).startswith("TemporaryFailure"))
    ambiguous = sum(count for kind, count in found.items() if str(kind).startswith("AmbiguousFailure"))
    assert found["right"] + temporary + ambiguous == 400
    assert ambiguous <= 8  # at most the uploads in flight
