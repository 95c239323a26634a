"""Decoding for an attempt that may be cancelled at any time.

Guarantees: a cancelled attempt is left within seconds, and its worker process is ended.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from dropscribe.core.errors import AudioChanged, AudioRejected
from dropscribe.native.decoder import Decoder
from dropscribe.native.recording import raw_form

if TYPE_CHECKING:
    from collections.abc import Callable

    from dropscribe.files.audio import AudioFile

Result = TypeVar("Result")

_STOPPED_SECONDS = 5.0
"""Limit of the wait for a cancelled thread: it ends with its worker, unless a dead mount blocks it."""


@dataclass(slots=True, init=False)
class Decoding:
    """Work on one open recording."""

    audio: AudioFile
    decoder: Decoder

    def __init__(self, audio: AudioFile) -> None:
        self.audio = audio
        self.decoder = Decoder(audio.fileno(), raw_form(audio.suffix, audio.head))

    async def run(self, work: Callable[[], Result]) -> Result:
        """Call *work* in a thread of the recording's folder and return its result.

        Raises:
            AudioChanged: *work* failed, and the file has changed meanwhile.
        """
        running = asyncio.get_running_loop().run_in_executor(self.audio.executor, work)
        try:
            return await asyncio.shield(running)
        except asyncio.CancelledError:
            self.decoder.cancel()
            # The descriptor is closed after this: the thread must not read another file through its number.
            await asyncio.wait([running], timeout=_STOPPED_SECONDS)
            if running.done() and not running.cancelled():
                running.exception()  # retrieved, so that asyncio does not report it
            raise
        except AudioRejected:
            if not self.audio.recheck():  # cut short or rewritten meanwhile: no fault of the audio
                raise AudioChanged(self.audio.name, "changed while it was decoded") from None
            raise
