"""HTTP over one connection: when it is used again, and the ways through a proxy."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import gc
import gzip
import os
import resource
import socket
import ssl
import struct
import threading
import tracemalloc
import warnings
from concurrent.futures import ThreadPoolExecutor

import pytest

from dropscribe.core.errors import ProviderUnusable, TemporaryFailure
from dropscribe.files.audio import Progress
from dropscribe.providers.redaction import Redactor
from dropscribe.providers.transport import connections, http
from dropscribe.providers.transport.http import HttpTransport
from dropscribe.providers.transport.http_library import httpcore
from dropscribe.providers.transport.network import EarlyAnswerBackend, Stream
from dropscribe.providers.transport.requests import Upload
from support.certificates import certified
from support.waiting import until

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"


class Server:
    """Answers each request with what *answers* gives, on real sockets; keeps what it heard."""

    def __init__(self, *answers: bytes) -> None:
        self.answers = list(answers)
        self.heads: list[bytes] = []
        self.connections = 0

    async def __call__(self, reader, writer):
        self.connections += 1
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                self.heads.append(head)
                await reader.readexactly(_length_of(head))
                writer.write(self.answers.pop(0) if self.answers else OK)


class Tunnel:
    """A proxy that speaks CONNECT alone; keeps the heads that it heard."""

    def __init__(self, port: int, answer: bytes = b"HTTP/1.1 200 Connection established\r\n\r\n") -> None:
        self.port = port
        self.answer = answer
        self.heads: list[bytes] = []

    async def __call__(self, reader, writer):
        self.heads.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(self.answer)
        if b" 200 " in self.answer:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self.port)
            await asyncio.gather(_pass_on(reader, far_writer), _pass_on(far_reader, writer))


async def _pass_on(reader, writer):
    with contextlib.suppress(ConnectionError):
        while block := await reader.read(65536):
            writer.write(block)
            await writer.drain()
    writer.close()


def _length_of(head: bytes) -> int:
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return int(line.partition(b":")[2])
    return 0


@contextlib.asynccontextmanager
async def serving(server, tls=None):
    """The port of *server*, which has ended each of its conversations afterwards."""
    under_way = set()

    async def answer(reader, writer):
        task = asyncio.current_task()
        under_way.add(task)
        try:
            await server(reader, writer)
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()
            under_way.discard(task)

    async with await asyncio.start_server(answer, "127.0.0.1", 0, ssl=tls) as listening:
        yield listening.sockets[0].getsockname()[1]
        await until(lambda: not under_way)


@contextlib.asynccontextmanager
async def transporting():
    """A transport, closed in the end."""
    transport = HttpTransport(redactor=Redactor(()))
    try:
        yield transport
    finally:
        await transport.close()


@pytest.fixture(autouse=True)
def _no_proxy(emulator):
    """The emulator's fixture takes the environment's proxies away."""


async def _sent(transport, upload):
    return await transport.send("POST", upload, timeout_seconds=5)


async def _posted(transport, url, body=b"audio"):
    return await _sent(transport, Upload(url, {"Content-Type": "audio/wav"}, before=body))


async def test_a_connection_is_used_again_after_a_whole_exchange():
    """Three requests, one connection."""
    server = Server()
    async with serving(server) as port, transporting() as transport:
        url = f"http://127.0.0.1:{port}/a?b=c"
        for _ in range(3):
            assert (await _posted(transport, url)).body == b"{}"
    assert server.connections == 1
    assert server.heads[0].startswith(b"POST /a?b=c HTTP/1.1\r\n")
    assert f"Host: 127.0.0.1:{port}\r\n".encode() in server.heads[0]


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}",
        b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nfalse",
    ],
)
async def test_a_connection_that_is_not_to_be_trusted_is_not_used_again(answer):
    """Told to close, too old to stay, or with more in it than was asked for."""
    server = Server(answer)
    async with serving(server) as port, transporting() as transport:
        url = f"http://127.0.0.1:{port}/"
        assert (await _posted(transport, url)).body == b"{}"
        assert (await _posted(transport, url)).body == b"{}"
    assert server.connections == 2


@pytest.mark.parametrize("way", ["end", "reset"])
async def test_a_connection_that_has_ended_unseen_costs_no_attempt(way):
    """The server closes an idle connection, and the busy event loop has not heard of it yet.

    The request goes to another one, and the server gets it once.
    """
    has_ended, heard = threading.Semaphore(0), []

    def serve(listening):
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listening.accept()
                with connection:
                    while b"RIFF" not in (block := connection.recv(65536)):
                        pass
                    heard.append(block)
                    connection.sendall(OK)
                    if way == "reset":
                        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                has_ended.release()

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=serve, args=(listening,))
        thread.start()
        async with transporting() as transport:
            for _ in range(5):
                url = f"http://127.0.0.1:{listening.getsockname()[1]}/"
                answer = await _posted(transport, url, b"RIFF")
                assert answer.body == b"{}"
                assert has_ended.acquire(timeout=30)  # blocks the loop, as other files' work does
        listening.shutdown(socket.SHUT_RDWR)
        thread.join()
    assert len(heard) == 5


async def test_each_request_gets_its_own_answer(monkeypatch):
    """Requests at once, to two servers, on connections that are used again: no answer is another file's."""
    monkeypatch.setattr(connections, "KEEPALIVE_SECONDS", 60.0)
    counts = [0, 0]

    def echo(number):
        async def answer(reader, writer):
            counts[number] += 1
            with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
                while True:
                    head = await reader.readuntil(b"\r\n\r\n")
                    body = b"%d %s" % (number, await reader.readexactly(_length_of(head)))
                    await asyncio.sleep(0.001 * (len(body) % 3))
                    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))

        return answer

    async with serving(echo(0)) as first, serving(echo(1)) as second, transporting() as transport:

        async def post(number):
            to, url = number % 2, f"http://127.0.0.1:{(first, second)[number % 2]}/"
            body = b"audio %d" % (10 ** (number % 4) + number)
            assert (await _posted(transport, url, body)).body == b"%d %s" % (to, body)

        for _ in range(4):
            await asyncio.gather(*map(post, range(12)))
    assert counts == [6, 6]


