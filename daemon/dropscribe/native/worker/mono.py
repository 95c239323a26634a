"""Mixes a track to mono and resamples it to 16 kHz."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import av
import numpy as np

from dropscribe.native.recording import SAMPLE_RATE_HZ

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dropscribe.native.worker.samples import Samples, Stretch, Track

_CANCELS = 0.05
"""A mix this far (13 dB) below the power of independent channels: two channels cancel each other."""


@dataclass(frozen=True, slots=True)
class MonoBlock:
    """Some sound, mono at 16 kHz, and its start on the file's clock."""

    at_seconds: float
    samples: Samples


def mono(track: Track, channel: int | None) -> Iterator[MonoBlock]:
    """One channel of *track*, or with None the mix of all.

    Raises:
        AudioRejected: As :meth:`Track.stretches`.
    """
    resampler: _Resampler | None = None
    for stretch in track.stretches():
        if resampler is None or not stretch.follows:
            yield from resampler.end() if resampler else ()
            resampler = _Resampler(stretch.at_seconds, stretch.rate_hz)
        yield from resampler.feed(_mixed(stretch, channel))
    yield from resampler.end() if resampler else ()


def _mixed(stretch: Stretch, channel: int | None) -> Samples:
    samples = stretch.samples
    chosen: Samples
    if len(samples) == 1 or channel is not None:
        chosen = samples[min(channel or 0, len(samples) - 1)]
        return chosen
    chosen = stretch.weights @ samples
    powers = samples.var(axis=1)
    if float(chosen.var()) < _CANCELS * float(powers.sum()) / len(samples) ** 2:
        chosen = samples[int(powers.argmax())]
    return chosen


class _Resampler:
    """One unbroken run of sound from its own rate to 16 kHz."""

    def __init__(self, at_seconds: float, rate_hz: int) -> None:
        self._at_seconds = at_seconds
        self._rate_hz = rate_hz
        self._count = 0
        self._filter: Any = None
        if rate_hz != SAMPLE_RATE_HZ:
            self._filter = av.AudioResampler("flt", "mono", SAMPLE_RATE_HZ)

    def feed(self, samples: Samples) -> Iterator[MonoBlock]:
        """Yield the resampled blocks that *samples* complete."""
        if self._filter is None:
            yield self._block(samples)
            return
        array = np.ascontiguousarray(samples, np.float32).reshape(1, -1)
        frame = av.AudioFrame.from_ndarray(array, format="flt", layout="mono")
        frame.sample_rate = self._rate_hz
        yield from self._filtered(frame)

    def end(self) -> Iterator[MonoBlock]:
        """Yield the blocks that the filter still holds."""
        if self._filter is not None and self._count:
            yield from self._filtered(None)

    def _filtered(self, frame: Any) -> Iterator[MonoBlock]:
        for out in self._filter.resample(frame):
            yield self._block(out.to_ndarray().reshape(-1))

    def _block(self, samples: Samples) -> MonoBlock:
        at_seconds = self._at_seconds + self._count / SAMPLE_RATE_HZ
        self._count += len(samples)
        return MonoBlock(at_seconds, samples)
