"""Duration of a recording from its header: by a worker if PyAV is installed, else for WAV alone."""

from __future__ import annotations

import os
import wave
from importlib.util import find_spec

from dropscribe.core.errors import ProviderError
from dropscribe.native.decoder import Decoder
from dropscribe.native.process import WorkerBug
from dropscribe.native.recording import MAX_RATE_HZ, MIN_RATE_HZ, plausible_seconds


def probe_seconds(descriptor: int) -> float | None:
    """Length of the open file's audio.

    None if its header has none, has one that a file of its size cannot hold, or cannot be read here.
    """
    seconds = _probe_wav(descriptor)
    if seconds is None and find_spec("av") is not None and find_spec("numpy") is not None:
        try:
            return Decoder(descriptor).describe(listen=False).seconds
        except (ProviderError, OSError, WorkerBug):  # the duration is only a hint, and must not fail a file
            return None
    return seconds


def _probe_wav(descriptor: int) -> float | None:
    try:
        with os.fdopen(os.dup(descriptor), "rb") as file:
            file.seek(0)
            with wave.open(file) as recording:
                frames, rate_hz = recording.getnframes(), recording.getframerate()
                frame_bytes = recording.getnchannels() * recording.getsampwidth()
            if (
                not MIN_RATE_HZ <= rate_hz <= MAX_RATE_HZ
                or frames * frame_bytes > os.fstat(descriptor).st_size
            ):
                return None
            return plausible_seconds(frames / rate_hz, os.fstat(descriptor).st_size)
    except (wave.Error, OSError, EOFError, ValueError):
        return None
