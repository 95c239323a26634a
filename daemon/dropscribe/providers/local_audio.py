"""Decodes any recording into blocks of 16 kHz mono samples, in bounded memory.

Imports PyAV and numpy, so it is itself imported only once the embedded engine is in use.

Guarantees: no more than one block and a few frames are in memory, whatever the length; a file that
names other files (a playlist) opens none of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import av
import numpy as np

from dropscribe.core.errors import AudioRejected
from dropscribe.files.durations import open_recording

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dropscribe.providers.local_params import RawFormat

SAMPLE_RATE_HZ = 16_000
BLOCK_SECONDS = 120
"""Whisper's features for a whole file take 1 GB for each 15 minutes; two minutes are cheap."""

_BLOCK_SAMPLES = BLOCK_SECONDS * SAMPLE_RATE_HZ
_CUT_WITHIN_SAMPLES = 30 * SAMPLE_RATE_HZ
_QUIET_SAMPLES = SAMPLE_RATE_HZ // 5

Samples = np.ndarray[Any, np.dtype[np.float32]]


class Decoder:
    """One pass over one recording.

    Attributes:
        samples: How many have been handed out so far.
        warning: After the pass: "" for a clean one, "truncated_audio" when decoding ended in an error,
            "damaged_audio" when it went on behind one.
    """

    def __init__(self, reader: Any, raw: RawFormat | None = None) -> None:
        """Take a seekable binary *reader*, and *raw* for content without a header."""
        self._reader = reader
        self._raw = raw
        self._error: av.FFmpegError | None = None
        self.samples = 0
        self.warning = ""

    def blocks(self) -> Iterator[Samples]:
        """The recording in blocks of at most about 120 s, cut where it is quietest.

        Raises:
            AudioRejected: "undecodable", or "no_audio_stream" (a silent video).
        """
        pieces: list[Samples] = []
        waiting = 0
        for piece in self._pieces():
            pieces.append(piece)
            waiting += len(piece)
            self.samples += len(piece)
            if waiting >= _BLOCK_SAMPLES:
                gathered = np.concatenate(pieces)
                cut = quietest_cut(gathered)
                yield gathered[:cut]
                pieces, waiting = [gathered[cut:]], len(gathered) - cut
        if not self.samples:
            reason = self._error.strerror if self._error else "there is no audio in it"
            raise AudioRejected("undecodable", reason or "")
        yield np.concatenate(pieces)

    def _pieces(self) -> Iterator[Samples]:
        try:
            container = self._open()
        except av.FFmpegError as error:
            raise AudioRejected("undecodable", error.strerror or "") from error
        with container:
            if not container.streams.audio:
                raise AudioRejected("no_audio_stream", "there is no audio stream in it")
            for frame in _resampled(self._frames(container, container.streams.audio[0])):
                yield frame.to_ndarray().reshape(-1)

    def _open(self) -> Any:
        if self._raw is None:
            return open_recording(av, self._reader)
        encoding = self._raw.encoding.removeprefix("pcm_")
        raw = {"format": encoding, "sample_rate": str(self._raw.sample_rate_hz)}
        return open_recording(av, self._reader, raw | {"ch_layout": f"{self._raw.channels}c"})

    def _frames(self, container: Any, stream: Any) -> Iterator[Any]:
        packets = container.demux(stream)
        while True:
            try:
                packet = next(packets, None)
            except av.FFmpegError as error:
                self._note(error)
                return
            if packet is None:
                return
            yield from self._decoded(packet)

    def _decoded(self, packet: Any) -> list[Any]:
        try:
            frames: list[Any] = packet.decode()
        except av.FFmpegError as error:
            self._note(error)
            return []
        if frames and self._error:
            self.warning = "damaged_audio"
        return frames

    def _note(self, error: av.FFmpegError) -> None:
        self._error = error
        self.warning = "truncated_audio"


def _resampled(frames: Iterator[Any]) -> Iterator[Any]:
    resampler, shape = None, None
    for frame in frames:
        frame.pts = None  # gaps and jumps in the container's clock are no business of the samples
        now = (frame.format.name, frame.layout.name, frame.sample_rate)
        if resampler is None or now != shape:
            # Recorders do change rate or channels midway; a resampler does not.
            yield from resampler.resample(None) if resampler else ()
            resampler, shape = av.AudioResampler("flt", "mono", SAMPLE_RATE_HZ), now
        yield from resampler.resample(frame)
    yield from resampler.resample(None) if resampler else ()


def quietest_cut(samples: Samples) -> int:
    """The middle of the quietest 0.2 s in the last 30 s of *samples*."""
    tail = samples[-_CUT_WITHIN_SAMPLES:]
    count = len(tail) // _QUIET_SAMPLES
    loudness = np.square(tail[: count * _QUIET_SAMPLES].reshape(count, _QUIET_SAMPLES)).mean(axis=1)
    start = len(samples) - len(tail) + int(loudness.argmin()) * _QUIET_SAMPLES
    return start + _QUIET_SAMPLES // 2
