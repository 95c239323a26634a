"""What a rule may ask for before a recording is sent, from the inbox to the sidecar."""

from __future__ import annotations

import asyncio
import errno
import io
import json
import os
import stat
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest

import dropscribe
from dropscribe.config.model import ProviderConfig
from dropscribe.core.errors import AudioRejected, TemporaryFailure
from dropscribe.files.audio import AudioFile
from dropscribe.media.fitting import OPUS
from dropscribe.media.spool import Spool
from dropscribe.native.decoder import Decoder
from dropscribe.native.process import Worker
from dropscribe.native.recording import Piece
from dropscribe.transcripts.model import Segment, Transcript, Word
from support.house import House, digest, make_config, prepared, read_json, tree
from support.recordings import RATE_HZ, clip, needs_media, noise, silence, write_wav
from support.scripted import ScriptedProvider
from support.speech import needs_speech

pytestmark = needs_media

LIMIT_BYTES = 200_000


def described(content):
    """What the headers of *content* say, or None."""
    with tempfile.TemporaryFile() as file:
        file.write(content)
        file.flush()
        try:
            return Decoder(file.fileno()).describe()
        except AudioRejected:
            return None


class Listening:
    """A provider that remembers what reached it, and how long it was; each second of it is one word."""

    def __init__(self, *errors):
        self.heard, self.errors = [], list(errors)

    async def transcribe(self, audio, _params):
        content = b"".join([block async for block in audio.blocks()])
        recording = described(content)
        self.heard.append((os.fsdecode(audio.name), len(content), recording))
        error = self.errors.pop(0) if self.errors else None
        if error is not None:
            raise error
        number = len(self.heard)
        return Transcript(
            f"part {number}",
            "en",
            recording.seconds if recording else None,
            (Segment(f"part {number}", 0.5, 1.5),),
            (Word("part", 0.5, 0.9), Word(str(number), 1.0, 1.5)),
            raw={"n": number},
        )

    async def probe(self):
        return "listening"

    async def close(self):
        return None


@pytest.fixture
def house_of(tmp_path):
    """Makes a house of one provider, called main, and one rule."""

    def make(provider, kind="openai", **keys):
        provider_keys = {key: keys.pop(key) for key in list(keys) if key.startswith(("max_", "requests"))}
        settings = ProviderConfig(name="main", type=kind, concurrency=1, **provider_keys)
        config = make_config(tmp_path, providers={"main": settings}, **keys)
        return House(config, {"main": provider})

    return make


def three_parts():
    """What becomes three pieces of at most 10 s."""
    return noise(8) + silence(1) + noise(8) + silence(1) + noise(6)


def answers_in(config):
    """The kept answers to pieces."""
    return sorted((config.state_dir / "spool").rglob("*.json"))


async def test_what_fits_is_sent_as_it_is(house_of, tmp_path):
    """`when_needed` leaves alone what the provider takes."""
    provider = Listening()
    content = write_wav(tmp_path / "x.wav", noise(3))
    async with house_of(provider, prepare="when_needed", max_upload_bytes=LIMIT_BYTES) as house:
        await house.drop("call.wav", content)
        await house.rest()
        assert [(name, size) for name, size, _ in provider.heard] == [("call.wav", len(content))]
        assert read_json(house.rule().done / "call.json")["missing"] == []


async def test_a_file_over_the_limit_is_made_smaller(house_of, tmp_path):
    """It is sent as mono FLAC or Opus below max_upload; what is hashed, kept and moved is the original."""
    provider = Listening()
    content = write_wav(tmp_path / "x.wav", noise(20), noise(20, seed=2))
    assert len(content) > LIMIT_BYTES
    async with house_of(provider, prepare="when_needed", max_upload_bytes=LIMIT_BYTES) as house:
        await house.drop("call.wav", content)
        await house.rest()
        ((name, size, heard),) = provider.heard
        document = read_json(house.rule().done / "call.json")
        assert (house.rule().done / "call.wav").read_bytes() == content
    assert (name, heard.codec, heard.channels) == ("piece-1.ogg", "opus", 1)
    assert size <= LIMIT_BYTES
    assert heard.seconds == pytest.approx(20, abs=0.1)
    assert document["source"]["sha256"] == digest(content)
    assert document["source"]["bytes"] == len(content)
    assert document["segments"][0]["start"] == 0.5