async def test_a_connection_that_failed_is_not_used_again():
    """After a broken answer the next request has one of its own."""
    server = Server(b"HTTP/1.1 200 OK\r\nContent-Length: nonsense\r\n\r\n")
    async with serving(server) as port, transporting() as transport:
        url = f"http://127.0.0.1:{port}/"
        with pytest.raises(http.AmbiguousFailure):
            await _posted(transport, url)
        assert (await _posted(transport, url)).body == b"{}"
    assert server.connections == 2


async def test_no_surplus_is_read_as_an_answer_after_one_that_cannot_be_decoded():
    """The next request has a connection of its own: the surplus may be another file's transcript."""
    broken = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 7\r\n\r\nno gzip"
    others = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nother"
    server = Server(broken + others)
    async with serving(server) as port, transporting() as transport:
        url = f"http://127.0.0.1:{port}/"
        with pytest.raises(http.AmbiguousFailure):
            await _posted(transport, url)
        assert (await _posted(transport, url)).body == b"{}"
    assert server.connections == 2


async def test_an_answer_in_chunks_and_encoded_is_read():
    """A server may compress what it was asked not to, and give no length."""
    packed = gzip.compress(b"{}")
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Encoding: gzip\r\n\r\n"
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (packed[:7], packed[7:]))
    server = Server(head + chunks + b"0\r\n\r\n")
    async with serving(server) as port, transporting() as transport:
        url = f"http://127.0.0.1:{port}/"
        assert (await _posted(transport, url)).body == b"{}"


