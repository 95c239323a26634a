"""Types and helpers shared by all container checks."""

from __future__ import annotations

import struct
from collections.abc import Callable

from dropscribe.core.settling import Completeness

ReadAt = Callable[[int, int], bytes]
"""(offset, count) → at most count bytes, fewer at the end of the file."""

MOST_PARTS = 1024
"""Chunks, blocks or boxes that are walked before the answer is UNKNOWN."""

_HEADER_SLIP_BYTES = 44


def unpack(layout: str, read_at: ReadAt, offset: int) -> tuple[int, ...]:
    """Unpack the *layout* of :mod:`struct` at *offset*.

    Raises:
        struct.error: The file ends before.
    """
    return struct.unpack(layout, read_at(offset, struct.calcsize(layout)))


def judge_end(end: int, size_bytes: int) -> Completeness:
    """The answer for data that is stated to end at *end* in a file of *size_bytes*.

    Some writers count a header (up to 44 bytes of WAV) as data, so a file that ends so little before its
    stated length is NEARLY complete.
    """
    if end <= size_bytes:
        return Completeness.COMPLETE
    return Completeness.NEARLY if end - size_bytes <= _HEADER_SLIP_BYTES else Completeness.INCOMPLETE
