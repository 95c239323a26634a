"""The text, the times and the speakers that are read from answers in which a part is null or blank."""

from __future__ import annotations

import pytest

from dropscribe.config.model import ProviderConfig
from dropscribe.core.errors import ProviderError
from dropscribe.providers.values import duration
from dropscribe.providers.vendors.assemblyai import AssemblyAI
from dropscribe.providers.vendors.gladia import Gladia
from dropscribe.providers.vendors.soniox import Soniox
from dropscribe.providers.words import segments_of, with_text
from dropscribe.transcripts.model import Segment, Transcript, Word
from support.benches import any_answer, failure_of
from support.emulator import Fault
from support.vendors import KEY

SPOKEN = tuple(
    {"text": word, "word": word, "transcript": word, "start": at, "end": at + 1.0}
    for at, word in enumerate(("spoken", "words"))
)


async def _heard(bench, body):
    bench.emulator.fail(Fault(body=body))
    return await bench.provider().transcribe(bench.audio(), {})


@pytest.mark.parametrize("text", ["", " \n", None])
async def test_a_missing_text_is_made_of_its_parts(bench, text):
    """Speech that stands in segments or words alone was paid for, and is the text."""
    assert (await _heard(bench, any_answer(text, words=SPOKEN))).text == "spoken words"


@pytest.mark.parametrize("text", ["", " \n\t", "\x00", "\ud800 \x1b"])
async def test_a_blank_text_is_an_empty_one(bench, text):
    """White space is not a transcript, nor are characters that no transcript may hold."""
    assert (await _heard(bench, any_answer(text))).text == ""


async def test_a_text_is_stripped(bench):
    """Whisper's texts begin with a space."""
    assert (await _heard(bench, any_answer(" Hello you. \n"))).text == "Hello you."
    assert (await _heard(bench, any_answer("\x00Hello you.\x07"))).text == "Hello you."


async def test_a_key_that_is_echoed_as_the_requests_id_is_masked(bench):
    """No sidecar holds a key."""
    bench.emulator.fail(Fault(body=any_answer("Hello."), headers={"x-request-id": KEY}))
    heard = await bench.provider().transcribe(bench.audio(), {})
    assert heard.request_id == "***"


@pytest.mark.parametrize(
    ("parts", "text"),
    [((" Hel", "lo", " there"), "Hello there"), (("Hel", "lo"), "Hel lo"), (("你好", "世界"), "你好世界")],
)
def test_words_are_joined_as_they_are_written(parts, text):
    """Tokens have their own spaces; Chinese has none."""
    assert with_text(Transcript("", words=tuple(map(Word, parts)))).text == text


async def test_an_untimed_word_stays_in_its_place(bench_of):
    """Of one channel and of several; it stood at the start."""
    said = [("one", 0.5), ("two", 1.0), ("three", None), ("four", 2.0)]
    words = [{"text": word, "start": at, "end": at and at + 0.3, "type": "word"} for word, at in said]
    heard = await _heard(bench_of("elevenlabs"), {"text": "", "words": words})
    assert heard.text == "one two three four"
    other = [{"text": "yes", "start": 1.5, "end": 1.8, "type": "word"}]
    channels = {"transcripts": [{"text": "", "words": words}, {"text": "", "words": other}]}
    heard = await _heard(bench_of("elevenlabs"), channels)
    assert [word.word for word in heard.words] == ["one", "two", "three", "yes", "four"]


def test_a_segment_of_words_never_ends_before_it_starts():
    """A word may have a time behind those after it; far behind them it is a segment of its own."""
    (segment,) = segments_of([Word("one", 1.5, 1.5), Word("two", 1.0, 1.4)])
    assert (segment.start, segment.end) == (1.5, 1.5)
    segments = segments_of([Word("one", 87.0, 87.0), Word("two", 1.0, 2.0)])
    assert [(segment.start, segment.end) for segment in segments] == [(87.0, 87.0), (1.0, 2.0)]


def test_segments_come_before_words():
    """They have the punctuation."""
    transcript = Transcript(" ", segments=(Segment(" A, b."), Segment("C.")), words=(Word("a"), Word("b")))
    assert with_text(transcript).text == "A, b. C."


async def test_pulses_older_name_of_the_text_is_read_where_the_newer_is_null(bench_of):
    """`text` stands in for a null `transcription`."""
    body = {"status": "success", "transcription": None, "text": "fallback"}
    assert (await _heard(bench_of("pulse"), body)).text == "fallback"


@pytest.mark.parametrize("status", [None, "ok", "completed", "SUCCESS", ""])
async def test_a_full_transcript_is_taken_whatever_its_status(bench_of, status):
    """Only a status that means an error or work in progress speaks against a text."""
    assert (await _heard(bench_of("pulse"), {"transcription": "hi", "status": status})).text == "hi"


@pytest.mark.parametrize("status", ["error", "Failed", "processing", "in_progress"])
async def test_a_status_of_an_error_or_of_work_is_no_success(bench_of, status):
    """Also where a text stands beside it."""
    bench = bench_of("pulse")
    bench.emulator.fail(Fault(body={"transcription": "hi", "status": status}))
    assert isinstance(await failure_of(bench.provider(), bench.audio()), ProviderError)


