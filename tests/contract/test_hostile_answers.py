"""Answers made to harm: too large, too deep, with secrets or terminal sequences in them."""

from __future__ import annotations

import asyncio
import gzip
import json
import threading
import time
import zlib

import pytest

from dropscribe.config.notation.secret import Secret
from dropscribe.core.errors import AmbiguousFailure, AudioRejected
from dropscribe.core.text.printing import plain_text
from dropscribe.providers import answers, redaction
from dropscribe.providers.redaction import LABEL_CHARACTERS
from dropscribe.providers.transport import http
from dropscribe.providers.transport.content import decoded
from dropscribe.transcripts.document import TranscriptFacts, transcript_document
from dropscribe.transcripts.render import RENDERERS
from support.benches import any_answer, failure_of
from support.emulator import Fault
from support.vendors import KEY


async def _heard(bench, body, **overrides):
    bench.emulator.fail(Fault(body=body))
    return await bench.provider(**overrides).transcribe(bench.audio(), {})


def _rendered(transcript, form):
    facts = TranscriptFacts(
        path=b"a.wav", size_bytes=1, sha256="", modified_at=0.0, provider_name="p", provider_type="openai",
        params={}, folder="f", attempts=1, received_at=0.0, transcribed_at=0.0, elapsed_seconds=0.0,
        outputs=("json", form),
    )  # fmt: skip
    return RENDERERS[form](transcript_document(transcript, facts))


@pytest.mark.parametrize(
    "body",
    [
        '{"text": "x", "a": ' + "[" * 972 + "]" * 972 + "}",
        "[" * 100_000,
        '{"text": "x", "a": ' + '{"b":' * 200 + "1" + "}" * 201,
        '{"text": "x", "a": [' + "[]," * 1_000_001 + "[]]}",
        '{"text": "x", "a": [' + "0," * 5_000_001 + "0]}",
    ],
    ids=["lists", "open-lists", "objects", "many-lists", "many-numbers"],
)
async def test_an_answer_out_of_all_proportion_is_refused(bench, body):
    """Nesting that no renderer survives, and counts that no transcript has, are no bug and not paid again."""
    bench.emulator.fail(Fault(body=body))
    error = await failure_of(bench.provider(), bench.audio())
    assert (type(error), error.code, error.maybe_rule) == (AudioRejected, "answer_too_large", True)


@pytest.mark.parametrize("digits", ["1" + "0" * 4000, "9" * 400, "1e999", "-" + "9" * 500, "NaN"])
async def test_no_number_is_too_large(bench, digits):
    """A speaker, a time or a duration of 10^4000 is unknown."""
    items = f'[{{"start": {digits}, "end": {digits}, "text": "hi", "word": "hi", "speaker": {digits}}}]'
    body = json.dumps(any_answer("hi", words=("ITEMS",)) | {"metadata": {"duration": "DIGITS"}})
    body = body.replace('["ITEMS"]', items).replace('"DIGITS"', digits)
    transcript = await _heard(bench, body)
    assert transcript.duration is None or transcript.duration <= redaction.MOST_SECONDS
    assert not any(word.speaker for word in transcript.words)
    for form in RENDERERS.keys() - {"error"}:
        _rendered(transcript, form)


async def test_a_long_speaker_label_is_cut(bench_of):
    """A label is repeated with every word and cue: 1 MB of answer must not become hundreds."""
    label = "x" * 300_000
    words = [{"word": f"w{n}", "start": n * 0.3, "end": n * 0.3 + 0.2, "speaker": label} for n in range(1000)]
    segments = [{"text": f"w{n}", "start": n, "end": n + 1, "speaker": label} for n in range(3)]
    bench = bench_of("openai")
    transcript = await _heard(bench, {"text": "w", "words": words[:3], "segments": segments})
    assert {len(word.speaker) for word in transcript.words} == {LABEL_CHARACTERS}
    assert all(len(_rendered(transcript, form) or b"") < 2_000_000 for form in ("txt", "srt", "vtt"))