async def test_headers_of_one_name_are_joined():
    """By commas, in the order they came."""
    server = Server(b"HTTP/1.1 200 OK\r\nX-A: 1\r\nContent-Length: 2\r\nx-a: 2\r\n\r\n{}")
    async with serving(server) as port, transporting() as transport:
        url = f"http://127.0.0.1:{port}/"
        assert (await _posted(transport, url)).headers["x-a"] == "1, 2"


async def test_a_header_of_the_config_replaces_our_own_in_any_case():
    """Names of headers have no case: none is sent twice."""
    server = Server()
    given = {"user-agent": "recorder", "HOST": "elsewhere.example", "content-length": "5"}
    async with serving(server) as port, transporting() as transport:
        await _sent(transport, Upload(f"http://127.0.0.1:{port}/", given, before=b"audio"))
    names = [line.partition(b":")[0].lower() for line in server.heads[0].split(b"\r\n")[1:] if line]
    assert len(names) == len(set(names))
    assert b"recorder" in server.heads[0]
    assert b"elsewhere.example" in server.heads[0]


async def test_a_header_that_cannot_be_sent_says_so():
    """Letters outside ASCII in a key are the config's mistake, not a bug."""
    async with serving(Server()) as port, transporting() as transport:
        with pytest.raises(ProviderUnusable, match="characters that cannot be sent"):
            await _sent(
                transport, Upload(f"http://127.0.0.1:{port}/", {"X-Key": "schlüssel"}, before=b"audio")
            )


async def test_https_goes_through_a_proxys_tunnel(tmp_path, monkeypatch):
    """CONNECT with the proxy's password; the key and the audio are for the other end alone."""
    server_tls, client_tls = certified(tmp_path)
    monkeypatch.setattr(connections, "trusted", lambda: client_tls)
    server = Server()
    async with serving(server, server_tls) as port, serving(proxy := Tunnel(port)) as proxy_port:
        monkeypatch.setenv("https_proxy", f"http://me:secret@127.0.0.1:{proxy_port}")
        url = f"https://localhost:{port}/a"
        async with transporting() as transport:
            for _ in range(2):
                answer = await _sent(
                    transport, Upload(url, {"Authorization": "Bearer key"}, before=b"x" * 300_000)
                )
                assert answer.body == b"{}"
    assert len(proxy.heads) == 1
    assert proxy.heads[0].startswith(f"CONNECT localhost:{port} HTTP/1.1\r\n".encode())
    assert b"Proxy-Authorization: Basic " + base64.b64encode(b"me:secret") in proxy.heads[0]
    assert b"Bearer" not in proxy.heads[0]
    assert [head.split(b" ")[1] for head in server.heads] == [b"/a", b"/a"]
    assert b"Proxy-Authorization" not in server.heads[0]


async def test_a_proxy_that_falls_silent_is_not_waited_for_without_end(tmp_path, monkeypatch):
    """Its tunnel has ended unseen while it was idle, and the next is never opened."""
    server_tls, client_tls = certified(tmp_path)
    monkeypatch.setattr(connections, "trusted", lambda: client_tls)

    async def ended_unseen(*_, **__):
        monkeypatch.setattr(Stream, "write", write)  # of the next connection
        raise httpcore.ConnectionNotAvailable

    write = Stream.write

    async def proxy(reader, writer):
        await (reader.read() if tunnel.heads else tunnel(reader, writer))

    async with (
        serving(Server(), server_tls) as port,
        serving(proxy) as proxy_port,
        transporting() as transport,
    ):
        tunnel = Tunnel(port)
        monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{proxy_port}")
        url = f"https://localhost:{port}/"
        assert (await _posted(transport, url)).body == b"{}"
        monkeypatch.setattr(http, "CONNECT_SECONDS", 0.1)
        monkeypatch.setattr(Stream, "write", ended_unseen)
        with pytest.raises(TemporaryFailure) as raised:
            await asyncio.wait_for(_posted(transport, url), 10)
    assert raised.value.code == "timeout"


