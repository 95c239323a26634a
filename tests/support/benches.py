"""One adapter on a bench: its server, its config, files to send."""

from __future__ import annotations

import hashlib
import os
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import pytest

from dropscribe.config.model import ProviderConfig
from dropscribe.config.notation.secret import Secret
from dropscribe.config.sections.http_api import AnswerKeys, ErrorKeys
from dropscribe.core.errors import ProviderError
from dropscribe.files.audio import AudioFile
from dropscribe.providers.build import build_provider
from support.emulator import Fault as EmulatorFault
from support.job_vendors import GLADIA
from support.recipes import recipe_config
from support.vendors import KEY

if TYPE_CHECKING:
    import contextlib
    from pathlib import Path

    from dropscribe.providers.base import Provider
    from dropscribe.providers.conformance import Fault
    from support.emulator import Emulator

PATHS = {
    "pulse": "/api/v1/pulse/get_text",
    "reson8": "/v1/speech-to-text/prerecorded",
    "openai": "/v1",
    "deepgram": "",
    "elevenlabs": "",
    "whisper-asr": "",
    "azure": "",
    "http": "/v1/listen",
}
JOB_PATHS = {"assemblyai": "", "soniox": "", "speechmatics": "", "gladia": GLADIA}
"""The same of the types with jobs."""
DESCRIBED_JOBS = "http-jobs"
"""`type: http` with `poll`, as the recipe of docs/providers.md has it."""
DEEPGRAM_IN_WORDS: dict[str, Any] = {
    "key_header": "Authorization: Token {key}",
    "answer": AnswerKeys(
        text="results.channels[0].alternatives[0].transcript",
        words="results.channels[0].alternatives[0].words[].{word: punctuated_word || word, start: start,"
        " end: end, confidence: confidence, speaker: speaker}",
        segments="results.utterances[].{text: transcript, start: start, end: end, confidence: confidence,"
        " speaker: speaker}",
        language="results.channels[0].detected_language",
        duration="metadata.duration",
        request_id="metadata.request_id",
    ),
    "errors": ErrorKeys(file=("REMOTE_CONTENT_ERROR",), rule=("INVALID_QUERY_PARAMETER",)),
}
"""Deepgram's API as a config of `type: http` describes it."""
FORMS = frozenset({"openai", "elevenlabs", "whisper-asr", "azure"})
"""Types that send a form, which the emulator reads whole."""


def any_answer(
    text: str, language: str | None = None, words: tuple[dict[str, Any], ...] = ()
) -> dict[str, Any]:
    """A success in which every type finds *text* and the rest at its own place."""
    alternative = {"transcript": text, "words": words}
    return {
        "status": "success",
        "transcription": text,
        "text": text,
        "language": language,
        "language_code": language,
        "results": {"channels": [{"alternatives": [alternative], "detected_language": language}]},
        "combinedPhrases": [{"text": text}],
        "phrases": [{"text": text, "locale": language, "words": words}],
        **({"words": words, "segments": words, "utterances": words} if words else {}),
    }


@dataclass
class Bench:
    """One adapter, its server, and files to send; see dropscribe.providers.conformance.StandIn."""

    type: str
    emulator: Emulator
    folder: Path
    stack: contextlib.AsyncExitStack

    def provider(self, **overrides: Any) -> Provider:
        """An adapter for the emulator; *overrides* are ProviderConfig's."""
        if self.type == DESCRIBED_JOBS:
            return self._described_jobs(overrides)
        settings: dict[str, Any] = {
            "name": "mine",
            "type": self.type,
            "url": self.emulator.url + (PATHS | JOB_PATHS)[self.type],
            "api_key": Secret(KEY, "test"),
            "timeout_seconds": 5.0,
        }
        if self.type == "http":
            settings |= DEEPGRAM_IN_WORDS
        return self._built(ProviderConfig(**{**settings, **overrides}))

    def _described_jobs(self, overrides: dict[str, Any]) -> Provider:
        """The type has no defaults: the recipe's `params` are laid under a test's."""
        config = recipe_config("jobs", self.emulator.url)
        provider = self._built(replace(config, **overrides))
        provider.vendor.params = lambda given: {**config.params, **given}
        return provider

    def _built(self, config: ProviderConfig) -> Provider:
        provider = build_provider(config)
        self.stack.push_async_callback(provider.close)
        return provider

    def audio(self, content: bytes = b"RIFF\x24\0\0\0WAVEfmt speech", name: str = "call.wav") -> AudioFile:
        """An open file with *content*."""
        (self.folder / name).write_bytes(content)
        audio = AudioFile.open(os.fsencode(self.folder), os.fsencode(name))
        self.stack.callback(audio.close)
        return audio

    @property
    def key(self) -> str:
        """The key that the emulator takes."""
        return KEY

    def shrink(self, audio: AudioFile) -> None:
        """Cut the content of *audio* to a byte."""
        os.truncate(self.folder / os.fsdecode(audio.name), 1)

    def hear(self, text: str) -> None:
        """Let the vendor hear *text* in all audio."""
        self.emulator.vendors.text = text

    def fail(self, *faults: Fault | None) -> None:
        """Set the answers to the next requests; None is the documented one."""
        self.emulator.fail(*(EmulatorFault(**asdict(each)) if each else None for each in faults))

    def request_count(self) -> int:
        """The number of requests that the emulator has received."""
        return len(self.emulator.requests)

    def times_received(self, content: bytes) -> int:
        """The number of requests with the audio *content*, whole and unchanged."""
        digest = hashlib.sha256(content).hexdigest()
        return sum(request.audio_sha256 == digest for request in self.emulator.requests)


async def failure_of(provider, audio, params=None) -> ProviderError:
    """The error of one attempt, which must fail."""
    with pytest.raises(ProviderError) as caught:
        await provider.transcribe(audio, params or {})
    return caught.value