@pytest.mark.slow
async def test_reading_a_large_answer_does_not_hold_up_the_daemon(bench_of):
    """100,000 words are read beside the event loop."""
    bench = bench_of("openai")
    words = [{"word": "word", "start": n * 0.3, "end": n * 0.3 + 0.2} for n in range(100_000)]
    bench.emulator.fail(Fault(body={"text": "word " * 100_000, "words": words}))
    threads = []
    provider = bench.provider()
    read = provider._read

    def watched(*arguments):
        threads.append(asyncio.all_tasks.__module__ and _has_loop())
        return read(*arguments)

    provider._read = watched
    transcript = await provider.transcribe(bench.audio(), {})
    assert len(transcript.words) == 100_000
    assert threads == [False]


def _has_loop():
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


async def test_a_key_that_is_echoed_is_not_stored(bench):
    """In the text, in words and in the raw answer, as it is and percent-encoded."""
    key = "sk_emulator/key+1"
    bench.emulator.vendors.key = key
    echo = f"got Bearer {key} and sk_emulator%2Fkey%2B1"
    items = [{"start": 0, "end": 1, "text": echo, "word": key, "speaker": key}]
    body = any_answer(echo, words=items) | {"headers": {key: [key]}, "gender": key}
    transcript = await _heard(bench, body, api_key=Secret(key, "test"))
    shown = repr(transcript) + json.dumps(transcript.raw)
    assert key not in shown
    assert "%2Fkey" not in shown
    assert "***" in transcript.text


async def test_a_key_among_the_params_is_masked(bench_of):
    """As one in the url's query, which some APIs take too."""
    bench = bench_of("http")
    bench.emulator.fail(Fault(status=500, body={"err_msg": "no sk_other_key_123"}))
    params = {"token": "sk_other_key_123", "model": "nova-3"}
    error = await failure_of(bench.provider(params=params), bench.audio())
    assert error.reason == "no ***"


async def test_ordinary_words_of_a_url_stay_in_the_transcript(bench_of):
    """Only what is secret is masked: a query's model or language may well be said."""
    bench = bench_of("pulse")
    query = "?note=english&keyterm=Pittsburgh&access_token=hunter2secret&passphrase=open-sesame"
    url = bench.provider().vendor.url + query
    transcript = await _heard(bench, any_answer("english Pittsburgh hunter2secret open-sesame"), url=url)
    assert transcript.text == "english Pittsburgh *** ***"


async def test_terminal_sequences_do_not_reach_text_files(bench):
    """Colours, titles, clipboard writes and cursor movements are taken out of everything that is printed."""
    evil = "a\x1b[31mb\x1b]52;c;ZXZpbA==\x07c\x1b]0;title\x1b\\d\x9b2Je\x07\x08f\x00g\x85h"
    items = [
        {"start": 0, "end": 1, "start_ms": 0, "duration_ms": 1000,
         "text": evil, "word": evil, "speaker": evil, "speaker_id": evil}
    ]  # fmt: skip
    body = any_answer(evil, words=items)
    transcript = await _heard(bench, body)
    assert transcript.text == "abcde  f g h"
    for form in ("txt", "srt", "vtt"):
        content = (_rendered(transcript, form) or b"").decode()
        assert all(mark.isprintable() or mark in "\n\t" for mark in content)


def test_text_keeps_what_is_text():
    """Lines, tabs, emoji and other scripts stay; half a surrogate pair does not."""
    assert plain_text("a\tb\nc\r\nd 👋🏽 שלום é") == "a\tb\nc\nd 👋🏽 שלום é"
    assert plain_text("a\ud800b") == "a b"
    assert plain_text("open \x1b") == "open "
    assert plain_text("pay \u202e001\u202c € \u2066now\u2069") == "pay 001 € now"


@pytest.mark.parametrize("encoding", ["gzip", "x-gzip", "GZIP", " gzip "])
def test_gzip_is_decoded_by_all_its_names(encoding):
    """Bounded, whatever the ratio."""
    packed = gzip.compress(bytes(10_000_000))
    assert decoded(packed, encoding, 20_000_000) == (bytes(10_000_000), "")
    assert decoded(packed, encoding, 1000) == (bytes(1000), "")


