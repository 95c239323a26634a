"""Decodes one audio track into stretches of samples on the file's own clock, measures it, mixes it to mono.

A stretch is about a second of sound: floats in ±1, one row a channel, at the track's own rate. Short gaps in
the track's clock are filled with silence; after a long one the next stretch begins later.

Guarantees: bounded memory at any length (a survey takes 40 bytes a second); every sample is a finite number;
PyAV 13 to 19 and newer (12 decodes no more than 8 channels).
"""

from __future__ import annotations

import gc
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import av
import numpy as np

from dropscribe.core.errors import AudioRejected
from dropscribe.native.recording import SAMPLE_RATE_HZ, WINDOW_SECONDS, RawForm, Survey, dbfs
from dropscribe.native.worker.container import check_shape, check_stream, default_track, opened

STRETCH_SECONDS = 1.0
GAP_SECONDS = 0.1  # Smaller differences between the clock and the number of samples are rounding and drift
# Longer gaps are not filled: hours of silence that were never recorded would be paid for.
FILLED_SECONDS = 5.0
_PROGRESS_STRETCHES = 60
MAX_FRAME_SAMPLES = 8 * 2**20

# Containers with time zero at the start of the presentation, even if the audio starts later.
_ABSOLUTE_CLOCKS = ("mov,", "matroska", "asf", "avi")
# A later start is a time of day or a counter, and not a pause before the recording.
_MAX_START_SECONDS = 7 * 86400.0
# A mix this far (13 dB) below the power of independent channels: two channels cancel each other.
_CANCELS = 0.05

_SAME_WITHIN = 32 / 32768  # largest difference (-60 dBFS) of two channels that a lossy codec has made of one
SOUND_DBFS = -60.0  # a track without a louder window is silent, if another track has one

Samples = np.ndarray[Any, np.dtype[np.float32]]


@dataclass(frozen=True, slots=True)
class Stretch:
    """A piece of sound."""

    at_seconds: float  # When it begins, on the file's clock
    samples: Samples  # (channels, samples)
    rate_hz: int
    weights: Samples  # Of each channel in a mix to mono; they add up to 1
    follows: bool  # It continues the stretch before it without a break


@dataclass(slots=True)
class Track:
    """One pass over one audio track of an open file."""

    descriptor: int
    form: RawForm | None = None  # Of content without a header
    number: int = 0  # Of the track
    progress: Callable[[], None] = lambda: None  # Called every minute of sound
    # "" so far, "truncated_audio" when decoding ended in an error, "damaged_audio" when it went on after one.
    warning: str = ""
    _stretches: int = 0
    _gain: float = 1.0
    _error: str = ""

    def stretches(self) -> Iterator[Stretch]:
        """The track from its start to its end; raises AudioRejected: "undecodable", "no_audio_stream"."""
        with opened(self.descriptor, self.form) as container:
            stream = container.streams.audio[self.number]
            check_stream(stream)
            gatherer = _Gatherer(_zero_seconds(container))
            for frame in self._frames(container, stream):
                yield from map(self._sane, gatherer.add(frame))
            yield from map(self._sane, gatherer.rest())
        if not self._stretches:
            raise AudioRejected("undecodable", self._error or "there is no audio in it")

    def _frames(self, container: Any, stream: Any) -> Iterator[Any]:
        packets = container.demux(stream)
        while True:
            packet = None
            try:
                packet = next(packets)
                frames = packet.decode()
            except StopIteration:
                return
            except av.FFmpegError as error:
                self._error, self.warning = error.strerror or str(error), "truncated_audio"
                if packet is None:  # nothing after this can be read
                    return
                continue
            if frames and self._error:
                self.warning = "damaged_audio"
            yield from frames

    def _sane(self, stretch: Stretch) -> Stretch:
        """Remove NaN and infinities, and scale floats that are far above full scale."""
        self._stretches += 1
        if self._stretches % _PROGRESS_STRETCHES == 0:
            self.progress()
        samples = stretch.samples
        peak = float(np.abs(samples).max(initial=0.0))
        if not np.isfinite(peak):
            samples = np.nan_to_num(samples, nan=0.0, posinf=0.0, neginf=0.0)
            peak = float(np.abs(samples).max(initial=0.0))
        if peak > 1.0:
            # The loudest thousandth may be garbage and is clipped; if the rest is too loud, all is scaled.
            place = -1 - samples.size // 1000
            usual = float(np.partition(np.abs(samples).ravel(), place)[place])
            self._gain = min(self._gain, 1.0 / max(usual, 1.0))
        if peak > 1.0 or self._gain < 1.0:
            samples = np.clip(samples * np.float32(self._gain), -1.0, 1.0)
        return replace(stretch, samples=samples)


