"""How the embedded engine settles on a language. A scripted model stands for the multilingual one."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from dropscribe.transcripts.model import parse_transcript
from support.speech import needs_engine, silence, write_wav

pytestmark = needs_engine


class ScriptedModel:
    """Says for each block in turn which language it hears, how surely, and over how much speech."""

    model = SimpleNamespace(is_multilingual=True)
    supported_languages = ("de", "en", "fr")

    def __init__(self, *blocks):
        self._blocks = list(blocks)
        self.told = []

    def transcribe(self, _block, *, language, **_options):
        self.told.append(language)
        heard, probability, speech_seconds = self._blocks.pop(0)
        numbers = {"avg_logprob": -0.2, "compression_ratio": 1.0, "no_speech_prob": 0.01, "temperature": 0.0}
        segment = SimpleNamespace(start=0.0, end=1.0, text=" words", words=None, **numbers)
        info = SimpleNamespace(
            language=language or heard, language_probability=probability, duration_after_vad=speech_seconds
        )
        return iter([segment] if speech_seconds else []), info


@pytest.fixture
def recognise(tmp_path):
    """Runs a silent recording of as many blocks as the model has lines."""
    from dropscribe.native.worker.recognition import Recognition
    from dropscribe.providers.local import parse_params

    heard: list[float] = []

    def run(model, blocks, **params):
        path = write_wav(tmp_path / "quiet.wav", silence(100 * blocks))
        request = parse_params(params)
        with path.open("rb") as file:
            recognition = Recognition(
                model, "base", request.language, request.options, lambda _: None, heard.append
            )
            return parse_transcript(recognition.run(file.fileno(), None))

    run.heard = heard
    return run


def test_the_engine_tells_how_far_it_has_heard(recognise):
    """In seconds of the recording, each time that it has recognised some more."""
    recognise(ScriptedModel(("en", 0.9, 60.0), ("en", 0.9, 60.0)), 2)
    assert len(recognise.heard) == 2
    assert 0 < recognise.heard[0] < recognise.heard[1]


def test_silence_settles_nothing(recognise):
    """Of a silent block the model says English; the German behind it is heard as German."""
    model = ScriptedModel(("en", 0.9, 0.0), ("de", 0.95, 60.0), ("fr", 0.6, 40.0))
    transcript = recognise(model, 3)
    assert model.told == [None, None, "de"]
    assert transcript.language == "de"


def test_a_doubtful_block_settles_nothing(recognise):
    """Half a second of speech, or a guess below one half, leaves the next block free."""
    model = ScriptedModel(("en", 0.9, 0.5), ("fr", 0.3, 50.0), ("de", 0.97, 50.0))
    transcript = recognise(model, 3)
    assert model.told == [None, None, None]
    assert transcript.language == "de"
    assert transcript.raw["language_probability"] == 0.97


def test_a_given_language_is_kept(recognise):
    """What the rule says is not guessed at."""
    model = ScriptedModel(("en", 1.0, 60.0), ("en", 1.0, 60.0))
    assert recognise(model, 2, language="fr").language == "fr"
    assert model.told == ["fr", "fr"]


def test_several_languages_are_not_reduced_to_one(recognise):
    """With multilingual: true every block is heard afresh."""
    model = ScriptedModel(("de", 0.9, 60.0), ("fr", 0.8, 60.0))
    recognise(model, 2, multilingual=True)
    assert model.told == [None, None]


def test_a_recording_without_words_has_no_language(recognise):
    """Nothing said, nothing claimed."""
    assert recognise(ScriptedModel(("en", 0.9, 0.0)), 1).language is None
