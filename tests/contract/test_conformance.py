"""What every adapter promises (providers.base.Provider), against a server on a real socket."""

import asyncio
import hashlib
import os
import socket
import time
import tracemalloc
from email.utils import formatdate

import pytest

from dropscribe.config.secret import Secret
from dropscribe.core.errors import (
    AmbiguousFailure,
    AudioChanged,
    AudioRejected,
    ProviderError,
    ProviderUnusable,
    RuleRejected,
    TemporaryFailure,
)
from dropscribe.providers import http, wire
from support.benches import PATHS
from support.emulator import Fault
from support.vendors import KEY, heard_text
from support.waiting import until

MEGABYTE = 1024 * 1024


async def _failure(provider, audio, params=None) -> ProviderError:
    """The error of one attempt, which must fail."""
    with pytest.raises(ProviderError) as caught:
        await provider.transcribe(audio, params or {})
    return caught.value


async def test_the_transcript_is_of_the_audio_that_was_sent(bench):
    """What comes back was heard in exactly the file's bytes."""
    audio = bench.audio()
    transcript = await bench.provider().transcribe(audio, {})
    digest = hashlib.sha256(audio.head).hexdigest()
    assert transcript.text == heard_text(audio.size_bytes, digest)
    assert audio.sha256 == digest
    (request,) = bench.emulator.requests
    assert request.complete
    assert request.audio_sha256 == digest
    assert "chunked" not in request.headers.get("transfer-encoding", "")
    assert request.headers["user-agent"].startswith("dropscribe/")


async def test_words_and_segments_are_timed_by_default(bench):
    """Without any parameter of the user's, words and segments have times."""
    transcript = await bench.provider().transcribe(bench.audio(), {})
    assert [word.word for word in transcript.words] == transcript.text.split()
    assert all(0 <= word.start < word.end for word in transcript.words)
    assert transcript.segments[0].text == transcript.text
    assert transcript.segments[0].end > 0
    assert transcript.raw


async def test_an_empty_transcript_is_a_result(bench):
    """Silence comes back as an empty text, not as a failure."""
    bench.emulator.vendors.text = ""
    transcript = await bench.provider().transcribe(bench.audio(), {})
    assert transcript.text == ""
    assert transcript.words == ()


async def test_a_large_file_is_streamed(bench):
    """20 MB go up through a few blocks of memory, whole and unchanged."""
    content = os.urandom(MEGABYTE) * 20
    audio = bench.audio(content)
    provider = bench.provider()
    await provider.transcribe(bench.audio(name="small.wav"), {})
    bench.emulator.vendors.text = "long"
    peak = await _peak_of_client(provider, audio)
    assert bench.emulator.requests[1].audio_sha256 == hashlib.sha256(content).hexdigest()
    assert peak < 4 * MEGABYTE + _emulator_keeps(bench, len(content))


async def _peak_of_client(provider, audio):
    tracemalloc.start()
    try:
        await provider.transcribe(audio, {})
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def _emulator_keeps(bench, size):
    # In this process too: the emulator reads the form whole (buffer, copy, split parts).
    return 5 * size if bench.type == "openai" else 0


async def test_connections_are_used_again_and_in_parallel(bench):
    """Requests in flight have a connection each; later ones use the same again."""
    provider = bench.provider()
    for _ in range(2):
        await asyncio.gather(*(provider.transcribe(bench.audio(name=f"{n}.wav"), {}) for n in range(4)))
    assert bench.emulator.count == 8
    assert bench.emulator.open_connections <= 4


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (301, ProviderUnusable),
        (307, ProviderUnusable),
        (401, ProviderUnusable),
        (402, ProviderUnusable),
        (403, ProviderUnusable),
        (404, ProviderUnusable),
        (408, TemporaryFailure),
        (409, TemporaryFailure),
        (413, AudioRejected),
        (415, AudioRejected),
        (425, TemporaryFailure),
        (429, TemporaryFailure),
        (498, TemporaryFailure),
        (500, TemporaryFailure),
        (502, TemporaryFailure),
        (503, TemporaryFailure),
        (504, TemporaryFailure),
        (524, TemporaryFailure),
    ],
)
@pytest.mark.parametrize("body", ["", "<html>no</html>", {"error": "some words"}])
async def test_a_status_decides_whatever_the_body_looks_like(bench, status, kind, body):
    """A plain, an HTML and an empty body change nothing of what a status means."""
    bench.emulator.fail(Fault(status=status, body=body))
    error = await _failure(bench.provider(), bench.audio())
    assert type(error) is kind
    assert error.status == status
    slows = status in {429, 503}
    assert getattr(error, "slows_provider", False) is slows


