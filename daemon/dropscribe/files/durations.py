"""How long a recording is, from its header: PyAV where it is installed, else WAV alone."""

from __future__ import annotations

import functools
import os
import wave
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import BinaryIO


def probe_seconds(descriptor: int) -> float | None:
    """Length of the open file's audio; None where its header does not tell, or nobody here can read it."""
    with os.fdopen(os.dup(descriptor), "rb") as file:
        file.seek(0)
        return probe_file(file)


def probe_file(file: BinaryIO) -> float | None:
    """The same for a file that is open for reading, at its start."""
    return _probe()(file)


@functools.cache
def _probe() -> Callable[[BinaryIO], float | None]:
    try:
        import av  # noqa: PLC0415  # comes with the embedded engine alone, and loads ffmpeg
    except ImportError:
        return _probe_wav
    return functools.partial(_probe_with_av, av)


def _probe_with_av(av: Any, file: BinaryIO) -> float | None:
    try:
        # A playlist makes FFmpeg open what it lists; an inbox must not be a way to read other files.
        with av.open(file, metadata_errors="ignore", options={"protocol_whitelist": "none"}) as container:
            return _seconds_of(container)
    except (av.error.FFmpegError, OSError, ValueError, EOFError):
        return None


def _seconds_of(container: Any) -> float | None:
    stream = next(iter(container.streams.audio), None)
    if stream is None:
        return None
    if stream.duration is not None:
        return float(stream.duration) * float(stream.time_base)
    return None if container.duration is None else float(container.duration) / 1_000_000


def _probe_wav(file: BinaryIO) -> float | None:
    try:
        with wave.open(file) as recording:
            return float(recording.getnframes()) / float(recording.getframerate())
    except (wave.Error, OSError, EOFError, ZeroDivisionError):
        return None