@pytest.mark.parametrize(
    ("scheme", "refusal", "kind", "remedy"),
    [
        ("http", "407 Proxy Authentication Required", ProviderUnusable, " (check the proxy's login)"),
        ("http", "403 Forbidden", TemporaryFailure, ""),
        ("https", "403 Forbidden", TemporaryFailure, ""),
    ],
)
async def test_a_proxy_that_refuses_is_named(tmp_path, monkeypatch, scheme, refusal, kind, remedy):
    """Nothing went out; a refused login holds the provider. The status is told, the password is not."""
    proxy_tls = None
    if scheme == "https":
        proxy_tls, client_tls = certified(tmp_path)
        monkeypatch.setattr(connections, "trusted", lambda: client_tls)
    answer = f"HTTP/1.1 {refusal}\r\nContent-Length: 0\r\n\r\n".encode()
    async with serving(Tunnel(1, answer), proxy_tls) as proxy_port:
        monkeypatch.setenv("https_proxy", f"{scheme}://me:secret@localhost:{proxy_port}")
        async with transporting() as transport:
            with pytest.raises(kind) as raised:
                await _posted(transport, "https://provider.invalid/")
    assert raised.value.code == "proxy_failed"
    assert raised.value.reason == f"proxy localhost: {refusal}{remedy}"


@pytest.mark.parametrize("said", [b"\x05\xff", b"\x05\x02\x01\x01"])
async def test_a_socks_proxy_that_refuses_the_login_holds_the_provider(monkeypatch, said):
    """Whether it refuses a client without a login, or the login itself."""
    pytest.importorskip("socksio")

    async def proxy(reader, writer):
        for start in range(0, len(said), 2):
            await reader.read(1000)
            writer.write(said[start : start + 2])

    async with serving(proxy) as proxy_port:
        login = "me:secret@" if len(said) > 2 else ""
        monkeypatch.setenv("all_proxy", f"socks5://{login}127.0.0.1:{proxy_port}")
        async with transporting() as transport:
            with pytest.raises(ProviderUnusable) as raised:
                await _posted(transport, "https://provider.invalid/")
    assert raised.value.code == "proxy_failed"
    assert raised.value.reason.startswith("proxy 127.0.0.1: ")
    assert raised.value.reason.endswith("(check the proxy's login)")
    assert "secret" not in str(raised.value)


async def test_http_through_a_proxy_is_asked_by_its_whole_url(monkeypatch):
    """And with the proxy's password."""
    server = Server()
    async with serving(server) as port:
        monkeypatch.setenv("http_proxy", f"http://me:secret@127.0.0.1:{port}")
        async with transporting() as transport:
            url = "http://provider.invalid/a?b=c"
            assert (await _posted(transport, url)).body == b"{}"
    assert server.heads[0].startswith(b"POST http://provider.invalid/a?b=c HTTP/1.1\r\n")
    assert b"Host: provider.invalid\r\n" in server.heads[0]
    assert b"Proxy-Authorization: Basic " in server.heads[0]


@pytest.mark.parametrize("proxy", ["nonsense://me:secret@x", "http://[::secret", "http://proxy:secret"])
async def test_a_proxy_that_is_not_spoken_holds_the_provider(monkeypatch, proxy):
    """It is the environment's fault, no file's; its password is not told."""
    monkeypatch.setenv("http_proxy", proxy)
    async with transporting() as transport:
        url = "http://provider.invalid/"
        with pytest.raises(ProviderUnusable) as raised:
            await _posted(transport, url)
    assert raised.value.code == "proxy_failed"
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize("proxy", ["http://me:secret@127.0.0.1:99999", "http://127.0.0.1:0"])
async def test_a_proxy_with_an_impossible_port_holds_the_provider(monkeypatch, proxy):
    """The reason names the port; it was a bug with a traceback."""
    monkeypatch.setenv("http_proxy", proxy)
    async with transporting() as transport:
        with pytest.raises(ProviderUnusable) as raised:
            await _posted(transport, "http://provider.invalid/")
    assert raised.value.code == "proxy_failed"
    assert f"port {proxy.rpartition(':')[2]};" in raised.value.reason
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize("content", [None, "no certificate"])
async def test_certificates_that_cannot_be_loaded_hold_the_provider(tmp_path, monkeypatch, content):
    """The variable and the system's words are said; each file was deferred, as if its disk were at fault."""
    file = tmp_path / "ca.pem"
    if content:
        file.write_text(content)
    monkeypatch.delenv("SSL_CERT_DIR", raising=False)
    monkeypatch.setenv("SSL_CERT_FILE", str(file))
    connections.trusted.cache_clear()
    async with transporting() as transport:
        with pytest.raises(ProviderUnusable) as raised:
            await _posted(transport, "http://127.0.0.1:9/")
    assert raised.value.code == "tls_unusable"
    assert raised.value.reason.startswith(f"TLS cannot be set up with SSL_CERT_FILE={file}: ")


