"""Containers that are a list of chunks with stated lengths: WAV, AIFF, CAF, W64; and AU with only one."""

from __future__ import annotations

from dropscribe.core.settling import Completeness
from dropscribe.files.containers.reading import MOST_PARTS, ReadAt, judge_end, unpack

_UNKNOWN_32, _UNKNOWN_64 = 0xFFFFFFFF, 0xFFFFFFFFFFFFFFFF
_W64_DATA = b"data\xf3\xac\xd3\x11\x8c\xd1\x00\xc0\x4f\x8e\xdb\x8a"


def examine_wav(read_at: ReadAt, size_bytes: int) -> Completeness:
    """WAV, and its 64-bit forms RF64 and BW64 (EBU Tech 3306)."""
    position = 12
    long_data_bytes = 0
    for _ in range(MOST_PARTS):
        if position + 8 > size_bytes:
            return Completeness.INCOMPLETE
        name = read_at(position, 4)
        (count,) = unpack("<I", read_at, position + 4)
        if name == b"ds64":
            (long_data_bytes,) = unpack("<Q", read_at, position + 16)
        if name == b"data":
            return _judge_data(position + 8, long_data_bytes or count, size_bytes)
        position += 8 + count + (count & 1)
    return Completeness.UNKNOWN


def _judge_data(start: int, count: int, size_bytes: int) -> Completeness:
    """A placeholder is larger than any file it is in, so one comparison is enough for all but zero."""
    return judge_end(start + count, size_bytes) if count > 0 else Completeness.INCOMPLETE


def examine_aiff(read_at: ReadAt, size_bytes: int) -> Completeness:
    """AIFF and AIFF-C: the sound data chunk SSND states its length."""
    position = 12
    for _ in range(MOST_PARTS):
        if position + 8 > size_bytes:
            return Completeness.INCOMPLETE
        name = read_at(position, 4)
        (count,) = unpack(">I", read_at, position + 4)
        if name == b"SSND":
            # 8 bytes of it are offset and block size; a recorder writes it first, without any sound.
            return judge_end(position + 8 + count, size_bytes) if count > 8 else Completeness.INCOMPLETE
        position += 8 + count + (count & 1)
    return Completeness.UNKNOWN


def examine_caf(read_at: ReadAt, size_bytes: int) -> Completeness:
    """Core Audio Format: 64-bit chunks; a data chunk of length -1 goes to the end of the file."""
    position = 8
    for _ in range(MOST_PARTS):
        if position + 12 > size_bytes:
            return Completeness.INCOMPLETE
        name = read_at(position, 4)
        (count,) = unpack(">Q", read_at, position + 4)
        if name == b"data":
            if count == _UNKNOWN_64:
                return Completeness.UNKNOWN
            return judge_end(position + 12 + count, size_bytes) if count > 4 else Completeness.INCOMPLETE
        if count >= 1 << 63:
            return Completeness.UNKNOWN
        position += 12 + count
    return Completeness.UNKNOWN


def examine_w64(read_at: ReadAt, size_bytes: int) -> Completeness:
    """Sony Wave64: chunk names are GUIDs, lengths have 64 bits and include the header of 24 bytes."""
    position = 40
    for _ in range(MOST_PARTS):
        if position + 24 > size_bytes:
            return Completeness.INCOMPLETE
        name = read_at(position, 16)
        (count,) = unpack("<Q", read_at, position + 16)
        if name == _W64_DATA:
            return judge_end(position + count, size_bytes) if count > 24 else Completeness.INCOMPLETE
        if count < 24:
            return Completeness.UNKNOWN
        position += count + -count % 8
    return Completeness.UNKNOWN


def examine_au(read_at: ReadAt, size_bytes: int) -> Completeness:
    """Sun and NeXT audio: one header with the start and the length of the data."""
    start, count = unpack(">II", read_at, 4)
    if count == _UNKNOWN_32:
        return Completeness.UNKNOWN
    return _judge_data(start, count, size_bytes)
