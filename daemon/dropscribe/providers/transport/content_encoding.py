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
    from collections.abc import AsyncGenerator, Iterator

STEP_BYTES = 256 * 1024
"""The largest block yielded: a compressed answer may unfold a thousandfold, and its reader has a bound."""

_OTHER_CHARSET = re.compile(
    r"charset\s*=\s*[\"']?((?:utf-?(?:16|32)|iso|latin|windows|koi8|gb|big5|shift|euc)[\w.-]*)", re.IGNORECASE
)
"""Charsets of text alone: Python also has codecs that compress, or that take quadratic time."""
_GZIP_OR_ZLIB = 32 + zlib.MAX_WBITS
_GZIP_MAGIC = b"\x1f\x8b"
"""The first bytes of each member of a gzip body (RFC 1952, 2.2)."""


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
    unfolding = _Unfolding(may_repeat=name != "deflate")
    try:
        async for block in blocks:
            for unfolded in unfolding.of(block):
                yield unfolded
    except zlib.error:
        raise EncodingError("the answer's content encoding is broken") from None
    if not unfolding.is_complete:
        raise EncodingError("the answer's content encoding ends too early")


class _Unfolding:
    """Decompression of one body: a zlib stream, or the members of a gzip file with any padding."""

    def __init__(self, *, may_repeat: bool) -> None:
        self._may_repeat = may_repeat
        self._decoder = zlib.decompressobj(_GZIP_OR_ZLIB)

    def of(self, block: bytes) -> Iterator[bytes]:
        """The content of the next *block*, in steps."""
        while block:
            if self._decoder.eof:
                if not (self._may_repeat and _GZIP_MAGIC.startswith(block[: len(_GZIP_MAGIC)])):
                    self._may_repeat = False
                    return
                self._decoder = zlib.decompressobj(_GZIP_OR_ZLIB)
            if unfolded := self._decoder.decompress(block, STEP_BYTES):
                yield unfolded
            block = self._decoder.unconsumed_tail or self._decoder.unused_data

    @property
    def is_complete(self) -> bool:
        """Whether the last stream has ended."""
        return self._decoder.eof


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
