"""Containers whose end shows in their last frame or page: FLAC and Ogg."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from itertools import islice

from dropscribe.core.settling import Completeness
from dropscribe.files.containers.lengths import MOST_PARTS, ReadAt, unpack

_TAIL_BYTES = 256 * 1024  # four of the longest Ogg pages, which have 65,307 bytes
_SHORT_TAIL_BYTES = 16
_MOST_FLAC_HEADERS = 3
_SHORTEST_FLAC_FRAME_BYTES = 8
_FLAC_BLOCK_SAMPLES = {1: 192, **{c: 144 << c for c in range(2, 6)}, **{c: 1 << c for c in range(8, 16)}}
_OGG_CAPTURE = b"OggS"
_OGG_HEAD_BYTES = 4096
_OGG_FIRST, _OGG_LAST = 0x02, 0x04


def examine_flac(read_at: ReadAt, size_bytes: int) -> Completeness:
    """STREAMINFO states the number of samples, and each frame states the position of its own (RFC 9639 §9).

    Encoders write the total when they finish, but a copy that was cut off has it from its first block. A
    total of 0 means that it is not known (streams, ffmpeg's segment muxer): such a file may end after any
    whole frame.
    """
    fixed_samples, packed = unpack(">8xH8xQ16x", read_at, 0)
    total_samples = packed & 0xF_FFFF_FFFF
    audio_at = _audio_at(read_at, size_bytes)
    if audio_at is None:
        return Completeness.INCOMPLETE
    start = max(audio_at, size_bytes - _TAIL_BYTES)
    tail = read_at(start, size_bytes - start)
    verdicts = [
        _judge_frame(tail[at:]) if end_sample >= total_samples else Completeness.INCOMPLETE
        # More than one, because the bytes of a frame may look like a header.
        for at, end_sample in islice(_last_headers(tail, fixed_samples), _MOST_FLAC_HEADERS)
    ]
    if Completeness.COMPLETE in verdicts:
        return Completeness.COMPLETE if total_samples else Completeness.UNKNOWN
    return verdicts[0] if verdicts else Completeness.UNKNOWN


def _judge_frame(rest: bytes) -> Completeness:
    """Whether *rest* begins with a whole frame that ends where the file does, or a little before.

    The checksum of a frame with its own checksum is 0. Further from the end that may be chance, or the tail
    that another program appended.
    """
    crc, verdict = 0, Completeness.INCOMPLETE
    whole_from = min(len(rest.rstrip(b"\0")), len(rest) - _SHORT_TAIL_BYTES)
    for position, byte in enumerate(rest, 1):
        crc = (crc << 8 & 0xFFFF) ^ _CRC16[crc >> 8 ^ byte]
        if crc == 0 and position > _SHORTEST_FLAC_FRAME_BYTES:
            if position >= whole_from:
                return Completeness.COMPLETE
            verdict = Completeness.NEARLY
    return verdict


def _audio_at(read_at: ReadAt, size_bytes: int) -> int | None:
    """Offset of the first frame; None if the file ends within the metadata blocks."""
    position = 4
    for _ in range(MOST_PARTS):
        word: int = unpack(">I", read_at, position)[0]
        position += 4 + (word & 0xFF_FFFF)
        if position >= size_bytes:
            return None
        if word >> 31:
            return position
    return None


def _last_headers(tail: bytes, fixed_samples: int) -> Iterator[tuple[int, int]]:
    """Yield offset in *tail* and number of samples up to the end of each frame, last first."""
    for at in reversed([found.start() for found in re.finditer(rb"\xff[\xf8\xf9]", tail)]):
        end_sample = _end_sample(tail[at : at + 18], fixed_samples)
        if end_sample is not None:
            yield at, end_sample


def _end_sample(header: bytes, fixed_samples: int) -> int | None:
    """End sample of a frame, or None if these bytes are no frame header."""
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
    return samples + (number if header[1] & 1 else number * fixed_samples)


def _utf8_number(header: bytes, at: int) -> tuple[int | None, int]:
    """The number that is coded as UTF-8 codes characters, extended to 36 bits; and where it ends."""
    lead = header[at]
    if lead < 0x80:
        return lead, at + 1
    count = 8 - (lead ^ 0xFF).bit_length()  # leading ones
    more = header[at + 1 : at + count]
    if count < 2 or count > 7 or len(more) < count - 1 or any(byte >> 6 != 2 for byte in more):
        return None, at
    number = lead & (0x7F >> count)
    for byte in more:
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


def examine_ogg(read_at: ReadAt, size_bytes: int) -> Completeness:
    """Whether every stream has had its last page, and whether the file ends with a whole page (RFC 3533).

    A muxer that is cut short between two pages (ffmpeg's segment muxer) leaves a whole file without a last
    page.
    """
    start = max(0, size_bytes - _TAIL_BYTES)
    tail = read_at(start, size_bytes - start)
    pages, end = _pages(tail)
    if not pages:
        return Completeness.UNKNOWN if start else Completeness.INCOMPLETE
    rest = tail[end:]
    if rest.startswith(_OGG_CAPTURE) or (rest and _OGG_CAPTURE.startswith(rest)):
        return Completeness.INCOMPLETE  # within a page
    last_flags = dict(pages)
    begun = {serial for serial, flags in _pages(read_at(0, _OGG_HEAD_BYTES))[0] if flags & _OGG_FIRST}
    has_ended = all(flags & _OGG_LAST for flags in last_flags.values())
    if has_ended and begun <= last_flags.keys():
        return Completeness.COMPLETE
    return Completeness.UNKNOWN if has_ended or not rest else Completeness.INCOMPLETE


def _pages(block: bytes) -> tuple[list[tuple[int, int]], int]:
    """(serial, flags) of the whole pages in *block*, and where the last of them ends."""
    pages: list[tuple[int, int]] = []
    position = _find_page(block, 0)
    last_end = 0
    while 0 <= position < len(block):
        end = _page_end(block, position)
        if end is None:
            return pages, position
        follows = block[end : end + 4]
        if not _OGG_CAPTURE.startswith(follows) and _find_page(block, end) >= 0:
            position = _find_page(block, position + 4)  # the capture pattern was part of the audio
            continue
        pages.append((struct.unpack_from("<I", block, position + 14)[0], block[position + 5]))
        last_end = end
        if follows != _OGG_CAPTURE:
            break
        position = end
    return pages, last_end


def _find_page(block: bytes, start: int) -> int:
    return block.find(_OGG_CAPTURE + b"\0", start)


def _page_end(block: bytes, position: int) -> int | None:
    """The end of the page at *position*; None if it is not in *block*."""
    lengths_at = position + 27
    lengths_end = lengths_at + block[position + 26] if lengths_at <= len(block) else len(block) + 1
    end = lengths_end + sum(block[lengths_at:lengths_end])
    return end if end <= len(block) else None
