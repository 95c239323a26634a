"""Containers of nested elements: the MP4 family, Matroska and WebM, ASF."""

from __future__ import annotations

from dropscribe.core.settling import Completeness
from dropscribe.files.containers.reading import MOST_PARTS, ReadAt, judge_end, unpack

_MP4_BOXES = frozenset(
    b"ftyp styp moov mdat moof mfra free skip wide udta uuid meta sidx ssix prft emsg pdin".split()
)
_ASF_FILE_PROPERTIES = b"\xa1\xdc\xab\x8c\x47\xa9\xcf\x11\x8e\xe4\x00\xc0\x0c\x20\x53\x65"
_ASF_BROADCAST = 1
_SEGMENT, _CLUSTER = 0x18538067, 0x1F43B675


def examine_mp4(read_at: ReadAt, size_bytes: int) -> Completeness:
    """The boxes must tile the file, and the index must be among them (ISO 14496-12 §4.2).

    Phones append data after the last box: bytes that do not begin a box do not count.
    """
    position = 0
    names: set[bytes] = set()
    for _ in range(MOST_PARTS):
        name = read_at(position + 4, 4)
        is_over = position == size_bytes or ({b"moov", b"mdat"} <= names and name not in _MP4_BOXES)
        if is_over:
            return _judge_boxes(names)
        names.add(name)
        count = _box_bytes(read_at, position)
        if count < 8:  # no box; or, with 0, one that goes to the end, wherever that will be
            is_open = count == 0 and b"moov" not in names
            return Completeness.INCOMPLETE if is_open else Completeness.UNKNOWN
        position += count
        if position > size_bytes:
            return Completeness.INCOMPLETE
    return Completeness.UNKNOWN


def _box_bytes(read_at: ReadAt, position: int) -> int:
    (count,) = unpack(">I", read_at, position)
    if count == 1:
        (count,) = unpack(">Q", read_at, position + 8)
    return count


def _judge_boxes(names: set[bytes]) -> Completeness:
    if b"moof" in names and b"mfra" not in names:
        return Completeness.UNKNOWN  # fragments: another one may follow, or this was the last
    return Completeness.COMPLETE if {b"moov", b"mdat"} <= names else Completeness.INCOMPLETE


def examine_matroska(read_at: ReadAt, size_bytes: int) -> Completeness:
    """The segment states its length (RFC 9559) unless it is a live recording; then its last cluster may."""
    _, header_bytes, position = _element(read_at, 0)
    if header_bytes is None:
        return Completeness.UNKNOWN
    position += header_bytes
    name, segment_bytes, start = _element(read_at, position)
    if name != _SEGMENT:
        return Completeness.UNKNOWN
    if segment_bytes is not None:
        end = start + segment_bytes
        return Completeness.COMPLETE if end <= size_bytes else Completeness.INCOMPLETE
    return _examine_live_segment(read_at, start, size_bytes)


def _examine_live_segment(read_at: ReadAt, position: int, size_bytes: int) -> Completeness:
    for _ in range(MOST_PARTS):
        if position >= size_bytes:
            return Completeness.UNKNOWN
        name, count, start = _element(read_at, position)
        if count is None:
            return Completeness.UNKNOWN
        position = start + count
        if position > size_bytes:
            return Completeness.INCOMPLETE if name == _CLUSTER else Completeness.UNKNOWN
    return Completeness.UNKNOWN


def _element(read_at: ReadAt, position: int) -> tuple[int, int | None, int]:
    """Name, length (None: unknown) and start of the content of the EBML element at *position* (RFC 8794)."""
    name_bytes = _width(unpack(">B", read_at, position)[0])
    name = int.from_bytes(read_at(position, name_bytes), "big")
    (first,) = unpack(">B", read_at, position + name_bytes)
    count_bytes = _width(first)
    field = read_at(position + name_bytes, count_bytes)
    unpack(f"{count_bytes}B", read_at, position + name_bytes)  # raises if the file ends within the field
    count = int.from_bytes(field, "big") & ((1 << 7 * count_bytes) - 1)
    is_unknown = count == (1 << 7 * count_bytes) - 1
    return name, None if is_unknown else count, position + name_bytes + count_bytes


def _width(first: int) -> int:
    """Number of bytes of a variable-length number that begins with *first*."""
    return min(9 - first.bit_length(), 8)


def examine_asf(read_at: ReadAt, size_bytes: int) -> Completeness:
    """WMA and WMV: the file properties object states the file's length, unless it is a broadcast."""
    header_bytes, parts = unpack("<QI", read_at, 16)
    if header_bytes > size_bytes:
        return Completeness.INCOMPLETE
    position = 30
    for _ in range(min(parts, MOST_PARTS)):
        (count,) = unpack("<Q", read_at, position + 16)
        if read_at(position, 16) == _ASF_FILE_PROPERTIES:
            (file_bytes,) = unpack("<Q", read_at, position + 40)
            (flags,) = unpack("<I", read_at, position + 88)
            if flags & _ASF_BROADCAST:
                return Completeness.UNKNOWN
            return judge_end(file_bytes, size_bytes) if file_bytes else Completeness.INCOMPLETE
        if count < 24:
            return Completeness.UNKNOWN
        position += count
    return Completeness.UNKNOWN
