"""The listener's endpoints for programs, over real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import json

import pytest
from structlog.testing import capture_logs

from dropscribe.config.model import HttpConfig
from dropscribe.config.notation.secret import Secret
from dropscribe.core.errors import ListenError
from dropscribe.web import guard
from dropscribe.web import listener as listening
from dropscribe.web.guard import Access, Guard
from dropscribe.web.listener import Listener
from dropscribe.web.routes import Endpoints

STATUS = {"schema": "dropscribe.status/1", "running": True, "folders": {"caf\udce9": {}}, "providers": {}}


class Daemon:
    """What the endpoints show, to be changed by a test."""

    def __init__(self) -> None:
        self.stuck = ""
        self.unready = ""
        self.error: Exception | None = None

    async def metrics(self) -> bytes:
        return b"dropscribe_up 1\n"

    async def status(self) -> dict[str, object]:
        if self.error:
            raise self.error
        return STATUS

    def endpoints(self) -> Endpoints:
        return Endpoints(self.metrics, self.status, lambda: self.stuck, lambda: self.unready)


def http_config(host: str = "127.0.0.1", port: int = 0, token: str | None = None, **keys) -> HttpConfig:
    """What the config says of the listener."""
    secret = Secret(token, "the config") if token else None
    return HttpConfig(listen=f"{host}:{port}", host=host, port=port, token=secret, **keys)


TWO_LENGTHS = (
    b"GET /status HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"0\r\n\r\nGET /status HTTP/1.1\r\nHost: localhost\r\n\r\n"
)
"""The body ends before the second request, or within it."""


@pytest.fixture
def daemon():
    """A daemon that is well."""
    return Daemon()


@pytest.fixture
async def listener(daemon, monkeypatch):
    """A listener on the loopback, without a token, that keeps no connection for long."""
    monkeypatch.setattr(listening, "KEEP_ALIVE_SECONDS", 0)
    listener = Listener(http_config(), daemon.endpoints())
    await listener.start()
    yield listener
    await listener.close()


async def send(port: int, *parts: bytes) -> bytes:
    """Everything the listener answers to *parts*, which are sent one after another."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        for part in parts[:-1]:
            writer.write(part)
            await asyncio.sleep(0.2)
        writer.write(parts[-1])
        return await asyncio.wait_for(reader.read(), 20)
    finally:
        writer.close()


async def get(port: int, path: str, method: str = "GET", host: str = "localhost", **headers: str):
    """(status, headers, body) of one request."""
    lines = [f"{method} {path} HTTP/1.1", f"Host: {host}", "Connection: close"]
    lines += [*(f"{k}: {v}" for k, v in headers.items()), "", ""]
    answer = await send(port, "\r\n".join(lines).encode())
    head, _, body = answer.partition(b"\r\n\r\n")
    first, *rest = head.decode().split("\r\n")
    return int(first.split()[1]), dict(line.lower().split(": ", 1) for line in rest), body


async def test_metrics(listener):
    """/metrics is what Prometheus reads, under its content type."""
    status, headers, body = await get(listener.port, "/metrics?x=1")
    assert (status, body) == (200, b"dropscribe_up 1\n")
    assert headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert headers["content-length"] == str(len(body))


@pytest.mark.parametrize("word", ["", "auto"])
def test_a_variable_of_other_servers_is_not_read(daemon, monkeypatch, word):
    """uvicorn takes WEB_CONCURRENCY for a number."""
    monkeypatch.setenv("WEB_CONCURRENCY", word)
    assert Listener(http_config(), daemon.endpoints()).address == "127.0.0.1:0"


async def test_status(listener):
    """/status is the object of `status --json`, whatever bytes a name has."""
    status, headers, body = await get(listener.port, "/status")
    assert (status, headers["content-type"], json.loads(body)) == (200, "application/json", STATUS)


@pytest.mark.parametrize(("path", "trouble"), [("/healthz", "stuck"), ("/readyz", "unready")])
async def test_health(listener, daemon, path, trouble):
    """Well is 200 ok; trouble is 503 with its name."""
    assert (await get(listener.port, path))[::2] == (200, b"ok\n")
    setattr(daemon, trouble, "intake has not turned for 90 s")
    assert (await get(listener.port, path))[::2] == (503, b"intake has not turned for 90 s\n")


async def test_head_has_no_body(listener):
    """HEAD has the headers of GET alone."""
    status, headers, body = await get(listener.port, "/metrics", "HEAD")
    assert (status, headers["content-length"], body) == (200, "16", b"")


@pytest.mark.parametrize("method", ["PUT", "DELETE", "OPTIONS", "PATCH", "TRACE"])
async def test_no_other_methods(listener, method):
    """Methods that nothing here needs are refused before anything else."""
    status, headers, _ = await get(listener.port, "/status", method)
    assert (status, headers["allow"]) == (405, "get, head, post")


async def test_the_endpoints_take_no_posts(listener):
    """Nothing can be changed through them."""
    assert (await get(listener.port, "/status", "POST"))[0] == 405