async def test_never_fails_the_file_unsent(house_of, tmp_path):
    """Without `prepare` a file over max_upload goes to failed, as ever."""
    provider = Listening()
    content = write_wav(tmp_path / "x.wav", noise(20))
    async with house_of(provider, silence="skip", max_upload_bytes=LIMIT_BYTES) as house:
        await house.drop("call.wav", content)
        await house.rest()
        assert read_json(house.rule().failed / "call.error.json")["code"] == "too_large"
    assert provider.heard == []


async def test_always_saves_the_uplink(house_of, tmp_path):
    """`always` sends Opus; what is as small already is sent as it is."""
    provider = Listening()
    content = write_wav(tmp_path / "x.wav", noise(20))
    async with house_of(provider, prepare="always") as house:
        await house.drop("call.wav", content)
        await house.rest()
        small = provider.heard[0][1]
        assert small < len(content) / 3
        await house.drop("ready.ogg", b"".join(await opus_of(tmp_path / "x.wav")))
        await house.rest()
    assert provider.heard[1][0] == "ready.ogg"


async def opus_of(path):
    """The pieces that `always` makes of a file."""
    listening = Keeping()
    config = make_config(path.parent / "other", prepare="always")
    with AudioFile.open(os.fsencode(path.parent), os.fsencode(path.name)) as audio:
        await prepared(config, listening).transcribe(audio, {})
    return listening.contents


class Keeping(Listening):
    def __init__(self):
        super().__init__()
        self.contents = []

    async def transcribe(self, audio, params):
        self.contents.append(b"".join([block async for block in audio.blocks()]))
        return await super().transcribe(audio, params)


@needs_speech
@pytest.mark.parametrize(
    ("kind", "name", "expected"),
    [
        ("pulse", "clip.wav", "clip.wav"),
        ("pulse", "clip.webm", "clip.webm"),
        ("pulse", "clip.3gp", "piece-1.flac"),
        ("pulse", "clip_24bit_stereo22k.wav", "piece-1.flac"),
        ("pulse", "clip.mp4", "piece-1.flac"),
        ("reson8", "clip.3gp", "clip.3gp"),
        ("reson8", "clip.mp3", "piece-1.flac"),
        ("reson8", "clip.wma", "piece-1.flac"),
        ("openai", "clip.mp3", "clip.mp3"),
        ("openai", "clip.mp4", "clip.mp4"),
        ("openai", "clip.amr", "piece-1.flac"),
        ("openai", "clip.aac", "piece-1.flac"),
        ("openai", "clip_adpcm.wav", "piece-1.flac"),
        ("local", "clip.amr", "clip.amr"),
        ("openai", "clip.pcm", "clip.pcm"),
    ],
)
async def test_a_format_that_the_provider_does_not_take(house_of, kind, name, expected):
    """What the type's documentation does not list is sent as FLAC, as long as it was."""
    provider = Listening()
    async with house_of(provider, kind, prepare="when_needed") as house:
        await house.drop(name, clip(f"formats/{name}"))
        await house.rest()
    ((sent, _, heard),) = provider.heard
    assert sent == expected
    assert heard is None or heard.seconds == pytest.approx(7.1, abs=0.3)


@needs_speech
@pytest.mark.parametrize(("content", "expected"), [("clip.mp3", "piece-1.flac"), ("clip.wav", "call.raw")])
async def test_a_recording_that_is_named_as_samples_is_taken_for_what_it_is(house_of, content, expected):
    """Its header tells its format, whatever the name; it is sent anew only where the provider needs that."""
    provider = Listening()
    async with house_of(provider, "reson8", prepare="when_needed") as house:
        await house.drop("call.raw", clip(f"formats/{content}"))
        await house.rest()
    ((sent, _, _),) = provider.heard
    assert sent == expected


