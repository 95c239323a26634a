"""Detects from a file's own container whether the file is complete.

Most containers state their length, so a complete file can be taken at once, and an interrupted upload is
recognised, which no other sign allows.

Guarantees: a few kilobytes are read at any file size (FLAC and Ogg: 256 KiB); no content raises an exception.
COMPLETE is returned only if the file has its stated length. A file that cannot be judged is UNKNOWN, so that
text named .wav does not wait for data that never comes.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from dropscribe.core.settling import Completeness
from dropscribe.files.containers.frames import examine_flac, examine_ogg
from dropscribe.files.containers.lengths import (
    ChunkLayout,
    ReadAt,
    examine_asf,
    examine_au,
    examine_chunks,
    examine_matroska,
    examine_mp3,
    examine_mp4,
)

_HEAD_BYTES = 40
_MOST_TAILS = 8
_ID3V1_BYTES, _ID3V1_MORE_BYTES = 128, 227
_APE_BYTES, _APE_HAS_HEADER = 32, 1 << 31
_LYRICS_BYTES = 15


class _Kind(NamedTuple):
    """One container format: how its files are recognised and examined."""

    examine: Callable[[ReadAt, int], Completeness]
    suffixes: str
    magics: tuple[bytes, ...]  # Bytes that its files have at *magic_at*
    forms: tuple[bytes, ...] = ()  # Bytes 8 to 12, where other containers begin with the same bytes
    magic_at: int = 0

    def is_of(self, head: bytes) -> bool:
        """Whether a file that begins with *head* is one."""
        return head[self.magic_at :].startswith(self.magics) and (not self.forms or head[8:12] in self.forms)

    def has_only_begun(self, head: bytes) -> bool:
        """Whether *head* may be the start of a header, or space that is reserved for one."""
        if not head.strip(b"\0"):
            return True
        if self.magic_at:
            return len(head) < self.magic_at + 4
        possible = [magic for magic in self.magics if magic.startswith(head[:4])]
        return any(len(head) < (12 if self.forms else len(magic)) for magic in possible)


_MP4_FIRST = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot", b"styp")
_WAV = ChunkLayout(12, "<4sI", b"data", align=2)
# 8 bytes are offset and block size: a recorder writes the chunk first, without any sound.
_AIFF = ChunkLayout(12, ">4sI", b"SSND", align=2, skipped_bytes=8)
_CAF = ChunkLayout(8, ">4sq", b"data", skipped_bytes=4)  # a number of edits
_W64_DATA = b"data\xf3\xac\xd3\x11\x8c\xd1\x00\xc0\x4f\x8e\xdb\x8a"  # names of Sony Wave64 are GUIDs
_W64 = ChunkLayout(40, "<16sQ", _W64_DATA, align=8, counted_bytes=24)
_KINDS = (
    _Kind(partial(examine_chunks, _WAV), ".wav .wave .rf64", (b"RIFF", b"RF64", b"BW64"), (b"WAVE",)),
    _Kind(partial(examine_chunks, _AIFF), ".aif .aiff .aifc", (b"FORM",), (b"AIFF", b"AIFC")),
    _Kind(examine_mp4, ".m4a .m4b .mp4 .m4v .mov .3gp .3g2 .m4r .m4p .qt", _MP4_FIRST, magic_at=4),
    _Kind(examine_flac, ".flac", (b"fLaC",)),
    _Kind(examine_ogg, ".ogg .oga .opus .spx", (b"OggS",)),
    _Kind(partial(examine_chunks, _CAF), ".caf", (b"caff",)),
    _Kind(examine_au, ".au .snd", (b".snd",)),
    _Kind(partial(examine_chunks, _W64), ".w64", (b"riff",)),
    _Kind(examine_asf, ".wma .wmv .asf", (b"\x30\x26\xb2\x75\x8e\x66\xcf\x11",)),
    _Kind(examine_matroska, ".mkv .mka .webm .weba", (b"\x1a\x45\xdf\xa3",)),
)
_KIND_BY_SUFFIX = {suffix: kind for kind in _KINDS for suffix in kind.suffixes.split()}


def examine(read_at: ReadAt, size_bytes: int, suffix: str) -> Completeness:
    """Whether a file is complete, by the length that its container states.

    Args:
        read_at: Reads the file; see :data:`~dropscribe.files.containers.lengths.ReadAt`.
        size_bytes: Its size.
        suffix: The name's suffix in lower case with its dot. The content decides; the suffix is used only
            for a file that is too short for its first bytes to name the container.
    """
    start = _start_of_audio(read_at)
    head = read_at(start, _HEAD_BYTES)
    examiner = next((kind.examine for kind in _KINDS if kind.is_of(head)), None)
    if examiner is None and head[:1] == b"\xff" and len(head) >= 4 and head[1] & 0xE0 == 0xE0:
        examiner = examine_mp3
    if examiner is None:
        kind = _KIND_BY_SUFFIX.get(suffix)
        return Completeness.INCOMPLETE if kind and kind.has_only_begun(head) else Completeness.UNKNOWN
    audio_bytes = _end_of_audio(read_at, size_bytes) - start

    def read_audio_at(offset: int, count: int) -> bytes:
        # A length in the file may lead to an offset that no system call takes.
        return read_at(start + offset, min(count, audio_bytes - offset)) if offset < audio_bytes else b""

    try:
        return examiner(read_audio_at, audio_bytes)
    except struct.error:
        return Completeness.INCOMPLETE  # a header that ends before its last field


def _start_of_audio(read_at: ReadAt) -> int:
    """Offset at which the audio's own container begins: after an ID3v2 tag, if there is one."""
    head = read_at(0, 10)
    if head[:3] != b"ID3" or len(head) < 10:
        return 0
    return 10 + _syncsafe(head[6:10]) + (10 if head[5] & 0x10 else 0)


def _end_of_audio(read_at: ReadAt, size_bytes: int) -> int:
    """Offset at which the audio's own container ends: before all known tags.

    Taggers append these to any kind of file, so that a whole FLAC or M4A seems not to end where it should.
    """
    end = size_bytes
    for _ in range(_MOST_TAILS):
        count = _tail_bytes(read_at, end)
        if count <= 0 or count >= end:
            break
        end -= count
    return end


def _tail_bytes(read_at: ReadAt, end: int) -> int:
    """Length of the ID3, APE or Lyrics3 tag that ends at *end*; 0 if there is none."""
    start = max(0, end - _ID3V1_BYTES)
    tail = read_at(start, end - start)
    if len(tail) == _ID3V1_BYTES and tail[:3] == b"TAG":
        more_at = start - _ID3V1_MORE_BYTES
        return _ID3V1_BYTES + (_ID3V1_MORE_BYTES if more_at >= 0 and read_at(more_at, 4) == b"TAG+" else 0)
    footer = tail[-_APE_BYTES:]
    if footer[:8] == b"APETAGEX" and len(footer) == _APE_BYTES:
        flags = int.from_bytes(footer[20:24], "little")
        return int.from_bytes(footer[12:16], "little") + (_APE_BYTES if flags & _APE_HAS_HEADER else 0)
    if footer[-9:] == b"LYRICS200" and footer[-_LYRICS_BYTES:-9].isdigit():
        return int(footer[-_LYRICS_BYTES:-9]) + _LYRICS_BYTES
    return 20 + _syncsafe(footer[-4:]) if footer[-10:-7] == b"3DI" else 0


def _syncsafe(size: bytes) -> int:
    """The number of an ID3v2 header: seven bits of each byte."""
    return size[0] << 21 | size[1] << 14 | size[2] << 7 | size[3]