@pytest.mark.parametrize(
    "path", ["/status/", "/../etc/passwd", "/metrics/x", "//status", "/static/../server.py"]
)
async def test_nothing_else_is_served(listener, path):
    """There is no folder and no file behind it."""
    assert (await get(listener.port, path))[0] == 404


@pytest.mark.parametrize(
    ("host", "status"),
    [
        *((name, 200) for name in ("localhost", "127.0.0.1:8790", "[::1]:80", "LOCALHOST:1")),
        *(
            (name, 421)
            for name in ("evil.example", "localhost.evil.example", "192.168.1.5", "[::1].evil", "")
        ),
        *((name, 421) for name in ("localhost:evil", "evil@localhost", "localhost:", "[::1")),
    ],
)
async def test_only_own_names_are_answered(listener, host, status):
    """A web page that rebinds its name to 127.0.0.1 gets nothing."""
    assert (await get(listener.port, "/status", host=host))[0] == status


@pytest.mark.parametrize("protocol", ["websocket", "h2c"])
@pytest.mark.parametrize(("host", "status"), [("localhost", 200), ("evil.example", 421)])
async def test_no_other_protocol_is_switched_to(listener, protocol, host, status):
    """A request to upgrade is answered, or refused, as the same request without it."""
    upgrade = {
        "Connection": "Upgrade",
        "Upgrade": protocol,
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    }
    assert (await get(listener.port, "/status", host=host, **upgrade))[0] == status


async def test_the_guard_refuses_other_connections():
    """Only HTTP requests pass the guard."""
    passed, answers = [], []

    async def app(scope, _receive, _send):
        passed.append(scope["type"])

    async def send_answer(message):
        answers.append(message)

    await Guard(app, Access(http_config()))({"type": "websocket"}, None, send_answer)
    assert (passed, answers) == ([], [{"type": "websocket.close"}])


@pytest.mark.parametrize(
    "head",
    [
        b"GET / HTTP/2.0\r\n\r\n",
        b"GET http://localhost/status HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /status HTTP/1.1\r\nHost: localhost\r\nHost: evil\r\n\r\n",
        b"GET /status HTTP/1.1\r\nHost: localhost\r\n folded: x\r\n\r\n",
        b"GET /status\r\n\r\n",
        TWO_LENGTHS,
        b"\x16\x03\x01\xff\xff\r\n\r\n",
    ],
)
async def test_malformed_requests(listener, head):
    """What is no HTTP/1 request of the plain kind is refused, and the connection ends."""
    answer = await send(listener.port, head)
    assert answer.startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 421 "))
    assert answer.count(b"HTTP/1.1 ") == 1


@pytest.mark.parametrize("is_answered", [False, True])
@pytest.mark.parametrize("method", [b"GET", b"HEAD", b"POST"])
async def test_a_malformed_body_ends_the_connection(daemon, caplog, method, is_answered):
    """Nothing is logged as a bug, whether the request has been answered by then or not."""
    listener = Listener(http_config(), daemon.endpoints())
    await listener.start()
    head = method + b" /status HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
    with capture_logs() as lines:
        answer = await send(listener.port, *([head, b"zz\r\n"] if is_answered else [head + b"zz\r\n"]))
    answered = b"405" if method == b"POST" else b"200"
    assert answer.startswith(b"HTTP/1.1 %s " % (answered if is_answered else b"400"))
    await listener.close()
    assert (lines, caplog.records) == ([], [])


async def test_a_head_without_end_is_cut_off(listener):
    """Headers have a limit in bytes."""
    answer = await send(listener.port, b"GET /status HTTP/1.1\r\nX: " + b"x" * 20_000)
    assert answer.startswith((b"HTTP/1.1 431 ", b"HTTP/1.1 400 ")) or answer == b""


async def test_a_slow_client_is_dropped(listener, monkeypatch):
    """One that never ends its headers holds its connection for a bounded time."""
    monkeypatch.setattr(listening, "HEAD_SECONDS", 0.05)
    with contextlib.suppress(ConnectionResetError):  # cut is cut
        assert await send(listener.port, b"GET /status HT") == b""


@pytest.mark.parametrize(
    "half",
    [
        b"GET /status HT",
        b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\nGET /status HT",
        b"POST /status HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n",
        b"POST /nothing HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\nhalf",
    ],
    ids=["first-head", "second-head", "refused-body", "ignored-body"],
)
async def test_slow_clients_do_not_keep_others_out(listener, half):
    """With more half requests than there may be connections, a health check is answered."""
    idle = []
    for _ in range(listening.MOST_CONNECTIONS + 44):
        _, writer = await asyncio.open_connection("127.0.0.1", listener.port)
        writer.write(half)
        idle.append(writer)
    status, _, body = await get(listener.port, "/healthz")
    assert (status, body) == (200, b"ok\n")
    for writer in idle:
        writer.close()