async def test_a_long_recording_is_cut_at_its_pauses(house_of, tmp_path):
    """Pieces end in pauses; the joined times count from the start of the recording."""
    provider = Listening()
    content = write_wav(tmp_path / "x.wav", noise(13) + silence(2) + noise(10) + silence(2) + noise(8))
    async with house_of(
        provider, prepare="when_needed", max_duration_seconds=16.0, outputs=("json", "srt")
    ) as house:
        await house.drop("call.wav", content)
        await house.rest()
        document = read_json(house.rule().done / "call.json")
    lengths = [heard.seconds for _, _, heard in provider.heard]
    assert sum(lengths) == pytest.approx(35, abs=0.1)
    assert len(lengths) == 3
    assert 13.0 <= lengths[0] <= 15.0
    assert 25.0 <= lengths[0] + lengths[1] <= 27.0
    starts = [0.0, lengths[0], lengths[0] + lengths[1]]
    assert [each["start"] for each in document["segments"]] == pytest.approx(
        [start + 0.5 for start in starts], abs=0.01
    )
    assert [each["start"] for each in document["words"]][::2] == pytest.approx(
        [start + 0.5 for start in starts], abs=0.01
    )
    assert document["text"] == "part 1 part 2 part 3"
    assert document["duration"] == pytest.approx(35, abs=0.01)
    assert document["missing"] == []
    assert [piece["raw"] for piece in document["raw"]["pieces"]] == [{"n": 1}, {"n": 2}, {"n": 3}]


async def test_a_look_for_silence_does_not_shorten_the_recording(house_of, tmp_path):
    """With `silence: skip` too, all of a recording that must be cut for its size is sent."""
    provider = Listening()
    content = write_wav(tmp_path / "x.wav", noise(20))
    keys = {"prepare": "always", "silence": "skip", "max_upload_bytes": 50_000}
    async with house_of(provider, **keys) as house:
        await house.drop("call.wav", content)
        await house.rest()
        document = read_json(house.rule().done / "call.json")
    assert len(provider.heard) >= 3
    assert all(size <= 50_000 for _, size, _ in provider.heard)
    assert sum(heard.seconds for _, _, heard in provider.heard) == pytest.approx(20, abs=0.3)
    assert (document["duration"], document["missing"]) == (pytest.approx(20, abs=0.01), [])


async def test_a_refused_piece_is_named_as_missing(house_of, tmp_path):
    """The rest is transcribed, and the time that nobody heard is in `missing` and `warnings`."""
    provider = Listening(None, AudioRejected("bad_audio", "cannot be read"))
    content = write_wav(tmp_path / "x.wav", three_parts())
    async with house_of(provider, prepare="when_needed", max_duration_seconds=10.0) as house:
        await house.drop("call.wav", content)
        await house.rest()
        document = read_json(house.rule().done / "call.json")
    assert document["text"] == "part 1 part 3"
    (gap,) = document["missing"]
    assert gap["code"] == "bad_audio"
    assert gap["start"] == pytest.approx(provider.heard[0][2].seconds, abs=0.01)
    assert gap["end"] == pytest.approx(gap["start"] + provider.heard[1][2].seconds, abs=0.01)
    assert "missing_audio" in document["warnings"]


async def test_a_recording_refused_whole_fails(house_of, tmp_path):
    """Where no piece is taken the file goes to failed with the provider's reason."""
    refusals = [AudioRejected("bad_audio", "cannot be read") for _ in range(3)]
    content = write_wav(tmp_path / "x.wav", three_parts())
    async with house_of(Listening(*refusals), prepare="when_needed", max_duration_seconds=10.0) as house:
        await house.drop("call.wav", content)
        await house.rest()
        assert read_json(house.rule().failed / "call.error.json")["code"] == "bad_audio"


