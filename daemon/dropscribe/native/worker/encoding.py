"""Re-encodes a track, or one of its channels, in pieces: mono, 16 kHz, FLAC or Opus.

A worker process cannot write to any file: the encoder's output is sent to the daemon.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

import av
import numpy as np

from dropscribe.core.errors import AudioRejected
from dropscribe.native.recording import SAMPLE_RATE_HZ, Piece
from dropscribe.native.worker.container import SeekableFile
from dropscribe.native.worker.samples import Samples, Track, mono

WriteAt = Callable[[int, bytes], None]

_NEW_RUN_SECONDS = 0.05


def encoded_pieces(
    track: Track,
    channel: int | None,
    cuts: Sequence[float],
    skipped: Collection[int],
    make_encoder: Callable[[], Encoder],
) -> Iterator[Piece]:
    """The pieces between *cuts*: seconds of sound, gaps of the file's clock left out.

    Those whose numbers are *skipped* get no encoder. Raises as :meth:`Track.stretches`.
    """
    ends = [*(round(cut * SAMPLE_RATE_HZ) for cut in cuts), math.inf]
    position = number = 0
    piece: Piece | None = None
    encoder: Encoder | None = None
    for heard in mono(track, channel):
        samples, at_seconds = heard.samples, heard.at_seconds
        while len(samples):
            if piece is None:
                piece = Piece(number, at_seconds, at_seconds, is_written=number not in skipped)
                encoder = make_encoder() if piece.is_written else None
                begin = position
            elif at_seconds - piece.end > _NEW_RUN_SECONDS:
                piece.jumps.append(((position - begin) / SAMPLE_RATE_HZ, at_seconds - piece.end))
            count = int(min(len(samples), ends[number] - position))
            if encoder is not None:
                encoder.write(samples[:count])
            samples, position = samples[count:], position + count
            at_seconds += count / SAMPLE_RATE_HZ
            piece.end = at_seconds
            if position == ends[number]:
                yield _finished(piece, encoder)
                piece, encoder, number = None, None, number + 1
    if piece is not None:
        yield _finished(piece, encoder)


def _finished(piece: Piece, encoder: Encoder | None) -> Piece:
    if encoder is not None:
        encoder.finish()
    return piece


class Encoder:
    """Samples → one encoded piece, by FFmpeg's names of container and codec, and the codec's options."""

    def __init__(self, container: str, codec: str, options: dict[str, str], write_at: WriteAt) -> None:
        self._container: Any = av.open(_Output(write_at), "w", format=container)
        self._stream: Any = self._container.add_stream(
            codec, rate=SAMPLE_RATE_HZ, layout="mono", options=options
        )

    def write(self, samples: Samples) -> None:
        """Encode some samples."""
        # As the codecs have them: PyAV converts floats with a resampler, and its threads, for each piece.
        numbers = np.rint(np.clip(samples * np.float32(32768), -32768, 32767)).astype(np.int16).reshape(1, -1)
        frame = av.AudioFrame.from_ndarray(numbers, format="s16", layout="mono")
        frame.sample_rate = SAMPLE_RATE_HZ
        self._mux(frame)

    def finish(self) -> None:
        """Write the rest, and the header again if the container needs it."""
        self._mux(None)
        self._container.close()

    def _mux(self, frame: Any) -> None:
        try:
            for packet in self._stream.encode(frame):
                self._container.mux(packet)
        except av.FFmpegError as error:
            raise AudioRejected("undecodable", f"it cannot be encoded anew: {error.strerror}") from error


class _Output(SeekableFile):
    """A file for FFmpeg's muxer."""

    def __init__(self, write_at: WriteAt) -> None:
        super().__init__()
        self._write_at = write_at

    def write(self, content: bytes) -> int:
        self._write_at(self._position, bytes(content))
        self._position += len(content)
        self.size_bytes = max(self.size_bytes, self._position)
        return len(content)
