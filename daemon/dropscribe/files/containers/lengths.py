"""Containers that state lengths: of their chunks, of nested elements, or of the whole file."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any, NamedTuple

from dropscribe.core.settling import Completeness

ReadAt = Callable[[int, int], bytes]  # (offset, count) → at most count bytes, fewer at the end of the file
MOST_PARTS = 1024  # Chunks, blocks or boxes that are walked before the answer is UNKNOWN
_SLIP_BYTES = 44
_MP4_BOXES = frozenset(
    b"ftyp styp moov mdat moof mfra free skip wide udta uuid meta sidx ssix prft emsg pdin".split()
)
_ASF_FILE_PROPERTIES = b"\xa1\xdc\xab\x8c\x47\xa9\xcf\x11\x8e\xe4\x00\xc0\x0c\x20\x53\x65"
_ASF_BROADCAST = 1
_SEGMENT, _CLUSTER = 0x18538067, 0x1F43B675
_XING_HAS_BYTES = 2
_LONGEST_MP3_FRAME_BYTES = 2881


def unpack(layout: str, read_at: ReadAt, offset: int) -> tuple[Any, ...]:
    """Unpack the *layout* of :mod:`struct` at *offset*; struct.error if the file ends before."""
    return struct.unpack(layout, read_at(offset, struct.calcsize(layout)))


def _judge_data(start: int, count: int, size_bytes: int, slip_bytes: int = _SLIP_BYTES) -> Completeness:
    """The answer for data of *count* bytes at *start* in a file of *size_bytes*.

    A placeholder is larger than any file it is in, so one comparison is enough for all but zero. Some writers
    count a header (up to 44 bytes of WAV) as data, so a file that ends so little before its stated length is
    NEARLY complete.
    """
    missing_bytes = start + count - size_bytes
    if count <= 0 or missing_bytes > slip_bytes:
        return Completeness.INCOMPLETE
    return Completeness.NEARLY if missing_bytes > 0 else Completeness.COMPLETE


def chunks(
    read_at: ReadAt, first_at: int, header: str, align: int = 1, counted_bytes: int = 0
) -> Iterator[tuple[bytes, int, int]]:
    """Yield name, start of the content and its length for each chunk, up to one with a negative length.

    Args:
        header: Layout of name and length.
        align: The next chunk begins at a multiple of so many bytes.
        counted_bytes: Bytes of the header that its length includes.
    """
    position = first_at
    for _ in range(MOST_PARTS):
        name, count = unpack(header, read_at, position)
        position += struct.calcsize(header)
        count -= counted_bytes
        yield name, position, count
        if count < 0:
            return
        position += count + -count % align


class ChunkLayout(NamedTuple):
    """A file of chunks, one of which is the audio."""

    first_at: int  # Offset of the first chunk
    header: str  # Layout of a chunk's name and length
    data: bytes  # Name of the audio's chunk
    align: int = 1  # See :func:`chunks`
    counted_bytes: int = 0  # The same
    skipped_bytes: int = 0  # Bytes in the audio's chunk that are no audio


def examine_chunks(layout: ChunkLayout, read_at: ReadAt, size_bytes: int) -> Completeness:
    """The length of the audio's chunk, or the 64-bit one of RF64 and BW64 (EBU Tech 3306); -1 is unknown."""
    first_at, header, data, align, counted_bytes, skipped_bytes = layout
    long_bytes = 0
    for name, start, count in chunks(read_at, first_at, header, align, counted_bytes):
        if name == b"ds64":
            (long_bytes,) = unpack("<Q", read_at, start + 8)
        if name == data and count != -1:
            return _judge_data(start + skipped_bytes, (long_bytes or count) - skipped_bytes, size_bytes)
    return Completeness.UNKNOWN


def examine_au(read_at: ReadAt, size_bytes: int) -> Completeness:
    """Sun and NeXT audio: one header with the start and the length of the data."""
    start, count = unpack(">II", read_at, 4)
    return Completeness.UNKNOWN if count == 0xFFFFFFFF else _judge_data(start, count, size_bytes)


def examine_asf(read_at: ReadAt, size_bytes: int) -> Completeness:
    """WMA and WMV: the file properties object states the file's length, unless it is a broadcast."""
    header_bytes, parts = unpack("<QI", read_at, 16)
    if header_bytes > size_bytes:
        return Completeness.INCOMPLETE
    for name, start, _ in islice(chunks(read_at, 30, "<16sQ", counted_bytes=24), parts):
        if name == _ASF_FILE_PROPERTIES:
            (file_bytes,) = unpack("<Q", read_at, start + 16)
            (flags,) = unpack("<I", read_at, start + 64)
            return Completeness.UNKNOWN if flags & _ASF_BROADCAST else _judge_data(0, file_bytes, size_bytes)
    return Completeness.UNKNOWN


