"""One connection: time limits, bounds, and how the other side may end."""

from __future__ import annotations

import asyncio
import contextlib
import ssl

import pytest

from dropscribe.providers.line import ConnectFailed, Line, LineLost, NoProgress
from support.certificates import certified


@contextlib.asynccontextmanager
async def connected(peer, tls=None):
    """A line to *peer*, a coroutine function of (reader, writer); both have ended afterwards."""
    ended = asyncio.Event()

    async def answer(reader, writer):
        try:
            with contextlib.suppress(ConnectionError):
                await peer(reader, writer)
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()
            ended.set()

    async with await asyncio.start_server(answer, "127.0.0.1", 0, ssl=tls) as server:
        line = await Line.connect("127.0.0.1", server.sockets[0].getsockname()[1], None)
        try:
            yield line
        finally:
            await line.close()
            if tls is None:
                await asyncio.wait_for(ended.wait(), 5)


async def received(line, size_bytes):
    """The next *size_bytes* that come."""
    found = b""
    while len(found) < size_bytes and (block := await asyncio.wait_for(line.receive(), 5)):
        found += block
    return found


async def taken(line):
    """Once the system has all of what was sent."""
    while line.is_full:
        await line.changed(5)


async def _silent(reader, _writer):
    await reader.read()


async def test_waiting_ends_in_time():
    """Nobody answers."""
    async with connected(_silent) as line:
        with pytest.raises(NoProgress):
            await line.changed(0.01)


async def test_a_write_that_nobody_takes_ends_in_time():
    """More than the system's buffers hold."""
    over = asyncio.Event()

    async def deaf(_reader, _writer):
        await over.wait()

    async with connected(deaf) as line:
        line.send(b"x" * 50_000_000)
        with pytest.raises(NoProgress):
            while line.is_full:
                await line.changed(0.05)
        over.set()


async def test_a_peer_that_has_ended_its_side_still_gets_the_rest():
    """Half-closed: its end is read, and what is sent after it arrives."""
    got = asyncio.get_running_loop().create_future()

    async def peer(reader, writer):
        writer.write_eof()
        got.set_result(await reader.readexactly(5))

    async with connected(peer) as line:
        assert await line.receive() == b""
        assert line.is_over
        assert not line.is_lost
        line.send(b"audio")
        assert await asyncio.wait_for(got, 5) == b"audio"


async def test_what_is_not_read_yet_is_bounded_and_arrives_whole():
    """A flood waits at the sender, not in memory; all of it comes, in order."""
    flood = bytes(range(256)) * 20_000

    async def peer(_reader, writer):
        writer.write(flood)
        await writer.drain()

    async with connected(peer) as line:
        await line.changed(5)
        await asyncio.sleep(0.05)
        assert len(line._unread) < 1_000_000
        assert await received(line, len(flood) + 1) == flood


async def test_what_came_before_a_reset_is_received_first():
    """An answer is not lost to the broken connection behind it."""

    async def peer(reader, writer):
        await reader.readexactly(5)
        writer.write(b"answer")
        await writer.drain()
        writer.transport.abort()

    async with connected(peer) as line:
        line.send(b"audio")
        assert await received(line, 6) == b"answer"


async def test_nothing_goes_out_on_a_line_that_is_lost():
    """Sending says so, and waiting does not last."""

    async def peer(_reader, writer):
        writer.transport.abort()

    async with connected(peer) as line:
        while not line.is_lost:
            with contextlib.suppress(LineLost):
                line.send(b"x")
            await line.changed(5)
        with pytest.raises(LineLost):
            line.send(b"x")


async def test_nobody_there_is_told_with_its_cause():
    """What the system said."""
    server = await asyncio.start_server(_silent, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()
    with pytest.raises(ConnectFailed) as raised:
        await Line.connect("127.0.0.1", port, None)
    assert isinstance(raised.value.__cause__, ConnectionRefusedError)


async def test_tls_carries_uploads_of_every_size(tmp_path):
    """All of each goes out, whatever is left in which buffer, and all of it arrives."""
    sizes = (1, 10, 100_000, 5_000_000)

    async def peer(reader, writer):
        for size in sizes:
            assert await reader.readexactly(size) == b"a" * size
            writer.write(b"%d" % size)

    server, client = certified(tmp_path)
    async with connected(peer, server) as line:
        await line.start_tls(client, "localhost")
        for size in sizes:
            line.send(b"a" * size)
            await taken(line)
            assert await received(line, len(str(size))) == b"%d" % size
        assert await line.receive() == b""


async def test_a_certificate_of_nobody_is_not_believed(tmp_path):
    """The cause says so."""
    server, _ = certified(tmp_path)
    async with connected(_silent, server) as line:
        with pytest.raises(ConnectFailed) as raised:
            await line.start_tls(ssl.create_default_context(), "localhost")
    assert isinstance(raised.value.__cause__, ssl.SSLCertVerificationError)