@pytest.mark.parametrize("status", [400, 418, 424, 451])
async def test_an_unexplained_4xx_may_be_the_rule(bench, status):
    """What could be the file's or the rule's fault says so."""
    bench.emulator.fail(Fault(status=status, body="no"))
    error = await _failure(bench.provider(), bench.audio())
    assert isinstance(error, AudioRejected)
    assert error.maybe_rule


async def test_a_wrong_key_holds_the_provider(bench):
    """The vendor's own answer to a wrong key is about the account, and the key is not in it."""
    wrong = "sk_wrong_and_secret"
    error = await _failure(bench.provider(api_key=Secret(wrong, "test")), bench.audio())
    assert isinstance(error, ProviderUnusable)
    assert wrong not in f"{error!r} {error} {error.reason} {error.__cause__!r} {error.__context__!r}"


@pytest.mark.parametrize("code", ["insufficient_quota", "organization_spend_limit_exceeded"])
async def test_a_429_for_an_empty_account_is_no_backoff(bench, code):
    """Quota is told from rate by its code; waiting would not help."""
    bench.emulator.fail(Fault(status=429, body={"error": {"code": code, "message": "x"}}))
    error = await _failure(bench.provider(), bench.audio())
    assert isinstance(error, ProviderUnusable)
    assert error.code == code


@pytest.mark.parametrize(
    ("headers", "low", "high"),
    [
        ({"Retry-After": "7"}, 7, 7),
        ({"retry-after-ms": "1500", "Retry-After": "9"}, 1.5, 1.5),
        ({"Retry-After": formatdate(time.time() + 3600, usegmt=True)}, 3500, 3600),
        ({"Retry-After": formatdate(time.time() - 3600, usegmt=True)}, 0, 0),
        ({"x-ratelimit-reset": str(time.time() + 30)}, 20, 30),
        ({"Retry-After": "9" * 30}, 86400, 86400),
    ],
)
async def test_retry_after_is_honoured_in_all_its_forms(bench, headers, low, high):
    """Seconds, milliseconds, a date, an instant; never negative, never more than a day."""
    bench.emulator.fail(Fault(status=429, body="{}", headers=headers))
    error = await _failure(bench.provider(), bench.audio())
    assert low <= error.retry_after_seconds <= high


@pytest.mark.parametrize("value", ["soon", "nan", "", "2m59.56s"])
async def test_a_retry_after_that_is_none_is_ignored(bench, value):
    """What is no time asks for nothing."""
    bench.emulator.fail(Fault(status=503, body="", headers={"Retry-After": value}))
    assert (await _failure(bench.provider(), bench.audio())).retry_after_seconds is None


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        (Fault(close=True), "no_answer"),
        (Fault(reset="after_body"), "no_answer"),
        (Fault(garbage="not http at all\r\n\r\n"), "bad_answer"),
        (Fault(body={"text": "hello"}, cut_at=5), "bad_answer"),
        (Fault(body={"text": "hello"}, cut_at=5, reset="in_answer"), None),
        (Fault(body="<html>hello</html>", headers={"Content-Type": "text/html"}), "bad_answer"),
        (Fault(body="", status=204), "bad_answer"),
        (Fault(body="[1, 2]"), "bad_answer"),
        (Fault(body="[" * 100_000), "bad_answer"),
        (Fault(body={"hello": "world"}), "bad_answer"),
        (Fault(body={"text": None}), "bad_answer"),
        (Fault(body="x", headers={"Content-Encoding": "gzip"}), "bad_answer"),
    ],
)
async def test_no_usable_answer_to_a_whole_body_is_ambiguous(bench, fault, code):
    """Once the body was sent whole, no answer may still have been paid for."""
    bench.emulator.fail(fault)
    error = await _failure(bench.provider(), bench.audio())
    assert type(error) is AmbiguousFailure
    assert code is None or error.code == code


async def test_an_answer_that_never_comes_ends_in_time(bench):
    """The time limit runs from the last byte sent, and an attempt then is ambiguous."""
    bench.emulator.fail(Fault(delay_seconds=60))
    error = await _failure(bench.provider(timeout_seconds=0.1), bench.audio())
    assert type(error) is AmbiguousFailure
    assert error.code == "timeout"


async def test_a_dripping_answer_does_not_stretch_the_limit(bench):
    """Bytes that trickle in do not start the clock again."""
    bench.emulator.fail(Fault(body={"text": "x" * 2000}, drip_seconds=0.02))
    started = time.monotonic()
    error = await _failure(bench.provider(timeout_seconds=0.3), bench.audio())
    assert error.code == "timeout"
    assert time.monotonic() - started < 5


