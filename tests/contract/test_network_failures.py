"""What every adapter makes of a network and a server that misbehave, on real sockets."""

import asyncio
import contextlib
import socket
import time

import pytest

from dropscribe.core.errors import AmbiguousFailure, AudioRejected, ProviderUnusable, TemporaryFailure
from dropscribe.providers.transport import connections, http
from support.benches import PATHS, failure_of
from support.emulator import Fault
from support.vendors import KEY
from support.waiting import until

MEGABYTE = 1024 * 1024
ONE_ADAPTER = pytest.mark.parametrize("bench", ["pulse"], indirect=True)
"""For waits of seconds in the transport, which all adapters share."""


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        (Fault(close=True), "no_answer"),
        (Fault(reset="after_body"), "no_answer"),
        (Fault(garbage="not http at all\r\n\r\n"), "bad_answer"),
        (Fault(garbage="garbage\r\n\r\n"), "bad_answer"),
        (Fault(garbage="HTTP/1.1\r\n\r\n"), "bad_answer"),
        (Fault(garbage="HTTP/1.1 \r\n\r\n"), "bad_answer"),
        (Fault(garbage="SSH-2.0-\r\n\r\n"), "bad_answer"),
        (Fault(body={"text": "hello"}, cut_at=5), "bad_answer"),
        (Fault(body={"text": "hello"}, cut_at=5, reset="in_answer"), None),
        (Fault(body="", status=204), "bad_answer"),
        (Fault(body="[1, 2]"), "bad_answer"),
        (Fault(body={"hello": "world"}), "bad_answer"),
        (Fault(body={"text": None}), "bad_answer"),
        (Fault(body="x", headers={"Content-Encoding": "gzip"}), "bad_answer"),
    ],
)
async def test_no_usable_answer_to_a_whole_body_is_ambiguous(bench, fault, code):
    """Once the body was sent whole, no answer may still have been paid for."""
    bench.emulator.fail(fault)
    error = await failure_of(bench.provider(), bench.audio())
    assert type(error) is AmbiguousFailure
    assert code is None or error.code == code


@pytest.mark.parametrize(
    ("location", "target"),
    [
        ("https://me:hunter2@portal.example:8443/login?token=abc#x", "https://portal.example:8443/login"),
        ("/v2/listen?key=abc", "/v2/listen"),
        ("https://[broken", "no"),
    ],
)
async def test_a_redirect_names_its_target_and_no_secret(bench, location, target):
    """The reason says where the url should point, without login and query."""
    bench.emulator.fail(Fault(status=302, body="no", headers={"Location": location}))
    error = await failure_of(bench.provider(), bench.audio())
    assert (type(error), error.code) == (ProviderUnusable, "redirect")
    assert error.reason == (target if target == "no" else f"HTTP 302 to {target}")


@pytest.mark.parametrize("content_type", ["text/html", "application/json"])
async def test_an_html_page_is_no_answer_of_the_provider(bench, content_type):
    """A login page came from something in between: the file was not transcribed, and is sent again."""
    bench.emulator.fail(
        Fault(body="<!DOCTYPE html><html>log in</html>", headers={"Content-Type": content_type})
    )
    error = await failure_of(bench.provider(), bench.audio())
    assert (type(error), error.code, error.status) == (TemporaryFailure, "html_page", 200)


async def test_an_answer_that_never_comes_ends_in_time(bench):
    """The time limit runs from the last byte sent, and an attempt then is ambiguous."""
    bench.emulator.fail(Fault(delay_seconds=60))
    error = await failure_of(bench.provider(timeout_seconds=0.1), bench.audio())
    assert type(error) is AmbiguousFailure
    assert error.code == "timeout"


async def test_a_dripping_answer_does_not_stretch_the_limit(bench):
    """Bytes that trickle in do not start the clock again."""
    bench.emulator.fail(Fault(body={"text": "x" * 2000}, drip_seconds=0.02))
    started = time.monotonic()
    error = await failure_of(bench.provider(timeout_seconds=0.3), bench.audio())
    assert error.code == "timeout"
    assert time.monotonic() - started < 5


@pytest.mark.parametrize("fault", [Fault(endless=True), Fault(huge_bytes=200 * MEGABYTE)])
async def test_an_answer_is_bounded(bench, fault, monkeypatch):
    """An endless or huge answer is left, unread; the same recording is not paid for to get it again."""
    monkeypatch.setattr(http, "ANSWER_BYTES", MEGABYTE)
    bench.emulator.fail(fault)
    error = await failure_of(bench.provider(), bench.audio())
    assert (type(error), error.code, error.maybe_rule) == (AudioRejected, "answer_too_large", True)


async def test_an_endless_error_is_bounded_too(bench):
    """Of an error, only the beginning is read."""
    bench.emulator.fail(Fault(status=500, endless=True))
    error = await failure_of(bench.provider(), bench.audio())
    assert isinstance(error, TemporaryFailure)
    assert len(error.reason) <= 500


