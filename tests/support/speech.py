"""Real speech for the tests of the embedded engine, where there is any, and how to judge what was heard."""

from __future__ import annotations

import difflib
import importlib.util
import re
import wave
from pathlib import Path

import pytest

SPEECH = Path(__file__).resolve().parents[3] / "shared" / "audio"
SAMPLE_RATE_HZ = 16_000
SENSE_AND_SENSIBILITY = (
    "and mister john dashwood had then leisure to consider how much there might be prudently in his power "
    "to do for them"
)

needs_engine = [
    pytest.mark.local,
    pytest.mark.skipif(
        importlib.util.find_spec("faster_whisper") is None, reason="the extra `local` is not installed"
    ),
]
needs_speech = pytest.mark.skipif(not SPEECH.is_dir(), reason="no recordings in ../shared/audio")


def references() -> dict[str, str]:
    """The words of each clip, by file name, from the recordings' manifest."""
    rows = (line.strip("| \n").split(" | ") for line in (SPEECH / "MANIFEST.md").read_text().splitlines())
    return {Path(row[0]).name: row[-1] for row in rows if row[0].startswith("clips/")}


def words_of(text: str) -> list[str]:
    """*text* as it is compared: lower case, no punctuation, "Mr." as it is spoken."""
    return re.findall(r"[a-z0-9']+", re.sub(r"\bmr\b\.?", "mister", text.lower().replace("-", " ")))


def missing_words(spoken: str, heard: str) -> list[list[str]]:
    """Runs of words of *spoken* for which *heard* has nothing at all at that place."""
    ours, theirs = words_of(spoken), words_of(heard)
    steps = difflib.SequenceMatcher(None, ours, theirs, autojunk=False).get_opcodes()
    return [ours[begin:end] for tag, begin, end, _, _ in steps if tag == "delete"]


def likeness(spoken: str, heard: str) -> float:
    """0..1: how much of the words of *spoken* and *heard* is the same."""
    return difflib.SequenceMatcher(None, words_of(spoken), words_of(heard), autojunk=False).ratio()


def write_wav(path: Path, frames: bytes) -> Path:
    """Write 16-bit mono *frames* at 16 kHz to *path*."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE_HZ)
        file.writeframes(frames)
    return path


def silence(seconds: float) -> bytes:
    """Digital silence."""
    return bytes(2 * int(seconds * SAMPLE_RATE_HZ))
