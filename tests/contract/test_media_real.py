"""Real speech, made to fit: through the vendors' emulator, and heard by the embedded engine."""

from __future__ import annotations

import io
import os
import wave

import pytest

from dropscribe.config.model import ProviderConfig
from dropscribe.files.audio import AudioFile
from dropscribe.providers.local import LocalProvider
from support.house import make_config, prepared
from support.recordings import clip, needs_media
from support.speech import likeness, needs_engine, needs_speech, references

pytestmark = [needs_media, needs_speech]


def fitted(inner, root, rule_keys, **provider_keys):
    """*inner* with what a rule wants done around it."""
    settings = ProviderConfig(name="main", **{"type": "openai", **provider_keys})
    config = make_config(root, providers={"main": settings}, **rule_keys)
    return prepared(config, inner)


@pytest.mark.parametrize("name", ["clip.amr", "clip.wma", "clip.aiff", "clip_adpcm.wav"])
async def test_every_vendor_takes_what_is_made(bench, tmp_path, name):
    """A container that the vendor does not take arrives as FLAC, labelled as such, and is answered."""
    provider = fitted(bench.provider(), tmp_path / "house", {"prepare": "when_needed"}, type=bench.type)
    transcript = await provider.transcribe(bench.audio(clip(f"formats/{name}"), name), {})
    (request,) = bench.emulator.requests
    # The other services decode these formats themselves, so they get the recording as it is.
    is_taken = bench.type not in {"pulse", "reson8", "openai"}
    is_taken = is_taken or (bench.type == "reson8" and name == "clip_adpcm.wav")
    assert transcript.text
    assert request.complete
    if not is_taken:
        assert request.audio_bytes not in {0, len(clip(f"formats/{name}"))}
    if bench.type == "pulse":
        assert request.headers["content-type"] == "audio/flac"
    if bench.type == "openai":
        assert (request.filename, request.part_type) == ("audio.flac", "audio/flac")


async def test_a_large_recording_passes_the_vendors_limit(bench_of, tmp_path):
    """Over max_upload as WAV; what the vendor gets is below it, and one request."""
    bench = bench_of("openai")
    wav = clip("clips/jfk.wav")
    provider = fitted(
        bench.provider(max_upload_bytes=100_000),
        tmp_path / "house",
        {"prepare": "when_needed"},
        max_upload_bytes=100_000,
    )
    transcript = await provider.transcribe(bench.audio(wav), {"model": "whisper-1"})
    (request,) = bench.emulator.requests
    assert request.audio_bytes <= 100_000 < len(wav)
    assert (request.filename, transcript.missing) == ("audio.ogg", ())


def samples(name):
    """A WAV clip's 16 kHz mono samples as bytes."""
    with wave.open(io.BytesIO(clip(name))) as file:
        assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (16_000, 1, 2)
        return file.readframes(file.getnframes())


def recording(path, *channels):
    """A WAV of these channels, the shorter ones followed by silence."""
    frames = bytearray(max(map(len, channels)) * len(channels))
    for number, channel in enumerate(channels):
        for byte in (0, 1):
            part = channel[byte::2]
            place = number * 2 + byte
            frames[place : place + len(part) * 2 * len(channels) : 2 * len(channels)] = part
    with wave.open(str(path), "wb") as file:
        file.setnchannels(len(channels))
        file.setsampwidth(2)
        file.setframerate(16_000)
        file.writeframes(bytes(frames))
    return path


@pytest.fixture
async def engine():
    """The embedded engine with the English model."""
    made = LocalProvider(ProviderConfig(name="here", type="local", model="tiny.en", concurrency=1))
    yield made
    await made.close()


def marked(function):
    """Needs the embedded engine."""
    for mark in needs_engine:
        function = mark(function)
    return function


PAUSE = bytes(2 * 16_000)
SPOKEN = ["clips/sas_0870.wav", "clips/sas_0920.wav", "clips/sas_0930.wav"]


@pytest.mark.slow
@marked
async def test_pieces_lose_no_word(engine, tmp_path):
    """A recording cut in pauses says what it said whole; each clip's words keep their place in time."""
    clips = [samples(name) for name in SPOKEN]
    path = recording(tmp_path / "talk.wav", PAUSE.join(clips))
    keys = {"type": "local", "max_duration_seconds": 9.0}
    provider = fitted(engine, tmp_path / "house", {"prepare": "when_needed"}, **keys)
    with AudioFile.open(os.fsencode(tmp_path), b"talk.wav") as audio:
        transcript = await provider.transcribe(audio, {"language": "en"})
    spoken = " ".join(references()[os.path.basename(name)] for name in SPOKEN)
    assert len(transcript.raw["pieces"]) >= 2
    assert likeness(spoken, transcript.text) > 0.9
    last = next(word for word in reversed(transcript.words) if word.word.lower().startswith("himself"))
    seconds = path.stat().st_size / 32_000
    assert last.end == pytest.approx(seconds, abs=1.0)
    assert [word.start for word in transcript.words] == sorted(word.start for word in transcript.words)


@pytest.mark.slow
@marked
async def test_two_speakers_are_told_apart(engine, tmp_path):
    """Who speaks in the left channel and who in the right is in every segment, in the order of time."""
    first, second = samples("clips/sas_0870.wav"), samples("clips/sas_0930.wav")
    left = first + PAUSE + bytes(len(second))
    right = bytes(len(first)) + PAUSE + second
    recording(tmp_path / "call.wav", left, right)
    provider = fitted(engine, tmp_path / "house", {"channels": "split"}, type="local")
    with AudioFile.open(os.fsencode(tmp_path), b"call.wav") as audio:
        transcript = await provider.transcribe(audio, {"language": "en"})
    said = {
        speaker: " ".join(each.text for each in transcript.segments if each.speaker == speaker)
        for speaker in ("channel_0", "channel_1")
    }
    assert likeness(references()["sas_0870.wav"], said["channel_0"]) > 0.8
    assert likeness(references()["sas_0930.wav"], said["channel_1"]) > 0.8
    assert transcript.segments[0].speaker == "channel_0"
    assert transcript.segments[-1].speaker == "channel_1"
