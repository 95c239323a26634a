"""What every adapter promises (providers.base.Provider), against a server on a real socket."""

import asyncio
import hashlib
import os
import time
import tracemalloc
from email.utils import formatdate

import pytest

from dropscribe.config.notation.secret import Secret
from dropscribe.core.errors import (
    AmbiguousFailure,
    AudioChanged,
    AudioRejected,
    ProviderUnusable,
    RuleRejected,
    TemporaryFailure,
)
from support.benches import FORMS, failure_of
from support.emulator import Fault
from support.speech import SPEECH, needs_speech, references
from support.vendors import KEY, heard_text

MEGABYTE = 1024 * 1024


async def test_the_transcript_is_of_the_audio_that_was_sent(bench):
    """What comes back was heard in exactly the file's bytes."""
    audio = bench.audio()
    transcript = await bench.provider().transcribe(audio, {})
    digest = hashlib.sha256(audio.head).hexdigest()
    assert transcript.text == heard_text(audio.size_bytes, digest)
    assert audio.sha256 == digest
    assert audio.progress.sent_bytes == audio.size_bytes
    (request,) = bench.emulator.requests
    assert request.complete
    assert request.audio_sha256 == digest
    assert "chunked" not in request.headers.get("transfer-encoding", "")
    assert request.headers["user-agent"].startswith("dropscribe/")


@needs_speech
async def test_real_speech_arrives_whole_and_comes_back_word_for_word(bench):
    """A real recording goes up unchanged; what is heard is what is written."""
    spoken = references()["jfk.wav"]
    content = (SPEECH / "clips" / "jfk.wav").read_bytes()
    bench.emulator.vendors.text = spoken
    transcript = await bench.provider().transcribe(bench.audio(content), {})
    assert transcript.text == spoken
    assert [word.word for word in transcript.words] == spoken.split()
    assert " ".join(segment.text for segment in transcript.segments) == spoken
    assert bench.emulator.requests[0].audio_sha256 == hashlib.sha256(content).hexdigest()


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
    return 5 * size if bench.type in FORMS else 0


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
        (504, AmbiguousFailure),
        (522, AmbiguousFailure),
        (524, AmbiguousFailure),
    ],
)
@pytest.mark.parametrize("body", ["", "<html>no</html>", {"error": "some words"}])
async def test_a_status_decides_whatever_the_body_looks_like(bench, status, kind, body):
    """A plain, an HTML and an empty body change nothing of what a status means."""
    bench.emulator.fail(Fault(status=status, body=body))
    error = await failure_of(bench.provider(), bench.audio())
    assert type(error) is kind
    assert error.status == status
    slows = status in {429, 503}
    assert getattr(error, "slows_provider", False) is slows


@pytest.mark.parametrize("status", [400, 418, 424, 451])
async def test_an_unexplained_4xx_may_be_the_rule(bench, status):
    """What could be the file's or the rule's fault says so."""
    bench.emulator.fail(Fault(status=status, body="no"))
    error = await failure_of(bench.provider(), bench.audio())
    assert isinstance(error, AudioRejected)
    assert error.maybe_rule


async def test_a_wrong_key_holds_the_provider(bench):
    """The vendor's own answer to a wrong key is about the account, and the key is not in it."""
    wrong = "sk_wrong_and_secret"
    error = await failure_of(bench.provider(api_key=Secret(wrong, "test")), bench.audio())
    assert isinstance(error, ProviderUnusable)
    assert wrong not in f"{error!r} {error} {error.reason} {error.__cause__!r} {error.__context__!r}"


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


@pytest.mark.parametrize("value", ["soon", "nan", "", "2m59.56s"])
async def test_a_retry_after_that_is_none_is_ignored(bench, value):
    """What is no time asks for nothing."""
    bench.emulator.fail(Fault(status=503, body="", headers={"Retry-After": value}))
    assert (await failure_of(bench.provider(), bench.audio())).retry_after_seconds is None


async def test_the_key_is_never_in_an_error(bench, caplog):
    """A provider that echoes the key, plain or escaped, gets it masked; reprs and logs hold none."""
    caplog.set_level("DEBUG")
    provider = bench.provider()
    echo = f"bad key {KEY}\r\n\x1b[31m{KEY}!" + "x" * 2000
    bench.emulator.fail(Fault(status=401, body={"error": {"message": echo, "code": KEY}}))
    error = await failure_of(provider, bench.audio())
    shown = f"{error!r} {error} {error.reason} {error.code} {provider!r} {caplog.text}"
    assert KEY not in shown
    assert "***" in error.reason
    assert len(error.reason) <= 500
    assert error.reason.isprintable()


async def test_a_query_secret_of_the_url_is_never_in_an_error(bench):
    """A secret in the configured url's query is masked like the key."""
    bench.emulator.fail(Fault(status=400, body={"error": "what is hunter2secret?"}))
    url = bench.provider().vendor.url + "?token=hunter2secret"
    error = await failure_of(bench.provider(url=url), bench.audio())
    assert "hunter2secret" not in f"{error!r} {error.reason}"
    assert ("token", "hunter2secret") in bench.emulator.requests[0].params


async def test_a_file_that_shrinks_is_a_changed_file(bench):
    """A file cut while it goes up is AudioChanged, no provider's fault."""
    audio = bench.audio(b"x" * 20 * MEGABYTE)
    os.truncate(bench.folder / "call.wav", MEGABYTE)
    with pytest.raises(AudioChanged):
        await bench.provider().transcribe(audio, {})


async def test_a_file_above_max_upload_is_not_sent(bench):
    """The user's limit is looked at before a byte goes out."""
    error = await failure_of(bench.provider(max_upload_bytes=10), bench.audio())
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
    assert type(await failure_of(bench.provider(), bench.audio())) is kind


async def test_a_probe_pays_for_nothing(bench):
    """A probe sends no audio and says what it learnt."""
    assert "answers" in await bench.provider().probe()
    assert all(request.audio_bytes == 0 for request in bench.emulator.requests)


async def test_a_probe_with_a_wrong_key_says_so(bench):
    """A probe fails as an upload would."""
    bench.emulator.vendors.key = "another"
    with pytest.raises(ProviderUnusable):
        await bench.provider().probe()


async def test_a_key_that_no_header_can_carry_holds_the_provider(bench):
    """A key with a newline or umlaut is the account's trouble, and is not shown."""
    error = await failure_of(bench.provider(api_key=Secret("ü\nkey-x", "test")), bench.audio())
    assert isinstance(error, ProviderUnusable)
    assert "key-x" not in repr(error)