def examine_mp4(read_at: ReadAt, size_bytes: int) -> Completeness:
    """The boxes must tile the file, and the index must be among them (ISO 14496-12 §4.2).

    Phones append data after the last box: bytes that do not begin a box do not count.
    """
    position = 0
    names: set[bytes] = set()
    for _ in range(MOST_PARTS):
        name = read_at(position + 4, 4)
        is_whole = {b"moov", b"mdat"} <= names
        if position == size_bytes or (is_whole and name not in _MP4_BOXES):
            if b"moof" in names and b"mfra" not in names:
                return Completeness.UNKNOWN  # fragments: another one may follow, or this was the last
            return Completeness.COMPLETE if is_whole else Completeness.INCOMPLETE
        names.add(name)
        (count,) = unpack(">I", read_at, position)
        if count == 1:
            (count,) = unpack(">Q", read_at, position + 8)
        if count < 8:  # no box; or, with 0, one that goes to the end, wherever that will be
            is_open = count == 0 and b"moov" not in names
            return Completeness.INCOMPLETE if is_open else Completeness.UNKNOWN
        position += count
        if position > size_bytes:
            return Completeness.INCOMPLETE
    return Completeness.UNKNOWN


def examine_matroska(read_at: ReadAt, size_bytes: int) -> Completeness:
    """The segment states its length (RFC 9559) unless it is a live recording; then its last cluster may."""
    _, header_bytes, position = _element(read_at, 0)
    if header_bytes is None:
        return Completeness.UNKNOWN
    name, segment_bytes, position = _element(read_at, position + header_bytes)
    if name != _SEGMENT:
        return Completeness.UNKNOWN
    if segment_bytes is not None:
        is_whole = position + segment_bytes <= size_bytes
        return Completeness.COMPLETE if is_whole else Completeness.INCOMPLETE
    for _ in range(MOST_PARTS):
        if position >= size_bytes:
            break
        name, count, position = _element(read_at, position)
        if count is None:
            break
        position += count
        if position > size_bytes and name == _CLUSTER:
            return Completeness.INCOMPLETE
    return Completeness.UNKNOWN


def _element(read_at: ReadAt, position: int) -> tuple[int, int | None, int]:
    """Name, length (None: unknown) and start of the content of the EBML element at *position* (RFC 8794)."""
    name, _, position = _variable_number(read_at, position)
    field, bits, position = _variable_number(read_at, position)
    most = (1 << bits) - 1
    count = field & most
    return name, None if count == most else count, position


def _variable_number(read_at: ReadAt, position: int) -> tuple[int, int, int]:
    """The number with its length marker, its bits without that, and where it ends."""
    (first,) = unpack(">B", read_at, position)
    width = min(9 - first.bit_length(), 8)
    (field,) = unpack(f"{width}s", read_at, position)
    return int.from_bytes(field, "big"), 7 * width, position + width


def examine_mp3(read_at: ReadAt, size_bytes: int) -> Completeness:
    """A Xing, Info or VBRI frame states the number of bytes; other MP3 states nothing.

    Encoders disagree on whether the frame that states it counts, so a file that lacks less than a frame is
    NEARLY complete. The number is 0 until the encoder ends.
    """
    header = unpack(">4B", read_at, 0)
    is_mpeg1, is_mono = header[1] & 0x18 == 0x18, header[3] & 0xC0 == 0xC0
    side_bytes = (17 if is_mono else 32) if is_mpeg1 else (9 if is_mono else 17)
    stated_bytes = _xing_bytes(read_at, 4 + side_bytes)
    if stated_bytes is None and not header[1] & 1:  # a checksum comes first
        stated_bytes = _xing_bytes(read_at, 4 + side_bytes + 2)
    if stated_bytes is None and read_at(36, 4) == b"VBRI":
        (stated_bytes,) = unpack(">I", read_at, 46)
    if stated_bytes is None:
        return Completeness.UNKNOWN
    return _judge_data(0, stated_bytes, size_bytes, _LONGEST_MP3_FRAME_BYTES)


def _xing_bytes(read_at: ReadAt, offset: int) -> int | None:
    if read_at(offset, 4) not in {b"Xing", b"Info"}:
        return None
    (flags,) = unpack(">I", read_at, offset + 4)
    stated_at = offset + 8 + 4 * (flags & 1)
    return int(unpack(">I", read_at, stated_at)[0]) if flags & _XING_HAS_BYTES else None