def _zero_seconds(container: Any) -> float:
    start = (container.start_time or 0) / av.time_base
    is_absolute = container.format.name.startswith(_ABSOLUTE_CLOCKS)
    return 0.0 if is_absolute and 0.0 <= start <= _MAX_START_SECONDS else start


@dataclass(slots=True)
class _Gatherer:
    """Joins frames to stretches of one shape each; short gaps are filled, long ones are kept."""

    zero_seconds: float  # Time stamp of the file's start
    _now: float = 0.0  # The end of the sound so far, on the file's clock
    _waiting: list[Samples] = field(default_factory=list)
    _began: float = 0.0
    _follows: bool = False
    _shape: tuple[int, str, str] = (0, "", "")  # Rate, layout and format of the waiting samples
    _weights: Any = None
    _converter: Any = None

    def add(self, frame: Any) -> Iterator[Stretch]:
        """Yield the stretches that *frame* completes; raises AudioRejected for an implausible shape."""
        rate_hz, channels = frame.sample_rate, len(frame.layout.channels)
        check_shape(rate_hz, channels)
        if frame.samples * channels > MAX_FRAME_SAMPLES:
            claim = f"one frame claims {frame.samples} samples in {channels} channels"
            raise AudioRejected("undecodable", claim)
        gap = self._gap_before(frame)
        is_break = gap > FILLED_SECONDS or gap * rate_hz * channels > MAX_FRAME_SAMPLES
        shape = (rate_hz, frame.layout.name, frame.format.name)
        if is_break or shape != self._shape:
            yield from self.rest()
            gc.collect()  # resamplers of earlier runs, see Server.serve
            self._follows, self._shape = False, shape
            self._weights = _weights([channel.name for channel in frame.layout.channels])
            # With eight planes or more PyAV looks for one that is not there, and crashes; FFmpeg does not.
            self._converter = av.AudioResampler("fltp" if channels < 8 else "flt", None, None)
        (converted,) = self._converter.resample(frame)
        samples: Samples = converted.to_ndarray()
        samples = samples if channels < 8 else samples.reshape(-1, channels).T
        if is_break:
            self._now += gap
        elif gap:
            samples = np.pad(samples, ((0, 0), (round(gap * rate_hz), 0)))
        self._began = self._began if self._waiting else self._now
        self._waiting.append(samples)
        self._now += samples.shape[1] / rate_hz
        if self._now - self._began >= STRETCH_SECONDS:
            yield from self.rest()

    def rest(self) -> Iterator[Stretch]:
        if self._waiting:
            joined = np.concatenate(self._waiting, axis=1)
            yield Stretch(self._began, joined, self._shape[0], self._weights, self._follows)
            self._waiting, self._follows = [], True

    def _gap_before(self, frame: Any) -> float:
        """Seconds between the end of the sound so far and *frame*; 0.0 if there is no gap."""
        base = frame.time_base  # a new fraction at each look
        if frame.pts is None or not base:
            return 0.0
        ahead = frame.pts * base.numerator / base.denominator - self.zero_seconds - self._now
        if ahead < -1.0 or ahead > _MAX_START_SECONDS:
            self.zero_seconds += ahead  # the clock was set back or is invalid: count on from here
            return 0.0
        return ahead if ahead > GAP_SECONDS else 0.0


def _weights(names: list[str]) -> Samples:
    """The down-mix that a declared layout stands for; the plain mean where none is declared."""
    loud = {"FC": 1.0, "FL": 0.7071, "FR": 0.7071, "LFE": 0.0, "LFE2": 0.0}
    is_declared = len(names) > 2 and not any(name in {"NONE", "", "UNK"} for name in names)
    weights = np.array([loud.get(name, 0.5) if is_declared else 1.0 for name in names], np.float32)
    total = float(weights.sum())
    return weights / total if total > 0 else np.full(len(names), 1.0 / len(names), np.float32)


