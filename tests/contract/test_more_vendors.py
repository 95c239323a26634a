"""What Deepgram, ElevenLabs, Azure and whisper-asr-webservice are sent, and how their answers are read."""

from __future__ import annotations

import json
import math

import pytest

from dropscribe.core.requests.speech_hints import SpeechHints, hint_params
from support.emulator import Fault
from support.vendors import KEY


async def _heard(bench, body, params=None):
    bench.emulator.fail(Fault(body=body))
    return await bench.provider().transcribe(bench.audio(), params or {})


def _hints(kind, model=""):
    return hint_params(kind, model, SpeechHints("en-US", ("Dropscribe", "Zürich"), speakers=True))


async def test_deepgram_gets_raw_audio_and_its_own_parameters(bench_of):
    """The key has Deepgram's scheme; the language is detected unless one is given."""
    bench = bench_of("deepgram")
    await bench.provider().transcribe(bench.audio(), {})
    plain, hinted = {}, _hints("deepgram", "nova-3")
    plain = dict(bench.emulator.requests[0].params)
    assert plain == {
        "model": "nova-3",
        "smart_format": "true",
        "utterances": "true",
        "detect_language": "true",
    }
    assert bench.emulator.requests[0].headers["authorization"] == f"Token {KEY}"
    assert bench.emulator.requests[0].headers["content-type"] == "audio/wav"
    transcript = await bench.provider().transcribe(bench.audio(), hinted)
    sent = bench.emulator.requests[1].params
    assert [value for name, value in sent if name == "keyterm"] == ["Dropscribe", "Zürich"]
    assert ("language", "en-US") in sent
    assert "detect_language" not in dict(sent)
    assert {word.speaker for word in transcript.words} == {"speaker_0"}
    assert (transcript.request_id, transcript.language) == ("dg-1", "en-US")


def test_deepgrams_older_models_take_keywords():
    """Keyterms came with nova-3."""
    assert _hints("deepgram", "nova-2")["keywords"] == ["Dropscribe", "Zürich"]


async def test_deepgrams_channels_become_speakers(bench_of):
    """The text of each channel on a line, the words of all in the order of time."""
    channels = [
        {"alternatives": [{"transcript": text, "words": [{"word": text, "start": at, "end": at + 1}]}]}
        for text, at in (("late", 2.0), ("early", 0.0))
    ]
    transcript = await _heard(bench_of("deepgram"), {"results": {"channels": channels}})
    assert transcript.text == "late\nearly"
    assert [(word.word, word.speaker) for word in transcript.words] == [
        ("early", "channel_1"),
        ("late", "channel_0"),
    ]
    assert [segment.speaker for segment in transcript.segments] == ["channel_1", "channel_0"]


async def test_deepgrams_speakers_are_those_of_their_channel(bench_of):
    """Each channel counts its speakers from 0: two people would become one."""
    said = [[("hi", 0, 0.0), ("there", 0, 4.0)], [("hello", 0, 1.0), ("yes", 1, 2.0), ("no", 0, 3.0)]]
    items = [
        [{"word": word, "speaker": speaker, "start": at, "end": at + 0.5} for word, speaker, at in words]
        for words in said
    ]
    channels = [{"alternatives": [{"transcript": "x", "words": words}]} for words in items]
    utterances = [
        {**item, "transcript": item["word"], "channel": number}
        for number, words in enumerate(items)
        for item in words
    ]
    results = {"channels": channels, "utterances": utterances}
    transcript = await _heard(bench_of("deepgram"), {"results": results})
    expected = {
        "hi": "channel_0",
        "there": "channel_0",
        "hello": "channel_1_speaker_0",
        "yes": "channel_1_speaker_1",
        "no": "channel_1_speaker_0",
    }
    assert {word.word: word.speaker for word in transcript.words} == expected
    assert {segment.text: segment.speaker for segment in transcript.segments} == expected


