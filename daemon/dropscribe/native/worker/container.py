"""Opens a recording with FFmpeg's libraries, within bounds.

Guarantees: a file that names other files (a playlist) opens none of them; a rate or a number of channels
outside the bounds ends in AudioRejected before a frame is decoded.
"""

from __future__ import annotations

import math
import os
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import av

from dropscribe.core.errors import AudioRejected
from dropscribe.files.containers.lengths import chunks, unpack
from dropscribe.native.recording import MAX_CHANNELS, MAX_RATE_HZ, MIN_RATE_HZ, RawForm, Recording
from dropscribe.transcripts.dates import ARCHIVE_YEARS, told_date

_LENIENT: dict[str, Any] = {"metadata_errors": "ignore"} if int(av.__version__.partition(".")[0]) < 19 else {}
_OKI_TAG = 0x10
# Data of at most this size after the samples counts as chunks (titles, cue points), not as samples.
_SPARE_BYTES = 65_536
# FFmpeg's default of 4096 makes eight times as many frames per second, and each frame costs Python time.
_WAV_PACKET_BYTES = "32768"
_READ_BYTES = 512 * 1024
# FFmpeg searches a file without usable headers to its end, which takes hours with terabytes of holes. The
# index of a day of video has some 50 MiB.
_MOST_OPENING_BYTES = 256 * 1024 * 1024


class SeekableFile:
    """A file for FFmpeg that has *size_bytes*: its position."""

    def __init__(self, size_bytes: int = 0) -> None:
        self.size_bytes = size_bytes
        self._position = 0

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """As a file's."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self.size_bytes}[whence]
        self._position = max(0, base + offset)
        return self._position

    def tell(self) -> int:
        """As a file's."""
        return self._position


class _Recording(SeekableFile):
    """An open descriptor as a file with a position of its own, after *prefix*, bytes that come first.

    Attributes:
        left_bytes: How much more may be read; then the file ends.
    """

    def __init__(self, descriptor: int, prefix: bytes) -> None:
        super().__init__(len(prefix) + os.fstat(descriptor).st_size)
        self._descriptor = descriptor
        self._prefix = prefix
        self.left_bytes: float = _MOST_OPENING_BYTES

    def read(self, count: int) -> bytes:
        if self.left_bytes <= 0:
            return b""
        block = self._prefix[self._position : self._position + count]
        block = block or os.pread(self._descriptor, count, self._position - len(self._prefix))
        self._position += len(block)
        self.left_bytes -= len(block)
        return block


@contextmanager
def opened(descriptor: int, form: RawForm | None) -> Iterator[Any]:
    """PyAV's container for an open file; *form* is that of content without a header.

    Raises AudioRejected: "undecodable", or "no_audio_stream" (a silent video).
    """
    try:
        with _open(descriptor, form) as container:
            if not container.streams.audio:
                raise AudioRejected("no_audio_stream", "there is no audio stream in it")
            yield container
    except (av.FFmpegError, EOFError, UnicodeError) as error:
        # Some are named as the system's, such as "Operation not permitted" of a WMA that breaks off.
        words = getattr(error, "strerror", None) or str(error)
        raise AudioRejected("undecodable", f"FFmpeg says: {words}") from error


def _open(descriptor: int, form: RawForm | None) -> Any:
    prefix, name = b"", None
    # A playlist makes FFmpeg open the files that it lists; an inbox must not be a way to read other files.
    options = {"protocol_whitelist": "none", "max_size": _WAV_PACKET_BYTES}
    if form is None:
        if _understates_length(descriptor):
            options["ignore_length"] = "1"
    elif form.encoding == "adpcm_ima_oki":  # FFmpeg decodes it only inside a WAV
        prefix = _oki_header(form.sample_rate_hz, os.fstat(descriptor).st_size)
    else:
        name = form.encoding.removeprefix("pcm_")
        if name != form.encoding:
            options |= {"sample_rate": str(form.sample_rate_hz), "ch_layout": f"{form.channels}c"}
    file = _Recording(descriptor, prefix)
    container = av.open(file, format=name, options=options, buffer_size=_READ_BYTES, **_LENIENT)
    file.left_bytes = math.inf
    return container


