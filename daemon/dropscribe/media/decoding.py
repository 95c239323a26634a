"""Decodes any recording into small blocks of 16 kHz samples, its channels kept apart.

Guarantees: bounded memory, whatever the length; ends at the next frame once it is told to stop.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import av
import numpy as np

from dropscribe.core.errors import AudioRejected
from dropscribe.media.recording import opened

if TYPE_CHECKING:
    import threading
    from collections.abc import Iterator

SAMPLE_RATE_HZ = 16_000
"""What every provider's model works with; more is thrown away there (PROVIDERS.md §1.5)."""

Samples = np.ndarray[Any, np.dtype[np.int16]]


class Stopped(Exception):
    """Raised in the decoding thread once nobody waits for it."""


class Decoder:
    """One pass over one recording.

    Attributes:
        warning: "" so far, "truncated_audio" when decoding ended in an error, "damaged_audio" when it
            went on behind one.
    """

    def __init__(self, reader: Any, stop: threading.Event) -> None:
        """Take a seekable binary *reader*; *stop* ends the pass with :class:`Stopped`."""
        self._reader = reader
        self._stop = stop
        self.warning = ""

    def blocks(self) -> Iterator[Samples]:
        """The samples as arrays of (channels, samples).

        Raises:
            AudioRejected: "undecodable", or "no_audio_stream" (a silent video).
            Stopped: See above.
        """
        any_sound = False
        try:
            with opened(self._reader) as container:
                if not container.streams.audio:
                    raise AudioRejected("no_audio_stream", "there is no audio stream in it")
                for frame in _resampled(self._frames(container)):
                    any_sound = True
                    yield _samples(frame)
        except av.FFmpegError as error:
            raise AudioRejected("undecodable", error.strerror or "") from error
        if not any_sound:
            raise AudioRejected("undecodable", "there is no audio in it")

    def _frames(self, container: Any) -> Iterator[Any]:
        packets = container.demux(container.streams.audio[0])
        while not self._stop.is_set():
            try:
                packet = next(packets, None)
            except av.FFmpegError:
                self.warning = "truncated_audio"
                return
            if packet is None:
                return
            yield from self._decoded(packet)
        raise Stopped

    def _decoded(self, packet: Any) -> list[Any]:
        try:
            frames: list[Any] = packet.decode()
        except av.FFmpegError:
            self.warning = "truncated_audio"
            return []
        if frames and self.warning:
            self.warning = "damaged_audio"
        return frames


def _resampled(frames: Iterator[Any]) -> Iterator[Any]:
    resampler, shape = None, None
    for frame in frames:
        frame.pts = None  # gaps and jumps in the container's clock are no business of the samples
        now = (frame.format.name, frame.layout.name, frame.sample_rate)
        if resampler is None or now != shape:
            # Recorders do change rate or channels midway; a resampler does not.
            yield from resampler.resample(None) if resampler else ()
            resampler, shape = av.AudioResampler("s16p", None, SAMPLE_RATE_HZ), now
        yield from resampler.resample(frame)
    yield from resampler.resample(None) if resampler else ()


def _samples(frame: Any) -> Samples:
    samples: Samples = frame.to_ndarray()
    return samples


def mixed(block: Samples, channel: int | None) -> Samples:
    """One channel of *block*, or with None their mean; where there is but one, that one."""
    chosen: Samples
    if len(block) == 1 or channel is not None:
        chosen = block[min(channel or 0, len(block) - 1)]
    else:
        chosen = block.mean(axis=0).astype(np.int16)
    return chosen
