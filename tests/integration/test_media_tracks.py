"""Several audio tracks, and a clock with gaps, on the way to a provider that takes neither as they are."""

from __future__ import annotations

import os
import shutil

import pytest

from dropscribe.config.model import ProviderConfig
from dropscribe.files.audio import AudioFile
from dropscribe.transcripts.model import Segment, Transcript, Word
from recordings.gallery import two_tracks, with_a_gap
from support.house import make_config, prepared
from support.recordings import needs_media, noise
from support.scripted import ScriptedProvider

pytestmark = [
    needs_media,
    pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="ffmpeg is not installed"),
]

SPEECH = noise(22)
"""As samples at 16 kHz: eleven seconds."""

DEFAULT_FIRST = ("-disposition:a:0", "default", "-disposition:a:1", "0")
DEFAULT_SECOND = ("-disposition:a:0", "0", "-disposition:a:1", "default")
OTHER_SOUND = "anoisesrc=a=0.1:d=11:c=pink"


def said(text, start=1.0):
    """A provider's answer of one word."""
    return Transcript(
        text, "en", 11.0, (Segment(text, start, start + 0.5),), (Word(text, start, start + 0.5),)
    )


async def transcribed(tmp_path, name, provider, limits=None, **rule):
    """The transcript of *name* under a rule."""
    settings = ProviderConfig(name="main", type="openai", **(limits or {}))
    config = make_config(tmp_path / "house", providers={"main": settings}, **rule)
    with AudioFile.open(os.fsencode(tmp_path), os.fsencode(name)) as audio:
        return await prepared(config, provider).transcribe(audio, {})


async def test_the_default_track_is_sent_and_the_other_one_told_of(tmp_path):
    """A provider transcribes whichever track it likes, so it gets the one that players play."""
    two_tracks(*DEFAULT_SECOND, first=OTHER_SOUND)(SPEECH, tmp_path / "film.mkv")
    provider = ScriptedProvider([said("hello")])
    transcript = await transcribed(tmp_path, "film.mkv", provider, prepare="when_needed")
    assert (transcript.text, transcript.warnings) == ("hello", ("other_tracks",))
    assert len(provider.calls) == 1


async def test_all_tracks_are_transcribed_apart_where_the_rule_asks_for_it(tmp_path):
    """Each with its own label, in the order of time."""
    two_tracks(*DEFAULT_SECOND, first=OTHER_SOUND)(SPEECH, tmp_path / "film.mkv")
    provider = ScriptedProvider([said("second", 3.0), said("first", 2.0)])
    transcript = await transcribed(tmp_path, "film.mkv", provider, tracks="all")
    assert transcript.text == "first\nsecond"
    assert [segment.speaker for segment in transcript.segments] == ["track_0", "track_1"]
    assert transcript.warnings == ()


async def test_each_track_is_cut_by_its_own_length(tmp_path):
    """The default track, whose length the header tells, is short; the other one is too long for a request."""
    long = OTHER_SOUND.replace("d=11", "d=30")
    two_tracks(*DEFAULT_SECOND, first=long)(SPEECH, tmp_path / "film.mkv")
    provider = ScriptedProvider([said("a"), said("b"), said("c"), said("d")])
    limits = {"max_duration_seconds": 15.0}
    await transcribed(tmp_path, "film.mkv", provider, limits, tracks="all", prepare="when_needed")
    assert len(provider.calls) == 1 + 3


@pytest.mark.parametrize("silence", ["skip", "send"])
async def test_a_silent_track_hides_no_voice(tmp_path, silence):
    """Silence in the default track is no reason to send it, or to send nothing."""
    two_tracks(*DEFAULT_FIRST)(SPEECH, tmp_path / "film.mkv")
    provider = ScriptedProvider([said("hello")])
    rule = {"prepare": "when_needed", "silence": silence}
    transcript = await transcribed(tmp_path, "film.mkv", provider, **rule)
    assert (transcript.text, transcript.warnings) == ("hello", ())


async def test_times_are_the_recordings_own_after_a_pause(tmp_path):
    """A recorder was paused for 20 s: the pause is not sent, and times after it are on the file's clock."""
    with_a_gap(SPEECH, tmp_path / "paused.webm")
    provider = ScriptedProvider([said("hello", 7.0)])
    limits = {"max_upload_bytes": (tmp_path / "paused.webm").stat().st_size - 1}
    transcript = await transcribed(tmp_path, "paused.webm", provider, limits, prepare="when_needed")
    assert transcript.duration == pytest.approx(31, abs=0.1)
    assert transcript.sent_seconds == pytest.approx(11, abs=0.1)
    assert transcript.words[0].start == pytest.approx(27.0, abs=0.1)
    pieces = ScriptedProvider([said("one", 1.0), said("two", 2.0)])
    other = await transcribed(
        tmp_path, "paused.webm", pieces, {"max_duration_seconds": 8.0}, prepare="when_needed"
    )
    assert other.duration == pytest.approx(31.0, abs=0.1)
    assert other.words[0].start == pytest.approx(1.0, abs=0.1)
    assert other.words[1].start > 25.0


async def test_an_empty_answer_says_how_loud_the_recording_is(tmp_path):
    """Signal and no words is suspicious, and the transcript holds what is needed to see it."""
    two_tracks(*DEFAULT_FIRST, first=OTHER_SOUND)(SPEECH, tmp_path / "film.mkv")
    provider = ScriptedProvider([Transcript("")])
    transcript = await transcribed(tmp_path, "film.mkv", provider, silence="skip")
    assert -60 < transcript.attributes["loudest_dbfs"] < 0