def _oki_header(rate_hz: int, size_bytes: int) -> bytes:
    size = min(size_bytes, 2**32 - 64)
    layout = struct.pack("<4sIHHIIHH", b"fmt ", 16, _OKI_TAG, 1, rate_hz, rate_hz // 2, 1, 4)
    return struct.pack("<4sI4s", b"RIFF", size + 36, b"WAVE") + layout + struct.pack("<4sI", b"data", size)


def _understates_length(descriptor: int) -> bool:
    """Whether a WAV continues after the end that its header states, as one over 4 GiB does."""
    size_bytes = os.fstat(descriptor).st_size

    def read_at(offset: int, count: int) -> bytes:
        return os.pread(descriptor, count, offset)

    def is_chunk(position: int) -> bool:  # a name of four printable characters and a size
        name, count = unpack("<4sI", read_at, position)
        return all(32 <= byte < 127 for byte in name) and position + 8 + count <= size_bytes + 1

    start = read_at(0, 12)
    if start[:4] != b"RIFF" or start[8:] != b"WAVE":
        return False
    with suppress(struct.error):  # the file ends before its samples
        for name, position, count in chunks(read_at, 12, "<4sI", align=2):
            end = position + count + count % 2
            if name == b"data":
                is_known = 0 < count < 2**32 - 1
                return is_known and size_bytes - end > _SPARE_BYTES and not is_chunk(end)
    return False


def check_shape(rate_hz: int, channels: int) -> None:
    """Raise AudioRejected for rates and channels that no recorder makes and that would exhaust a decoder."""
    if not MIN_RATE_HZ <= rate_hz <= MAX_RATE_HZ:
        raise AudioRejected("undecodable", f"its sample rate of {rate_hz} Hz is implausible")
    if not 1 <= channels <= MAX_CHANNELS:
        raise AudioRejected("undecodable", f"it claims {channels} channels")


def check_stream(stream: Any) -> None:
    """As :func:`check_shape`, for a stream's header; also where FFmpeg has no decoder for it."""
    context = stream.codec_context
    if context is None:
        raise AudioRejected("undecodable", "its audio is in no known codec")
    check_shape(context.sample_rate or 0, context.channels)


def default_track(container: Any) -> int:
    """The number of the audio track that players choose: the one marked as default, else the first."""
    return next((n for n, stream in enumerate(container.streams.audio) if _has_mark(stream, "default")), 0)


def _has_mark(stream: Any, name: str) -> bool:
    disposition = getattr(stream, "disposition", None)  # PyAV has it from 14.1 on
    return disposition is not None and bool(disposition & getattr(av.stream.Disposition, name))


def describe(container: Any, head: bytes, tracks: tuple[int, ...]) -> Recording:
    """Describe the first of *tracks* and the file by their headers."""
    stream = container.streams.audio[tracks[0]]
    check_stream(stream)
    context = stream.codec_context
    return Recording(
        container=_container_name(container.format.name, head),
        codec=context.name,
        channels=context.channels,
        seconds=None if container.options.get("ignore_length") else _seconds(container, stream),
        has_video=any(not _has_mark(video, "attached_pic") for video in container.streams.video),
        recorded_at=recorded_at({**stream.metadata, **container.metadata}),
        tracks=tracks,
    )


def _container_name(name: str, head: bytes) -> str:
    if name.startswith("mov,"):
        brand = head[8:12] if head[4:8] == b"ftyp" else b"qt  "
        return "3gp" if brand[:3] in {b"3gp", b"3g2"} else "mov" if brand == b"qt  " else "mp4"
    if name.startswith("matroska"):
        return "webm" if b"webm" in head[:64] else "matroska"
    return name


def _seconds(container: Any, stream: Any) -> float | None:
    # The stream's own: the container's is longer where a video goes on after the audio.
    if stream.duration is not None and stream.time_base:
        return float(stream.duration * stream.time_base)
    return None if container.duration is None else float(container.duration) / av.time_base


def recorded_at(metadata: Mapping[str, str]) -> str | None:
    """Time of the recording by its metadata; None if it is missing, invalid or from an unset clock."""
    told = metadata.get("creation_time")
    if told is None and "origination_date" in metadata:  # a broadcast WAV, in the recorder's local time
        time = metadata.get("origination_time", "00:00:00").replace("-", ":")
        told = f"{metadata['origination_date'].replace(':', '-')}T{time}"
    return told_date(told, ARCHIVE_YEARS)
