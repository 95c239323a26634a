"""How servers deviate from the API that they claim to speak, and what people write in their config."""

from __future__ import annotations

import json
import wave

import pytest

from dropscribe.core.errors import AudioRejected, RuleRejected
from dropscribe.core.requests.languages import base_language, is_language, language_tag
from dropscribe.core.requests.params import effective_params
from dropscribe.providers.transport.content import in_utf8
from support.benches import any_answer, failure_of
from support.emulator import Fault

TEXT = {"response_format": "text"}


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        ("hello there\n", "text/plain"),
        ("hello there\n", "text/html; charset=utf-8"),
        ("hello there\n", "application/octet-stream"),
        ("hello there\n", ""),
        ("hello there\n", "application/json"),
        ('"hello there\\n"', "application/json"),
        ('"hello there"', "text/plain"),
        ('{"text": "hello there"}', "application/json"),
        ("\ufeffhello there", "text/plain"),
    ],
)
async def test_a_text_is_taken_under_any_type(bench_of, body, kind):
    """Servers answer response_format=text as HTML, as octets, without a type, or as a JSON string."""
    bench = bench_of("openai")
    bench.emulator.fail(Fault(body=body, headers={"Content-Type": kind}))
    assert (await bench.provider().transcribe(bench.audio(), TEXT)).text == "hello there"


@pytest.mark.parametrize(("kind", "name"), [("openai", "response_format"), ("whisper-asr", "output")])
async def test_an_answer_to_a_removed_format_is_read(bench_of, kind, name):
    """The config's null drops a parameter: the answer has the server's own format."""
    bench = bench_of(kind)
    bench.emulator.fail(Fault(body=any_answer("hello there")))
    assert (await bench.provider().transcribe(bench.audio(), {name: []})).text == "hello there"


@pytest.mark.parametrize("kind", ["pulse", "reson8", "deepgram"])
async def test_a_list_of_candidates_is_no_detected_language(bench_of, kind):
    """Which of them was spoken is not known where the answer does not say it."""
    bench = bench_of(kind)
    bench.emulator.fail(Fault(body=any_answer("hello there")))
    transcript = await bench.provider().transcribe(bench.audio(), {"language": ["nl", "en"]})
    assert transcript.language is None


CHARSETS = ["iso-8859-1", '"windows-1252"', "UTF-16", "utf-16le", "utf-8", "zip", "none-such"]


@pytest.mark.parametrize("charset", CHARSETS)
async def test_a_text_is_read_in_its_declared_charset(charset):
    """Also UTF-8 under a wrong name."""
    codec = charset.strip('"') if charset not in {"zip", "none-such"} else "utf-8"
    for written in (codec, "utf-8"):
        body = in_utf8("café".encode(written), f"text/plain; charset={charset}")
        assert body.decode("utf-8") == "café"
    assert in_utf8(b"\xff", "text/plain; charset=utf-16") == b"\xff"


@pytest.mark.parametrize("charset", ["iso-8859-1", "utf-16"])
async def test_an_answer_may_have_another_charset(bench, charset):
    """JSON and texts of every type; an answer that cannot be read would be paid for again."""
    body = json.dumps(any_answer("café"), ensure_ascii=False).encode(charset)
    headers = {"Content-Type": f"application/json; charset={charset}"}
    bench.emulator.fail(Fault(body=body, headers=headers))
    assert (await bench.provider().transcribe(bench.audio(), {})).text == "café"


async def test_half_a_character_spoils_no_answer(bench_of):
    """Servers cut texts between the bytes of a character; the transcript is paid for."""
    body = b'{"text": "caf\xc3", "words": [{"word": "caf\xc3", "start": 0, "end": 1}]}'
    bench = bench_of("openai")
    bench.emulator.fail(Fault(body=body))
    heard = await bench.provider().transcribe(bench.audio(), {})
    assert (heard.text, heard.words[0].word) == ("caf\ufffd", "caf\ufffd")


