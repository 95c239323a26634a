"""Media type of an audio file, by its first bytes and its name, as vendors name it.

Guarantees: pure; a guess only says how to label the upload, the provider decodes and decides.
"""

from __future__ import annotations

import re

from dropscribe.native.recording import RAW_SUFFIXES, is_raw

OCTETS = "application/octet-stream"

_CONTAINERS = (
    (".3g2", "video/3gpp2", ""),
    (".3gp", "video/3gpp", ".3ga"),
    (".aac", "audio/aac", ".adts"),
    (".aif", "audio/aiff", ""),
    (".aiff", "audio/aiff", ""),
    (".amr", "audio/amr", ""),
    (".au", "audio/basic", ""),
    (".avi", "video/x-msvideo", ""),
    (".caf", "audio/x-caf", ""),
    (".flac", "audio/flac", ""),
    (".m4a", "audio/mp4", ".m4b .m4r"),
    (".m4v", "video/mp4", ""),
    (".mka", "audio/x-matroska", ""),
    (".mkv", "video/x-matroska", ""),
    (".mov", "video/quicktime", ".qt"),
    (".mp3", "audio/mpeg", ".mp2 .mpa .mpeg .mpga"),
    (".mp4", "video/mp4", ""),
    (".ogg", "audio/ogg", ".oga .opus .spx"),
    (".wav", "audio/wav", ".rf64 .wave"),
    (".webm", "audio/webm", ".weba"),
    (".wma", "audio/x-ms-wma", ""),
)
"""Suffix, media type, and other suffixes of the same container."""
_MEDIA_TYPES = {suffix: kind for suffix, kind, _ in _CONTAINERS}
_SAME_AS = {other: suffix for suffix, _, others in _CONTAINERS for other in others.split()}

_MP4_FAMILY = frozenset({".m4a", ".m4v", ".mp4", ".mov", ".3gp", ".3g2"})
_FAMILIES = (_MP4_FAMILY, frozenset({".webm", ".mkv", ".mka"}))
"""Containers that cannot be told apart by their first bytes: there a fitting suffix decides."""

_TAGGED = frozenset({".mp3", ".aac", ".flac"})  # an ID3 tag may stand before each of these

_OPENAI_NAMES = {
    **dict.fromkeys((".mov", ".m4v", ".3gp", ".3g2"), ".mp4"),
    **dict.fromkeys((".mkv", ".mka"), ".webm"),
}
"""OpenAI's servers decode by name and take flac, m4a, mp3, mp4, mpeg, mpga, oga, ogg, wav and webm."""

_MP4_BRANDS = {b"M4A": ".m4a", b"M4B": ".m4a", b"M4V": ".m4v", b"qt ": ".mov", b"3gp": ".3gp", b"3g2": ".3g2"}
_QUICKTIME_ATOMS = {b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot"}
_MARKS = {
    b"fLaC": ".flac",
    b"OggS": ".ogg",
    b"caff": ".caf",
    b".snd": ".au",
    b"#!AM": ".amr",
    b"\x30\x26\xb2\x75": ".wma",
}
_SAFE_SUFFIX = re.compile(r"\.[a-z0-9]{1,8}")


def sniffed_suffix(head: bytes) -> str:
    """The suffix by the first bytes, or "" if they are unknown."""
    if head[:4] in {b"RIFF", b"RF64", b"BW64"} and head[8:12] == b"WAVE":
        return ".wav"
    if head[:4] == b"FORM" and head[8:12] in {b"AIFF", b"AIFC"}:
        return ".aiff"
    if head[4:8] == b"ftyp":
        return _MP4_BRANDS.get(head[8:11], ".mp4")
    if head[4:8] in _QUICKTIME_ATOMS:
        return ".mov"
    if head[:4] == b"\x1a\x45\xdf\xa3":
        return ".mkv" if b"matroska" in head[:64] else ".webm"
    return _MARKS.get(head[:4]) or _mpeg_suffix(head)


def container_suffix(suffix: str, head: bytes) -> str:
    """The suffix of the audio's container: by content where it can be told, else by name; "" if neither."""
    if is_raw(suffix, head):
        return suffix
    named = _SAME_AS.get(suffix, suffix)
    found = sniffed_suffix(head)
    if not found:
        return named if _SAFE_SUFFIX.fullmatch(named) else ""
    if head[:3] == b"ID3" and named in _TAGGED:
        return named
    return named if any(found in family and named in family for family in _FAMILIES) else found


def media_type(suffix: str, head: bytes) -> str:
    """The upload's Content-Type, or ``application/octet-stream``."""
    return _MEDIA_TYPES.get(container_suffix(suffix, head), OCTETS)


def upload_name(suffix: str, head: bytes) -> str:
    """An ASCII file name with the suffix of its format; never the user's own name."""
    found = container_suffix(suffix, head)
    return f"audio{_OPENAI_NAMES.get(found, found)}"


def reson8_encoding(suffix: str, head: bytes) -> str:
    """Reson8's ``encoding``: MP4-family files and raw samples must be named."""
    found = container_suffix(suffix, head)
    if found in _MP4_FAMILY:
        return found.removeprefix(".")
    return "pcm_s16le" if found in RAW_SUFFIXES else "auto"


def _mpeg_suffix(head: bytes) -> str:
    if head[:3] == b"ID3":
        return ".mp3"
    if len(head) < 2 or head[0] != 0xFF:
        return ""
    if head[1] & 0xF6 == 0xF0:  # ADTS: layer 0
        return ".aac"
    return ".mp3" if head[1] & 0xE0 == 0xE0 and head[1] & 0x06 else ""
