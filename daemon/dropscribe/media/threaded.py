"""Decoding in a thread, for an attempt that may be cancelled at any time.

Guarantees: a cancelled attempt is left within seconds, and its thread stops at the next packet.
"""

from __future__ import annotations

import asyncio
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from dropscribe.core.errors import AudioChanged, AudioRejected

if TYPE_CHECKING:
    from collections.abc import Callable

    from dropscribe.files.audio import AudioFile

Result = TypeVar("Result")

_STOPPED_SECONDS = 5.0
"""A thread looks at the stop sign between packets; one on a mount that hangs is not waited for longer."""


@dataclass(slots=True)
class Decoding:
    """Work on one open recording.

    Attributes:
        stop: Set once nobody waits for the work any more.
    """

    audio: AudioFile
    stop: threading.Event = field(default_factory=threading.Event)

    async def run(self, work: Callable[[], Result]) -> Result:
        """What *work* returns, called in a thread of the recording's folder.

        Raises:
            AudioChanged: It failed, and the file is no longer what it was.
        """
        running = asyncio.get_running_loop().run_in_executor(self.audio.executor, work)
        try:
            return await asyncio.shield(running)
        except asyncio.CancelledError:
            self.stop.set()
            # The descriptor is closed behind us: the thread must not read another file through its number.
            await asyncio.wait([running], timeout=_STOPPED_SECONDS)
            if running.done() and not running.cancelled():
                running.exception()  # seen: nobody else will
            raise
        except AudioRejected:
            if not self.audio.recheck():  # cut short or rewritten under us: that says nothing about the audio
                raise AudioChanged(self.audio.name, "changed while it was decoded") from None
            raise
