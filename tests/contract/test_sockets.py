"""The streams under httpcore: time limits, bounds, and how the other side may end."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import ssl
import subprocess

import httpcore
import pytest

from dropscribe.providers.sockets import SocketBackend


@contextlib.asynccontextmanager
async def connected(peer, tls=None):
    """A stream to *peer*, a coroutine function of (reader, writer)."""

    async def answer(reader, writer):
        try:
            await peer(reader, writer)
        finally:
            writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=tls)
    async with server:
        stream = await SocketBackend().connect_tcp("127.0.0.1", server.sockets[0].getsockname()[1], timeout=5)
        try:
            yield stream
        finally:
            await stream.aclose()


async def _silent(reader, _writer):
    await reader.read(1)
    await asyncio.sleep(0.2)


async def test_a_read_ends_in_time():
    """Nobody answers."""
    async with connected(_silent) as stream:
        with pytest.raises(httpcore.ReadTimeout):
            await stream.read(10, timeout=0.01)


async def test_a_write_that_nobody_takes_ends_in_time():
    """More than the system's buffers hold."""
    async with connected(_silent) as stream:
        with pytest.raises(httpcore.WriteTimeout):
            for _ in range(100):
                await stream.write(b"x" * 1_000_000, timeout=0.05)


async def test_a_peer_that_has_ended_its_side_still_gets_the_rest():
    """Half-closed: its end is read, and what is written after it arrives."""
    got = asyncio.get_running_loop().create_future()

    async def peer(reader, writer):
        writer.write_eof()
        got.set_result(await reader.readexactly(5))

    async with connected(peer) as stream:
        assert await stream.read(10, timeout=5) == b""
        await stream.write(b"audio", timeout=5)
        assert await asyncio.wait_for(got, 5) == b"audio"


async def test_what_is_not_read_yet_is_bounded_and_arrives_whole():
    """A flood waits at the sender, not in memory; all of it comes, in order."""
    flood = bytes(range(256)) * 20_000

    async def peer(_reader, writer):
        writer.write(flood)
        await writer.drain()

    async with connected(peer) as stream:
        found = await stream.read(100, timeout=5)
        await asyncio.sleep(0.05)
        assert len(stream._inlet.unread) < 1_000_000
        while block := await stream.read(65536, timeout=5):
            found += block
    assert found == flood


async def test_nobody_there_is_a_connect_error():
    """With what the system said as its cause."""
    async with connected(_silent) as stream:
        port = stream.get_extra_info("server_addr")[1]
    with pytest.raises(httpcore.ConnectError) as raised:
        await SocketBackend().connect_tcp("127.0.0.1", port, timeout=5)
    assert isinstance(raised.value.__cause__, ConnectionRefusedError)


async def test_tls_carries_uploads_of_every_size(tmp_path):
    """Each write ends, whatever is left in which buffer, and all of it arrives."""
    sizes = (1, 10, 100_000, 5_000_000)

    async def peer(reader, writer):
        for size in sizes:
            assert await reader.readexactly(size) == b"a" * size
            writer.write(b"%d" % size)

    server, client = _certified(tmp_path)
    async with connected(peer, server) as plain:
        stream = await plain.start_tls(client, "localhost", timeout=5)
        for size in sizes:
            await stream.write(b"a" * size, timeout=5)
            assert await stream.read(100, timeout=5) == b"%d" % size
        assert await stream.read(100, timeout=5) == b""
        await stream.aclose()


async def test_a_certificate_of_nobody_is_a_connect_error(tmp_path):
    """It is not believed, and the cause says so."""
    server, _ = _certified(tmp_path)
    async with connected(_silent, server) as plain:
        with pytest.raises(httpcore.ConnectError) as raised:
            await plain.start_tls(ssl.create_default_context(), "localhost", timeout=5)
    assert isinstance(raised.value.__cause__, ssl.SSLCertVerificationError)


def _certified(folder):
    """(server's, client's) context of a certificate made for the occasion."""
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl to make a certificate")
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-days",
        "2",
        "-subj",
        "/CN=localhost",
    ]
    command += ["-addext", "subjectAltName=DNS:localhost", "-keyout", key, "-out", certificate]
    subprocess.run(command, check=True, capture_output=True)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(certificate, key)
    return server, ssl.create_default_context(cafile=certificate)
