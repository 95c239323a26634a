"""Facts about a recording from its headers, as plain values; loads no native library."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

SAMPLE_RATE_HZ = 16_000  # Sample rate of speech models; providers resample higher rates
WINDOW_SECONDS = 0.1  # Loudness is measured in windows of this length
SILENCE_DBFS = -200.0  # Level of digital silence, which has no finite logarithm
# Warning: the model knows only English, and no language was given.
NOT_DETECTED = "language_not_detected_english_only"
# Warning: the file has further audio tracks that are not silent, and they were not transcribed.
OTHER_TRACKS = "other_tracks"

MIN_RATE_HZ, MAX_RATE_HZ = 4_000, 768_000
MAX_CHANNELS = 64

# Even silence in Opus or FLAC has a higher rate. A header that claims a longer recording is ignored.
_MIN_BYTES_PER_SECOND = 10
_HEAD_SECONDS = 60.0  # a header may claim this much more than the size of the file allows


@dataclass(frozen=True, slots=True)
class RawForm:
    """Encoding of a file without a header."""

    encoding: str = "pcm_s16le"  # FFmpeg's name of the codec, or of a headerless format ("gsm")
    sample_rate_hz: int = SAMPLE_RATE_HZ
    channels: int = 1


# Suffixes of headerless samples of unknown form: only the rule's parameters can state it.
RAW_SUFFIXES = frozenset({".pcm", ".raw"})
_TELEPHONY = {
    **dict.fromkeys((".al", ".alaw", ".pcma"), RawForm("pcm_alaw", 8000)),
    **dict.fromkeys((".ul", ".ulaw", ".pcmu"), RawForm("pcm_mulaw", 8000)),
    ".gsm": RawForm("gsm", 8000),
    ".g722": RawForm("g722", 16_000),
    ".vox": RawForm("adpcm_ima_oki", 8000),
}
"""Formats of telephone systems that have no header but only one form (Asterisk's file formats; Dialogic)."""


def is_raw(suffix: str, head: bytes) -> bool:
    """Whether a file with this *suffix* and *head* holds headerless samples."""
    return suffix in RAW_SUFFIXES and not _has_header(head)


_SIGNED_LINEAR = re.compile(r"\.sln(\d{0,3})")
_HEADERS = (b"RIFF", b"RF64", b"OggS", b"fLaC", b"ID3", b"FORM", b"caff", b".snd", b"\x1aE\xdf\xa3", b"#!AMR")


def raw_form(suffix: str, head: bytes) -> RawForm | None:
    """The form that Asterisk and Dialogic give to files with *suffix*; None for a file with a header."""
    if _has_header(head):
        return None
    if found := _SIGNED_LINEAR.fullmatch(suffix):
        rate = int(found[1] or 8) * 1000
        return RawForm("pcm_s16le", 44_100 if rate == 44_000 else rate) if rate >= MIN_RATE_HZ else None
    return _TELEPHONY.get(suffix)


def _has_header(head: bytes) -> bool:
    # The sync word of MPEG audio is not in the list, because quiet samples can begin like it.
    return head.startswith(_HEADERS) or head[4:8] == b"ftyp"


@dataclass(frozen=True, slots=True)
class Recording:
    """One audio file as its headers describe it."""

    container: str  # wav, mp3, flac, ogg, webm, mp4 (m4a too), mov, 3gp, matroska, or FFmpeg's own name
    codec: str  # FFmpeg's name of the audio's codec ("pcm_s16le", "opus")
    channels: int  # 1 for mono
    seconds: float | None = None  # Of the audio track, or None if no header has it, or an impossible one
    has_video: bool = False  # It has moving pictures, not only a cover
    recorded_at: str | None = None  # ISO 8601, with a zone only if the file states it
    # Numbers of the audio tracks to transcribe, the default track first: those that are not silent, or the
    # default track alone where all are.
    tracks: tuple[int, ...] = (0,)


@dataclass(frozen=True, slots=True)
class Survey:
    """Measurements of one audio track."""

    sound_seconds: float  # Length of the decoded sound, gaps of the file's clock left out
    end_seconds: float  # When it ends on the file's clock
    channels_differ: bool  # A second channel holds something else than the first
    is_whole: bool  # False where the look ended early, at a sound or at an error
    # Mean square of each window of 0.1 s, in its loudest channel; 1.0 is full scale.
    loudness: Sequence[float]

    @property
    def loudest_dbfs(self) -> float:
        """Level of the loudest window; -200 for digital silence."""
        return dbfs(max(self.loudness, default=0.0))


@dataclass(slots=True)
class Piece:
    """One encoded piece of a track."""

    number: int
    start: float  # Seconds on the file's clock
    end: float  # As *start*; of the last piece, the real end
    # (seconds from the piece's start, seconds by which the file's clock jumps there).
    jumps: list[tuple[float, float]] = field(default_factory=list)
    is_written: bool = True  # False for one that was to be skipped


def parse_piece(body: Mapping[str, Any]) -> Piece:
    """A worker's description of a piece; raises as :func:`parse_recording`."""
    start, end = parse_seconds(body["start"]), parse_seconds(body["end"])
    jumps = [(parse_seconds(at), parse_seconds(jump)) for at, jump in body["jumps"]]
    return Piece(int(body["number"]), start, end, jumps, bool(body["is_written"]))


def parse_seconds(value: object) -> float:
    """*value* as seconds; raises ValueError."""
    if not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
        raise ValueError(value)
    return float(value)


def parse_recording(body: Mapping[str, Any], size_bytes: int) -> Recording:
    """A worker's description of a file of *size_bytes*; raises TypeError, ValueError or KeyError."""
    recorded_at = body["recorded_at"]
    return Recording(
        container=str(body["container"])[:40],
        codec=str(body["codec"])[:40],
        channels=int(body["channels"]),
        seconds=plausible_seconds(body["seconds"], size_bytes),
        has_video=bool(body["has_video"]),
        recorded_at=None if recorded_at is None else str(recorded_at)[:40],
        tracks=tuple(int(track) for track in body["tracks"][:MAX_CHANNELS]),
    )


def plausible_seconds(claimed: object, size_bytes: int) -> float | None:
    """*claimed* as seconds, or None where a file of *size_bytes* cannot be so long."""
    try:
        seconds = parse_seconds(claimed)
    except ValueError:
        return None
    return seconds if seconds <= _HEAD_SECONDS + size_bytes / _MIN_BYTES_PER_SECOND else None


def dbfs(mean_square: float) -> float:
    """A mean square in decibels; 0 is the loudest there is."""
    return 10 * math.log10(mean_square) if mean_square > 10 ** (SILENCE_DBFS / 10) else SILENCE_DBFS
