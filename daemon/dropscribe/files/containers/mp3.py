"""MP3 with a Xing, Info or VBRI frame, which states the number of bytes; other MP3 states nothing."""

from __future__ import annotations

from dropscribe.core.settling import Completeness
from dropscribe.files.containers.reading import ReadAt, unpack

_HAS_BYTES = 2
_LONGEST_FRAME_BYTES = 2881


def examine_mp3(read_at: ReadAt, size_bytes: int) -> Completeness:
    """Compare the stated number of bytes with the file's.

    Encoders disagree on whether the frame that states it counts, so a file that lacks less than a frame is
    UNKNOWN.
    """
    header = read_at(0, 4)
    is_mpeg1, is_mono = header[1] & 0x18 == 0x18, header[3] & 0xC0 == 0xC0
    side_bytes = (17 if is_mono else 32) if is_mpeg1 else (9 if is_mono else 17)
    crc_bytes = 0 if header[1] & 1 else 2
    stated_bytes = _xing_bytes(read_at, 4 + side_bytes)
    if stated_bytes is None and crc_bytes:
        stated_bytes = _xing_bytes(read_at, 4 + side_bytes + crc_bytes)
    if stated_bytes is None and read_at(36, 4) == b"VBRI":
        (stated_bytes,) = unpack(">I", read_at, 46)
    if stated_bytes is None:
        return Completeness.UNKNOWN
    if stated_bytes == 0:  # written when the encoder ends
        return Completeness.INCOMPLETE
    missing_bytes = stated_bytes - size_bytes
    if missing_bytes <= 0:
        return Completeness.COMPLETE
    return Completeness.NEARLY if missing_bytes <= _LONGEST_FRAME_BYTES else Completeness.INCOMPLETE


def _xing_bytes(read_at: ReadAt, offset: int) -> int | None:
    if read_at(offset, 4) not in {b"Xing", b"Info"}:
        return None
    (flags,) = unpack(">I", read_at, offset + 4)
    if not flags & _HAS_BYTES:
        return None
    (stated_bytes,) = unpack(">I", read_at, offset + 8 + 4 * (flags & 1))
    return stated_bytes