@pytest.mark.parametrize("status", [401, 413, 503])
async def test_an_error_that_trickles_is_known_by_its_status(bench, status):
    """The rest of its message is not waited for, and no attempt counts as sent without an answer."""
    headers = {"Retry-After": "7"}
    bench.emulator.fail(Fault(status=status, body="x" * 5000, headers=headers, drip_seconds=0.02))
    error = await failure_of(bench.provider(timeout_seconds=0.3), bench.audio())
    kinds = {401: ProviderUnusable, 413: AudioRejected, 503: TemporaryFailure}
    assert (type(error), error.code) == (kinds[status], f"http_{status}")
    assert status != 503 or error.retry_after_seconds == 7


@pytest.mark.parametrize("linger", [0.0, 30.0])
async def test_an_early_refusal_of_a_large_body_is_heard(bench, linger):
    """A server that answers 413 and reads no more is believed, whether it closes or just stops reading."""
    bench.emulator.fail(Fault(status=413, body={"error": "too much"}, early=True, linger_seconds=linger))
    started = time.monotonic()
    error = await failure_of(bench.provider(), bench.audio(b"x" * 20 * MEGABYTE))
    assert type(error) is AudioRejected
    assert error.reason == "too much"
    assert time.monotonic() - started < 10


async def test_an_early_success_is_not_believed(bench):
    """A 200 before the audio was there is a transcript of something else."""
    bench.emulator.fail(Fault(status=200, body={"text": "hm"}, early=True))
    error = await failure_of(bench.provider(), bench.audio(b"x" * 20 * MEGABYTE))
    assert type(error) is AmbiguousFailure


async def test_an_informational_answer_is_not_the_answer(bench):
    """102 Processing while the body goes up stops nothing."""
    bench.emulator.fail(Fault(informational=True))
    audio = bench.audio(b"x" * 5 * MEGABYTE)
    await bench.provider().transcribe(audio, {})
    assert bench.emulator.requests[0].audio_sha256 == audio.sha256


async def test_a_reset_before_the_body_is_temporary(bench):
    """A connection that breaks while the body goes up cost nothing."""
    bench.emulator.fail(Fault(reset="before_body"))
    error = await failure_of(bench.provider(), bench.audio(b"x" * 20 * MEGABYTE))
    assert type(error) is TemporaryFailure
    assert error.code == "connection_lost"


