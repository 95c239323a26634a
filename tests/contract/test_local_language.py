"""How the embedded engine settles on a language. A scripted model stands for the multilingual one."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from dropscribe.core.errors import RuleRejected
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
        with path.open("rb") as file:
            body = {"name": "base", **parse_params(params)}
            recognition = Recognition(model, body, lambda _: None, heard.append)
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


class RefusingModel(ScriptedModel):
    """Refuses to begin, as faster-whisper and CTranslate2 do with values out of their ranges."""

    def transcribe(self, *_args, **_options):
        raise ValueError("The number of hypotheses cannot be greater\nthan beam_size * patience")


def test_a_value_that_the_engine_refuses_is_the_rules_fault(recognise):
    """Not a bug: the reason has the engine's words and the names of the parameters that the rule sets."""
    with pytest.raises(RuleRejected) as refused:
        recognise(RefusingModel(), 1, patience=0.02, language="en")
    assert refused.value.code == "bad_parameter"
    assert "patience: The number of hypotheses" in refused.value.reason


def test_an_error_of_the_engine_without_parameters_is_a_bug(recognise):
    """Our own options are never refused."""
    with pytest.raises(ValueError, match="hypotheses"):
        recognise(RefusingModel(), 1, language="en")
