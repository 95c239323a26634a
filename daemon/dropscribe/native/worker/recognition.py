"""Loads the speech engine, proves that it works on this machine, and recognises recordings with it.

Guarantees: memory does not grow with the recording, except for its words; all results are plain Python
values, without numpy numbers.
"""

from __future__ import annotations

import importlib
import math
import mmap
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any

import numpy as np

from dropscribe.core.errors import ProviderUnusable, RuleRejected, TemporaryFailure
from dropscribe.native.recording import (
    NOT_DETECTED,
    OTHER_TRACKS,
    SAMPLE_RATE_HZ,
    SILENCE_DBFS,
    WINDOW_SECONDS,
    RawForm,
    dbfs,
)
from dropscribe.native.speech_model import NO_TELEMETRY
from dropscribe.native.worker.samples import MonoBlock, Samples, Track, loudness, mono, sounding_tracks

FORBIDDEN = (
    "the system forbids machine code written at run time, which the engine needs (MemoryDenyWriteExecute): "
    "install the drop-in dropscribe.service.d/local-engine.conf, then restart the service"
)

# A block settles the language only if its probability is at least one half, over enough speech, and the block
# has words: for silence and noise the model returns "en".
_SETTLING_SPEECH_SECONDS = 1.0
_SETTLING_PROBABILITY = 0.5
_SILENCE_PROBABILITY = 0.6

# Whisper's features for a whole file take 1 GB for each 15 minutes; two minutes are cheap.
BLOCK_SECONDS = 120
_BLOCK_SAMPLES = BLOCK_SECONDS * SAMPLE_RATE_HZ
_CUT_WITHIN_SAMPLES = 30 * SAMPLE_RATE_HZ
_QUIET_SAMPLES = SAMPLE_RATE_HZ // 5
_NEW_RUN_SECONDS = 0.05

_QUIET_DBFS, _NOISE_DBFS, _AMPLIFIED_DBFS = -45.0, -95.0, -25.0
"""If the loudest window of a recording is below the first level, it is amplified to the third, because the
voice detector would miss its speech. A level below the second is only quantization noise."""


def load_model(folder: str, device: str, compute_type: str, cpu_threads: int) -> Any:
    """The model in *folder*, which has just recognised a second of noise, and so works here.

    A processor that lacks an instruction, a system that forbids machine code written at run time, or a
    graphics card without memory is detected here, before a recording can fail because of it.

    Args:
        device: "cpu", "cuda", or "auto": the graphics card if there is one.
        compute_type: CTranslate2's name; "auto" is "int8" on the processor, the fastest on a card.
        cpu_threads: 0 lets the engine choose.

    Raises:
        ProviderUnusable: Codes "engine_missing", "engine_forbidden" and "model_unloadable".
    """
    for name in NO_TELEMETRY:
        os.environ.setdefault(name, "1")
    try:
        return _proven(importlib.import_module("faster_whisper"), folder, device, compute_type, cpu_threads)
    except MemoryError:
        raise
    except ImportError as error:
        raise ProviderUnusable("engine_missing", str(error)[:500]) from error
    except Exception as error:  # the engine and its loader raise anything, RuntimeError included
        if not _may_write_code():
            raise ProviderUnusable("engine_forbidden", FORBIDDEN) from error
        raise ProviderUnusable("model_unloadable", f"{os.path.basename(folder)}: {error}"[:500]) from error


def _proven(whisper: Any, folder: str, device: str, compute_type: str, cpu_threads: int) -> Any:
    if device == "auto":
        device = "cuda" if importlib.import_module("ctranslate2").get_cuda_device_count() else "cpu"
    if compute_type == "auto" and device == "cpu":
        compute_type = "int8"
    model = whisper.WhisperModel(
        folder, device=device, compute_type=compute_type, cpu_threads=cpu_threads, local_files_only=True
    )
    noise = np.random.default_rng(1).normal(0.0, 0.01, SAMPLE_RATE_HZ).astype(np.float32)
    # Once for the voice detector, which finds nothing in noise, and once for the model.
    for vad_filter in (True, False):
        segments, _ = model.transcribe(
            noise, language="en", vad_filter=vad_filter, beam_size=1, max_new_tokens=1, temperature=0.0
        )
        list(segments)
    return model


