"""The messages that systemd gets."""

from __future__ import annotations

import asyncio
import os
import time
import uuid

import pytest
from structlog.testing import capture_logs

from dropscribe.service.sd_notify import Notifier
from support.notify_socket import listening


@pytest.fixture(params=["path", "path with @", "abstract"])
def ear(request, tmp_path):
    """A manager's socket, of each kind; only a first @ makes it abstract."""
    addresses = {"path": f"{tmp_path}/notify", "path with @": f"{tmp_path}/notify@1"}
    address = addresses.get(request.param) or f"@dropscribe-{uuid.uuid4()}"
    with listening(address) as ear:
        yield ear


@pytest.fixture
def notifier(ear):
    """A notifier that sends to the manager's socket."""
    return Notifier({"NOTIFY_SOCKET": ear.address})


@pytest.mark.parametrize(
    ("say", "words"),
    [
        (lambda n: n.send("READY=1"), "READY=1"),
        (lambda n: n.send("READY=1", status="watching 2 folders"), "READY=1\nSTATUS=watching 2 folders"),
        (lambda n: n.send("STOPPING=1", status="draining"), "STOPPING=1\nSTATUS=draining"),
        (lambda n: n.send(status="1 uploading, Größe"), "STATUS=1 uploading, Größe"),
        (lambda n: n.send(status="a\nREADY=1"), "STATUS=a READY=1"),
        (lambda n: n.extend_timeout(2.5), "EXTEND_TIMEOUT_USEC=2500000"),
    ],
)
def test_words_on_the_wire(notifier, ear, say, words):
    """Each call is one datagram with the words of sd_notify(3)."""
    say(notifier)
    assert ear.receive() == words


def test_reloading_carries_the_monotonic_clock(notifier, ear):
    """RELOADING=1 comes with the instant, without which systemd refuses it (Type=notify-reload)."""
    before = time.monotonic_ns() // 1000
    notifier.reloading()
    first, _, clock = ear.receive().partition("\n")
    assert first == "RELOADING=1"
    assert before <= int(clock.removeprefix("MONOTONIC_USEC=")) <= time.monotonic_ns() // 1000


def test_silence_without_a_manager():
    """Without NOTIFY_SOCKET nothing is sent, nothing logged, and every call is harmless."""
    with capture_logs() as lines:
        Notifier({}).send("READY=1")
    assert lines == []


@pytest.mark.parametrize("address", ["/nonexistent/notify", "vsock:2:1", "@", "relative"])
def test_an_unusable_socket_is_said_once(address):
    """NOTIFY_SOCKET set but unusable is a mistake worth one line, not silence and not a flood."""
    notifier = Notifier({"NOTIFY_SOCKET": address})
    with capture_logs() as lines:
        notifier.send("READY=1")
        notifier.send(status="x")
        notifier.send("WATCHDOG=1")
    assert [line["event"] for line in lines] == ["notify.unusable"]
    assert lines[0]["notify_socket"] == address


@pytest.mark.parametrize(
    ("environment", "seconds"),
    [
        ({"WATCHDOG_USEC": "60000000"}, 30.0),
        ({"WATCHDOG_USEC": "60000000", "WATCHDOG_PID": str(os.getpid())}, 30.0),
        ({"WATCHDOG_USEC": "60000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "-5"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({}, None),
    ],
)
def test_watchdog_interval(environment, seconds):
    """Half of what the manager allows, for the process that it means, else none."""
    assert Notifier({"NOTIFY_SOCKET": "/x", **environment}).watchdog_seconds == seconds


async def test_the_watchdog_is_fed_only_while_the_work_is_alive(tmp_path):
    """A loop that turns but whose work is stuck lets the watchdog starve, and says so."""
    with listening(str(tmp_path / "notify")) as ear:
        notifier = Notifier({"NOTIFY_SOCKET": ear.address, "WATCHDOG_USEC": "2000"})
        alive = [True, False, True]
        exhausted = asyncio.Event()

        def is_alive() -> bool:
            if len(alive) == 1:
                exhausted.set()
            return alive.pop(0) if alive else False

        with capture_logs() as lines:
            feeding = asyncio.create_task(notifier.feed_watchdog(is_alive))
            await asyncio.wait_for(exhausted.wait(), 5)
            feeding.cancel()
            await asyncio.gather(feeding, return_exceptions=True)
        assert [ear.receive(), ear.receive()] == ["WATCHDOG=1"] * 2
        assert [line["event"] for line in lines] == ["watchdog.starved"]


async def test_no_watchdog_no_feeding():
    """Without a watchdog, feeding ends at once."""
    await asyncio.wait_for(Notifier({}).feed_watchdog(lambda: True), 5)
