"""Decodes the content encoding of an answer, in bounded steps.

Requests ask for no encoding (``Accept-Encoding: identity``); some servers and proxies use one all the same.
One of gzip, x-gzip and deflate is decoded; anything else, brotli and several encodings included, is refused.
A body in another declared charset is made UTF-8.
"""

from __future__ import annotations

import re
import zlib
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

STEP_BYTES = 256 * 1024
"""The largest block yielded: a compressed answer may unfold a thousandfold, and its reader has a bound."""

_OTHER_CHARSET = re.compile(
    r"charset\s*=\s*[\"']?((?:utf-?(?:16|32)|iso|latin|windows|koi8|gb|big5|shift|euc)[\w.-]*)", re.IGNORECASE
)
"""Charsets of text alone: Python also has codecs that compress, or that take quadratic time."""
_GZIP_OR_ZLIB = 32 + zlib.MAX_WBITS


class EncodingError(Exception):
    """The answer's content encoding is broken or not supported."""


async def decoded(blocks: AsyncGenerator[bytes], encoding: str) -> AsyncGenerator[bytes]:
    """*blocks* without *encoding*, the value of Content-Encoding.

    Raises:
        EncodingError: While iterating.
    """
    name = encoding.strip().lower()
    if name in {"", "identity"}:
        async for block in blocks:
            yield block
        return
    if name not in {"gzip", "x-gzip", "deflate"}:
        raise EncodingError(f"the answer's content encoding '{name}' is not supported")
    decoder = zlib.decompressobj(_GZIP_OR_ZLIB)
    try:
        async for block in blocks:
            rest = block
            while rest and not decoder.eof:
                if unfolded := decoder.decompress(rest, STEP_BYTES):
                    yield unfolded
                rest = decoder.unconsumed_tail
    except zlib.error:
        raise EncodingError("the answer's content encoding is broken") from None
    if not decoder.eof:
        raise EncodingError("the answer's content encoding ends too early")


def in_utf8(body: bytes, content_type: str) -> bytes:
    """*body* in UTF-8 where *content_type* declares another charset; unchanged if it is not in that."""
    declared = _OTHER_CHARSET.search(content_type)
    if declared is None:
        return body
    with suppress(UnicodeDecodeError):
        if "\0" not in body.decode():
            return body  # it is in UTF-8 all the same
    with suppress(LookupError, ValueError):
        return body.decode(declared[1]).encode()
    return body