def _may_write_code() -> bool:
    try:
        mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC).close()
    except OSError:
        return False
    return True


@dataclass(slots=True)
class Recognition:
    """One recording on its way through one model."""

    model: Any  # As :func:`load_model` returns it
    # "name" of the model; "language", None to detect it; "options", keyword arguments of
    # ``WhisperModel.transcribe``; "asked", the names of those that the user sets.
    request: Mapping[str, Any]
    progress: Callable[[str], None]  # Called with "decoding" or "recognising" as work goes on
    heard: Callable[[float], None]  # Called with the seconds of the recording that are recognised
    _settled: str | None = None  # Language to give to the model from the next block on; None lets it detect
    _best: tuple[float, str] | None = None  # Highest probability in any block with words, and its language
    _loudest_dbfs: float = SILENCE_DBFS
    _text: list[str] = field(default_factory=list)
    _segments: list[dict[str, Any]] = field(default_factory=list)
    _words: list[dict[str, Any]] = field(default_factory=list)
    _raw: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Raise RuleRejected ("language_not_supported") where the model does not know the language."""
        language = self.request["language"]
        if language is not None and language not in self.model.supported_languages:
            reason = f"the model {self.request['name']} does not know the language {language!r}"
            raise RuleRejected("language_not_supported", reason)
        self._settled = language if self._is_multilingual else "en"

    @property
    def _is_multilingual(self) -> bool:
        return bool(self.model.model.is_multilingual)

    def run(self, descriptor: int, form: RawForm | None) -> dict[str, Any]:
        """Recognise an open file's default track, or the first that is not silent.

        Returns a Transcript's fields as plain values. Raises AudioRejected, TemporaryFailure where the engine
        fails, and RuleRejected ("bad_parameter") where it refuses the value of an option.
        """
        tracks = sounding_tracks(descriptor, form)
        track = Track(descriptor, form, tracks[0], lambda: self.progress("decoding"))
        end_seconds = 0.0
        for block in blocks(mono(track, None)):
            self._recognise(block)
            end_seconds = block.at_seconds + len(block.samples) / SAMPLE_RATE_HZ
        is_assumed_english = self.request["language"] is None and not self._is_multilingual
        others = OTHER_TRACKS if len(tracks) > 1 else ""
        warnings = (NOT_DETECTED if is_assumed_english else "", track.warning, others)
        text = "".join(self._text).strip()  # segments bring their own spaces, where their script has any
        best = self._best
        language = self._settled or (best and best[1])
        level = {} if text else {"loudest_dbfs": round(self._loudest_dbfs, 1)}
        return {
            "text": text,
            "language": language,
            "duration": round(end_seconds, 3),
            "segments": self._segments,
            "words": self._words,
            "attributes": level,
            "warnings": [warning for warning in warnings if warning],
            "model": self.request["name"],
            # The engine's raw answer, without the words, which are in the transcript.
            "raw": {
                "engine": f"faster-whisper {version('faster-whisper')}",
                "model": self.request["name"],
                "language": language,
                "language_probability": best and round(best[0], 4),
                "segments": self._raw,
            },
        }

    def _recognise(self, block: MonoBlock) -> None:
        self.progress("recognising")
        heard = False
        try:
            segments, info = self.model.transcribe(
                self._amplified(block.samples), language=self._settled, **self.request["options"]
            )
            for segment in segments:  # recognition happens here, window by window
                self.progress("recognising")
                heard |= segment.no_speech_prob < _SILENCE_PROBABILITY
                self._keep(segment, block.at_seconds)
        except RuntimeError as error:
            raise TemporaryFailure("engine_failed", str(error)[:500]) from error
        except (OverflowError, TypeError, ValueError) as error:
            if not self.request["asked"]:
                raise  # our own options are never refused: this is a bug
            reason = f"the engine does not take {', '.join(self.request['asked'])}: {error}"
            raise RuleRejected("bad_parameter", reason.partition("\n")[0][:500]) from error
        if heard:
            self._learn_language(info)

    def _learn_language(self, info: Any) -> None:
        guess = (float(info.language_probability), str(info.language))
        self._best = max(self._best or guess, guess)
        sure = guess[0] >= _SETTLING_PROBABILITY and info.duration_after_vad >= _SETTLING_SPEECH_SECONDS
        # A recording in several languages is detected in each block anew.
        if sure and self._settled is None and not self.request["options"].get("multilingual"):
            self._settled = guess[1]

    def _amplified(self, samples: Samples) -> Any:
        """*samples*, amplified if the recording so far is too quiet for the voice detector."""
        window = min(round(WINDOW_SECONDS * SAMPLE_RATE_HZ), max(1, len(samples)))
        loudest = dbfs(max(loudness(samples.reshape(1, -1), window), default=0.0))
        self._loudest_dbfs = max(self._loudest_dbfs, loudest)
        if not _NOISE_DBFS < self._loudest_dbfs < _QUIET_DBFS:
            return samples
        factor = np.float32(10 ** ((_AMPLIFIED_DBFS - self._loudest_dbfs) / 20))
        return np.clip(samples * factor, -1.0, 1.0)

    def _keep(self, segment: Any, offset_seconds: float) -> None:
        span = _span(segment, offset_seconds)
        self.heard(span["end"])
        self._text.append(segment.text)
        confidence = round(min(1.0, math.exp(segment.avg_logprob)), 4)
        self._segments.append({"text": segment.text.strip(), **span, "confidence": confidence})
        for word in segment.words or ():
            confidence = round(float(word.probability), 4)
            said = {"word": word.word.strip(), **_span(word, offset_seconds), "confidence": confidence}
            self._words.append(said)
        numbers = ("avg_logprob", "compression_ratio", "no_speech_prob", "temperature")
        measured = {name: round(float(getattr(segment, name) or 0.0), 4) for name in numbers}
        self._raw.append({**span, "text": segment.text, **measured})


def blocks(sound: Iterable[MonoBlock]) -> Iterator[MonoBlock]:
    """Sound in blocks of at most about 120 s, cut at the quietest point and at jumps of the clock."""
    pieces: list[Samples] = []
    began, count = 0.0, 0
    for piece in sound:
        if pieces and abs(piece.at_seconds - began - count / SAMPLE_RATE_HZ) > _NEW_RUN_SECONDS:
            yield MonoBlock(began, np.concatenate(pieces))
            pieces, count = [], 0
        if not pieces:
            began = piece.at_seconds
        pieces.append(piece.samples)
        count += len(piece.samples)
        if count >= _BLOCK_SAMPLES:
            gathered = np.concatenate(pieces)
            cut = quietest_cut(gathered)
            yield MonoBlock(began, gathered[:cut])
            began += cut / SAMPLE_RATE_HZ
            pieces, count = [gathered[cut:]], count - cut
    if pieces:
        yield MonoBlock(began, np.concatenate(pieces))


def quietest_cut(samples: Samples) -> int:
    """The middle of the quietest 0.2 s in the last 30 s of *samples*."""
    tail = samples[-_CUT_WITHIN_SAMPLES:]
    count = len(tail) // _QUIET_SAMPLES
    powers = np.square(tail[: count * _QUIET_SAMPLES].reshape(count, _QUIET_SAMPLES)).mean(axis=1)
    start = len(samples) - len(tail) + int(powers.argmin()) * _QUIET_SAMPLES
    return start + _QUIET_SAMPLES // 2


def _span(timed: Any, offset_seconds: float) -> dict[str, float]:
    start = round(float(timed.start) + offset_seconds, 3)
    return {"start": start, "end": max(start, round(float(timed.end) + offset_seconds, 3))}