async def test_elevenlabs_gets_a_form(bench_of):
    """The key has a header of its own, `enable_logging` goes into the query, keyterms are repeated."""
    bench = bench_of("elevenlabs")
    sent = _hints("elevenlabs", "scribe_v2") | {"enable_logging": False}
    transcript = await bench.provider().transcribe(bench.audio(), sent)
    (request,) = bench.emulator.requests
    assert request.params == [("enable_logging", "false")]
    assert request.headers["xi-api-key"] == KEY
    assert [value for name, value in request.fields if name == "keyterms"] == ["Dropscribe", "Zürich"]
    assert {"model_id": "scribe_v2", "language_code": "en", "diarize": "true"}.items() <= dict(
        request.fields
    ).items()
    assert transcript.words[0].confidence == pytest.approx(math.exp(-0.02))
    assert (transcript.request_id, transcript.language, transcript.words[0].speaker) == (
        "el-1",
        "en",
        "speaker_0",
    )


async def test_elevenlabs_spacing_is_no_word_and_a_turn_is_a_segment(bench_of):
    """Segments are built from words: they end with a sentence, a speaker or a pause."""
    words = [
        ("Hi.", 0.0, "a"), (" ", 0.4, "a"), ("You", 0.5, "a"), ("there", 0.9, "b"), ("late", 9.0, "b")
    ]  # fmt: skip
    items = [
        {
            "text": text,
            "start": at,
            "end": at + 0.3,
            "speaker_id": who,
            "type": "spacing" if text == " " else "word",
        }
        for text, at, who in words
    ]
    transcript = await _heard(bench_of("elevenlabs"), {"text": "Hi. You there late", "words": items})
    assert [segment.text for segment in transcript.segments] == ["Hi.", "You", "there", "late"]
    assert [segment.speaker for segment in transcript.segments] == ["a", "a", "b", "b"]


def _eleven_words(*said):
    return [
        {"text": text, "start": at, "end": at + 0.5, "type": "word", "channel_index": channel}
        for text, at, channel in said
    ]


@pytest.mark.parametrize(
    "body",
    [
        {"text": "Hi. Yes?", "words": _eleven_words(("Hi.", 0.0, 1), ("Yes?", 1.0, 0))},
        {
            "transcripts": [
                {"text": "Hi.", "words": _eleven_words(("Hi.", 0.0, 1))},
                {"text": "Yes?", "words": _eleven_words(("Yes?", 1.0, 0))},
            ]
        },
    ],
)
async def test_elevenlabs_channels_become_speakers(bench_of, body):
    """By the number that the words have, in one transcript for all channels or in one for each."""
    transcript = await _heard(bench_of("elevenlabs"), body)
    assert [(word.word, word.speaker) for word in transcript.words] == [
        ("Hi.", "channel_1"),
        ("Yes?", "channel_0"),
    ]


async def test_elevenlabs_one_channel_is_no_speaker(bench_of):
    """Its number says nothing."""
    transcript = await _heard(
        bench_of("elevenlabs"), {"text": "Hi.", "words": _eleven_words(("Hi.", 0.0, 0))}
    )
    assert transcript.words[0].speaker is None


async def test_azures_channels_are_in_the_order_of_time(bench_of):
    """Whatever order the phrases come in."""
    phrases = [
        {"channel": channel, "offsetMilliseconds": at, "durationMilliseconds": 500, "text": text}
        for channel, at, text in ((0, 0, "Hello."), (0, 5000, "Bye."), (1, 2000, "Hi."))
    ]
    combined = [{"channel": 0, "text": "Hello. Bye."}, {"channel": 1, "text": "Hi."}]
    transcript = await _heard(bench_of("azure"), {"combinedPhrases": combined, "phrases": phrases})
    assert [(turn.text, turn.speaker) for turn in transcript.segments] == [
        ("Hello.", "channel_0"),
        ("Hi.", "channel_1"),
        ("Bye.", "channel_0"),
    ]


