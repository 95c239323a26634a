"""What each vendor gets to see, and what becomes of its documented and its odd answers."""

import math

import pytest

from dropscribe.core.errors import AudioRejected
from dropscribe.core.requests.params import effective_params
from dropscribe.providers.formats import media_type, reson8_encoding, sniffed_suffix, upload_name
from dropscribe.providers.transport.requests import fields_of, form_request, with_query
from dropscribe.providers.vendors import openai
from dropscribe.providers.vendors.openai import endpoint_url, models_url
from dropscribe.transcripts.model import Segment, Word
from support.emulator import Fault

M4A = b"\0\0\0\x20ftypM4A \0\0\0\0"


async def _heard(bench, body, params=None, headers=None):
    bench.emulator.fail(Fault(body=body, headers=headers or {}))
    return await bench.provider().transcribe(bench.audio(), params or {})


async def test_pulse_gets_raw_audio_with_its_type_and_every_parameter(bench_of):
    """Raw bytes, the audio's own type, parameters in the query as the user wrote them."""
    bench = bench_of("pulse")
    params = {
        "language": "en",
        "diarize": True,
        "webhook_extra": "a:b,c &=ü",
        "punctuate": [],
        "model": "x",
    }
    await bench.provider().transcribe(bench.audio(b"ID3\4 speech", name="a b.mp3"), params)
    (request,) = bench.emulator.requests
    assert request.headers["content-type"] == "audio/mpeg"
    assert dict(request.params) == {
        "model": "x",
        "word_timestamps": "true",
        "language": "en",
        "diarize": "true",
        "webhook_extra": "a:b,c &=ü",
    }


async def test_pulse_answer(bench_of):
    """Pulse's documented answer; speaker 0 is a speaker."""
    words = [{"start": 0.16, "end": 1.12, "word": "Hello,", "confidence": 0.5, "speaker": 0}]
    body = {
        "status": "success",
        "transcription": "Hello,",
        "words": words,
        "utterances": [{"start": 0.16, "end": 2.88, "text": "Hello,", "speaker": "speaker_0"}],
        "metadata": {"duration": 5.28, "fileSize": 1},
        "gender": "male",
        "emotions": {"happiness": 0.8},
    }
    transcript = await _heard(bench_of("pulse"), body, {"language": "multi-eu"})
    assert transcript.words == (Word("Hello,", 0.16, 1.12, 0.5, "speaker_0"),)
    assert transcript.segments == (Segment("Hello,", 0.16, 2.88, "speaker_0", 0.5),)
    assert transcript.duration == 5.28
    assert transcript.language is None
    assert transcript.attributes == {"gender": "male", "emotions": {"happiness": 0.8}}
    assert transcript.model == "pulse"
    assert transcript.raw == body


async def test_pulse_pro_answer(bench_of):
    """Pulse Pro adds language and request id; text stands in for transcription."""
    body = {"status": "success", "text": "x", "language": "en", "request_id": "r-9", "audio_length": "3.5"}
    transcript = await _heard(bench_of("pulse"), body)
    assert (transcript.language, transcript.request_id, transcript.duration) == ("en", "r-9", 3.5)


async def test_reson8_gets_octets_the_key_and_an_encoding(bench_of):
    """ApiKey, octet-stream, MP4 named by its encoding; the user's own encoding wins."""
    bench = bench_of("reson8")
    provider = bench.provider()
    await provider.transcribe(bench.audio(M4A, "voice.m4a"), {"language": "nl"})
    await provider.transcribe(bench.audio(M4A, "voice.m4a"), {"encoding": "mp4"})
    await bench.provider(auth="bearer").transcribe(bench.audio(), {})
    first, second, third = bench.emulator.requests
    assert first.headers["authorization"].startswith("ApiKey ")
    assert first.headers["content-type"] == "application/octet-stream"
    assert dict(first.params) == {
        "encoding": "m4a",
        "language": "nl",
        "include_timestamps": "true",
        "include_words": "true",
        "include_confidence": "true",
    }
    assert dict(second.params)["encoding"] == "mp4"
    assert third.headers["authorization"].startswith("Bearer ")
    assert dict(third.params)["encoding"] == "auto"


