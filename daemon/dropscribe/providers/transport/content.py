"""The body of an answer without its content encoding, and in UTF-8. Pure."""

from __future__ import annotations

import re
import zlib
from contextlib import suppress

_OTHER_CHARSET = re.compile(
    r"charset\s*=\s*[\"']?((?:utf-?(?:16|32)|iso|latin|windows|koi8|gb|big5|shift|euc)[\w.-]*)", re.IGNORECASE
)
"""Charsets of text alone: Python also has codecs that compress, or that take quadratic time."""
_GZIP_OR_ZLIB = 32 + zlib.MAX_WBITS
_GZIP_MAGIC = b"\x1f\x8b"
_ZLIB_HEADER_DIVISOR = 31  # of the first two bytes (RFC 1950)
STEP_BYTES = 8 * 1024  # Decoded at once: each member of a gzip body copies the rest of its step


def decoded(body: bytes, encoding: str, most_bytes: int) -> tuple[bytes, str]:
    """At most *most_bytes* of *body* without its Content-Encoding, and the problem with it, else "".

    Requests ask for no encoding; some servers and proxies use one all the same, or declare one that is none
    ("utf-8"), or that they have undone: JSON is JSON.
    """
    content, problem = _unpacked(body, encoding, most_bytes)
    if problem and body.lstrip().startswith((b"{", b"[", b'"')):
        with suppress(UnicodeDecodeError):
            body.decode()
            return body[:most_bytes], ""
    return content, problem


def _unpacked(body: bytes, encoding: str, most_bytes: int) -> tuple[bytes, str]:
    """As :func:`decoded`. A gzip body may have several members and padding behind them (RFC 1952)."""
    name = encoding.strip().lower()
    if name in {"", "identity"}:
        return body[:most_bytes], ""
    if name not in {"gzip", "x-gzip", "deflate"}:
        return b"", f"the answer's content encoding '{name}' is not supported"
    # Some servers send deflate without the zlib header that the standard asks for (RFC 9110, 8.4.1.2).
    has_header = body.startswith(_GZIP_MAGIC) or not int.from_bytes(body[:2], "big") % _ZLIB_HEADER_DIVISOR
    wbits = -zlib.MAX_WBITS if name == "deflate" and not has_header else _GZIP_OR_ZLIB
    content, decoder = bytearray(), zlib.decompressobj(wbits)
    try:
        for start in range(0, len(body), STEP_BYTES):
            rest = body[start : start + STEP_BYTES]
            while rest and len(content) < most_bytes:
                if decoder.eof:
                    if name == "deflate" or not _GZIP_MAGIC.startswith(rest[: len(_GZIP_MAGIC)]):
                        return bytes(content), ""
                    decoder = zlib.decompressobj(_GZIP_OR_ZLIB)
                content += decoder.decompress(rest, most_bytes - len(content))
                rest = decoder.unconsumed_tail or decoder.unused_data
    except zlib.error:
        return bytes(content), "the answer's content encoding is broken"
    is_cut = not decoder.eof and len(content) < most_bytes
    return bytes(content), "the answer's content encoding ends too early" if is_cut else ""


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
