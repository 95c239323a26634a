"""One look through a whole recording: its real length, how loud it is when, whether its channels differ.

Guarantees: bounded memory: 40 bytes for a second of audio.
"""

from __future__ import annotations

import math
from array import array
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from dropscribe.media.decoding import SAMPLE_RATE_HZ, Decoder

if TYPE_CHECKING:
    import threading

    from dropscribe.media.decoding import Samples

WINDOW_SECONDS = 0.1
_WINDOW_SAMPLES = round(WINDOW_SECONDS * SAMPLE_RATE_HZ)
_FULL_SCALE = 32768.0
_SAME_WITHIN = 32
"""Samples of two channels that a lossy codec has made of one differ by so little (-60 dBFS)."""

SILENCE_DBFS = -200.0
"""Stands for digital silence, whose logarithm is not finite."""


@dataclass(slots=True)
class Survey:
    """What a look through a recording showed.

    Attributes:
        samples: At 16 kHz, in each channel.
        loudness: Mean square of each window of 0.1 s, in its loudest channel; 1.0 is full scale. An offset,
            which some recorders add, is no sound.
        is_whole: False where the look ended early, at a sound or at an error.
        channels_differ: A second channel holds something else than the first.
        warning: As :attr:`Decoder.warning`.
    """

    samples: int = 0
    loudness: array[float] = field(default_factory=lambda: array("f"))
    is_whole: bool = True
    channels_differ: bool = False
    warning: str = ""

    @property
    def seconds(self) -> float:
        """The recording's length as it decodes."""
        return self.samples / SAMPLE_RATE_HZ

    @property
    def loudest_dbfs(self) -> float:
        """The loudest window."""
        return dbfs(max(self.loudness, default=0.0))


def dbfs(mean_square: float) -> float:
    """A mean square in decibels; 0 is the loudest there is."""
    return 10 * math.log10(mean_square) if mean_square > 10 ** (SILENCE_DBFS / 10) else SILENCE_DBFS


def survey(reader: Any, stop: threading.Event, *, until_dbfs: float | None = None) -> Survey:
    """Look through *reader*'s recording, up to the first window above *until_dbfs* where it is given.

    Raises:
        AudioRejected, Stopped: As :meth:`Decoder.blocks`.
    """
    found = Survey()
    decoder = Decoder(reader, stop)
    waiting: Samples | None = None
    for block in decoder.blocks():
        found.samples += block.shape[1]
        found.channels_differ = found.channels_differ or _differ(block)
        joined = block if waiting is None else _joined(waiting, block)
        waiting = _measure(found, joined)
        if until_dbfs is not None and found.loudest_dbfs > until_dbfs:
            found.is_whole = False
            return found
    if waiting is not None and waiting.shape[1]:
        found.loudness.append(_loudness(waiting[:, None, :])[0])
    found.warning = decoder.warning
    found.is_whole = not decoder.warning
    return found


def _joined(waiting: Samples, block: Samples) -> Samples:
    channels = min(len(waiting), len(block))  # a recorder that changes midway: what both have
    return np.concatenate([waiting[:channels], block[:channels]], axis=1)


def _measure(found: Survey, samples: Samples) -> Samples:
    """Add the whole windows of *samples* to *found*; returns the rest."""
    count = samples.shape[1] // _WINDOW_SAMPLES
    if count:
        windows = samples[:, : count * _WINDOW_SAMPLES].reshape(len(samples), count, _WINDOW_SAMPLES)
        found.loudness.extend(_loudness(windows))
    return samples[:, count * _WINDOW_SAMPLES :]


def _loudness(windows: Samples) -> list[float]:
    variance = (windows / _FULL_SCALE).var(axis=2).max(axis=0)
    return [float(value) for value in variance]


def _differ(block: Samples) -> bool:
    if len(block) < 2:
        return False
    return bool(np.abs(block[0].astype(np.int32) - block[1]).max(initial=0) > _SAME_WITHIN)