@pytest.mark.parametrize("told", [[(0, False)], [(1, True)], [(-1, True)], [(0, True), (0, True)]])
async def test_a_worker_cannot_invent_repeat_or_skip_pieces(house_of, tmp_path, monkeypatch, told):
    """One that a recording has taken over would have pieces paid for without end, or leave them out."""

    def encode(*_):
        for number, is_written in told:
            with (tmp_path / "piece").open("w+b") as file:
                yield Piece(number, 0.0, 8.0, is_written=is_written), file if is_written else None

    provider = Listening()
    monkeypatch.setattr(Decoder, "encode", encode)
    async with house_of(provider, prepare="always") as house:
        await house.drop("call.wav", write_wav(tmp_path / "x.wav", noise(8)))
        await house.rest()
        assert read_json(house.rule().failed / "call.error.json")["code"] == "undecodable"
    assert len(provider.heard) == len(told) - 1


async def test_a_recording_without_one_whole_sample_fails(house_of, tmp_path):
    """Five samples at 48 kHz are not two at 16 kHz: the resampler gives none."""
    provider = Listening()
    content = bytearray(write_wav(tmp_path / "x.wav", noise(5 / RATE_HZ), noise(5 / RATE_HZ)))
    content[24:28] = (48_000).to_bytes(4, "little")
    async with house_of(provider, "pulse", prepare="when_needed") as house:
        await house.drop("call.wav", bytes(content))
        await house.rest()
        assert read_json(house.rule().failed / "call.error.json")["code"] == "undecodable"
    assert provider.heard == []


@pytest.mark.parametrize(("content", "seconds"), [(noise(4), 2.0), (noise(12), 10.0)])
async def test_room_on_disk_is_checked_for_the_longest_piece(
    house_of, tmp_path, monkeypatch, content, seconds
):
    """That of a recording that is cut is as long as it may be, and no longer than is assumed otherwise."""
    asked = []
    new_piece = Spool.new_piece
    monkeypatch.setattr("dropscribe.media.fitted.LONGEST_SECONDS", 2.0)
    monkeypatch.setattr(Spool, "new_piece", lambda spool, size: asked.append(size) or new_piece(spool, size))
    async with house_of(Listening(), prepare="always", max_duration_seconds=10.0) as house:
        await house.drop("call.wav", write_wav(tmp_path / "x.wav", content))
        await house.rest()
    assert set(asked) == {OPUS.most_bytes(seconds)}


async def test_a_worker_that_is_not_needed_any_more_ends_beside_the_event_loop(tmp_path, monkeypatch):
    """After a piece that failed it is still at work, and its end may take seconds."""
    ending, close = [], Worker.close

    def close_and_tell(worker):
        ending.append(threading.current_thread())
        close(worker)

    monkeypatch.setattr(Worker, "close", close_and_tell)
    settings = ProviderConfig(name="main", type="openai", max_duration_seconds=10.0)
    config = make_config(tmp_path, providers={"main": settings}, prepare="when_needed")
    write_wav(tmp_path / "call.wav", three_parts())
    provider = prepared(config, Listening(TemporaryFailure("later")))
    with AudioFile.open(os.fsencode(tmp_path), b"call.wav") as audio, pytest.raises(TemporaryFailure):
        await provider.transcribe(audio, {})
    assert ending
    assert threading.main_thread() not in ending


async def test_a_piece_that_is_paid_for_is_not_sent_again(house_of, tmp_path):
    """A temporary failure at the third piece: the next attempt sends the third alone."""
    provider = Listening(None, None, TemporaryFailure("http_500", status=500))
    content = write_wav(tmp_path / "x.wav", three_parts())
    async with house_of(provider, prepare="when_needed", max_duration_seconds=10.0) as house:
        await house.drop("call.wav", content)
        await house.rest()
        document = read_json(house.rule().done / "call.json")
    assert [name for name, _, _ in provider.heard] == [
        "piece-1.flac",
        "piece-2.flac",
        "piece-3.flac",
        "piece-3.flac",
    ]
    assert document["text"] == "part 1 part 2 part 4"
    assert document["job"]["attempts"] == 2


