"""How long a recording is, from its header: PyAV where it is installed, else WAV alone."""

from __future__ import annotations

import functools
import os
import wave
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
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
        with open_recording(av, file) as container:
            return _seconds_of(container)
    except (av.error.FFmpegError, OSError, ValueError, EOFError):
        return None


def open_recording(av: Any, file: Any, raw: Mapping[str, str] | None = None) -> Any:
    """PyAV's container for the seekable binary *file*; raises av.FFmpegError for what is no recording.

    Args:
        av: The library, loaded by whoever needs it.
        file: Open for reading.
        raw: For content without a header: "format", and FFmpeg's options for it.
    """
    options = dict(raw or {})
    known: dict[str, Any] = {"format": options.pop("format")} if raw else {}
    if hasattr(av.container.InputContainer, "metadata_errors"):
        # Tags in Latin-1 are no reason to refuse a recording. PyAV 19 keeps such bytes by itself, and
        # knows no such argument any more.
        known["metadata_errors"] = "ignore"
    # A playlist makes FFmpeg open what it lists; an inbox must not be a way to read other files.
    return av.open(file, options={**options, "protocol_whitelist": "none"}, **known)


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