async def test_elevenlabs_webhook_answer_is_no_transcript(bench_of):
    """With `webhook` a success has no text: it was sent, and nothing can be published."""
    with pytest.raises(Exception, match="without a text"):
        await _heard(bench_of("elevenlabs"), {"message": "Request processed successfully", "request_id": "r"})


async def test_azure_gets_a_definition(bench_of):
    """The hints are objects in the JSON of one field; times are milliseconds, as start and length."""
    bench = bench_of("azure")
    transcript = await bench.provider().transcribe(bench.audio(), _hints("azure"))
    (request,) = bench.emulator.requests
    assert json.loads(dict(request.fields)["definition"]) == {
        "locales": ["en-US"],
        "phraseList": {"phrases": ["Dropscribe", "Zürich"]},
        "diarization": {"enabled": True},
    }
    assert request.params == [("api-version", "2025-10-15")]
    assert request.headers["ocp-apim-subscription-key"] == KEY
    assert transcript.words[1].start == 0.4
    assert transcript.words[1].end == pytest.approx(0.7)
    assert (transcript.language, transcript.words[0].speaker) == ("en-US", "speaker_1")


async def test_an_azure_definition_from_flat_parameters(bench_of):
    """Dots make objects, removed parameters are left out, numbers are numbers, also in lists."""
    bench = bench_of("azure")
    given = {"channels": [0, 1], "locales": [], "diarization.maxSpeakers": 3, "phraseList.phrases": ["911"]}
    await bench.provider().transcribe(bench.audio(), given)
    definition = json.loads(dict(bench.emulator.requests[-1].fields)["definition"])
    phrases = {"phraseList": {"phrases": ["911"]}}
    assert definition == {"channels": [0, 1], "diarization": {"maxSpeakers": 3}, **phrases}


@pytest.mark.parametrize(
    ("given", "version"),
    [
        ({}, "2024-11-15"),
        ({"phraseList.phrases": ["911"]}, "2025-10-15"),
        ({"api-version": "2025-10-15"}, "2025-10-15"),
    ],
)
async def test_azure_is_asked_for_the_newer_version_only_for_phrase_lists(bench_of, given, version):
    """The older one has been there for longer, and knows no phrase lists."""
    bench = bench_of("azure")
    await bench.provider().transcribe(bench.audio(), given)
    assert bench.emulator.requests[-1].params == [("api-version", version)]


async def test_whisper_asr_gets_its_options_in_the_query(bench_of):
    """The form has the file alone."""
    bench = bench_of("whisper-asr")
    await bench.provider().transcribe(bench.audio(), _hints("whisper-asr"))
    (request,) = bench.emulator.requests
    assert dict(request.params) == {
        "output": "json", "word_timestamps": "true", "language": "en", "diarize": "true",
        "initial_prompt": "Dropscribe, Zürich",
    }  # fmt: skip
    assert request.fields == []


async def test_whisper_asr_with_whisperx(bench_of):
    """It has no text of the whole, and says `score` for a probability."""
    word = {"word": "Hello", "start": 0.1, "end": 0.5, "score": 0.7, "speaker": "SPEAKER_00"}
    segment = {"start": 0.1, "end": 0.5, "text": " Hello", "speaker": "SPEAKER_00", "words": [word]}
    transcript = await _heard(bench_of("whisper-asr"), {"segments": [segment], "word_segments": [word]})
    assert transcript.text == "Hello"
    assert transcript.words[0].confidence == 0.7
    assert transcript.segments[0].speaker == "SPEAKER_00"


@pytest.mark.parametrize("kind", ["deepgram", "elevenlabs"])
async def test_a_link_is_fetched_by_the_vendor(bench_of, kind):
    """No audio goes up."""
    bench = bench_of(kind)
    transcript = await bench.provider().transcribe_link("https://files.example.com/a.mp3", {})
    assert transcript.text == "Heard what is at https://files.example.com/a.mp3"