async def test_paid_pieces_outlive_a_crash(tmp_path):
    """An attempt cut off after two pieces: a new process sends only what is left."""
    path = tmp_path / "call.wav"
    write_wav(path, three_parts())
    settings = ProviderConfig(name="main", type="openai", max_duration_seconds=10.0)
    config = make_config(tmp_path / "house", providers={"main": settings}, prepare="when_needed")

    class Endless(Listening):
        async def transcribe(self, audio, params):
            answer = await super().transcribe(audio, params)
            if len(self.heard) == 3:
                reached.set()
                await asyncio.Event().wait()
            return answer

    async def attempt(provider):
        with AudioFile.open(os.fsencode(tmp_path), b"call.wav") as audio:
            return await prepared(config, provider).transcribe(audio, {})

    reached = asyncio.Event()
    cut_off = asyncio.create_task(attempt(Endless()))
    await asyncio.wait_for(reached.wait(), 10)
    cut_off.cancel()
    with pytest.raises(asyncio.CancelledError):
        await cut_off
    kept = answers_in(config)
    assert len(kept) == 2
    assert {stat.S_IMODE(each.stat().st_mode) for each in kept} == {0o600}
    assert stat.S_IMODE((config.state_dir / "spool").stat().st_mode) == 0o700
    Spool(config.state_dir).sweep()

    second = Listening()
    transcript = await attempt(second)
    assert [name for name, _, _ in second.heard] == ["piece-3.flac"]
    assert len(transcript.segments) == 3


async def test_the_rate_of_a_provider_holds_for_the_pieces_of_all_recordings(tmp_path):
    """Two recordings of three pieces each, at five requests a minute: the sixth waits."""
    settings = ProviderConfig(
        name="main", type="openai", concurrency=2, requests_per_minute=5.0, max_duration_seconds=10.0
    )
    config = make_config(tmp_path, providers={"main": settings}, prepare="when_needed")
    provider = Listening()
    async with House(config, {"main": provider}) as house:
        for number, name in enumerate(("one.wav", "two.wav")):
            different = three_parts() + silence(
                1 + number
            )  # of the same recording an answer is sent for once
            await house.drop(name, write_wav(tmp_path / "x.wav", different))
        await house.until(lambda: len(provider.heard) == 5, 60.0)
        assert house.engine._admission.rates.start_in("main") > 1
        assert len(provider.heard) == 5


@pytest.mark.parametrize("place", ["sync", "Spool.mark_whole"])
async def test_an_answer_that_the_disk_refuses_is_still_an_answer(house_of, tmp_path, monkeypatch, place):
    """Where a piece's answer cannot be kept, the next is sent, and nothing is paid for twice."""
    provider = Listening()
    content = write_wav(tmp_path / "x.wav", three_parts())

    def full(*_):
        raise OSError(errno.ENOSPC, "no space left")

    monkeypatch.setattr(f"dropscribe.media.spool.{place}", full)
    async with house_of(provider, prepare="when_needed", max_duration_seconds=10.0) as house:
        await house.drop("call.wav", content)
        await house.rest()
        assert read_json(house.rule().done / "call.json")["text"] == "part 1 part 2 part 3"
    assert len(provider.heard) == 3


async def test_answers_wait_as_long_as_their_file(tmp_path):
    """Once all are there they are kept for minutes; an answer under new settings waits for its own pieces."""
    spool, root = Spool(tmp_path), tmp_path / "spool" / "answers"
    for sha256 in ("a" * 64, "b" * 64):
        spool.write_answer(sha256, "first", Transcript("x"))
        spool.mark_whole(sha256)
    spool.write_answer("b" * 64, "other", Transcript("x"))
    for folder in root.iterdir():
        an_hour_before = folder.stat().st_mtime - 3600
        os.utime(folder, (an_hour_before, an_hour_before))
    spool.forget_old()
    assert {folder.name[0] for folder in root.iterdir()} == {"b"}


async def test_the_spool_is_swept_at_the_start(tmp_path):
    """Strays go, old answers go, answers that a file still waits for stay."""
    config = make_config(tmp_path)
    answers = config.state_dir / "spool" / "answers"
    for name in ("old", "new"):
        (answers / name).mkdir(parents=True)
        (answers / name / "x.json").write_text("{}")
    (config.state_dir / "spool" / "tmpabc").write_bytes(b"stray")
    os.utime(answers / "old", (0, 0))
    Spool(config.state_dir).sweep()
    assert tree(config.state_dir / "spool") == {"answers/new/x.json"}