@pytest.mark.parametrize("proxy", ["http://127.0.0.1:1", "http://127.0.0.1:99999"])
async def test_no_proxy_is_honoured(monkeypatch, proxy):
    """A host that the environment names is asked without it, whatever is wrong with it."""
    server = Server()
    async with serving(server) as port:
        monkeypatch.setenv("http_proxy", proxy)
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        async with transporting() as transport:
            url = f"http://127.0.0.1:{port}/a"
            await _posted(transport, url)
    assert server.heads[0].startswith(b"POST /a HTTP/1.1\r\n")


async def test_connecting_ends_in_time(monkeypatch):
    """A server whose TLS never answers costs nothing but the time."""
    monkeypatch.setattr(http, "CONNECT_SECONDS", 0.1)

    async def silent(reader, writer):
        await reader.read()

    async with serving(silent) as port, transporting() as transport:
        url = f"https://127.0.0.1:{port}/"
        with pytest.raises(TemporaryFailure) as raised:
            await _posted(transport, url)
    assert raised.value.code == "timeout"


async def test_what_went_out_while_the_server_was_slow_is_the_audio():
    """A body larger than every buffer arrives as it is, though the server reads it in its own time."""
    heard = bytearray()

    async def slow(reader, writer):
        head = await reader.readuntil(b"\r\n\r\n")
        while len(heard) < _length_of(head):
            heard.extend(await reader.read(300_000))
            await asyncio.sleep(0.001)
        writer.write(OK)

    body = bytes(range(256)) * 80_000
    async with serving(slow) as port, transporting() as transport:
        url = f"http://127.0.0.1:{port}/"
        await _posted(transport, url, body)
    await until(lambda: bytes(heard) == body)


# What a broken connection means -----------------------------------------------------------------------


class Resets:
    """Tells a server to reset its connection, and waits until it has."""

    def __init__(self) -> None:
        self.are_due, self.are_done = threading.Semaphore(0), threading.Semaphore(0)

    def one(self) -> None:
        self.are_due.release()
        assert self.are_done.acquire(timeout=30)


class Halting:
    """Audio before whose last block the connection is reset while the loop is busy: the news waits unseen."""

    def __init__(self, resets: Resets, *blocks: bytes) -> None:
        self._resets = resets
        self._blocks = blocks
        self.size_bytes = sum(map(len, blocks))
        self.progress = Progress(self.size_bytes)

    async def blocks(self):
        for block in self._blocks[:-1]:
            yield block
        self._resets.one()  # blocks the loop, as other files' work does
        yield self._blocks[-1]


@pytest.mark.parametrize("is_tls", [False, True])
async def test_a_reset_before_the_last_block_is_temporary(tmp_path, monkeypatch, is_tls):
    """What the system did not take was not sent, though nobody has said so yet when it is handed over."""
    server_tls, client_tls = certified(tmp_path)
    monkeypatch.setattr(connections, "trusted", lambda: client_tls)
    with resetting(server_tls if is_tls else None) as (port, resets):
        async with transporting() as transport:
            for _ in range(5):
                with pytest.raises(TemporaryFailure) as raised:
                    await _sent(
                        transport,
                        Upload(
                            f"http{'s' * is_tls}://localhost:{port}/",
                            {},
                            audio=Halting(resets, b"x" * 1_000, b"x" * 8_000),
                        ),
                    )
                assert raised.value.code == "connection_lost"