async def test_reson8_answer(bench_of):
    """Milliseconds and lengths become seconds and ends; log-probabilities become probabilities."""
    word = {"text": "breath", "start_ms": 3410, "duration_ms": 1390, "confidence": -0.041}
    body = {"text": "breath", "start_ms": 0, "duration_ms": 4800, "words": [word]}
    transcript = await _heard(bench_of("reson8"), body, {"language": "en,nl"})
    confidence = math.exp(-0.041)
    assert transcript.words == (Word("breath", 3.41, 4.8, confidence),)
    assert transcript.segments == (Segment("breath", 0.0, 4.8, None, confidence),)
    assert transcript.duration is None
    assert transcript.language is None


@pytest.mark.parametrize(
    ("value", "expected", "warnings"),
    [(None, None, ()), (0.0, 1.0, ()), (0.7, 0.7, ()), (1.5, None, ("odd_confidence",)), ("x", None, ())],
)
async def test_reson8_confidence(bench_of, value, expected, warnings):
    """Both documented meanings of confidence are told apart; nonsense is unknown."""
    body = {"text": "a", "words": [{"text": "a", "confidence": value}]}
    transcript = await _heard(bench_of("reson8"), body)
    assert transcript.words[0].confidence == expected
    assert transcript.warnings == warnings
    assert transcript.segments == ()


async def test_reson8_diarized_answer(bench_of):
    """Words in turns and at the top are not counted twice, and know their speaker."""
    word = {"text": "hi", "start_ms": 0, "duration_ms": 100}
    turn = {"text": "hi", "speaker_id": 0, "start_ms": 0, "duration_ms": 100, "words": [word]}
    body = {"text": "hi", "language": "en", "words": [word], "segments": [turn]}
    transcript = await _heard(bench_of("reson8"), body)
    assert transcript.words == (Word("hi", 0.0, 0.1, None, "speaker_0"),)
    assert transcript.segments == (Segment("hi", 0.0, 0.1, "speaker_0", None),)
    assert transcript.language == "en"


async def test_openai_gets_a_form(bench_of):
    """The defaults, the bracketed field repeated, an ASCII name with the right suffix, the part's type."""
    bench = bench_of("openai")
    await bench.provider().transcribe(
        bench.audio(b"OggS speech", name='Grüße "1".opus'), {"language": "de", "prompt": "x"}
    )
    (request,) = bench.emulator.requests
    assert request.path == "/v1/audio/transcriptions"
    assert request.fields == [
        ("model", "whisper-1"),
        ("response_format", "verbose_json"),
        ("timestamp_granularities[]", "word"),
        ("timestamp_granularities[]", "segment"),
        ("language", "de"),
        ("prompt", "x"),
    ]
    assert request.filename == "audio.ogg"
    assert request.part_type == "audio/ogg"


async def test_what_the_url_asks_for_is_in_the_transcript(bench_of):
    """A config with the model in its url drops the type's own."""
    bench = bench_of("pulse")
    provider = bench.provider(url=f"{bench.emulator.url}/api/v1/pulse/get_text?model=pulse-pro&language=de")
    transcript = await provider.transcribe(bench.audio(), {"model": []})
    assert (transcript.model, transcript.language) == ("pulse-pro", "de")


@pytest.mark.parametrize("model", ["gpt-4o-transcribe", "gpt-4o-transcribe-diarize", "whisper-1"])
async def test_openai_models_get_what_they_take(bench_of, model):
    """Each model is asked for the richest format that it answers."""
    bench = bench_of("openai")
    transcript = await bench.provider().transcribe(bench.audio(), {"model": model})
    assert transcript.text.startswith("Heard")
    assert transcript.model == model


async def test_openai_key_is_optional(bench_of):
    """Without a key there is no Authorization header."""
    bench = bench_of("openai")
    bench.emulator.fail(Fault(body={"text": "x"}))
    await bench.provider(api_key=None).transcribe(bench.audio(), {})
    assert "authorization" not in bench.emulator.requests[0].headers


async def test_openai_limit_counts_the_form(bench_of, monkeypatch):
    """At OpenAI itself, a file that fits only without the form is not sent."""
    monkeypatch.setattr(openai, "OPENAI_BODY_BYTES", 100)
    bench = bench_of("openai")
    with pytest.raises(AudioRejected) as caught:
        await bench.provider(url=None).transcribe(bench.audio(b"x" * 90), {})
    assert caught.value.code == "too_large"