async def test_no_piece_is_left_on_disk(house_of, tmp_path):
    """Pieces have no names: neither success nor failure leaves one behind."""
    provider = Listening(None, TemporaryFailure("http_500", status=500))
    content = write_wav(tmp_path / "x.wav", noise(20))
    async with house_of(provider, prepare="when_needed", max_duration_seconds=10.0) as house:
        await house.drop("call.wav", content)
        await house.rest()
        spool = house.config.state_dir / "spool"
        assert {path.relative_to(spool).parts[0] for path in spool.rglob("*")} == {"answers"}


async def test_a_silent_recording_costs_nothing(house_of, tmp_path):
    """`silence: skip`: done with an empty text, and the provider never heard of it."""
    provider = Listening()
    async with house_of(provider, silence="skip", outputs=("json", "txt")) as house:
        await house.drop("quiet.wav", write_wav(tmp_path / "x.wav", noise(20, level=20)))
        await house.rest()
        document = read_json(house.rule().done / "quiet.json")
        assert (house.rule().done / "quiet.txt").read_text() == "\n"
    assert provider.heard == []
    assert document["warnings"] == ["no_speech", "empty_transcript"]
    assert document["duration"] == pytest.approx(20, abs=0.01)


@pytest.mark.parametrize("keys", [{"silence": "send"}, {"silence": "skip", "silence_threshold_dbfs": -80.0}])
async def test_what_is_loud_enough_is_sent(house_of, tmp_path, keys):
    """Without `skip`, or above the threshold, a quiet recording goes to its provider."""
    provider = Listening()
    async with house_of(provider, **keys) as house:
        await house.drop("quiet.wav", write_wav(tmp_path / "x.wav", noise(5, level=20)))
        await house.rest()
    assert [name for name, _, _ in provider.heard] == ["quiet.wav"]


async def test_a_short_sound_in_a_long_silence_is_sent(house_of, tmp_path):
    """A fifth of a second of voice in one channel is enough."""
    provider = Listening()
    voice = silence(30) + noise(0.2) + silence(9.8)
    async with house_of(provider, silence="skip") as house:
        await house.drop("quiet.wav", write_wav(tmp_path / "x.wav", silence(40), voice))
        await house.rest()
    assert len(provider.heard) == 1


async def test_a_truncated_recording_is_never_called_silent(house_of, tmp_path):
    """What cannot be decoded to its end goes to the provider: the voice may be in the rest."""
    provider = Listening()
    async with house_of(provider, silence="skip") as house:
        await house.drop("odd.flac", b"fLaC" + bytes(4000))
        await house.rest()
    assert [name for name, _, _ in provider.heard] == ["odd.flac"]


FIRST_SPEAKER = Transcript(
    "Hello. Yes, please.",
    segments=(Segment("Hello. Yes, please.", 0.0, 9.0),),
    words=(Word("Hello.", 0.0, 1.0), Word("Yes,", 8.0, 8.4), Word("please.", 8.5, 9.0)),
)
SECOND_SPEAKER = Transcript(
    "Good morning, may I help?",
    segments=(Segment("Good morning, may I help?", 3.0, 6.0),),
    words=tuple(
        Word(text, 3.0 + n * 0.5, 3.4 + n * 0.5)
        for n, text in enumerate(["Good", "morning,", "may", "I", "help?"])
    ),
)


async def test_a_stereo_call_becomes_two_speakers(house_of, tmp_path):
    """Each channel is transcribed apart; turns are merged by time, in every output, with the rule's names."""
    provider = ScriptedProvider([FIRST_SPEAKER, SECOND_SPEAKER])
    first = noise(2) + silence(5) + noise(3)
    second = silence(3) + noise(4, seed=2) + silence(3)
    outputs, names = ("json", "txt", "srt", "vtt", "md"), {"channel_1": "Agent"}
    async with house_of(provider, channels="split", outputs=outputs, speaker_names=names) as house:
        await house.drop("call.wav", write_wav(tmp_path / "x.wav", first, second))
        await house.rest()
        done = house.rule().done
        document = read_json(done / "call.json")
        text, srt, vtt, md = ((done / f"call.{kind}").read_text() for kind in ("txt", "srt", "vtt", "md"))
    assert len(provider.calls) == 2
    assert document["duration"] == 10.0
    assert document["speakers"] == ["channel_0", "Agent"]
    assert text == ("channel_0: Hello.\nAgent: Good morning, may I help?\nchannel_0: Yes, please.\n")
    assert "\nAgent: Good morning, may I help?\n" in srt
    assert "<v Agent>Good morning, may I help?" in vtt
    assert "Agent:** Good morning, may I help?" in md
    assert [word["start"] for word in document["words"]] == sorted(
        word["start"] for word in document["words"]
    )


