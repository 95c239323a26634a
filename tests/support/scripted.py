"""A provider that follows a script: element N is the result of attempt N."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from dropscribe.transcripts.model import Segment, Transcript, Word


def transcript_of(text: str) -> Transcript:
    """A small transcript with times."""
    return Transcript(
        text=text,
        language="en",
        duration=1.0,
        segments=(Segment(text, 0.0, 1.0),),
        words=(Word(text, 0.0, 1.0, 0.9),),
        model="scripted",
        raw={"text": text},
    )


@dataclass
class ScriptedProvider:
    """Answers with the audio's digest unless the script has something else for this attempt.

    Script elements: an exception is raised, a Transcript returned, a callable called with the audio
    (it may be async), None means the default answer.
    """

    script: list = field(default_factory=list)
    calls: list[bytes] = field(default_factory=list)
    gate: asyncio.Event | None = None
    in_flight: int = 0
    most_in_flight: int = 0

    async def transcribe(self, audio, params):
        step = self.script[len(self.calls)] if len(self.calls) < len(self.script) else None
        self.calls.append(audio.name)
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            return await self._play(step, audio)
        finally:
            self.in_flight -= 1

    async def _play(self, step, audio):
        async for _ in audio.blocks():
            pass
        if self.gate is not None:
            await self.gate.wait()
        if isinstance(step, Callable):
            step = step(audio)
            if asyncio.iscoroutine(step):
                step = await step
        if isinstance(step, BaseException):
            raise step
        return step or transcript_of(f"heard {audio.sha256[:16]}")

    async def probe(self):
        return "scripted"

    async def close(self):
        return None
