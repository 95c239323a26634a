"""Recordings made for the tests: a voice stands in as noise, so that every decoder and encoder has work."""

from __future__ import annotations

import array
import importlib.util
import random
import wave
from typing import TYPE_CHECKING

import pytest

from support.speech import SPEECH

if TYPE_CHECKING:
    from pathlib import Path

needs_media = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("av", "numpy")),
    reason="the extra `media` is not installed",
)
RATE_HZ = 8000


def noise(seconds: float, level: int = 6000, seed: int = 1) -> array.array:
    """Noise whose samples stay below *level*."""
    chance = random.Random(seed)
    block = array.array("h", (chance.randint(-level, level) for _ in range(RATE_HZ)))
    whole, rest = divmod(round(seconds * RATE_HZ), RATE_HZ)
    return block * whole + block[:rest]


def silence(seconds: float) -> array.array:
    """Digital silence."""
    return array.array("h", bytes(2 * round(seconds * RATE_HZ)))


def write_wav(path: Path, *channels: array.array) -> bytes:
    """A WAV of these channels; returns its bytes."""
    frames = array.array("h", bytes(2 * len(channels) * len(channels[0])))
    for number, channel in enumerate(channels):
        frames[number :: len(channels)] = channel
    with wave.open(str(path), "wb") as file:
        file.setnchannels(len(channels))
        file.setsampwidth(2)
        file.setframerate(RATE_HZ)
        file.writeframes(frames.tobytes())
    return path.read_bytes()


def clip(name: str) -> bytes:
    """One of the recordings of real speech."""
    return (SPEECH / name).read_bytes()