async def test_a_reset_under_the_only_write_is_temporary():
    """On a connection that stood a moment ago, and whose end the system tells first to who writes."""
    with resetting(None, answer=OK) as (port, resets):
        async with transporting() as transport:
            url = f"http://127.0.0.1:{port}/"
            assert (await _posted(transport, url, b"RIFF")).body == b"{}"
            with pytest.raises(TemporaryFailure) as raised:
                await _sent(transport, Upload(url, {}, audio=Halting(resets, b"x" * 1_000)))
    assert raised.value.code == "connection_lost"


@contextlib.contextmanager
def resetting(tls, answer=b""):
    """(port, Resets) of a server in a thread of its own that resets each connection when told to."""
    stop, resets = threading.Event(), Resets()
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(0.1)

        def serve():
            while not stop.is_set():
                with contextlib.suppress(OSError):
                    connection, _ = listening.accept()
                    connection.settimeout(10)
                    if tls is not None:
                        connection = tls.wrap_socket(connection, server_side=True)
                    with connection:
                        if answer:
                            while b"RIFF" not in connection.recv(65536):
                                pass
                            connection.sendall(answer)
                        while not resets.are_due.acquire(timeout=0.1):
                            if stop.is_set():
                                return
                        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    resets.are_done.release()

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield listening.getsockname()[1], resets
        finally:
            stop.set()
            thread.join()


async def test_half_a_head_is_ambiguous():
    """The request was sent whole, and what came back was not a complete answer."""

    async def stammering(reader, writer):
        head = await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(_length_of(head))
        writer.write(b"HTTP/1.1 200 O")

    async with serving(stammering) as port, transporting() as transport:
        with pytest.raises(http.AmbiguousFailure) as raised:
            await _posted(transport, f"http://127.0.0.1:{port}/")
    assert raised.value.code == "no_answer"


async def test_an_encoded_error_is_bounded_as_it_unfolds():
    """Of an answer that unfolds a thousandfold no more is in memory than its beginning asks for."""
    packed = gzip.compress(bytes(64 * 1024 * 1024))
    answer = b"HTTP/1.1 500 No\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(packed)
    async with serving(Server(answer + packed)) as port, transporting() as transport:
        tracemalloc.start()
        try:
            found = await _posted(transport, f"http://127.0.0.1:{port}/")
            _, peak_bytes = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert len(found.body) == http.ERROR_ANSWER_BYTES
    assert peak_bytes < 20 * 1024 * 1024


@pytest.mark.parametrize("url", ["http://a..b/", "https://a..b/", f"http://{'x' * 70}.example/"])
async def test_a_name_that_is_none_is_no_bug(url):
    """Nothing is connected to."""
    async with transporting() as transport:
        with pytest.raises(TemporaryFailure) as raised:
            await _posted(transport, url)
    assert raised.value.code == "connect_failed"


async def test_a_header_that_cannot_be_sent_holds_the_provider():
    """Nothing is sent, the file is not blamed, and the header's value is not shown."""
    server = Server()
    async with serving(server) as port, transporting() as transport:
        with pytest.raises(ProviderUnusable) as raised:
            await _sent(
                transport, Upload(f"http://127.0.0.1:{port}/", {"X-Note": "two\nlines"}, before=b"audio")
            )
    assert "lines" not in str(raised.value)
    assert server.heads == []


# TLS through a tunnel -----------------------------------------------------------------------------------


