"""FLAC: the number of samples in its header, compared with those up to the end of its last frame."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from dropscribe.core.settling import Completeness
from dropscribe.files.containers.reading import MOST_PARTS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dropscribe.files.containers.reading import ReadAt

_TAIL_BYTES = 256 * 1024
_SHORT_TAIL_BYTES = 16
_MOST_HEADERS = 3
_SHORTEST_FRAME_BYTES = 8
_BLOCK_SAMPLES = {1: 192, **{c: 144 << c for c in range(2, 6)}, **{c: 1 << c for c in range(8, 16)}}


def examine_flac(read_at: ReadAt, size_bytes: int) -> Completeness:
    """STREAMINFO states the number of samples, and each frame states the position of its own (RFC 9639 §9).

    Encoders write the total when they finish, but a copy that was cut off has it from its first block. A
    total of 0 means that it is not known (streams, ffmpeg's segment muxer): such a file may end after any
    whole frame.
    """
    info = read_at(8, 34)
    if len(info) < 34:
        return Completeness.INCOMPLETE
    (packed,) = struct.unpack_from(">Q", info, 10)
    total_samples = packed & 0xF_FFFF_FFFF
    audio_at = _audio_at(read_at, size_bytes)
    if audio_at is None:
        return Completeness.INCOMPLETE
    start = max(audio_at, size_bytes - _TAIL_BYTES)
    fixed_samples = int.from_bytes(info[:2], "big")
    tail = read_at(start, size_bytes - start)
    verdicts = [
        _judge_frame(tail[at:]) if end_sample >= total_samples else Completeness.INCOMPLETE
        for at, end_sample in _last_headers(tail, fixed_samples)
    ]
    if Completeness.COMPLETE in verdicts:
        return Completeness.COMPLETE if total_samples else Completeness.UNKNOWN
    return verdicts[0] if verdicts else Completeness.UNKNOWN


def _judge_frame(rest: bytes) -> Completeness:
    """Whether *rest* begins with a whole frame that ends where the file does, or a little before.

    The checksum of a frame with its own checksum is 0. Further from the end that may be chance, or the tail
    that another program appended.
    """
    crc, last_zero = 0, None
    padded_end = len(rest.rstrip(b"\0"))
    for position, byte in enumerate(rest, 1):
        crc = (crc << 8 & 0xFFFF) ^ _CRC16[crc >> 8 ^ byte]
        if crc == 0 and position > _SHORTEST_FRAME_BYTES:
            last_zero = position
            if position >= min(padded_end, len(rest) - _SHORT_TAIL_BYTES):
                return Completeness.COMPLETE
    return Completeness.INCOMPLETE if last_zero is None else Completeness.NEARLY


def _audio_at(read_at: ReadAt, size_bytes: int) -> int | None:
    """Offset of the first frame; None if the file ends within the metadata blocks."""
    position = 4
    for _ in range(MOST_PARTS):
        word: int = struct.unpack(">I", read_at(position, 4))[0]
        position += 4 + (word & 0xFF_FFFF)
        if position >= size_bytes:
            return None
        if word >> 31:
            return position
    return None


def _last_headers(tail: bytes, fixed_samples: int) -> Iterator[tuple[int, int]]:
    """Yield offset in *tail* and number of samples up to the end of each of the last frames, last first.

    More than one, because the bytes of a frame may look like a header.
    """
    end, count = len(tail), 0
    while (at := max(tail.rfind(b"\xff\xf8", 0, end), tail.rfind(b"\xff\xf9", 0, end))) >= 0:
        span = _span(tail[at : at + 18], fixed_samples)
        if span is not None:
            yield at, span[1]
            count += 1
            if count == _MOST_HEADERS:
                return
        end = at + 1 if at + 1 < end else at


def _span(header: bytes, fixed_samples: int) -> tuple[int, int] | None:
    """First and end sample of a frame, or None if these bytes are no frame header."""
    if len(header) < 6 or header[3] & 1:
        return None
    number, at = _utf8_number(header, 4)
    block_code, rate_code = header[2] >> 4, header[2] & 15
    if number is None or block_code == 0 or rate_code == 15:
        return None
    extra_bytes = {6: 1, 7: 2}.get(block_code, 0)
    samples = _BLOCK_SAMPLES.get(block_code) or int.from_bytes(header[at : at + extra_bytes], "big") + 1
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
