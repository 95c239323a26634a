"""The recipes of docs/providers.md for `type: http` work as they stand there, but for the host."""

from __future__ import annotations

import dataclasses

import pytest

from dropscribe.config.model import ProviderConfig
from dropscribe.config.notation.secret import Secret
from dropscribe.core.errors import AudioRejected, ProviderUnusable
from dropscribe.files.audio import BLOCK_BYTES
from dropscribe.providers import jobs
from dropscribe.providers.build import build_provider
from support.benches import failure_of
from support.recipes import RECIPES, recipe_config
from support.speech import SPEECH, needs_speech, references
from support.vendors import KEY, heard_text

WAV = b"RIFF\x24\0\0\0WAVEfmt speech"


@pytest.fixture
def recipe(bench_of, monkeypatch):
    """A provider by its recipe's name, at the emulator."""
    monkeypatch.setattr(jobs, "FIRST_POLL_SECONDS", 0.01)
    bench = bench_of("http")

    def build(name):
        config = recipe_config(name, bench.emulator.url)
        provider = build_provider(config)
        bench.stack.push_async_callback(provider.close)
        return bench, provider, config.params

    return build


@needs_speech
@pytest.mark.parametrize("name", list(RECIPES))
async def test_a_recipe_of_the_page_transcribes(recipe, name):
    """Text, timed segments and, where the server has them, words."""
    bench, provider, params = recipe(name)
    bench.emulator.vendors.text = references()["jfk.wav"]
    audio = bench.audio((SPEECH / "clips" / "jfk.wav").read_bytes())
    transcript = await provider.transcribe(audio, params)
    assert transcript.text.strip() == references()["jfk.wav"]
    assert transcript.segments[-1].end > transcript.segments[0].start == 0.0
    assert [word.word for word in transcript.words] == ([] if name == "cpp" else transcript.text.split())
    sent = [request.audio_sha256 for request in bench.emulator.requests if request.audio_bytes > 1000]
    assert sent == [await audio.ensure_sha256()]


@pytest.mark.parametrize("name", list(RECIPES))
async def test_silence_is_an_empty_text(recipe, name):
    """A recording in which nothing was said is a result."""
    bench, provider, params = recipe(name)
    bench.emulator.vendors.text = ""
    transcript = await provider.transcribe(bench.audio(WAV), params)
    assert (transcript.text.strip(), transcript.words) == ("", ())


@pytest.mark.parametrize("name", ["described", "cloudflare", "jobs"])
async def test_a_wrong_key_holds_the_provider(recipe, name):
    """It is no failure of the file."""
    bench, provider, params = recipe(name)
    bench.emulator.vendors.key = "another"
    with pytest.raises(ProviderUnusable):
        await provider.transcribe(bench.audio(WAV), params)


@pytest.mark.parametrize("name", ["cpp", "vosk"])
async def test_what_a_server_cannot_decode_fails_the_file(recipe, name):
    """Also where the error comes as a success, as whisper.cpp's does."""
    bench, provider, params = recipe(name)
    with pytest.raises(AudioRejected):
        await provider.transcribe(bench.audio(b"OggS\0 no wave", "call.ogg"), params)


@pytest.mark.parametrize("size_bytes", [25, 26, 27, BLOCK_BYTES + 1, 2 * BLOCK_BYTES + 2])
async def test_base64_in_json_is_the_audio_that_was_read(recipe, size_bytes):
    """Whole at every length and across blocks; the request's length is known before it is sent."""
    bench, provider, params = recipe("cloudflare")
    audio = bench.audio(bytes(range(256)) * (size_bytes // 256) + bytes(range(size_bytes % 256)))
    transcript = await provider.transcribe(audio, params)
    assert transcript.text == heard_text(size_bytes, await audio.ensure_sha256())


async def test_a_config_reproduces_assemblyais_adapter(recipe):
    """Text, words, segments, times, duration, language, model and what was sent are the same.

    A config gives the vendor's own names of speakers, the built-in type counts them.
    """
    bench, described, params = recipe("jobs")
    account = ProviderConfig(name="m", type="assemblyai", url=bench.emulator.url, api_key=Secret(KEY, "test"))
    built_in = build_provider(account)
    bench.stack.push_async_callback(built_in.close)
    ours = await described.transcribe(bench.audio(WAV), params)
    theirs = await built_in.transcribe(bench.audio(WAV), {"speaker_labels": True})
    assert ours.raw["words"] == theirs.raw["words"]
    assert {word.speaker for word in (*ours.words, *ours.segments)} == {"A"}
    assert {word.speaker for word in (*theirs.words, *theirs.segments)} == {"speaker_0"}
    assert _without_names(ours) == _without_names(theirs)
    one, two = bench.emulator.vendors.desk.created
    assert one.options | {"audio_url": ""} == two.options | {"audio_url": ""}
    assert bench.emulator.vendors.desk.jobs == {}


def _without_names(transcript):
    """*transcript* without its speakers' names and what is of one job alone."""
    return dataclasses.replace(
        transcript,
        words=tuple(dataclasses.replace(word, speaker=None) for word in transcript.words),
        segments=tuple(dataclasses.replace(segment, speaker=None) for segment in transcript.segments),
        raw={},
        request_id=None,
    )


async def test_an_account_in_words_holds_the_provider(recipe):
    """An entry of `errors` with several words is looked for in the message, whatever the status."""
    bench, provider, _ = recipe("jobs")
    bench.emulator.vendors.desk.refusal = (409, {"error": "Your current account balance is negative."})
    assert type(await failure_of(provider, bench.audio(WAV))) is ProviderUnusable
