"""Requests to worker processes about one open recording.

Guarantees: a failure of the worker is an error of this recording or of the machine, never a crash here;
numbers from the worker are checked before they are used.
"""

from __future__ import annotations

import contextlib
import math
import os
import wave
from array import array
from collections.abc import Callable, Collection, Generator, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.util import find_spec
from typing import Any, BinaryIO

from dropscribe.core.budget import longest_plausible_seconds
from dropscribe.core.errors import AudioRejected, ProviderError
from dropscribe.native.messages import Message
from dropscribe.native.process import Cancellation, WorkerBug, WorkerPool
from dropscribe.native.recording import (
    MAX_RATE_HZ,
    MIN_RATE_HZ,
    Piece,
    RawForm,
    Recording,
    Survey,
    parse_piece,
    parse_recording,
    parse_seconds,
    plausible_seconds,
)

IDLE_SECONDS = 30.0
_HEADER_BYTES = 16_384
# A decoder without a sign of progress for this long is waiting for a disk that does not answer.
SILENCE_SECONDS = 300.0
_POOL = WorkerPool(idle_seconds=IDLE_SECONDS)


@dataclass(frozen=True, slots=True)
class Source:
    """A part of a recording that is transcribed apart."""

    track: int = 0  # Number of the audio track
    channel: int | None = None  # None is the mix of all
    speaker: str | None = None  # Label of its words; None if it is the only source


@dataclass(frozen=True, slots=True)
class Format:
    """An encoding for re-encoded recordings: mono, 16 kHz."""

    container: str  # FFmpeg's name, as *codec*
    codec: str
    suffix: str  # Of the upload's name, with its dot
    most_bytes_per_second: int  # Upper bound of the size of one second
    options: tuple[tuple[str, str], ...] = ()  # The codec's

    def most_bytes(self, seconds: float) -> int:
        """Upper bound of the size of a piece of this length."""
        return _HEADER_BYTES + math.ceil(seconds * self.most_bytes_per_second)

    def seconds_in(self, size_bytes: int) -> float:
        """The longest piece that fits into *size_bytes*."""
        return (size_bytes - _HEADER_BYTES) / self.most_bytes_per_second


@dataclass(slots=True)
class Decoder:
    """One open recording; all methods block, and only :meth:`cancel` may be called from another thread.

    Its requests raise AudioRejected ("undecodable", "no_audio_stream") for the recording, and
    TemporaryFailure, ProviderUnusable or OSError for the machine's trouble.
    """

    descriptor: int
    form: RawForm | None = None
    warning: str = ""
    _cancellation: Cancellation = field(default_factory=Cancellation)

    def describe(self, *, listen: bool = True) -> Recording:
        """Describe the recording by its headers, and with *listen* by which of several tracks are silent."""
        *_, result = self._call("describe", {"listen": listen})
        with _checked():
            return parse_recording(result.body, os.fstat(self.descriptor).st_size)

    def survey(self, track: int, *, until_dbfs: float | None = None) -> Survey:
        """Look through a track, up to the first window above *until_dbfs* where it is given."""
        *_, result = self._call("survey", {"track": track, "until_dbfs": until_dbfs})
        with _checked():
            return Survey(
                sound_seconds=parse_seconds(result.body["sound_seconds"]),
                end_seconds=parse_seconds(result.body["end_seconds"]),
                channels_differ=bool(result.body["channels_differ"]),
                is_whole=bool(result.body["is_whole"]),
                loudness=array("f", result.payload),
            )

    def encode(
        self,
        source: Source,
        form: Format,
        cuts: Sequence[float],
        skipped: Collection[int],
        make_file: Callable[[], BinaryIO],
    ) -> Generator[tuple[Piece, BinaryIO | None], None, None]:
        """The pieces of *source* between *cuts* (seconds of sound), each with its file unless it is skipped.

        Sets :attr:`warning`. The worker waits while a piece is being used: no more than one is made at a
        time. A piece's file is closed when the next one is requested, so that none stays open if the caller
        stops early.
        """
        order = {**asdict(source), **asdict(form), "cuts": cuts, "skipped": list(skipped)}
        most_bytes = form.most_bytes(longest_plausible_seconds(os.fstat(self.descriptor).st_size))
        file: BinaryIO | None = None
        try:
            for message in self._call("encode", order):
                if message.kind == "write":
                    file = file or make_file()
                    with _checked():
                        _write(file, message.body["at"], message.payload, most_bytes)
                elif message.kind == "piece":
                    with _checked():
                        piece = parse_piece(message.body)
                        if (file is not None) != piece.is_written:
                            raise ValueError("a piece without content")
                    yield piece, file
                    if file is not None:
                        file.close()
                    file = None
                else:
                    self.warning = str(message.body.get("warning", ""))[:40] or self.warning
        finally:
            if file is not None:
                file.close()

    def cancel(self) -> None:
        """End running requests, from any thread; the recording is not decoded any more."""
        self._cancellation.request()

    def _call(self, operation: str, arguments: Mapping[str, Any]) -> Iterator[Message]:
        body = {"form": self.form and asdict(self.form), **arguments}
        try:
            with _POOL.worker(self._cancellation) as worker:
                yield from worker.request(operation, body, self.descriptor, silence_seconds=SILENCE_SECONDS)
        except MemoryError as error:
            raise AudioRejected("undecodable", "it takes more memory than a recording may") from error


def probe_seconds(descriptor: int) -> float | None:
    """Length of the open file's audio by its header; None where that has none, or an implausible one.

    Without PyAV only that of a WAV is known.
    """
    seconds = _wav_seconds(descriptor)
    if seconds is None and find_spec("av") is not None and find_spec("numpy") is not None:
        # The duration is only a hint, and must not fail a file.
        with contextlib.suppress(ProviderError, OSError, WorkerBug):
            return Decoder(descriptor).describe(listen=False).seconds
    return seconds


def _wav_seconds(descriptor: int) -> float | None:
    try:
        size_bytes = os.fstat(descriptor).st_size
        with os.fdopen(os.dup(descriptor), "rb") as file:
            file.seek(0)
            with wave.open(file) as header:
                frames, rate_hz = header.getnframes(), header.getframerate()
                sound_bytes = frames * header.getnchannels() * header.getsampwidth()
    except (wave.Error, OSError, EOFError, ValueError):
        return None
    is_plausible = MIN_RATE_HZ <= rate_hz <= MAX_RATE_HZ and sound_bytes <= size_bytes
    return plausible_seconds(frames / rate_hz, size_bytes) if is_plausible else None


def _write(file: BinaryIO, at: int, content: bytes, most_bytes: int) -> None:
    if at + len(content) > most_bytes:
        raise ValueError("more than any recording of its size has")
    file.seek(at)
    file.write(content)
    file.flush()  # the sender reads through another descriptor


@contextlib.contextmanager
def _checked() -> Iterator[None]:
    try:
        yield
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise AudioRejected("undecodable", "the decoder gave no usable answer") from error