async def test_many_clients_at_once_are_all_answered(listener):
    """Also where their requests come a moment after their connections."""
    clients = [await asyncio.open_connection("127.0.0.1", listener.port) for _ in range(150)]
    await asyncio.sleep(0.1)
    for _, writer in clients:
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    answers = [await asyncio.wait_for(reader.read(), 20) for reader, _ in clients]
    for _, writer in clients:
        writer.close()
    assert all(answer.endswith(b"ok\n") for answer in answers)


async def test_a_client_that_stops_after_an_answer_is_dropped(listener, monkeypatch):
    """The time limit holds for each request of a connection, not for the first alone."""
    monkeypatch.setattr(listening, "HEAD_SECONDS", 0.05)
    whole = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
    assert (await send(listener.port, whole + b"GET /status HT")).endswith(b"ok\n")


async def test_an_error_inside_tells_the_client_nothing(listener, daemon):
    """500 without a word; the words are in the log; the listener goes on."""
    daemon.error = ValueError("sk-secret")
    with capture_logs() as lines:
        status, _, body = await get(listener.port, "/status")
    assert (status, body.strip()) == (500, b"Internal Server Error")
    assert [line["event"] for line in lines] == ["http.failed"]
    daemon.error = None
    assert (await get(listener.port, "/status"))[0] == 200


async def test_a_status_that_takes_too_long_is_no_bug(listener, daemon):
    """503, and no traceback in the log at each scrape."""
    daemon.error = TimeoutError()
    with capture_logs() as lines:
        status, _, body = await get(listener.port, "/status")
    assert (status, body, lines) == (503, b"no answer in time\n", [])


@pytest.mark.parametrize(
    ("authorization", "status"),
    [
        ({}, 401),
        ({"Authorization": "Bearer wrong"}, 401),
        ({"Authorization": "Basic s3cret"}, 401),
        ({"Authorization": "Bearer s3cret"}, 200),
        ({"authorization": "bearer s3cret"}, 200),
    ],
)
async def test_token(daemon, authorization, status, monkeypatch):
    """Beyond the loopback nothing is shown without the token; by any of its addresses with it."""
    monkeypatch.setattr(guard, "WRONG_TOKEN_SECONDS", 0.0)
    listener = Listener(http_config("0.0.0.0", token="s3cret"), daemon.endpoints())
    await listener.start()
    try:
        for path in ("/status", "/healthz", "/nothing"):
            answer = (await get(listener.port, path, host="192.168.1.5", **authorization))[0]
            assert answer == (404 if status == 200 and path == "/nothing" else status)
        assert (await get(listener.port, "/status", host="nas.local"))[0] == 421
    finally:
        await listener.close()


async def test_a_port_in_use(listener, daemon):
    """The error names the address as the config has it, and the reason in the system's words."""
    second = Listener(http_config(port=listener.port), daemon.endpoints())
    with pytest.raises(ListenError) as caught:
        await second.start()
    assert (caught.value.address, caught.value.reason) == (
        f"127.0.0.1:{listener.port}",
        "Address already in use",
    )


async def test_close_cuts_and_frees_the_port(daemon):
    """After close nobody is connected and the port is free again, also with a client in the middle."""
    listener = Listener(http_config(), daemon.endpoints())
    await listener.start()
    port = listener.port
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /")
    await listener.close()
    await listener.close()
    with contextlib.suppress(ConnectionResetError):  # cut is cut
        assert await asyncio.wait_for(reader.read(), 5) == b""
    writer.close()
    again = Listener(http_config(port=port), daemon.endpoints())
    await again.start()
    await again.close()


async def test_a_reload_changes_the_token_in_place(listener, monkeypatch):
    """The port is held already, so a new token needs no new listener."""
    monkeypatch.setattr(guard, "WRONG_TOKEN_SECONDS", 0.0)
    changed = http_config(port=0, token="new")
    assert listener.take_over(changed)
    assert (await get(listener.port, "/status"))[0] == 401
    assert (await get(listener.port, "/status", Authorization="Bearer new"))[0] == 200


async def test_a_unix_socket(daemon, tmp_path):
    """A socket in a folder needs no token: its mode decides who may connect. A dead one is replaced."""
    path = tmp_path / "page.sock"
    listen = {"listen": f"unix:{path}", "host": "", "port": 0}
    for _ in range(2):
        listener = Listener(HttpConfig(socket=path, **listen), daemon.endpoints())
        await listener.start()
        assert path.stat().st_mode & 0o777 == 0o660
        reader, writer = await asyncio.open_unix_connection(str(path))
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        assert (await reader.read()).endswith(b"ok\n")
        writer.close()
        with pytest.raises(ListenError):
            await Listener(HttpConfig(socket=path, **listen), daemon.endpoints()).start()
        await listener.close()
        assert not path.exists()
        path.touch()
        with pytest.raises(ListenError):
            await Listener(HttpConfig(socket=path, **listen), daemon.endpoints()).start()
        path.unlink()
