"""Recordings to be dropped, each unlike the others, in every format that ffmpeg writes."""

from __future__ import annotations

import itertools
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from support.recordings import noise
from support.speech import SAMPLE_RATE_HZ, SPEECH, write_wav

if TYPE_CHECKING:
    from pathlib import Path

STATED = {
    "wav": [],
    "flac": [],
    "m4a": [],
    "ogg": ["-c:a", "libvorbis"],
    "opus": ["-c:a", "libopus", "-b:a", "64k"],
    "mka": ["-c:a", "libopus", "-b:a", "64k"],
    "mp3": ["-c:a", "libmp3lame"],
}
"""Formats that state their length, and ffmpeg's options."""

UNSTATED = {"aac": ["-c:a", "aac"], "mp3": ["-c:a", "libmp3lame", "-write_xing", "0"]}
_RECORDING_SECONDS = 20


class Library:
    """Recordings to be dropped: different pieces of real speech, or of noise where there is none."""

    def __init__(self, folder: Path, count: int) -> None:
        self.folder = folder
        self.numbers = range(count)
        folder.mkdir()
        self._speech = _speech()
        self._lock = threading.Lock()

    def wav(self, number: int, seconds: float = _RECORDING_SECONDS) -> Path:
        """A WAV of so many seconds, unlike that of any other number."""
        path = self.folder / f"{number:02}-{seconds:g}.wav"
        with self._lock:
            if not path.exists():
                count = int(seconds * SAMPLE_RATE_HZ) * 2
                start = number * 7 * SAMPLE_RATE_HZ * 2 % len(self._speech)
                times = 1 + (start + count) // len(self._speech)
                write_wav(path, (self._speech * times)[start : start + count])
        return path

    def encode(self) -> None:
        """Make every recording in one format that states its length, and in one that does not."""
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(self._encode, itertools.product(("stated", "unstated"), self.numbers)))

    def encoded(self, number: int, kind: str = "stated") -> Path:
        """One of them."""
        forms = list(STATED if kind == "stated" else UNSTATED)
        return self.folder / kind / f"{number:02}.{forms[number % len(forms)]}"

    def _encode(self, which: tuple[str, int]) -> None:
        kind, number = which
        target = self.encoded(number, kind)
        target.parent.mkdir(exist_ok=True)
        options = (STATED | UNSTATED if kind == "unstated" else STATED)[target.suffix[1:]]
        run("ffmpeg", "-v", "error", "-i", self.wav(number), *options, target)


def _speech() -> bytes:
    clips = sorted((SPEECH / "clips").glob("*.*")) if SPEECH.is_dir() else []
    if not clips:
        return b"".join(noise(1, seed=seed).tobytes() for seed in range(180))
    pcm = ("-f", "s16le", "-ar", SAMPLE_RATE_HZ, "-ac", 1, "-")
    return b"".join(run("ffmpeg", "-v", "error", "-i", clip, *pcm) for clip in clips)


def run(*command: object, text: str | None = None, may_fail: bool = False) -> bytes:
    """Run a program to its end; its output."""
    given = None if text is None else text.encode()
    stdin = subprocess.DEVNULL if given is None else None
    done = subprocess.run(
        [*map(str, command)], input=given, stdin=stdin, capture_output=True, timeout=180, check=False
    )
    if done.returncode and not may_fail:
        raise RuntimeError(f"{command}: {done.stderr.decode(errors='replace')}{done.stdout[-500:]!r}")
    return done.stdout
