"""What every adapter promises (providers.base.Provider), against a server on a real socket."""

import asyncio
import hashlib
import os
import time
import tracemalloc
from email.utils import formatdate

import pytest

from dropscribe.core.errors import (
    AudioRejected,
    ProviderUnusable,
    RuleRejected,
)
from dropscribe.providers.conformance import CHECKS, JOB_CHECKS
from dropscribe.providers.conformance.checks import attempt
from dropscribe.providers.statuses import retry_after_seconds
from support.benches import FORMS, failure_of
from support.emulator import Fault
from support.speech import SPEECH, needs_speech, references
from support.vendors import KEY

MEGABYTE = 1024 * 1024


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
async def test_every_adapter_keeps_the_promises_of_a_provider(any_bench, check):
    """The suite that other packages use too."""
    await check(any_bench)


@pytest.mark.parametrize("check", JOB_CHECKS, ids=lambda check: check.__name__)
async def test_every_adapter_with_jobs_keeps_the_promises_of_jobs(job_bench, check):
    """The suite that other packages use too."""
    await check(job_bench)


@needs_speech
async def test_real_speech_arrives_whole_and_comes_back_word_for_word(any_bench):
    """A real recording goes up unchanged; what is heard is what is written."""
    spoken = references()["jfk.wav"]
    content = (SPEECH / "clips" / "jfk.wav").read_bytes()
    any_bench.hear(spoken)
    transcript = await attempt(any_bench.provider(), any_bench.audio(content))
    assert transcript.text == spoken
    assert [word.word for word in transcript.words] == spoken.split()
    assert " ".join(segment.text for segment in transcript.segments) == spoken
    assert any_bench.times_received(content) == 1


async def test_words_and_segments_are_timed_by_default(any_bench):
    """Without any parameter of the user's, all words and segments have times."""
    transcript = await attempt(any_bench.provider(), any_bench.audio())
    assert [word.word for word in transcript.words] == transcript.text.split()
    assert all(0 <= word.start < word.end for word in transcript.words)
    assert transcript.segments[-1].end > 0


async def test_an_upload_has_a_length_a_progress_and_our_name(any_bench):
    """Servers that know no chunks are common; vendors ask who a client is; the page shows the progress."""
    await attempt(any_bench.provider(), any_bench.audio())
    assert all(
        "chunked" not in each.headers.get("transfer-encoding", "") for each in any_bench.emulator.requests
    )
    assert all(each.headers["user-agent"].startswith("dropscribe/") for each in any_bench.emulator.requests)


async def test_a_key_is_never_logged(any_bench, caplog):
    """Not by the libraries either."""
    caplog.set_level("DEBUG")
    await attempt(any_bench.provider(), any_bench.audio())
    assert KEY not in caplog.text


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
    return 5 * size if bench.type in FORMS else 0


async def test_connections_are_used_again_and_in_parallel(bench):
    """Requests in flight have a connection each; later ones use the same again."""
    provider = bench.provider()
    for _ in range(2):
        await asyncio.gather(*(provider.transcribe(bench.audio(name=f"{n}.wav"), {}) for n in range(4)))
    assert bench.emulator.count == 8
    assert bench.emulator.open_connections <= 4


@pytest.mark.parametrize("code", ["insufficient_quota", "organization_spend_limit_exceeded"])
async def test_a_429_for_an_empty_account_is_no_backoff(bench, code):
    """Quota is told from rate by its code; waiting would not help."""
    bench.emulator.fail(Fault(status=429, body={"error": {"code": code, "message": "x"}}))
    error = await failure_of(bench.provider(), bench.audio())
    assert isinstance(error, ProviderUnusable)
    assert error.code == code


@pytest.mark.parametrize(
    ("headers", "low", "high"),
    [
        (lambda: {"Retry-After": "7"}, 7, 7),
        (lambda: {"retry-after-ms": "1500", "Retry-After": "9"}, 1.5, 1.5),
        (lambda: {"Retry-After": formatdate(time.time() + 3600, usegmt=True)}, 3000, 3600),
        (lambda: {"Retry-After": formatdate(time.time() - 3600, usegmt=True)}, 0, 0),
        (lambda: {"x-ratelimit-reset": str(time.time() + 3600)}, 3000, 3600),
        (lambda: {"Retry-After": "9" * 30}, 3600, 3600),
    ],
)
async def test_retry_after_is_honoured_in_all_its_forms(bench, headers, low, high):
    """Seconds, milliseconds, a date, an instant; never negative, never more than an hour.

    The headers are made here: a whole run takes longer than a date that was made at its begin allows.
    """
    bench.emulator.fail(Fault(status=429, body="{}", headers=headers()))
    error = await failure_of(bench.provider(), bench.audio())
    assert low <= error.retry_after_seconds <= high


@pytest.mark.parametrize(
    "date", ["Sun, 06 Nov 1994 08:49:37 GMT", "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994"]
)
def test_an_http_date_is_in_utc_in_each_of_its_forms(monkeypatch, date):
    """The obsolete forms too (RFC 9110), on a machine in another time zone."""
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        assert retry_after_seconds({"retry-after": date}, now=784111777.0 - 60.0) == 60.0
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize("value", ["soon", "nan", "", "2m59.56s"])
async def test_a_retry_after_that_is_none_is_ignored(bench, value):
    """What is no time asks for nothing."""
    bench.emulator.fail(Fault(status=503, body="", headers={"Retry-After": value}))
    assert (await failure_of(bench.provider(), bench.audio())).retry_after_seconds is None


async def test_a_query_secret_of_the_url_is_never_in_an_error(bench):
    """A secret in the configured url's query is masked like the key."""
    bench.emulator.fail(Fault(status=400, body={"error": "what is hunter2secret?"}))
    url = bench.provider().vendor.url + "?token=hunter2secret"
    error = await failure_of(bench.provider(url=url), bench.audio())
    assert "hunter2secret" not in f"{error!r} {error.reason}"
    assert ("token", "hunter2secret") in bench.emulator.requests[0].params


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
    assert type(await failure_of(bench.provider(), bench.audio())) is kind


async def test_an_answer_that_comes_later_says_so(bench):
    """The body has no message of its own, and its status 200 says nothing."""
    bench.emulator.fail(Fault(body={"status": "processing", "request_id": "r1"}))
    error = await failure_of(bench.provider(), bench.audio())
    assert error.code == "asynchronous"
    assert error.reason == "it answered 'processing' in place of a transcript; params must not have a webhook"