@pytest.mark.parametrize("charset", ["iso-8859-1", "utf-16"])
async def test_a_plain_text_may_have_another_charset(bench_of, charset):
    """As above."""
    bench = bench_of("openai")
    headers = {"Content-Type": f"text/plain; charset={charset}"}
    bench.emulator.fail(Fault(body="café\n".encode(charset), headers=headers))
    assert (await bench.provider().transcribe(bench.audio(), TEXT)).text == "café"


@pytest.mark.parametrize("status", [{"code": 1}, ["processing"], 7])
async def test_a_status_that_is_no_word_says_nothing(bench_of, status):
    """An answer with a text is one, whatever else it holds: it is not paid for again."""
    bench = bench_of("openai")
    bench.emulator.fail(Fault(body=any_answer("hello there") | {"status": status}))
    assert (await bench.provider().transcribe(bench.audio(), {})).text == "hello there"


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ("<!DOCTYPE html><p>Log in", "html_page"),
        (" <html>", "html_page"),
        ("\n\n<head><title>Portal</title></head><body>", "html_page"),
        ("\ufeff<!DOCTYPE wml>", "html_page"),
        ('<?xml version="1.0"?><error>no</error>', "html_page"),
        ("<Body>Log in", "html_page"),
        ("a\0b", "bad_answer"),
    ],
)
async def test_a_page_is_not_a_text(bench_of, body, code):
    """A login page or bytes are not a transcript, even where text was asked for."""
    bench = bench_of("openai")
    bench.emulator.fail(Fault(body=body, headers={"Content-Type": "text/plain"}))
    assert (await failure_of(bench.provider(), bench.audio(), TEXT)).code == code


@pytest.mark.parametrize(
    ("model", "response_format"),
    [
        ("whisper-1", "verbose_json"),
        ("azure/whisper-1", "verbose_json"),
        ("gpt-4o-transcribe", "json"),
        ("openai/gpt-4o-transcribe", "json"),
        ("azure/gpt-4o-mini-transcribe", "json"),
        ("openai/gpt-4o-transcribe-diarize", "diarized_json"),
        ("voxtral-mini-latest", "json"),
        ("mistralai/Voxtral-Mini-3B-2507", "json"),
        ("Systran/faster-whisper-small", "verbose_json"),
    ],
)
def test_the_richest_format_that_a_model_takes(model, response_format):
    """A gateway puts the vendor before the model's name."""
    assert effective_params("openai", {"model": model})["response_format"] == response_format


async def test_a_refused_format_is_asked_for_once(bench_of):
    """A 400 that names response_format is answered by one request for plain json, now and later."""
    bench = bench_of("openai")
    refusal = {
        "error": {"message": "response_format verbose_json is not supported", "param": "response_format"}
    }
    bench.emulator.fail(Fault(status=400, body=refusal))
    provider = bench.provider()
    first = await provider.transcribe(bench.audio(), {})
    assert first.text
    assert "simpler_format" in first.warnings
    await provider.transcribe(bench.audio(), {})
    assert [dict(request.fields)["response_format"] for request in bench.emulator.requests[1:]] == [
        "json",
        "json",
    ]


async def test_a_format_of_the_users_own_is_not_changed(bench_of):
    """What the user asked for and cannot have is the rule's fault, and he is told."""
    bench = bench_of("openai")
    bench.emulator.fail(
        Fault(status=400, body={"error": {"message": "no response_format srt", "param": "response_format"}})
    )
    error = await failure_of(bench.provider(), bench.audio(), {"response_format": "srt"})
    assert type(error) is RuleRejected
    assert bench.emulator.count == 1


async def test_other_refusals_are_final(bench_of):
    """A 400 about the audio costs one request."""
    bench = bench_of("openai")
    bench.emulator.fail(Fault(status=400, body={"error": {"message": "audio is too short"}}))
    assert type(await failure_of(bench.provider(), bench.audio())) is AudioRejected
    assert bench.emulator.count == 1


