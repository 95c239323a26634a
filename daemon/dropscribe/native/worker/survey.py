"""One pass over a whole track: its real length, its loudness over time, and whether its channels differ.

Guarantees: bounded memory: 40 bytes for a second of audio.
"""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING

import numpy as np

from dropscribe.core.errors import AudioRejected
from dropscribe.native.recording import WINDOW_SECONDS, dbfs
from dropscribe.native.worker.container import default_track, opened
from dropscribe.native.worker.mono import loudness
from dropscribe.native.worker.samples import Track

if TYPE_CHECKING:
    from dropscribe.native.recording import RawForm
    from dropscribe.native.worker.samples import Samples, Stretch

_SAME_WITHIN = 32 / 32768
"""Largest difference (-60 dBFS) of two channels that a lossy codec has made of one."""

SOUND_DBFS = -60.0
"""A track without a louder window is silent, if another track has one."""


class Survey:
    """Measurements of one audio track, collected in the worker.

    Attributes:
        sound_seconds: Length of the decoded sound, gaps of the clock left out.
        end_seconds: When it ends on the file's clock.
        loudness: Mean square of each 0.1 s, in its loudest channel; 1.0 is full scale.
        channels_differ: A second channel holds something else than the first.
        is_whole: False where the look ended early, at a sound or at an error.
    """

    def __init__(self) -> None:
        self.sound_seconds = 0.0
        self.end_seconds = 0.0
        self.loudness = array("f")
        self.channels_differ = False
        self.is_whole = True
        self._waiting: Samples | None = None

    def add(self, stretch: Stretch) -> None:
        """Take one more stretch of the track."""
        samples = stretch.samples
        seconds = samples.shape[1] / stretch.rate_hz
        self.sound_seconds += seconds
        self.end_seconds = stretch.at_seconds + seconds
        self.channels_differ = self.channels_differ or _differ(samples)
        if self._waiting is not None and stretch.follows:
            samples = np.concatenate([self._waiting, samples], axis=1)
        elif self._waiting is not None:
            self.end()
        window = round(WINDOW_SECONDS * stretch.rate_hz)
        self.loudness.extend(float(value) for value in loudness(samples, window))
        self._waiting = samples[:, samples.shape[1] // window * window :]

    def end(self) -> None:
        """Measure the remaining samples, which are shorter than a window."""
        if self._waiting is not None and self._waiting.shape[1]:
            self.loudness.append(float(loudness(self._waiting, self._waiting.shape[1])[0]))
        self._waiting = None


def survey(track: Track, *, until_dbfs: float | None = None) -> Survey:
    """Look through *track*, up to the first window above *until_dbfs* where it is given.

    Raises:
        AudioRejected: As :meth:`Track.stretches`.
    """
    found = Survey()
    for stretch in track.stretches():
        before = len(found.loudness)
        found.add(stretch)
        if until_dbfs is not None and dbfs(max(found.loudness[before:], default=0.0)) > until_dbfs:
            found.is_whole = False
            return found
    found.end()
    found.is_whole = not track.warning
    return found


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


def _differ(samples: Samples) -> bool:
    if len(samples) < 2:
        return False
    return bool(np.abs(samples[0] - samples[1]).max(initial=0.0) > _SAME_WITHIN)