@pytest.mark.parametrize("second", [None, "same"])
async def test_one_voice_is_not_paid_for_twice(house_of, tmp_path, second):
    """A mono file, and a stereo one with the same in both channels, are sent once, as they are."""
    provider = Listening()
    channels = [noise(3)] * (1 if second is None else 2)
    content = write_wav(tmp_path / "x.wav", *channels)
    async with house_of(provider, channels="split") as house:
        await house.drop("call.wav", content)
        await house.rest()
    assert [(name, size) for name, size, _ in provider.heard] == [("call.wav", len(content))]


async def test_a_full_disk_leaves_the_file_waiting(house_of, tmp_path, monkeypatch):
    """No room in the spool is the disk's trouble: nothing is sent, the file waits and goes on by itself."""
    provider = Listening()
    content = write_wav(tmp_path / "x.wav", noise(20))
    monkeypatch.setattr("dropscribe.media.spool.SPARE_BYTES", 2**62)
    monkeypatch.setattr("dropscribe.pipeline.attempts.LOOK_AGAIN_SECONDS", 0.05)
    async with house_of(provider, prepare="always") as house:
        await house.drop("call.wav", content)
        await house.until(lambda: house.lookout.looked)
        assert provider.heard == []
        monkeypatch.setattr("dropscribe.media.spool.SPARE_BYTES", 0)
        await house.until((house.rule().done / "call.wav").exists)
    assert len(provider.heard) == 1


def test_a_piece_that_is_longer_than_it_may_be_leaves_room_for_the_queue(tmp_path, monkeypatch):
    """The disk was checked for less: what a worker sends must not fill it."""
    with Spool(tmp_path).new_piece(10) as piece:
        piece.write(b"x" * 10)
        monkeypatch.setattr("dropscribe.media.spool.SPARE_BYTES", 2**62)
        with pytest.raises(OSError, match="no room"):
            piece.write(b"x")


@needs_speech
@pytest.mark.parametrize(
    ("suffix", "written", "told"),
    [
        (".m4a", "2026-03-04T05:06:07.000000Z", "2026-03-04T05:06:07Z"),
        (".mka", "1953-06-02T11:00:00.000000Z", "1953-06-02T11:00:00Z"),  # a tape that was digitised
        (".m4a", "1970-01-01T00:00:09.000000Z", None),  # a clock that was never set
    ],
)
async def test_when_a_recording_was_made_is_told(house_of, tmp_path, suffix, written, told):
    """The creation time in the container becomes `attributes.recorded_at`."""
    import av

    path = tmp_path / f"x{suffix}"
    with av.open(str(path), "w") as container:
        container.metadata["creation_time"] = written
        stream = container.add_stream("aac", rate=16_000, layout="mono")
        with av.open(io.BytesIO(clip("formats/clip.wav"))) as source:
            for frame in source.decode(audio=0):
                frame.pts = None
                container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    async with house_of(Listening(), silence="skip") as house:
        await house.drop(f"memo{suffix}", path.read_bytes())
        await house.rest()
        document = read_json(house.rule().done / "memo.json")
    assert document["attributes"].get("recorded_at") == told