async def test_a_tunnel_checks_the_name_that_it_asked_for(tmp_path, monkeypatch):
    """By today's rules for international names, as CONNECT and the direct way do: strasse.de is another."""
    server_tls, client_tls = certified(tmp_path, "xn--strae-oqa.de")
    monkeypatch.setattr(connections, "trusted", lambda: client_tls)
    async with serving(Server(), server_tls) as port, serving(proxy := Tunnel(port)) as proxy_port:
        monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{proxy_port}")
        async with transporting() as transport:
            assert (await _posted(transport, "https://straße.de/")).body == b"{}"
    assert proxy.heads[0].startswith(b"CONNECT xn--strae-oqa.de:443 ")


async def test_an_ipv6_address_is_in_brackets_for_a_proxy_and_in_none_for_its_certificate(
    tmp_path, monkeypatch
):
    """RFC 3986, 3.2.2: without them the proxy cannot tell the port."""
    server_tls, client_tls = certified(tmp_path, "::1")
    monkeypatch.setattr(connections, "trusted", lambda: client_tls)
    forward = Server()
    async with (
        serving(Server(), server_tls) as port,
        serving(tunnel := Tunnel(port)) as tunnel_port,
        serving(forward) as forward_port,
        transporting() as transport,
    ):
        monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{tunnel_port}")
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{forward_port}")
        for url in ("https://[::1]:8443/", "http://[::1]:8080/", "https://[::1]:8443/", "http://[::1]:8080/"):
            assert (await _posted(transport, url)).body == b"{}"
    assert [head.partition(b"\r")[0] for head in tunnel.heads] == [b"CONNECT [::1]:8443 HTTP/1.1"]
    assert {head.partition(b"\r")[0] for head in forward.heads} == {b"POST http://[::1]:8080/ HTTP/1.1"}
    assert (len(forward.heads), forward.connections) == (2, 1)


@pytest.mark.parametrize("is_trusted", [True, False])
async def test_a_tunnel_through_a_proxy_that_speaks_tls(tmp_path, monkeypatch, is_trusted):
    """TLS in TLS; a certificate at its end that nobody vouches for is told as such."""
    (tmp_path / "proxy").mkdir()
    (tmp_path / "other").mkdir()
    proxy_tls, client_tls = certified(tmp_path / "proxy")
    other_tls, _ = certified(tmp_path / "other")
    monkeypatch.setattr(connections, "trusted", lambda: client_tls)
    end_tls = proxy_tls if is_trusted else other_tls
    async with serving(Server(), end_tls) as port, serving(Tunnel(port), proxy_tls) as proxy_port:
        monkeypatch.setenv("https_proxy", f"https://localhost:{proxy_port}")
        async with transporting() as transport:
            url = f"https://localhost:{port}/"
            if is_trusted:
                assert (await _posted(transport, url, b"x" * 300_000)).body == b"{}"
                return
            with pytest.raises(ProviderUnusable) as raised:
                await _posted(transport, url)
    assert raised.value.code == "tls_failed"
    reason, _, remedy = raised.value.reason.partition(" (")
    assert reason.startswith("no TLS handshake with localhost: certificate verify failed: self")
    assert reason.endswith("signed certificate")
    assert "SSL_CERT_FILE" in remedy


async def test_a_certificate_for_another_host_holds_the_provider(tmp_path, monkeypatch):
    """No file can be sent before that is mended; both names are told."""
    server_tls, client_tls = certified(tmp_path, "other.example")
    monkeypatch.setattr(connections, "trusted", lambda: client_tls)
    server = Server()
    async with serving(server, server_tls) as port, transporting() as transport:
        with pytest.raises(ProviderUnusable) as raised:
            await _posted(transport, f"https://localhost:{port}/")
    assert raised.value.code == "tls_failed"
    assert "TLS handshake with localhost: " in raised.value.reason
    assert "not valid for 'localhost'" in raised.value.reason
    assert server.heads == []


