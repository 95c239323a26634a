"""What kind of audio a file is, by its name and its first bytes, in the words that vendors use.

Guarantees: pure; a guess only says how to label the upload, the provider decodes and decides.
"""

from __future__ import annotations

import re

OCTETS = "application/octet-stream"

MEDIA_TYPES = {
    ".3g2": "video/3gpp2",
    ".3gp": "video/3gpp",
    ".aac": "audio/aac",
    ".aif": "audio/aiff",
    ".aiff": "audio/aiff",
    ".amr": "audio/amr",
    ".avi": "video/x-msvideo",
    ".caf": "audio/x-caf",
    ".flac": "audio/flac",
    ".m4a": "audio/mp4",
    ".m4b": "audio/mp4",
    ".m4v": "video/mp4",
    ".mka": "audio/x-matroska",
    ".mkv": "video/x-matroska",
    ".mov": "video/quicktime",
    ".mp3": "audio/mpeg",
    ".mp4": "video/mp4",
    ".mpeg": "audio/mpeg",
    ".mpga": "audio/mpeg",
    ".oga": "audio/ogg",
    ".ogg": "audio/ogg",
    ".opus": "audio/ogg",
    ".wav": "audio/wav",
    ".wave": "audio/wav",
    ".webm": "audio/webm",
    ".wma": "audio/x-ms-wma",
}

_MP4_SUFFIXES = (".m4a", ".m4v", ".mp4", ".mov", ".3gp", ".3g2")
_MP4_BRANDS = {b"M4A ": ".m4a", b"M4B ": ".m4a", b"M4V ": ".m4v", b"qt  ": ".mov"}
_QUICKTIME_ATOMS = {b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot"}
_RAW_SUFFIXES = {".pcm", ".raw"}
_SAFE_SUFFIX = re.compile(r"\.[a-z0-9]{1,8}")
_LABELS = {".opus": ".ogg", ".m4b": ".m4a", ".wave": ".wav"}
"""Suffixes that OpenAI's list lacks, and the listed one of the same container (PROVIDERS.md §3.5)."""


def sniffed_suffix(head: bytes) -> str:
    """The suffix that the first bytes stand for, or "" where they tell nothing."""
    if head[:4] in {b"RIFF", b"RF64"} and head[8:12] == b"WAVE":
        return ".wav"
    if head[4:8] == b"ftyp":
        return _brand_suffix(head[8:12])
    if head[4:8] in _QUICKTIME_ATOMS:
        return ".mov"
    if head[:3] == b"ID3" or (len(head) > 1 and head[0] == 0xFF and head[1] & 0xE6 == 0xE2):
        return ".mp3"
    marks = {b"fLaC": ".flac", b"OggS": ".ogg", b"\x1a\x45\xdf\xa3": ".webm", b"caff": ".caf"}
    return marks.get(head[:4], "")


def media_type(suffix: str, head: bytes) -> str:
    """The upload's Content-Type: by suffix, else by content, else ``application/octet-stream``."""
    return MEDIA_TYPES.get(suffix) or MEDIA_TYPES.get(sniffed_suffix(head), OCTETS)


def upload_name(suffix: str, head: bytes) -> str:
    """An ASCII file name whose suffix tells the decoder; never the user's own name."""
    chosen = suffix if _SAFE_SUFFIX.fullmatch(suffix) else sniffed_suffix(head)
    return f"audio{_LABELS.get(chosen, chosen)}"


def reson8_encoding(suffix: str, head: bytes) -> str:
    """Reson8's ``encoding``: MP4-family files and raw samples must be named (PROVIDERS.md §2.5)."""
    found = sniffed_suffix(head)
    if found in _MP4_SUFFIXES:
        return (suffix if suffix in _MP4_SUFFIXES else found).removeprefix(".")
    if not found and suffix in _MP4_SUFFIXES:
        return suffix.removeprefix(".")
    return "pcm_s16le" if not found and suffix in _RAW_SUFFIXES else "auto"


def _brand_suffix(brand: bytes) -> str:
    if brand[:3] == b"3gp":
        return ".3gp"
    if brand[:3] == b"3g2":
        return ".3g2"
    return _MP4_BRANDS.get(brand, ".mp4")