async def test_words_have_the_speaker_of_their_segment(bench_of):
    """whisper-asr-webservice names speakers in segments, not in each word; a null hides no other name."""
    word = {"word": " you.", "start": 0.5, "end": 1, "probability": None, "score": 0.5, "speaker": None}
    segment = {"start": 0, "end": 1, "text": " you.", "speaker": "SPEAKER_01", "words": [word]}
    transcript = await _heard(bench_of("whisper-asr"), {"text": " you.", "segments": [segment]})
    assert transcript.words == (Word("you.", 0.5, 1.0, 0.5, "SPEAKER_01"),)


@pytest.mark.parametrize(("told", "seconds"), [(-5, None), ("-0.5", None), (0, 0.0), (3, 3.0)])
def test_a_negative_length_is_unknown(told, seconds):
    """It is not zero."""
    assert duration(told) == seconds


async def test_openais_usage_tells_the_length_where_duration_does_not(bench_of):
    """A negative or null value does not hide the next name."""
    usage = {"seconds": None, "prompt_audio_seconds": 7}
    body = {"text": "x", "duration": -1, "usage": usage}
    assert (await _heard(bench_of("openai"), body)).duration == 7


def _read(vendor, parsed):
    return with_text(vendor(ProviderConfig(name="main", type=vendor.type)).transcript(parsed, {}))


def test_soniox_translations_are_no_words():
    """Tokens of a translation have no times and were not spoken."""
    tokens = [
        {"text": "Hel", "start_ms": 0, "end_ms": 100, "translation_status": "original", "language": "en"},
        {"text": "lo", "start_ms": 100, "end_ms": 200, "translation_status": "original"},
        {"text": "Bon", "translation_status": "translation", "language": "fr"},
        {"text": "jour", "translation_status": "translation", "language": "fr"},
        {"text": " you", "start_ms": 200, "end_ms": 300, "translation_status": "none"},
    ]
    transcript = _read(Soniox, {"text": "HelloBonjour you", "tokens": tokens})
    assert [(word.word, word.start, word.end) for word in transcript.words] == [
        ("Hello", 0.0, 0.2),
        ("you", 0.2, 0.3),
    ]
    assert (transcript.text, transcript.language) == ("Hello you", "en")


def test_soniox_words_of_scripts_without_spaces():
    """Each character is a word, with its mark; no space is made where the provider has none."""
    parts = ["今", "日は", "晴", "れ", "。", "iP", "hone", "も", " Me", "et", " 안녕", "하세요"]
    tokens = [{"text": part, "start_ms": at * 100, "end_ms": at * 100 + 90} for at, part in enumerate(parts)]
    transcript = _read(Soniox, {"text": "".join(parts), "tokens": tokens})
    words = ["今", "日は", "晴", "れ。", "iPhoneも", "Meet", "안녕하세요"]
    assert [word.word for word in transcript.words] == words
    assert (transcript.words[3].start, transcript.words[3].end) == (0.3, 0.49)
    said = [segment.text for segment in transcript.segments]
    assert said == ["今日は晴れ。", "iPhoneも Meet 안녕하세요"]


async def test_segments_of_words_have_the_spaces_of_their_script(bench_of):
    """Chinese and Japanese words are not set apart, blank ones leave nothing."""
    said = ["你", "好", " ", "世", "界", "ok"]
    words = [{"text": word, "start": at, "end": at + 0.9, "type": "word"} for at, word in enumerate(said)]
    heard = await _heard(bench_of("elevenlabs"), {"text": "你好世界 ok", "words": words})
    assert [segment.text for segment in heard.segments] == ["你好世界 ok"]


@pytest.mark.parametrize("text", [None, ""])
def test_results_of_jobs_without_a_text_have_that_of_their_parts(text):
    """The same for the vendors with jobs."""
    words = [{"text": "spoken", "start": 0, "end": 1}, {"text": "words", "start": 1, "end": 2}]
    assert _read(AssemblyAI, {"text": text, "words": words}).text == "spoken words"
    tokens = [{"text": " spoken"}, {"text": " words"}]
    assert _read(Soniox, {"text": text, "tokens": tokens}).text == "spoken words"
    transcription = {"full_transcript": text, "utterances": words}
    assert _read(Gladia, {"result": {"transcription": transcription}}).text == "spoken words"


def test_assemblyais_words_have_their_channel():
    """Of several channels an utterance's speaker is its channel, and a word has the channel alone."""
    items = [
        {"text": "a", "start": 0, "end": 1, "channel": "1", "speaker": None},
        {"text": "b", "start": 1, "end": 2, "channel": "2", "speaker": "2"},
        {"text": "c", "start": 2, "end": 3, "channel": "2", "speaker": "2A"},
    ]
    told = {"text": "a b c", "multichannel": True, "words": items, "utterances": items[1:]}
    transcript = _read(AssemblyAI, told)
    assert [word.speaker for word in transcript.words] == ["channel_1", "channel_2", "2A"]
    assert [segment.speaker for segment in transcript.segments] == ["channel_2", "2A"]