async def test_a_stalled_upload_is_temporary(bench, monkeypatch):
    """A server that neither reads nor answers is left after the stall limit."""
    monkeypatch.setattr(http, "SEND_STALL_SECONDS", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        url = f"http://127.0.0.1:{deaf.getsockname()[1]}/v1"
        error = await failure_of(bench.provider(url=url), bench.audio(b"x" * 20 * MEGABYTE))
    assert type(error) is TemporaryFailure
    assert error.code == "timeout"


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_nobody_there_is_temporary(bench, host):
    """A refused connection is temporary; the reason names the address in words."""
    with socket.create_server(("127.0.0.1", 0)) as gone:
        port = gone.getsockname()[1]
    error = await failure_of(bench.provider(url=f"http://{host}:{port}/v1"), bench.audio())
    assert type(error) is TemporaryFailure
    assert (error.code, error.reason) == ("connect_failed", f"connection to {host}:{port} refused")


@ONE_ADAPTER
@pytest.mark.parametrize(
    ("scheme", "connect_seconds", "reason"),
    [
        ("http", 30.0, "no whole answer within 0.5 s"),
        ("https", 1.0, "no TLS handshake with 127.0.0.1 within 1 s; the port may not speak https"),
    ],
)
async def test_a_server_that_says_nothing_is_named(bench, monkeypatch, scheme, connect_seconds, reason):
    """The reason tells a handshake that does not come from an answer that does not."""
    monkeypatch.setattr(http, "CONNECT_SECONDS", connect_seconds)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"{scheme}://127.0.0.1:{silent.getsockname()[1]}/v1"
        error = await failure_of(bench.provider(url=url, timeout_seconds=0.5), bench.audio())
    assert error.code == "timeout"
    assert error.reason.startswith(reason)


@ONE_ADAPTER
async def test_an_answer_that_came_while_the_process_was_suspended_is_used(bench):
    """A machine that was paused past the time limit has it in its socket: nothing is paid for again."""
    provider, emulator = bench.provider(timeout_seconds=1.0), bench.emulator
    emulator.delay_seconds = 0.1
    sending = asyncio.create_task(provider.transcribe(bench.audio(), {}))
    await until(lambda: emulator.requests and emulator.requests[-1].complete)
    await asyncio.sleep(0.05)  # the time limit of the answer has begun
    time.sleep(2.0)  # noqa: ASYNC251 - the event loop stands still, as in a suspended process
    transcript = await sending
    assert transcript.text.startswith("Heard")
    assert len(emulator.requests) == 1


@ONE_ADAPTER
async def test_a_suspension_while_connecting_does_not_end_the_upload(bench, monkeypatch):
    """The time that it puts the limit of connecting off by is not that of the answer, which is paid for."""
    trace = http._Progress.trace

    async def suspended(progress, event, details):
        await trace(progress, event, details)
        if event.endswith(".connect_tcp.started"):
            time.sleep(1.0)  # noqa: ASYNC251 - as above

    monkeypatch.setattr(http, "CONNECT_SECONDS", 0.5)
    monkeypatch.setattr(http._Progress, "trace", suspended)
    bench.emulator.delay_seconds = 1.5
    transcript = await bench.provider(timeout_seconds=60.0).transcribe(bench.audio(), {})
    assert transcript.text.startswith("Heard")


async def test_no_connection_in_time_names_the_address(bench, monkeypatch):
    """A server whose queue of connections is full does not take another one."""
    monkeypatch.setattr(http, "CONNECT_SECONDS", 0.3)
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full, contextlib.ExitStack() as taken:
        port = full.getsockname()[1]
        for _ in range(2):
            client = taken.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(("127.0.0.1", port))
        error = await failure_of(bench.provider(url=f"http://127.0.0.1:{port}/v1"), bench.audio())
    assert (error.code, error.reason) == ("timeout", f"no connection to 127.0.0.1:{port} within 0.3 s")


async def test_an_unknown_host_is_temporary(bench):
    """A name that does not resolve may resolve later (RFC 6761 promises that this one does not)."""
    error = await failure_of(bench.provider(url="http://nowhere.invalid/v1"), bench.audio())
    assert type(error) is TemporaryFailure
    assert error.code == "dns_failed"
    assert error.reason.startswith("the name nowhere.invalid ")  # without a network it cannot be looked up


async def test_no_tls_where_tls_is_asked_for_is_temporary(bench):
    """A server that does not speak TLS gets neither key nor audio."""
    heard = []

    async def plain(reader, writer):
        heard.append(await reader.read(1 << 16))
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(plain, "127.0.0.1", 0) as server:
        url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        error = await failure_of(bench.provider(url=url), bench.audio())
    assert type(error) is TemporaryFailure
    assert error.code == "tls_failed"
    assert KEY.encode() not in b"".join(heard)


async def test_a_redirect_never_carries_the_key(bench):
    """A redirect is not followed, and holds the provider."""
    bench.emulator.fail(Fault(status=302, body="", headers={"Location": bench.emulator.url + "/elsewhere"}))
    error = await failure_of(bench.provider(), bench.audio())
    assert isinstance(error, ProviderUnusable)
    assert error.code == "redirect"
    assert [request.path for request in bench.emulator.requests] != ["/elsewhere"]
    assert len(bench.emulator.requests) == 1


async def test_the_environments_proxy_is_used(bench, monkeypatch):
    """http_proxy is honoured: the request comes to the proxy, with the whole URL."""
    monkeypatch.setenv("http_proxy", bench.emulator.url)
    transcript = await bench.provider(url=f"http://provider.invalid{PATHS[bench.type]}").transcribe(
        bench.audio(), {}
    )
    assert transcript.text.startswith("Heard")


async def test_an_idle_connection_that_the_server_closed_is_not_used(bench, monkeypatch):
    """An expired connection is replaced before a body is risked on it."""
    monkeypatch.setattr(connections, "KEEPALIVE_SECONDS", 0.0)
    provider = bench.provider()
    for _ in range(3):
        await provider.transcribe(bench.audio(), {})
    assert bench.emulator.count == 3


async def test_close_can_be_called_twice(bench):
    """Closing lets go of every connection, and may be repeated."""
    provider = bench.provider()
    await provider.transcribe(bench.audio(), {})
    await provider.close()
    await provider.close()
    await until(lambda: bench.emulator.open_connections == 0)


@pytest.mark.parametrize("size", [10, 30 * MEGABYTE])
async def test_cancelling_leaves_nothing_open(bench, size):
    """A cancelled attempt ends at once: the server sees its connection close, and no task is left."""
    begun, closed = asyncio.Event(), asyncio.Event()

    async def silent(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        begun.set()
        with contextlib.suppress(ConnectionError):
            while await reader.read(1 << 20):
                pass
        closed.set()
        writer.close()

    async with await asyncio.start_server(silent, "127.0.0.1", 0) as server:
        provider = bench.provider(url=f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1")
        task = asyncio.create_task(provider.transcribe(bench.audio(b"x" * size), {}))
        await asyncio.wait_for(begun.wait(), 10)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.wait_for(closed.wait(), 10)
