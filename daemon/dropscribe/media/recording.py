"""What a recording is, before anything of it is sent: container, codec, channels, length, creation time.

Guarantees: reads the header alone; a file that names other files (a playlist) opens none of them.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import av

from dropscribe.files.durations import open_recording
from dropscribe.providers.formats import sniffed_suffix

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_EPOCH_YEARS = frozenset({1904, 1970})
"""What recorders without a clock write: zero in QuickTime's time, or in Unix's."""


@dataclass(frozen=True, slots=True)
class Recording:
    """One audio file as its header describes it.

    Attributes:
        container: wav, mp3, flac, ogg, webm, mp4 (m4a too), mov, 3gp, matroska, or FFmpeg's own name.
        codec: FFmpeg's name of the audio's codec ("pcm_s16le", "opus").
        channels: 1 for mono.
        seconds: Of the audio stream, or None where the header does not tell.
        has_video: A picture that moves, no cover.
        recorded_at: ISO 8601, with a zone only where the file says which; None where it says nothing.
    """

    container: str
    codec: str
    channels: int
    seconds: float | None = None
    has_video: bool = False
    recorded_at: str | None = None


@contextmanager
def opened(reader: Any) -> Iterator[Any]:
    """PyAV's container for a seekable binary *reader*; raises av.FFmpegError for what is no recording."""
    with open_recording(av, reader) as container:
        yield container


def read_recording(reader: Any, head: bytes) -> Recording | None:
    """What *reader* holds; None where it is no recording that can be read, or has no sound.

    Args:
        head: The file's first bytes, which tell what FFmpeg calls by one name apart.
    """
    try:
        with opened(reader) as container:
            return _described(container, head) if container.streams.audio else None
    except (av.FFmpegError, ValueError, EOFError):
        return None


def _described(container: Any, head: bytes) -> Recording:
    stream = container.streams.audio[0]
    return Recording(
        container=_container_name(container.format.name, head),
        codec=stream.codec_context.name,
        channels=stream.codec_context.channels,
        seconds=_seconds(container, stream),
        has_video=any(not _is_cover(video) for video in container.streams.video),
        recorded_at=recorded_at({**stream.metadata, **container.metadata}),
    )


def _container_name(name: str, head: bytes) -> str:
    if name.startswith("mov,"):
        suffix = sniffed_suffix(head).removeprefix(".")
        return {"m4a": "mp4", "m4v": "mp4", "3g2": "3gp"}.get(suffix, suffix or "mp4")
    if name.startswith("matroska"):
        return "webm" if b"webm" in head[:64] else "matroska"
    return name


def _seconds(container: Any, stream: Any) -> float | None:
    # The stream's own: an mp4 whose video goes on says more (SPEECH.md, "Decoding and probing").
    if stream.duration is not None:
        return float(stream.duration * stream.time_base)
    return None if container.duration is None else float(container.duration) / av.time_base


def _is_cover(video: Any) -> bool:
    return bool(video.disposition & av.stream.Disposition.attached_pic)


def recorded_at(metadata: Mapping[str, str]) -> str | None:
    """When the recorder says that it recorded; None for nothing, nonsense and clocks never set."""
    told = metadata.get("creation_time")
    if told is None and "origination_date" in metadata:  # a broadcast WAV, in the recorder's local time
        time = metadata.get("origination_time", "00:00:00").replace("-", ":")
        told = f"{metadata['origination_date'].replace(':', '-')}T{time}"
    try:
        moment = datetime.fromisoformat(told.strip()) if told else None
    except ValueError:
        return None
    if moment is None or moment.year in _EPOCH_YEARS:
        return None
    if moment.tzinfo is None:
        return moment.isoformat(timespec="seconds")
    return moment.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