async def test_mistrals_duration(bench_of):
    """It stands in usage.prompt_audio_seconds."""
    bench = bench_of("openai")
    bench.emulator.fail(Fault(body={"text": "x", "usage": {"prompt_audio_seconds": 203}}))
    assert (await bench.provider().transcribe(bench.audio(), {})).duration == 203


@pytest.mark.parametrize(
    "body",
    [
        {"detail": {"error": {"message": "the words"}}},
        {"error": {"error": {"error": {"message": "the words"}}}},
        {"error": {"detail": "the words"}},
        {"detail": {"message": "the words"}},
        {"detail": "the words"},
        {"err_code": "X", "err_msg": "the words"},
    ],
)
async def test_an_errors_words_are_found_where_they_are(bench, body):
    """However deep a gateway wraps them."""
    bench.emulator.fail(Fault(status=400, body=body))
    assert "the words" in (await failure_of(bench.provider(), bench.audio())).reason


@pytest.mark.parametrize(
    ("written", "tag"),
    [
        ("english", "en"),
        ("English", "en"),
        ("EN", "en"),
        ("eng", "en"),
        ("en_gb", "en-GB"),
        ("pt_br", "pt-BR"),
        ("zh-hant-tw", "zh-Hant-TW"),
        ("ger", "de"),
        ("deu", "de"),
        ("jw", "jv"),
        ("haitian creole", "ht"),
        ("auto", None),
        ("unknown", None),
        ("und", None),
        ("multi", None),
        ("", None),
        ("klingon", "klingon"),
    ],
)
def test_languages_as_people_write_them(written, tag):
    """Names, codes of two and three letters and regions have one form; "unknown" is no language."""
    assert language_tag(written) == tag
    assert is_language(written) is (tag != "klingon")


def test_a_language_without_its_region():
    """Most providers take no region; what is not known is passed on."""
    assert [base_language(text) for text in ("pt_br", "English", "multi-eu")] == ["pt", "en", "multi-eu"]


@pytest.mark.parametrize("told", ["english", "EN", "eng", "en"])
async def test_one_form_of_a_language_in_the_sidecar(bench, told):
    """Whatever the provider calls it."""
    bench.emulator.fail(Fault(body=any_answer("x", told)))
    assert (await bench.provider().transcribe(bench.audio(), {})).language == "en"


@pytest.mark.parametrize("told", ["unknown", "und", "auto", "", None])
async def test_no_language_where_none_is_told(bench, told):
    """Not the word "unknown"."""
    bench.emulator.fail(Fault(body=any_answer("x", told)))
    assert (await bench.provider().transcribe(bench.audio(), {})).language is None


async def test_a_timeout_names_its_key(bench):
    """The remedy is in the reason."""
    bench.emulator.fail(Fault(delay_seconds=60))
    error = await failure_of(bench.provider(timeout_seconds=0.1), bench.audio())
    assert error.code == "timeout"
    assert "'timeout'" in error.reason
    assert "0.1 s" in error.reason


def _recording(path, seconds):
    with wave.open(str(path), "wb") as recording:
        recording.setnchannels(1)
        recording.setsampwidth(2)
        recording.setframerate(8_000)
        recording.writeframes(bytes(16_000 * seconds))
    return path.read_bytes()


async def test_a_long_recording_has_longer(bench_of, tmp_path):
    """A server that works at the speed of speech is not asked for the same work three times."""
    bench = bench_of("openai")
    bench.emulator.fail(Fault(delay_seconds=1.0))
    audio = bench.audio(_recording(tmp_path / "long.wav", 90), "long.wav")
    assert (await bench.provider(timeout_seconds=0.2).transcribe(audio, {})).text


async def test_a_short_recording_has_the_configured_time(bench_of, tmp_path):
    """A limit of a few seconds is what the config asks for."""
    bench = bench_of("openai")
    bench.emulator.fail(Fault(delay_seconds=60))
    audio = bench.audio(_recording(tmp_path / "short.wav", 50), "short.wav")
    error = await failure_of(bench.provider(timeout_seconds=0.2), audio)
    assert (error.code, "0.2 s" in error.reason) == ("timeout", True)
