"""One pass over a whole track: its real length, its loudness over time, and whether its channels differ.

Guarantees: bounded memory: 40 bytes for a second of audio.
"""

from __future__ import annotations

from array import array

import numpy as np

from dropscribe.core.errors import AudioRejected
from dropscribe.native.recording import WINDOW_SECONDS, RawForm, Survey, dbfs
from dropscribe.native.worker.container import default_track, opened
from dropscribe.native.worker.samples import Samples, Track

_SAME_WITHIN = 32 / 32768  # largest difference (-60 dBFS) of two channels that a lossy codec has made of one
SOUND_DBFS = -60.0  # a track without a louder window is silent, if another track has one


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
