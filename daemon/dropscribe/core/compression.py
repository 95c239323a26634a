"""Unpacks zlib data that may be damaged or a decompression bomb. Pure."""

from __future__ import annotations

import zlib


def unpacked(packed: bytes, most_bytes: int) -> bytes:
    """The content of *packed*.

    Raises:
        ValueError: It is damaged or not whole, or its content is longer than *most_bytes*.
    """
    decoder = zlib.decompressobj()
    try:
        content = decoder.decompress(packed, most_bytes)
    except zlib.error as error:
        raise ValueError(str(error)) from error
    if not decoder.eof:
        raise ValueError(f"it is not whole, or longer than {most_bytes} bytes")
    return content