@pytest.mark.parametrize("is_late", [False, True])
async def test_a_server_that_wants_a_client_certificate_holds_the_provider(tmp_path, monkeypatch, is_late):
    """In TLS 1.3 it says so after the handshake, when a small request is written: nobody has read that.

    A request that is written later meets the reset before anybody has looked for the alert.
    """
    server_tls, client_tls = certified(tmp_path)
    server_tls.verify_mode = ssl.CERT_REQUIRED
    server_tls.load_verify_locations(tmp_path / "certificate.pem")
    monkeypatch.setattr(connections, "trusted", lambda: client_tls)

    def shake_hands():
        connection = listening.accept()[0]
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", is_late, 0))
        with contextlib.suppress(OSError), connection, server_tls.wrap_socket(connection, server_side=True):
            pass

    def encrypted(stream, data):
        if stream._layers and is_late:
            ended.result(10)
        return encrypt(stream, data)

    encrypt = Stream._encrypted
    monkeypatch.setattr(Stream, "_encrypted", encrypted)
    with socket.create_server(("127.0.0.1", 0)) as listening, ThreadPoolExecutor(1) as threads:
        ended = threads.submit(shake_hands)
        async with transporting() as transport:
            with pytest.raises(ProviderUnusable) as raised:
                await _posted(transport, f"https://localhost:{listening.getsockname()[1]}/")
    assert raised.value.code == "tls_failed"
    assert "client certificate" in raised.value.reason


async def test_cancelling_while_it_connects_leaves_no_socket():
    """In whichever turn of the event loop that is."""

    async def close_at_once(_, writer):
        writer.close()

    server = await asyncio.start_server(close_at_once, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always", ResourceWarning)
        for turns in range(20):
            connecting = asyncio.create_task(EarlyAnswerBackend().connect_tcp("127.0.0.1", port))
            for _ in range(turns):
                await asyncio.sleep(0)
            connecting.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await (await connecting).aclose()
            await asyncio.sleep(0)
        gc.collect()
    server.close()
    assert [str(warning.message) for warning in found] == []


async def test_an_answer_that_comes_with_the_end_of_the_tls_handshake_is_heard(tmp_path, monkeypatch):
    """Both are in one segment; the server reads nothing of the upload, and keeps the connection."""
    server_tls, client_tls = certified(tmp_path)
    server_tls.maximum_version = ssl.TLSVersion.TLSv1_2  # the server's part of the handshake comes last
    monkeypatch.setattr(connections, "trusted", lambda: client_tls)
    monkeypatch.setattr(http, "SEND_STALL_SECONDS", 2.0)
    refusal = b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 2\r\n\r\n{}"
    is_heard = asyncio.Event()

    async def server(reader, writer):
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        session, is_complete = server_tls.wrap_bio(incoming, outgoing, server_side=True), False
        while not is_complete:
            incoming.write(await reader.read(65536))
            with contextlib.suppress(ssl.SSLWantReadError):
                session.do_handshake()
                session.write(refusal)
                is_complete = True
            writer.write(outgoing.read())
        await is_heard.wait()

    async with serving(server) as port, transporting() as transport:
        try:
            answer = await _posted(transport, f"https://localhost:{port}/", bytes(50_000_000))
        finally:
            is_heard.set()
    assert (answer.status, answer.body) == (413, b"{}")


async def test_without_descriptors_connecting_fails_and_leaves_none():
    """Twenty at once with room for ten: some are made, and there is no descriptor left to take them."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with socket.create_server(("127.0.0.1", 0), backlog=64) as server:
        before = len(os.listdir("/proc/self/fd"))
        os.close(lowest_free := os.open(os.devnull, os.O_RDONLY))
        connecting = [EarlyAnswerBackend().connect_tcp(*server.getsockname()) for _ in range(20)]
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free + 10, hard))
        try:
            found = await asyncio.gather(*connecting, return_exceptions=True)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for stream in found:
            if isinstance(stream, Stream):
                await stream.aclose()
        await asyncio.sleep(0)
        assert {type(each) for each in found} <= {Stream, httpcore.ConnectError}
        assert httpcore.ConnectError in {type(each) for each in found}
        assert len(os.listdir("/proc/self/fd")) == before