def test_a_gzip_body_may_have_several_members():
    """RFC 1952 allows it; padding behind them is no content."""
    content = gzip.compress(b"hello ") + gzip.compress(b"you") + bytes(9)
    assert decoded(content, "gzip", 100) == (b"hello you", "")
    assert decoded(content, "gzip", 7) == (b"hello y", "")


def test_a_cut_member_is_an_error():
    """As a cut body of one member; what came before is kept for an error's message."""
    content, problem = decoded(gzip.compress(b"hello ") + gzip.compress(b"you")[:-3], "gzip", 100)
    assert content == b"hello you"
    assert problem


async def test_a_large_encoded_answer_does_not_hold_up_the_event_loop(bench, monkeypatch):
    """A hostile one of many members takes seconds: it is decoded in another thread."""
    threads = []

    def decode(*args):
        threads.append(threading.current_thread())
        return decoded(*args)

    monkeypatch.setattr(http, "decoded", decode)
    body = gzip.compress(b"x") * 1000
    bench.emulator.fail(Fault(body=body, headers={"Content-Encoding": "gzip"}))
    error = await failure_of(bench.provider(), bench.audio())
    assert error.code == "bad_answer"
    assert len(threads) == 1
    assert threads[0] is not threading.main_thread()


async def test_a_status_that_is_none_is_named(bench):
    """As it came, and without the name of a type."""
    bench.emulator.fail(Fault(status=7))
    error = await failure_of(bench.provider(), bench.audio())
    assert error.code == "bad_answer"
    assert error.reason.startswith("illegal status line: (b'HTTP/1.1 7 ")


@pytest.mark.parametrize("wbits", [zlib.MAX_WBITS, -zlib.MAX_WBITS, 16 + zlib.MAX_WBITS])
def test_deflate_is_decoded(wbits):
    """With zlib's header, without it as some servers send it, and with gzip's."""
    body = zlib.compress(b"hello", wbits=wbits)
    assert decoded(body, "deflate", 100) == (b"hello", "")
    assert decoded(body[:-3], "deflate", 100)[1]


@pytest.mark.parametrize("encoding", ["br", "zstd", "gzip, gzip", "gzip, br", "compress"])
async def test_other_encodings_are_refused_by_name(bench, encoding):
    """The reason says what is not supported; nested encodings would unfold without a bound."""
    bench.emulator.fail(Fault(body=b"\x1b\x01\xf8{}", headers={"Content-Encoding": encoding}))
    error = await failure_of(bench.provider(), bench.audio())
    assert type(error) is AmbiguousFailure
    assert error.code == "bad_answer"
    assert encoding in error.reason


@pytest.mark.parametrize("encoding", ["utf-8", "none", "binary", "gzip", "deflate", "br"])
def test_json_that_is_not_encoded_is_read_whatever_is_declared(encoding):
    """Some servers declare the charset there, or an encoding that a proxy has undone."""
    body = '{"text": "Grüße"}'.encode()
    assert decoded(body, encoding, 100) == (body, "")
    assert decoded(body, encoding, 5) == (body[:5], "")


async def test_a_cut_encoding_is_an_error(bench):
    """A body that ends inside its encoding is not taken for a whole one."""
    assert decoded(gzip.compress(b"hello" * 100)[:-12], "gzip", 1000)[1]
    bench.emulator.fail(Fault(body="no gzip", headers={"Content-Encoding": "gzip"}))
    error = await failure_of(bench.provider(), bench.audio())
    assert (type(error), error.code) == (AmbiguousFailure, "bad_answer")


def test_the_bounds_leave_room_for_long_recordings():
    """Ten hours with words in verbose_json are within every limit."""
    words = [
        {"word": " hello", "start": n / 3, "end": n / 3 + 0.2, "probability": 0.5} for n in range(100_000)
    ]
    body = json.dumps({"text": "hello " * 100_000, "words": words}).encode()
    began = time.monotonic()
    assert len(answers.parse_json(body)["words"]) == 100_000
    assert len(body) < http.ANSWER_BYTES / 4
    assert time.monotonic() - began < 60


def test_the_emulators_key_is_long_enough_to_be_masked():
    """The other tests of echoed keys would prove nothing otherwise."""
    assert len(KEY) >= 8