def survey(track: Track, *, until_dbfs: float | None = None) -> Survey:
    """Look through *track*, up to the first window above *until_dbfs*; raises as :meth:`Track.stretches`."""
    levels = array("f")
    sound_seconds = end_seconds = 0.0
    channels_differ = False
    rest: Samples = np.empty((1, 0), np.float32)  # too short for a window
    for stretch in track.stretches():
        samples, before = stretch.samples, len(levels)
        seconds = samples.shape[1] / stretch.rate_hz
        sound_seconds += seconds
        end_seconds = stretch.at_seconds + seconds
        if len(samples) > 1 and not channels_differ:
            channels_differ = bool(np.abs(samples[0] - samples[1]).max(initial=0.0) > _SAME_WITHIN)
        if stretch.follows:
            samples = np.concatenate([rest, samples], axis=1)
        else:
            levels.extend(loudness(rest, rest.shape[1]))
        window = round(WINDOW_SECONDS * stretch.rate_hz)
        levels.extend(loudness(samples, window))
        rest = samples[:, samples.shape[1] // window * window :]
        if until_dbfs is not None and dbfs(max(levels[before:], default=0.0)) > until_dbfs:
            is_whole = False
            break
    else:
        levels.extend(loudness(rest, rest.shape[1]))
        is_whole = not track.warning
    return Survey(round(sound_seconds, 6), round(end_seconds, 6), channels_differ, is_whole, levels)


def sounding_tracks(descriptor: int, form: RawForm | None) -> tuple[int, ...]:
    """The tracks that are not silent, the default one first; the default one alone where all are silent."""
    with opened(descriptor, form) as container:
        count = len(container.streams.audio)
        default = default_track(container)
    if count == 1:
        return (0,)
    order = sorted(range(count), key=lambda number: (number != default, number))
    return tuple(number for number in order if _has_sound(descriptor, form, number)) or (default,)


def _has_sound(descriptor: int, form: RawForm | None, number: int) -> bool:
    try:
        return not survey(Track(descriptor, form, number), until_dbfs=SOUND_DBFS).is_whole
    except AudioRejected:
        return False


def loudness(samples: Samples, window: int) -> list[float]:
    """Mean square of each whole *window* of (channels, samples), in its loudest channel.

    A constant offset, which some recorders add, does not count as sound.
    """
    window = max(1, window)
    count = samples.shape[1] // window
    windows = samples[:, : count * window].reshape(len(samples), count, window)
    levels: list[float] = windows.var(axis=2).max(axis=0).tolist()
    return levels


@dataclass(frozen=True, slots=True)
class MonoBlock:
    """Some sound, mono at 16 kHz, and its start on the file's clock."""

    at_seconds: float
    samples: Samples


def mono(track: Track, channel: int | None) -> Iterator[MonoBlock]:
    """One channel of *track*, or with None the mix of all; raises as :meth:`Track.stretches`."""
    resampler: _Resampler | None = None
    for stretch in track.stretches():
        if resampler is None or not stretch.follows:
            yield from resampler.blocks(None) if resampler else ()
            resampler = _Resampler(stretch.at_seconds)
        samples = np.ascontiguousarray(_mixed(stretch, channel), np.float32).reshape(1, -1)
        frame = av.AudioFrame.from_ndarray(samples, format="flt", layout="mono")
        frame.sample_rate = stretch.rate_hz
        yield from resampler.blocks(frame)
    yield from resampler.blocks(None) if resampler else ()


def _mixed(stretch: Stretch, channel: int | None) -> Any:
    samples = stretch.samples
    if len(samples) == 1 or channel is not None:
        return samples[min(channel or 0, len(samples) - 1)]
    mix: Samples = stretch.weights @ samples
    powers = samples.var(axis=1)
    cancels = float(mix.var()) < _CANCELS * float(powers.sum()) / len(samples) ** 2
    return samples[int(powers.argmax())] if cancels else mix


class _Resampler:
    """One unbroken run of sound from its own rate to 16 kHz."""

    def __init__(self, at_seconds: float) -> None:
        self._at_seconds = at_seconds
        self._filter: Any = av.AudioResampler("flt", "mono", SAMPLE_RATE_HZ)

    def blocks(self, frame: Any) -> Iterator[MonoBlock]:
        """*frame* at 16 kHz, as far as it is ready; the rest for None."""
        for out in self._filter.resample(frame):
            samples = out.to_ndarray().reshape(-1)
            yield MonoBlock(self._at_seconds, samples)
            self._at_seconds += len(samples) / SAMPLE_RATE_HZ