@pytest.mark.parametrize("fault", [Fault(endless=True), Fault(huge_bytes=200 * MEGABYTE)])
async def test_an_answer_is_bounded(bench, fault, monkeypatch):
    """An endless or huge answer is left, unread."""
    monkeypatch.setattr(http, "ANSWER_BYTES", MEGABYTE)
    bench.emulator.fail(fault)
    error = await _failure(bench.provider(), bench.audio())
    assert type(error) is AmbiguousFailure
    assert error.code == "answer_too_large"


async def test_an_endless_error_is_bounded_too(bench):
    """Of an error, only the beginning is read."""
    bench.emulator.fail(Fault(status=500, endless=True))
    error = await _failure(bench.provider(), bench.audio())
    assert isinstance(error, TemporaryFailure)
    assert len(error.reason) <= 500


@pytest.mark.parametrize("linger", [0.0, 30.0])
async def test_an_early_refusal_of_a_large_body_is_heard(bench, linger):
    """A server that answers 413 and reads no more is believed, whether it closes or just stops reading."""
    bench.emulator.fail(Fault(status=413, body={"error": "too much"}, early=True, linger_seconds=linger))
    started = time.monotonic()
    error = await _failure(bench.provider(), bench.audio(b"x" * 20 * MEGABYTE))
    assert type(error) is AudioRejected
    assert error.reason == "too much"
    assert time.monotonic() - started < 10


async def test_an_early_success_is_not_believed(bench):
    """A 200 before the audio was there is a transcript of something else."""
    bench.emulator.fail(Fault(status=200, body={"text": "hm"}, early=True))
    error = await _failure(bench.provider(), bench.audio(b"x" * 20 * MEGABYTE))
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
    error = await _failure(bench.provider(), bench.audio(b"x" * 20 * MEGABYTE))
    assert type(error) is TemporaryFailure
    assert error.code == "connection_lost"


