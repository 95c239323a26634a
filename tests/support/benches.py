"""One adapter on a bench: its server, its config, files to send."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from dropscribe.config.model import ProviderConfig
from dropscribe.config.notation.secret import Secret
from dropscribe.config.sections.http_api import AnswerKeys, ErrorKeys
from dropscribe.core.errors import ProviderError
from dropscribe.files.audio import AudioFile
from dropscribe.providers.build import build_provider
from support.vendors import KEY

if TYPE_CHECKING:
    import contextlib
    from pathlib import Path

    from dropscribe.providers.base import Provider
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
    """One adapter, its server, and files to send."""

    type: str
    emulator: Emulator
    folder: Path
    stack: contextlib.AsyncExitStack

    def provider(self, **overrides: Any) -> Provider:
        """An adapter for the emulator; *overrides* are ProviderConfig's."""
        settings: dict[str, Any] = {
            "name": "mine",
            "type": self.type,
            "url": self.emulator.url + PATHS[self.type],
            "api_key": Secret(KEY, "test"),
            "timeout_seconds": 5.0,
        }
        if self.type == "http":
            settings |= DEEPGRAM_IN_WORDS
        provider = build_provider(ProviderConfig(**{**settings, **overrides}))
        self.stack.push_async_callback(provider.close)
        return provider

    def audio(self, content: bytes = b"RIFF\x24\0\0\0WAVEfmt speech", name: str = "call.wav") -> AudioFile:
        """An open file with *content*."""
        (self.folder / name).write_bytes(content)
        audio = AudioFile.open(os.fsencode(self.folder), os.fsencode(name))
        self.stack.callback(audio.close)
        return audio


async def failure_of(provider, audio, params=None) -> ProviderError:
    """The error of one attempt, which must fail."""
    with pytest.raises(ProviderError) as caught:
        await provider.transcribe(audio, params or {})
    return caught.value
