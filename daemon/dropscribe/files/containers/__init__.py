"""Detects from a file's own container whether the file is complete.

Most containers state their length, so a complete file can be taken at once, and an interrupted upload is
recognised, which no other sign allows.

Guarantees: a few kilobytes are read at any file size (FLAC and Ogg: 256 KiB); no content raises an exception.
COMPLETE is returned only if the file has its stated length. A file that cannot be judged is UNKNOWN, so that
text named .wav does not wait for data that never comes.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from dropscribe.core.settling import Completeness
from dropscribe.files.containers.chunks import examine_aiff, examine_au, examine_caf, examine_w64, examine_wav
from dropscribe.files.containers.elements import examine_asf, examine_matroska, examine_mp4
from dropscribe.files.containers.flac import examine_flac
from dropscribe.files.containers.mp3 import examine_mp3
from dropscribe.files.containers.ogg import examine_ogg
from dropscribe.files.containers.tails import end_of_audio, start_of_audio

if TYPE_CHECKING:
    from collections.abc import Callable

    from dropscribe.files.containers.reading import ReadAt

_HEAD_BYTES = 40
_WAV_MAGICS = (b"RIFF", b"RF64", b"BW64")
_W64_MAGIC = b"riff\x2e\x91\xcf\x11"
_ASF_MAGIC = b"\x30\x26\xb2\x75\x8e\x66\xcf\x11"
_EBML_MAGIC = b"\x1a\x45\xdf\xa3"
_MP4_FIRST = frozenset({b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot", b"styp"})
_MP4_SUFFIXES = frozenset({".m4a", ".m4b", ".mp4", ".m4v", ".mov", ".3gp", ".3g2", ".m4r", ".m4p", ".qt"})
_MAGIC_BY_SUFFIX = {
    **dict.fromkeys((".wav", ".wave", ".rf64"), _WAV_MAGICS),
    ".flac": (b"fLaC",),
    **dict.fromkeys((".ogg", ".oga", ".opus", ".spx"), (b"OggS",)),
    **dict.fromkeys((".aif", ".aiff", ".aifc"), (b"FORM",)),
    ".caf": (b"caff",),
    **dict.fromkeys((".au", ".snd"), (b".snd",)),
    ".w64": (_W64_MAGIC,),
    **dict.fromkeys((".wma", ".wmv", ".asf"), (_ASF_MAGIC,)),
    **dict.fromkeys((".mkv", ".mka", ".webm", ".weba"), (_EBML_MAGIC,)),
}
_LONG_MAGICS = frozenset({b"RIFF", b"RF64", b"BW64", b"FORM"})  # the kind of file follows after the length


def examine(read_at: ReadAt, size_bytes: int, suffix: str) -> Completeness:
    """Whether a file is complete, by the length that its container states.

    Args:
        read_at: Reads the file; see :data:`~dropscribe.files.containers.reading.ReadAt`.
        size_bytes: Its size.
        suffix: The name's suffix in lower case with its dot. The content decides; the suffix is used only
            for a file that is too short for its first bytes to name the container.
    """
    start = start_of_audio(read_at)

    def read_audio_at(offset: int, count: int) -> bytes:
        return read_at(start + offset, count)

    head = read_audio_at(0, _HEAD_BYTES)
    examiner = _examiner(head)
    if examiner is None:
        return Completeness.INCOMPLETE if _has_only_begun(head, suffix) else Completeness.UNKNOWN
    try:
        return examiner(read_audio_at, end_of_audio(read_at, size_bytes) - start)
    except struct.error:
        return Completeness.INCOMPLETE  # a header that ends before its last field


def _examiner(head: bytes) -> Callable[[ReadAt, int], Completeness] | None:
    if head[:4] in _WAV_MAGICS and head[8:12] == b"WAVE":
        return examine_wav
    if head[:4] == b"FORM" and head[8:12] in {b"AIFF", b"AIFC"}:
        return examine_aiff
    if head[4:8] in _MP4_FIRST:
        return examine_mp4
    by_magic: dict[bytes, Callable[[ReadAt, int], Completeness]] = {
        b"fLaC": examine_flac,
        b"OggS": examine_ogg,
        b"caff": examine_caf,
        b".snd": examine_au,
        b"riff": examine_w64,
        _ASF_MAGIC: examine_asf,
        _EBML_MAGIC: examine_matroska,
    }
    found = by_magic.get(head[:4]) or by_magic.get(head[:8])
    if found is None and len(head) >= 4 and head[0] == 0xFF and head[1] & 0xE0 == 0xE0:
        return examine_mp3
    return found


def _has_only_begun(head: bytes, suffix: str) -> bool:
    """Whether the first bytes may be the start of a header, or space that is reserved for one."""
    magics = _MAGIC_BY_SUFFIX.get(suffix)
    if magics is None and suffix not in _MP4_SUFFIXES:
        return False
    if not head.strip(b"\0"):
        return True
    if magics is None:
        return len(head) < 8
    return any(
        len(head) < (12 if magic in _LONG_MAGICS else len(magic)) and head[:4] == magic[: len(head[:4])]
        for magic in magics
    )
