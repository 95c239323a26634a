"""Writes a recording, or one of its channels, anew in pieces: mono, 16 kHz, FLAC or Opus.

Guarantees: one piece and a few blocks at a time, whatever the length; a piece's file has no name, so that
no crash leaves one behind.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import av

from dropscribe.media.decoding import SAMPLE_RATE_HZ, Decoder, mixed

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Collection, Generator, Sequence
    from typing import BinaryIO

    from dropscribe.media.decoding import Samples
    from dropscribe.media.fitting import Format


@dataclass(slots=True)
class Piece:
    """One piece as it was written.

    Attributes:
        number: 0-based.
        start: Seconds from the start of the recording.
        end: As it came out: of the last piece, the real end.
        file: Open, without a name; None for a piece that was to be skipped.
    """

    number: int
    start: float
    end: float
    file: BinaryIO | None


class PieceWriter:
    """One pass over one recording.

    Attributes:
        warning: After the pass, as :attr:`Decoder.warning`.
    """

    def __init__(
        self, reader: Any, stop: threading.Event, form: Format, make_file: Callable[[], BinaryIO]
    ) -> None:
        self._decoder = Decoder(reader, stop)
        self._format = form
        self._make_file = make_file

    @property
    def warning(self) -> str:
        """What went wrong with decoding so far."""
        return self._decoder.warning

    def pieces(
        self, cuts: Sequence[float], channel: int | None, skipped: Collection[int] = ()
    ) -> Generator[Piece, None, None]:
        """The pieces between *cuts*, one after another; those whose numbers are *skipped* without a file.

        Raises:
            AudioRejected, Stopped: As :meth:`Decoder.blocks`.
            OSError: The spool's disk.
        """
        ends = [*(round(cut * SAMPLE_RATE_HZ) for cut in cuts), math.inf]
        position, begin, number = 0, 0, 0
        encoder = self._encoder(0, skipped)
        try:
            for block in self._decoder.blocks():
                samples = mixed(block, channel)
                while len(samples):
                    count = int(min(len(samples), ends[number] - position))
                    encoder.write(samples[:count])
                    samples, position = samples[count:], position + count
                    if position == ends[number]:
                        yield Piece(number, _seconds(begin), _seconds(position), encoder.finish())
                        begin, number = position, number + 1
                        encoder = self._encoder(number, skipped)
            if position > begin:
                yield Piece(number, _seconds(begin), _seconds(position), encoder.finish())
        finally:
            encoder.close()

    def _encoder(self, number: int, skipped: Collection[int]) -> _Encoder:
        return _Encoder(self._format, None if number in skipped else self._make_file)


def _seconds(samples: int) -> float:
    return samples / SAMPLE_RATE_HZ


class _Encoder:
    """Samples → one file; the file is made with the first sample, and none at all without *make_file*."""

    def __init__(self, form: Format, make_file: Callable[[], BinaryIO] | None) -> None:
        self._format = form
        self._make_file = make_file
        self._file: BinaryIO | None = None
        self._container: Any = None
        self._stream: Any = None

    def write(self, samples: Samples) -> None:
        if self._make_file is None:
            return
        if self._container is None:
            self._open(self._make_file())
        frame = av.AudioFrame.from_ndarray(samples.reshape(1, -1), format="s16", layout="mono")
        frame.sample_rate = SAMPLE_RATE_HZ
        self._mux(frame)

    def finish(self) -> BinaryIO | None:
        """Write the rest and hand the file over."""
        if self._file is None:
            return None
        self._mux(None)
        container, self._container = self._container, None
        _as_os_error(container.close)
        file, self._file = self._file, None
        file.flush()
        return file

    def close(self) -> None:
        """Let go of a piece that nobody wants any more."""
        if self._file is not None:
            self._container = None
            self._file.close()
            self._file = None

    def _open(self, file: BinaryIO) -> None:
        self._file = file
        self._container = av.open(file, "w", format=self._format.container)
        options = dict(self._format.options)
        self._stream = self._container.add_stream(
            self._format.codec, rate=SAMPLE_RATE_HZ, layout="mono", options=options
        )

    def _mux(self, frame: Any) -> None:
        for packet in self._stream.encode(frame):
            _as_os_error(self._container.mux, packet)


def _as_os_error(call: Callable[..., object], *arguments: object) -> None:
    try:
        call(*arguments)
    except av.FFmpegError as error:
        raise OSError(error.errno, error.strerror) from error
