"""The heartbeat, against a monitor on the loopback."""

from __future__ import annotations

import asyncio

import pytest
from structlog.testing import capture_logs

from dropscribe.service.outbound import Heartbeat


class Monitor:
    """Answers every request with ``status``, promises a body and keeps the targets that it was asked for."""

    def __init__(self) -> None:
        self.status = 200
        self.body_bytes = 0
        self.targets: asyncio.Queue[str] = asyncio.Queue()
        self.url = ""

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        self.targets.put_nowait(head.decode().split(" ")[1])
        headers = f"Location: /elsewhere\r\nContent-Length: {self.body_bytes}\r\nConnection: close\r\n"
        writer.write(f"HTTP/1.1 {self.status} X\r\n{headers}\r\n".encode())
        await writer.drain()
        writer.close()
        await writer.wait_closed()


@pytest.fixture
async def monitor():
    """A monitor that is up."""
    monitor = Monitor()
    server = await asyncio.start_server(monitor.answer, "127.0.0.1", 0)
    monitor.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/ping/secret-uuid"
    yield monitor
    server.close()
    await server.wait_closed()


async def test_degraded_is_said_by_fail(monitor):
    """The url while all is well, its /fail while it is not; a query is kept."""
    degraded = [False, True]
    heartbeat = Heartbeat(monitor.url + "?x=1", 60, lambda: degraded.pop(0))
    assert [await heartbeat.ping(), await heartbeat.ping()] == [True, True]
    targets = [monitor.targets.get_nowait(), monitor.targets.get_nowait()]
    assert targets == ["/ping/secret-uuid?x=1", "/ping/secret-uuid/fail?x=1"]


async def test_no_ping_before_it_is_known_whether_all_is_well(monitor):
    """At a start the inboxes were not looked at yet, and a monitor that was told so raised an alarm."""
    answers = [None, None, False]
    assert await Heartbeat(monitor.url, 60, lambda: answers.pop(0)).ping()
    assert (answers, monitor.targets.get_nowait()) == ([], "/ping/secret-uuid")


@pytest.mark.parametrize(("status", "reason"), [(500, "http_500"), (404, "http_404"), (302, "http_302")])
async def test_a_monitor_that_refuses_is_said_once(monitor, status, reason):
    """One line when it begins, one when it ends; the url is in neither."""
    monitor.status = status
    heartbeat = Heartbeat(monitor.url, 60, lambda: False)
    with capture_logs() as lines:
        assert [await heartbeat.ping(), await heartbeat.ping()] == [False, False]
        monitor.status = 200
        assert [await heartbeat.ping(), await heartbeat.ping()] == [True, True]
    assert [line["event"] for line in lines] == ["heartbeat.missed", "heartbeat.restored"]
    assert lines[0]["reason"] == reason
    assert "secret-uuid" not in repr(lines)


async def test_a_monitor_that_is_away():
    """No connection is a miss, not an error."""
    heartbeat = Heartbeat("http://127.0.0.1:9/x", 60, lambda: False)
    with capture_logs() as lines:
        assert await heartbeat.ping() is False
    assert [line["reason"] for line in lines] == ["connect_failed"]


@pytest.mark.parametrize(
    "proxy", ["socks://127.0.0.1:1080", "http://127.0.0.1:99999", "http://[::1", "ftp://x:1"]
)
async def test_a_proxy_that_cannot_be_used_is_a_miss(monitor, monkeypatch, proxy):
    """A desktop sets all_proxy=socks://…, for example; it ended the daemon."""
    monkeypatch.setenv("ALL_PROXY", proxy)
    heartbeat = Heartbeat(monitor.url, 60, lambda: False)
    with capture_logs() as lines:
        assert await heartbeat.ping() is False
    assert [line["reason"] for line in lines] == ["proxy_failed"]


async def test_an_answer_without_its_body_is_one(monitor):
    """The status says that the ping has arrived; the rest is not waited for."""
    monitor.body_bytes = 100
    assert await Heartbeat(monitor.url, 60, lambda: False).ping()


async def test_the_path_stays_as_it_is_written(monitor):
    """An encoded slash is no slash."""
    heartbeat = Heartbeat(monitor.url.replace("/ping", "/a%2Fb"), 60, lambda: True)
    assert await heartbeat.ping()
    assert monitor.targets.get_nowait() == "/a%2Fb/secret-uuid/fail"


async def test_it_goes_on_until_cancelled(monitor):
    """Ping after ping, at the interval, until the daemon stops it."""
    beating = asyncio.create_task(Heartbeat(monitor.url, 0.01, lambda: False).run())
    for _ in range(3):
        await asyncio.wait_for(monitor.targets.get(), 10)
    beating.cancel()
    with pytest.raises(asyncio.CancelledError):
        await beating