OPENAI_ANSWERS = {
    "vLLM's duration is a string": ({"text": "x", "duration": "17.65"}, {"duration": 17.65}),
    "whisper's language is a name": ({"text": "x", "language": "english"}, {"language": "en"}),
    "speaches' words are null": ({"text": "x", "words": None, "language": "fr"}, {"language": "fr"}),
    "LocalAI says text for word": (
        {"text": "x", "words": [{"text": "x", "start": 1, "end": 2}]},
        {"words": (Word("x", 1.0, 2.0),)},
    ),
    "LocalAI's nanoseconds": (
        {"text": "x", "segments": [{"id": 0, "start": 500_000_000, "end": 2_000_000_000, "text": "x"}]},
        {"segments": (Segment("x", 0.5, 2.0),)},
    ),
    "whisper.cpp nests words": (
        {
            "text": "x",
            "language": "german",
            "segments": [
                {"text": " x", "start": 0, "end": 1, "speaker": "?", "words": [
                    {"word": " x", "start": 0, "end": 1, "probability": 0.5}]}
            ],
        },
        {
            "language": "de",
            "words": (Word(" x", 0.0, 1.0, 0.5),),
            "segments": (Segment("x", 0.0, 1.0, None, 0.5),),
        },
    ),
    "diarized segments": (
        {"text": "x", "segments": [{"id": "s", "start": 0, "end": 1, "text": "x", "speaker": "A"}]},
        {"segments": (Segment("x", 0.0, 1.0, "A"),)},
    ),
    "text from segments": (
        {"text": "", "segments": [{"text": " a"}, {"text": " b"}]},
        {"text": "a b", "segments": (Segment("a"), Segment("b"))},
    ),
    "confidence from avg_logprob": (
        {"text": "x", "segments": [{"text": "x", "avg_logprob": 0.0}]},
        {"segments": (Segment("x", confidence=1.0),)},
    ),
    "usage seconds and Groq's id": (
        {"text": "x", "usage": {"type": "duration", "seconds": 9}, "x_groq": {"id": "req_1"}},
        {"duration": 9.0, "request_id": "req_1"},
    ),
    "nonsense is unknown": (
        {"text": "x", "duration": "long", "words": [1, {"word": 3, "start": "x"}], "segments": "none"},
        {"duration": None, "words": (Word(""),), "segments": ()},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", OPENAI_ANSWERS)
async def test_openai_servers_answers(bench_of, name):
    """Each server's deviation from OpenAI is taken as it is meant."""
    body, expected = OPENAI_ANSWERS[name]
    transcript = await _heard(bench_of("openai"), body)
    assert {key: getattr(transcript, key) for key in expected} == expected


async def test_plain_text_is_taken_where_text_was_asked_for(bench_of):
    """response_format text comes as text/plain, and is a transcript only then."""
    transcript = await _heard(bench_of("openai"), "hello\n", {"response_format": "text"})
    assert transcript.text == "hello"
    assert transcript.segments == ()


@pytest.mark.parametrize(
    ("url", "endpoint", "models"),
    [
        ("http://h/v1", "http://h/v1/audio/transcriptions", "http://h/v1/models"),
        ("http://h/v1/", "http://h/v1/audio/transcriptions", "http://h/v1/models"),
        ("http://h/v1/audio/transcriptions", "http://h/v1/audio/transcriptions", "http://h/v1/models"),
        ("http://h/v1/audio/transcriptions/", "http://h/v1/audio/transcriptions", "http://h/v1/models"),
        ("http://h:80/inference", "http://h:80/inference", "http://h:80/models"),
        ("http://h/d?api-version=1", "http://h/d/audio/transcriptions?api-version=1", "http://h/d/models?api-version=1"),
    ],
)  # fmt: skip
def test_openai_urls(url, endpoint, models):
    """A base and a whole URL lead to the same endpoint."""
    assert endpoint_url(url) == endpoint
    assert models_url(endpoint) == models


@pytest.mark.parametrize(
    ("suffix", "head", "encoding"),
    [
        (".wav", b"RIFF\0\0\0\0WAVE", "auto"),
        (".m4a", M4A, "m4a"),
        (".mp4", M4A, "mp4"),
        (".bin", M4A, "m4a"),
        (".mov", b"\0\0\0\x14ftypqt  ", "mov"),
        ("", b"\0\0\0\x14ftyp3gp4", "3gp"),
        ("", b"\0\0\0\x14ftypisom", "mp4"),
        (".mov", b"\0\0\0\x08wide\0\0", "mov"),
        (".mp4", b"RIFF\0\0\0\0WAVE", "auto"),
        (".pcm", b"\0\1\0\1", "pcm_s16le"),
        (".raw", b"RIFF\0\0\0\0WAVE", "auto"),
        (".pcm", b"\xff\xff\xfe\xff", "pcm_s16le"),  # quiet samples, which look like a frame of MPEG
        (".mp3", b"ID3\3", "auto"),
    ],
)
def test_reson8_encoding(suffix, head, encoding):
    """Seekable containers and raw samples are named; what the content says goes before the name."""
    assert reson8_encoding(suffix, head) == encoding


def test_upload_names_are_safe_and_tell_the_decoder():
    """Odd suffixes give way to what the content says."""
    assert upload_name('.w"v', b"fLaC") == "audio.flac"
    assert upload_name("", b"\xff\xfb\x90\0") == "audio.mp3"
    assert upload_name("", b"") == "audio"
    assert media_type(".xyz", b"OggS") == "audio/ogg"
    assert media_type("", b"???") == "application/octet-stream"
    assert sniffed_suffix(b"\xff\xf1\x50\x80") == ".aac"


@pytest.mark.parametrize(
    ("suffix", "head", "name", "kind"),
    [
        (".mp3", b"RIFF\0\0\0\0WAVE", "audio.wav", "audio/wav"),
        (".wav", b"ID3\3", "audio.mp3", "audio/mpeg"),
        (".wav", b"OggS", "audio.ogg", "audio/ogg"),
        (".m4a", b"\x1a\x45\xdf\xa3 webm", "audio.webm", "audio/webm"),
        (".weba", b"\x1a\x45\xdf\xa3 webm", "audio.webm", "audio/webm"),
        (".mkv", b"\x1a\x45\xdf\xa3 matroska", "audio.webm", "video/x-matroska"),
        (".m4r", M4A, "audio.m4a", "audio/mp4"),
        (".3ga", b"\0\0\0\x14ftyp3gp4", "audio.mp4", "video/3gpp"),
        (".mov", b"\0\0\0\x14ftypqt  ", "audio.mp4", "video/quicktime"),
        (".m4v", b"\0\0\0\x20ftypM4V ", "audio.mp4", "video/mp4"),
        (".qt", b"\0\0\0\x08wide\0\0", "audio.mp4", "video/quicktime"),
        (".mpa", b"\xff\xfd\x90\0", "audio.mp3", "audio/mpeg"),
        (".rf64", b"RF64\xff\xff\xff\xffWAVE", "audio.wav", "audio/wav"),
        (".adts", b"\xff\xf1\x50\x80", "audio.aac", "audio/aac"),
        (".flac", b"ID3\4", "audio.flac", "audio/flac"),
        (".opus", b"OggS", "audio.ogg", "audio/ogg"),
        (".wav", b"", "audio.wav", "audio/wav"),
    ],
)
def test_an_upload_is_named_by_its_content(suffix, head, name, kind):
    """Servers decode by name and type: a wrong suffix, or one that they do not know, must not reach them."""
    assert (upload_name(suffix, head), media_type(suffix, head)) == (name, kind)


def test_a_form_cannot_be_broken_out_of():
    """Quotes and line breaks in a field's name stay in the name."""
    form = form_request("http://h", [('a"\r\nX: y', "v\r\n")])
    assert b'name="a%22%0D%0AX: y"\r\n\r\nv\r\n\r\n--' in form.before


def test_parameters_as_sent():
    """Booleans in lower case, lists repeated, an empty list not at all; the url's own query stays."""
    assert fields_of({"a": True, "b": 1.5, "c": ["x", "y"], "d": []}) == [
        ("a", "true"), ("b", "1.5"), ("c", "x"), ("c", "y"),
    ]  # fmt: skip
    assert with_query("http://h/p/?k=1#f", {"a": "x y&"}) == "http://h/p/?k=1&a=x%20y%26"
    assert with_query("http://h/p", {}) == "http://h/p"


def test_defaults_give_way():
    """The user's parameters win; the granularities are only asked for with verbose_json."""
    assert effective_params("pulse", {"model": []}) == {"model": [], "word_timestamps": True}
    assert "timestamp_granularities[]" not in effective_params("openai", {"response_format": "json"})
    assert "timestamp_granularities[]" not in effective_params("openai", {"timestamp_granularities": []})
    assert effective_params("local", {"language": "en"}) == {"language": "en"}


@pytest.mark.parametrize(("model", "language"), [("enhanced", "auto"), ("melia-1", "multi")])
def test_speechmatics_gets_a_language_where_a_rule_takes_it_away(model, language):
    """`language: auto` is an empty list; a job without a language is refused."""
    given = {"transcription_config.language": [], "transcription_config.model": model}
    sent = effective_params("speechmatics", given)
    assert sent["transcription_config.language"] == language
    assert sent["transcription_config.model"] == model