async def test_a_stalled_upload_is_temporary(bench, monkeypatch):
    """A server that neither reads nor answers is left after the stall limit."""
    monkeypatch.setattr(http, "SEND_STALL_SECONDS", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        url = f"http://127.0.0.1:{deaf.getsockname()[1]}/v1"
        error = await _failure(bench.provider(url=url), bench.audio(b"x" * 20 * MEGABYTE))
    assert type(error) is TemporaryFailure
    assert error.code == "timeout"


async def test_nobody_there_is_temporary(bench):
    """A refused connection is temporary."""
    with socket.create_server(("127.0.0.1", 0)) as gone:
        port = gone.getsockname()[1]
    error = await _failure(bench.provider(url=f"http://127.0.0.1:{port}/v1"), bench.audio())
    assert type(error) is TemporaryFailure
    assert error.code == "connect_failed"


async def test_an_unknown_host_is_temporary(bench):
    """A name that does not resolve may resolve later (RFC 6761 promises that this one does not)."""
    error = await _failure(bench.provider(url="http://nowhere.invalid/v1"), bench.audio())
    assert type(error) is TemporaryFailure
    assert error.code == "dns_failed"


async def test_no_tls_where_tls_is_asked_for_is_temporary(bench):
    """A server that does not speak TLS gets neither key nor audio."""
    heard = []

    async def plain(reader, writer):
        heard.append(await reader.read(1 << 16))
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(plain, "127.0.0.1", 0) as server:
        url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        error = await _failure(bench.provider(url=url), bench.audio())
    assert type(error) is TemporaryFailure
    assert error.code == "tls_failed"
    assert KEY.encode() not in b"".join(heard)


async def test_a_url_that_is_none_holds_the_provider(bench):
    """What cannot be asked is not the file's fault."""
    error = await _failure(bench.provider(url="ftp://127.0.0.1/x"), bench.audio())
    assert type(error) is ProviderUnusable
    assert error.code == "bad_url"


async def test_a_redirect_never_carries_the_key(bench):
    """A redirect is not followed, and holds the provider."""
    bench.emulator.fail(Fault(status=302, body="", headers={"Location": bench.emulator.url + "/elsewhere"}))
    error = await _failure(bench.provider(), bench.audio())
    assert isinstance(error, ProviderUnusable)
    assert error.code == "redirect"
    assert [request.path for request in bench.emulator.requests] != ["/elsewhere"]
    assert len(bench.emulator.requests) == 1


async def test_the_key_is_never_in_an_error(bench, caplog):
    """A provider that echoes the key, plain or escaped, gets it masked; reprs and logs hold none."""
    caplog.set_level("DEBUG")
    provider = bench.provider()
    echo = f"bad key {KEY}\r\n\x1b[31m{KEY}!" + "x" * 2000
    bench.emulator.fail(Fault(status=401, body={"error": {"message": echo, "code": KEY}}))
    error = await _failure(provider, bench.audio())
    shown = f"{error!r} {error} {error.reason} {error.code} {provider!r} {caplog.text}"
    assert KEY not in shown
    assert "***" in error.reason
    assert len(error.reason) <= 500
    assert error.reason.isprintable()


async def test_a_query_secret_of_the_url_is_never_in_an_error(bench):
    """A secret in the configured url's query is masked like the key."""
    bench.emulator.fail(Fault(status=400, body={"error": "what is hunter2secret?"}))
    url = bench.provider()._endpoint.url + "?token=hunter2secret"
    error = await _failure(bench.provider(url=url), bench.audio())
    assert "hunter2secret" not in f"{error!r} {error.reason}"
    assert ("token", "hunter2secret") in bench.emulator.requests[0].params


@pytest.mark.parametrize("size", [10, 30 * MEGABYTE])
async def test_cancelling_leaves_nothing_open(bench, size):
    """A cancelled attempt ends at once, with its connection closed."""
    bench.emulator.fail(Fault(delay_seconds=30, early=True))
    provider = bench.provider()
    task = asyncio.create_task(provider.transcribe(bench.audio(b"x" * size), {}))
    await until(lambda: bench.emulator.count == 1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await provider.transcribe(bench.audio(name="next.wav"), {})
    assert [item.get_name() for item in asyncio.all_tasks() if item is not asyncio.current_task()] == []


async def test_a_file_that_shrinks_is_a_changed_file(bench):
    """A file cut while it goes up is AudioChanged, no provider's fault."""
    audio = bench.audio(b"x" * 20 * MEGABYTE)
    os.truncate(bench.folder / "call.wav", MEGABYTE)
    with pytest.raises(AudioChanged):
        await bench.provider().transcribe(audio, {})


async def test_a_file_above_max_upload_is_not_sent(bench):
    """The user's limit is looked at before a byte goes out."""
    error = await _failure(bench.provider(max_upload_bytes=10), bench.audio())
    assert type(error) is AudioRejected
    assert error.code == "too_large"
    assert bench.emulator.requests == []


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        ({"error": "failed to read audio data"}, AudioRejected),
        ({"error": {"message": "x", "code": "insufficient_quota"}}, ProviderUnusable),
        ({"object": "error", "message": "bad", "code": 400}, AudioRejected),
        ({"status": "error", "message": "x"}, AudioRejected),
        ({"status": "processing", "request_id": "r1"}, RuleRejected),
    ],
)
async def test_an_error_inside_a_200_is_an_error(bench, body, kind):
    """2xx is not success until the body says so."""
    bench.emulator.fail(Fault(body=body))
    assert type(await _failure(bench.provider(), bench.audio())) is kind


async def test_a_probe_pays_for_nothing(bench):
    """A probe sends no audio and says what it learnt."""
    assert "takes the key" in await bench.provider().probe()
    assert all(request.audio_bytes == 0 for request in bench.emulator.requests)


async def test_a_probe_with_a_wrong_key_says_so(bench):
    """A probe fails as an upload would."""
    bench.emulator.vendors.key = "another"
    with pytest.raises(ProviderUnusable):
        await bench.provider().probe()


async def test_a_key_that_no_header_can_carry_holds_the_provider(bench):
    """A key with a newline or umlaut is the account's trouble, and is not shown."""
    error = await _failure(bench.provider(api_key=Secret("ü\nkey-x", "test")), bench.audio())
    assert isinstance(error, ProviderUnusable)
    assert "key-x" not in repr(error)


async def test_the_environments_proxy_is_used(bench, monkeypatch):
    """http_proxy is honoured: the request comes to the proxy, with the whole URL."""
    monkeypatch.setenv("http_proxy", bench.emulator.url)
    transcript = await bench.provider(url=f"http://provider.invalid{PATHS[bench.type]}").transcribe(
        bench.audio(), {}
    )
    assert transcript.text.startswith("Heard")


async def test_an_idle_connection_that_the_server_closed_is_not_used(bench, monkeypatch):
    """An expired connection is replaced before a body is risked on it."""
    monkeypatch.setattr(wire, "KEEPALIVE_SECONDS", 0.0)
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