@pytest.mark.parametrize(("refused", "expected"), [(False, 20.0), (True, 10.0)])
async def test_what_was_sent_is_what_is_charged(tmp_path, refused, expected):
    """Two channels of ten seconds are twenty; a refused one is none."""
    write_wav(tmp_path / "call.wav", noise(10), noise(10, seed=2))
    errors = [AudioRejected("bad_audio")] if refused else []
    provider = prepared(make_config(tmp_path / "house", channels="split"), Listening(*errors))
    with AudioFile.open(os.fsencode(tmp_path), b"call.wav") as audio:
        transcript = await provider.transcribe(audio, {})
    assert transcript.sent_seconds == pytest.approx(expected, abs=0.01)
    assert transcript.duration == pytest.approx(10.0, abs=0.01)


@pytest.mark.parametrize("text", ["#EXTM3U\n#EXTINF:7,\n{}\n", "ffconcat version 1.0\nfile {}\n"])
async def test_a_playlist_opens_no_other_file(house_of, tmp_path, text):
    """A list of files is no recording: nothing that it names is read, made anew or sent."""
    provider = Listening()
    write_wav(tmp_path / "secret.wav", noise(3))
    content = text.format(tmp_path / "secret.wav").encode()
    async with house_of(provider, prepare="always", silence="skip") as house:
        await house.drop("list.wav", content)
        await house.rest()
    assert [(name, size) for name, size, _ in provider.heard] == [("list.wav", len(content))]


async def test_a_rule_that_asks_for_nothing_gets_the_plain_provider(tmp_path):
    """Nothing is put around it."""
    async with House(make_config(tmp_path)) as house:
        transcribers = house.handler.runtime.transcribers
    assert transcribers == {("calls", "main"): house.providers["main"]}


def test_answers_are_json(tmp_path):
    """What is kept of a piece is read back as it was."""
    spool = Spool(tmp_path)
    answer = Transcript(
        "a", "en", 1.0, (Segment("a", 0.0, 1.0, "s", 0.5),), (Word("a"),), {"x": 1}, ("w",), raw=[1]
    )
    spool.write_answer("f" * 64, "k", answer)
    assert spool.read_answer("f" * 64, "k") == answer
    assert spool.read_answer("f" * 64, "other") is None
    (kept,) = (tmp_path / "spool").rglob("*.json")
    kept.write_text(json.dumps({"text": 1})[:-1])
    assert spool.read_answer("f" * 64, "k") is None
    assert spool.forget("f" * 64) == 1
    assert tree(tmp_path / "spool") == set()
    assert spool.forget("f" * 64) == 0


PEAK = """
import asyncio, resource, sys
from pathlib import Path
sys.path[:0] = [{source!r}, {tests!r}]
from dropscribe.config.model import ProviderConfig
from dropscribe.files.audio import AudioFile
from support.house import make_config, prepared
from support.scripted import ScriptedProvider

settings = ProviderConfig(name="main", type="openai", max_duration_seconds=600.0)
config = make_config(Path({root!r}), providers={{"main": settings}}, prepare="when_needed")
plain = ScriptedProvider()

async def transcribe():
    with AudioFile.open({root!r}.encode(), {name!r}.encode()) as audio:
        return await prepared(config, plain).transcribe(audio, {{}})

asyncio.run(transcribe())
import dropscribe.native.decoder as decoder
decoder._POOL.close()
peaks = [resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
print(len(plain.calls), max(peaks))
"""


def peak_of(tmp_path, name):
    """(pieces, peak RSS in KiB) of a process that sends *name*, or of its worker."""
    program = PEAK.format(
        source=str(Path(dropscribe.__file__).parents[1]),
        tests=str(Path(__file__).parents[1]),
        root=str(tmp_path),
        name=name,
    )
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return tuple(map(int, told.stdout.split()[-2:]))


@pytest.mark.slow
def test_memory_does_not_grow_with_the_recording(tmp_path):
    """Two hours in pieces of ten minutes take little more than ten minutes do."""
    ten_minutes = noise(598) + silence(2)
    write_wav(tmp_path / "short.wav", ten_minutes + noise(60))
    write_wav(tmp_path / "long.wav", ten_minutes * 12)
    short_pieces, short_kib = peak_of(tmp_path, "short.wav")
    long_pieces, long_kib = peak_of(tmp_path, "long.wav")
    assert short_pieces == 2
    assert long_pieces >= 12
    assert long_kib - short_kib < 40 * 1024
