"""Ogg: pages state their lengths, and the last page of each stream is marked (RFC 3533)."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from dropscribe.core.settling import Completeness

if TYPE_CHECKING:
    from dropscribe.files.containers.reading import ReadAt

_CAPTURE = b"OggS"
_TAIL_BYTES = 256 * 1024  # four of the longest pages, which have 65,307 bytes
_HEAD_BYTES = 4096
_FIRST, _LAST = 0x02, 0x04


def examine_ogg(read_at: ReadAt, size_bytes: int) -> Completeness:
    """Whether every stream has had its last page, and whether the file ends with a whole page.

    A muxer that is cut short between two pages (ffmpeg's segment muxer) leaves a whole file without a last
    page.
    """
    start = max(0, size_bytes - _TAIL_BYTES)
    tail = read_at(start, size_bytes - start)
    pages, end = _pages(tail)
    if not pages:
        return Completeness.UNKNOWN if start else Completeness.INCOMPLETE
    rest = tail[end:]
    if rest.startswith(_CAPTURE) or (rest and _CAPTURE.startswith(rest)):
        return Completeness.INCOMPLETE  # within a page
    last_flags = dict(pages)
    begun = {serial for serial, flags in _pages(read_at(0, _HEAD_BYTES))[0] if flags & _FIRST}
    has_ended = all(flags & _LAST for flags in last_flags.values())
    if has_ended and begun <= last_flags.keys():
        return Completeness.COMPLETE
    return Completeness.UNKNOWN if has_ended or not rest else Completeness.INCOMPLETE


def _pages(block: bytes) -> tuple[list[tuple[int, int]], int]:
    """(serial, flags) of the whole pages in *block*, and where the last of them ends."""
    pages: list[tuple[int, int]] = []
    position = _find(block, 0)
    last_end = 0
    while 0 <= position < len(block):
        end = _page_end(block, position)
        if end is None:
            return pages, position
        follows = block[end : end + 4]
        if not _CAPTURE.startswith(follows) and _find(block, end) >= 0:
            position = _find(block, position + 4)  # the capture pattern was part of the audio
            continue
        pages.append((struct.unpack_from("<I", block, position + 14)[0], block[position + 5]))
        last_end = end
        if follows != _CAPTURE:
            break
        position = end
    return pages, last_end


def _find(block: bytes, start: int) -> int:
    return block.find(_CAPTURE + b"\0", start)


def _page_end(block: bytes, position: int) -> int | None:
    lengths_at = position + 27
    if lengths_at > len(block):
        return None
    lengths_end = lengths_at + block[position + 26]
    if lengths_end > len(block):
        return None
    end = lengths_end + sum(block[lengths_at:lengths_end])
    return end if end <= len(block) else None
