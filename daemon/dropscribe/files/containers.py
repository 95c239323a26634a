"""What a file's own container says about its length: is all of it there?

WAV, FLAC, Ogg and the MP4 family write down how long they are, so a whole one can be taken at once and
a dropped upload is told from a finished one, which no other sign can do (WATCHING.md §5).

Guarantees: reads a few kilobytes whatever the file's size; never raises on any content. COMPLETE is said
only where the length that is written down has been reached; what cannot be judged is UNKNOWN, so that
text named .wav does not wait for a rest that never comes.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

from dropscribe.core.settling import Completeness

ReadAt = Callable[[int, int], bytes]
"""(offset, count) → at most count bytes, fewer at the end of the file."""

COMPLETE, INCOMPLETE, UNKNOWN = Completeness.COMPLETE, Completeness.INCOMPLETE, Completeness.UNKNOWN

_MAX_PARTS = 1024  # chunks, blocks or boxes walked before the answer is UNKNOWN
_HEAD_BYTES = 16
_MP4_FIRST = frozenset({b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot"})
_MP4_SUFFIXES = frozenset({".m4a", ".m4b", ".mp4", ".m4v", ".mov", ".3gp", ".3g2", ".m4r", ".m4p", ".qt"})
_WAV_MAGICS = (b"RIFF", b"RF64", b"BW64")
_MAGIC_BY_SUFFIX = {
    ".wav": _WAV_MAGICS,
    ".wave": _WAV_MAGICS,
    ".flac": (b"fLaC",),
    ".ogg": (b"OggS",),
    ".oga": (b"OggS",),
    ".opus": (b"OggS",),
    ".spx": (b"OggS",),
}


def look(read_at: ReadAt, size_bytes: int, suffix: str) -> Completeness:
    """What the container of a file says about its length.

    Args:
        read_at: Reads the file; see :data:`ReadAt`.
        size_bytes: Its size.
        suffix: The name's suffix in lower case with its dot. The content decides; the suffix only tells
            what the first bytes of a file that is still too short are going to be.
    """
    head = read_at(0, _HEAD_BYTES)
    try:
        if head[:4] in _WAV_MAGICS and head[8:12] == b"WAVE":
            return _look_wav(read_at, size_bytes)
        if head[:4] == b"fLaC":
            return _look_flac(read_at, size_bytes)
        if head[:4] == b"OggS":
            return _look_ogg(read_at, size_bytes)
        if head[4:8] in _MP4_FIRST:
            return _look_mp4(read_at, size_bytes)
    except struct.error:
        return INCOMPLETE  # a header that ends before its last field
    return INCOMPLETE if _has_only_begun(head, suffix) else UNKNOWN


def _has_only_begun(head: bytes, suffix: str) -> bool:
    """Whether the first bytes may be the start of a header, or room kept for one."""
    magics = _MAGIC_BY_SUFFIX.get(suffix)
    if magics is None and suffix not in _MP4_SUFFIXES:
        return False
    if not head.strip(b"\0"):
        return True
    if magics is None:
        return len(head) < 8
    needed = 12 if magics[0] == b"RIFF" else 4
    return len(head) < needed and any(head[:4] == magic[: len(head[:4])] for magic in magics)


def _look_wav(read_at: ReadAt, size_bytes: int) -> Completeness:
    position = 12
    long_data_bytes = 0
    for _ in range(_MAX_PARTS):
        if position + 8 > size_bytes:
            return INCOMPLETE
        name, count = struct.unpack("<4sI", read_at(position, 8))
        if name == b"ds64":
            long_data_bytes = struct.unpack("<Q", read_at(position + 16, 8))[0]
        if name == b"data":
            return _look_wav_data(position + 8, long_data_bytes or count, size_bytes)
        position += 8 + count + (count & 1)
    return UNKNOWN


def _look_wav_data(start: int, count: int, size_bytes: int) -> Completeness:
    # A placeholder is longer than any file it stands in, so one comparison is enough for all but zero.
    return COMPLETE if count > 0 and start + count <= size_bytes else INCOMPLETE


def _look_mp4(read_at: ReadAt, size_bytes: int) -> Completeness:
    """The boxes must tile the file, and the index must be among them (ISO 14496-12 §4.2)."""
    position = 0
    names: set[bytes] = set()
    for _ in range(_MAX_PARTS):
        if position == size_bytes:
            return _judge_mp4(names)
        count, name = struct.unpack(">I4s", read_at(position, 8))
        names.add(name)
        if count == 0:  # to the end, wherever that will be
            return UNKNOWN if b"moov" in names else INCOMPLETE
        if count == 1:
            count = struct.unpack(">Q", read_at(position + 8, 8))[0]
        if count < 8:
            return UNKNOWN
        position += count
        if position > size_bytes:
            return INCOMPLETE
    return UNKNOWN


def _judge_mp4(names: set[bytes]) -> Completeness:
    if b"moof" in names and b"mfra" not in names:
        return UNKNOWN  # fragments: the next one may come, or this was the last
    return COMPLETE if {b"moov", b"mdat"} <= names else INCOMPLETE


_OGG_TAIL_BYTES = 2 * 65_307  # the longest page is 65,307 bytes (RFC 3533 §6)
_OGG_FIRST, _OGG_LAST = 0x02, 0x04


def _look_ogg(read_at: ReadAt, size_bytes: int) -> Completeness:
    start = max(0, size_bytes - _OGG_TAIL_BYTES)
    tail = read_at(start, _OGG_TAIL_BYTES)
    pages, ends_whole = _ogg_pages(tail)
    if not pages:
        return UNKNOWN if start else INCOMPLETE
    if not ends_whole:
        return INCOMPLETE
    last_flags = dict(pages)
    if not all(flags & _OGG_LAST for flags in last_flags.values()):
        return INCOMPLETE
    begun = {serial for serial, flags in _ogg_pages(read_at(0, 4096))[0] if flags & _OGG_FIRST}
    return COMPLETE if begun <= last_flags.keys() else UNKNOWN


def _ogg_pages(block: bytes) -> tuple[list[tuple[int, int]], bool]:
    """(serial, flags) of the pages in *block*, and whether the last one ends where the block does."""
    pages: list[tuple[int, int]] = []
    position = block.find(b"OggS\0")
    while 0 <= position < len(block):
        end = _ogg_page_end(block, position)
        if end is None:
            return pages, False
        if block[end : end + 4] not in {b"OggS", b""} and block[end : end + 4] != b"OggS"[: len(block) - end]:
            position = block.find(b"OggS\0", position + 4)  # those letters stood in the audio
            continue
        pages.append((struct.unpack_from("<I", block, position + 14)[0], block[position + 5]))
        position = end
    return pages, position == len(block)


def _ogg_page_end(block: bytes, position: int) -> int | None:
    lengths_at = position + 27
    if lengths_at > len(block):
        return None
    lengths_end = lengths_at + block[position + 26]
    if lengths_end > len(block):
        return None
    end = lengths_end + sum(block[lengths_at:lengths_end])
    return end if end <= len(block) else None


_FLAC_TAIL_BYTES = 256 * 1024
_FLAC_BLOCK_SAMPLES = {1: 192, **{c: 144 << c for c in range(2, 6)}, **{c: 1 << c for c in range(8, 16)}}


def _look_flac(read_at: ReadAt, size_bytes: int) -> Completeness:
    """STREAMINFO says how many samples there are, the last frame which of them it holds (RFC 9639 §9).

    Encoders write the total when they finish, but a copy that was cut off has it from its first block.
    """
    info = read_at(8, 34)
    if len(info) < 34:
        return INCOMPLETE
    (packed,) = struct.unpack_from(">Q", info, 10)
    total_samples = packed & 0xF_FFFF_FFFF
    if total_samples == 0:
        return INCOMPLETE
    audio_at = _flac_audio_at(read_at, size_bytes)
    if audio_at is None:
        return INCOMPLETE
    start = max(audio_at, size_bytes - _FLAC_TAIL_BYTES)
    fixed_samples = int.from_bytes(info[:2], "big")
    end_sample = _flac_end_sample(read_at(start, _FLAC_TAIL_BYTES), fixed_samples)
    if end_sample is None:
        return UNKNOWN
    return COMPLETE if end_sample >= total_samples else INCOMPLETE


def _flac_audio_at(read_at: ReadAt, size_bytes: int) -> int | None:
    """Where the frames begin; None where the file ends within the metadata blocks."""
    position = 4
    for _ in range(_MAX_PARTS):
        word: int = struct.unpack(">I", read_at(position, 4))[0]
        position += 4 + (word & 0xFF_FFFF)
        if position >= size_bytes:
            return None
        if word >> 31:
            return position
    return None


def _flac_end_sample(tail: bytes, fixed_samples: int) -> int | None:
    """The number of samples up to the end of the last whole frame of *tail*; None without any."""
    end = len(tail)
    is_last = True
    while (at := max(tail.rfind(b"\xff\xf8", 0, end), tail.rfind(b"\xff\xf9", 0, end))) >= 0:
        span = _flac_span(tail[at : at + 18], fixed_samples)
        if span is not None:
            after = span[1]
            # A frame ends with a checksum of itself; one that is cut off counts for nothing.
            if not is_last or _crc16(tail[at:-2]) == int.from_bytes(tail[-2:], "big"):
                return after
            is_last = False
        end = at + 1 if at + 1 < end else at
    return None


def _flac_span(header: bytes, fixed_samples: int) -> tuple[int, int] | None:
    """First and end sample of a frame, or None where these bytes are no frame header."""
    if len(header) < 6 or header[3] & 1:
        return None
    number, at = _utf8_number(header, 4)
    block_code, rate_code = header[2] >> 4, header[2] & 15
    if number is None or block_code == 0 or rate_code == 15:
        return None
    extra_bytes = {6: 1, 7: 2}.get(block_code, 0)
    samples = _FLAC_BLOCK_SAMPLES.get(block_code) or int.from_bytes(header[at : at + extra_bytes], "big") + 1
    checked_at = at + extra_bytes + {12: 1, 13: 2, 14: 2}.get(rate_code, 0)
    if checked_at >= len(header) or _crc8(header[:checked_at]) != header[checked_at]:
        return None
    first = number if header[1] & 1 else number * fixed_samples
    return first, first + samples


def _utf8_number(header: bytes, at: int) -> tuple[int | None, int]:
    """The number that is coded as UTF-8 codes characters, extended to 36 bits; and where it ends."""
    lead = header[at]
    if lead < 0x80:
        return lead, at + 1
    count = 8 - (lead ^ 0xFF).bit_length()  # leading ones
    if count < 2 or count > 7 or at + count > len(header):
        return None, at
    number = lead & (0x7F >> count)
    for byte in header[at + 1 : at + count]:
        if byte >> 6 != 2:
            return None, at
        number = number << 6 | byte & 0x3F
    return number, at + count


def _crc8(block: bytes) -> int:
    crc = 0
    for byte in block:
        crc = _CRC8[crc ^ byte]
    return crc


def _crc16(block: bytes) -> int:
    crc = 0
    for byte in block:
        crc = (crc << 8 & 0xFFFF) ^ _CRC16[crc >> 8 ^ byte]
    return crc


def _crc_table(polynomial: int, bits: int) -> list[int]:
    top, mask = 1 << bits - 1, (1 << bits) - 1
    table = []
    for byte in range(256):
        crc = byte << bits - 8
        for _ in range(8):
            crc = (crc << 1 ^ polynomial if crc & top else crc << 1) & mask
        table.append(crc)
    return table


_CRC8 = _crc_table(0x07, 8)
_CRC16 = _crc_table(0x8005, 16)
