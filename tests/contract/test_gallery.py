"""The embedded engine on recordings as people have them: what is heard, when, and with which warnings."""

from __future__ import annotations

import asyncio
import os
import shutil

import pytest

from dropscribe.config.model import ProviderConfig
from dropscribe.files.audio import AudioFile
from dropscribe.native.decoder import Decoder
from dropscribe.native.recording import raw_form
from dropscribe.providers.local import LocalProvider
from recordings.gallery import GALLERY, read_speech
from support.speech import SPEECH, likeness, needs_engine, needs_speech, references, words_of

needs_writers = pytest.mark.skipif(
    shutil.which("ffmpeg") is None or shutil.which("sox") is None, reason="ffmpeg or sox is not installed"
)
pytestmark = [*needs_engine, needs_speech, needs_writers]

KINDS = pytest.mark.parametrize("kind", GALLERY, ids=lambda kind: kind.name)
JFK = SPEECH / "clips" / "jfk.wav"
COUNTRY_SECONDS = (6.4, 10.0)
"""When "country" begins in the speech."""


@pytest.fixture(scope="module")
def engine():
    """The embedded engine with the English model."""
    made = LocalProvider(ProviderConfig(name="here", type="local", model="tiny.en"))
    yield made
    asyncio.run(made.close())


@pytest.mark.slow
@KINDS
async def test_the_words_are_heard_at_their_time(engine, tmp_path, kind):
    """Whatever the layout, level, track, clock or header: words, their times and the length are right."""
    kind.make(read_speech(JFK), tmp_path / kind.name)
    with AudioFile.open(os.fsencode(tmp_path), os.fsencode(kind.name)) as audio:
        transcript = await engine.transcribe(audio, {"beam_size": 1, "language": "en"})
    assert transcript.warnings == kind.warnings
    assert transcript.duration == pytest.approx(kind.seconds, abs=0.15)
    if not kind.is_heard:
        assert transcript.text == ""
        assert -30 < transcript.attributes["loudest_dbfs"] < -10
        return
    assert likeness(references()["jfk.wav"], transcript.text) > 0.85
    starts = [word.start for word in transcript.words if words_of(word.word) == ["country"]]
    expected = [seconds + kind.shift_seconds for seconds in COUNTRY_SECONDS]
    assert starts == pytest.approx(expected, abs=0.6)


@KINDS
def test_the_sound_is_found_before_it_is_sent(tmp_path, kind):
    """`silence`, `prepare` and `channels` decode as the engine does: no voice is taken for silence."""
    path = tmp_path / kind.name
    kind.make(read_speech(JFK), path)
    with path.open("rb") as file:
        decoder = Decoder(file.fileno(), raw_form(path.suffix, file.read(64)))
        recording = decoder.describe()
        survey = decoder.survey(recording.tracks[0])
    assert survey.is_whole
    assert survey.sound_seconds == pytest.approx(11.0, abs=5.2 if kind.shift_seconds else 0.15)
    assert survey.end_seconds == pytest.approx(kind.seconds, abs=0.15)
    assert survey.loudest_dbfs > (-80 if "down" in kind.name else -40)
    assert (len(recording.tracks) > 1) == ("other_tracks" in kind.warnings)
