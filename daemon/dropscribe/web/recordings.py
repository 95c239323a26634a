"""Sends a recording or a sidecar by descriptor, with one byte range (RFC 9110, 14.1.2)."""

from __future__ import annotations

import asyncio
import os
import re
from typing import TYPE_CHECKING
from urllib.parse import quote

from starlette.responses import PlainTextResponse, StreamingResponse

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from concurrent.futures import Executor

    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.types import Receive, Scope, Send

BLOCK_BYTES = 256 * 1024
READ_SECONDS = 30.0
"""How long one block may take to read from a slow disk."""

_MEDIA_TYPES = {
    **dict.fromkeys((".wav", ".w64", ".rf64"), "audio/wav"),
    **dict.fromkeys((".mp3", ".mpga", ".mpa"), "audio/mpeg"),
    **dict.fromkeys((".m4a", ".m4b", ".m4r", ".mp4", ".m4v", ".3gp", ".3ga"), "audio/mp4"),
    **dict.fromkeys((".ogg", ".oga", ".opus"), "audio/ogg"),
    **dict.fromkeys((".webm", ".weba"), "audio/webm"),
    **dict.fromkeys((".aac", ".adts"), "audio/aac"),
    ".flac": "audio/flac",
    ".json": "application/json",
    ".txt": "text/plain; charset=utf-8",
    ".md": "text/markdown; charset=utf-8",
    ".srt": "application/x-subrip",
    ".vtt": "text/vtt",
}
_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")


def media_type_of(name: bytes) -> str:
    """The media type that *name*'s suffix stands for; octets where it is unknown."""
    suffix = os.path.splitext(os.fsdecode(name))[1].lower()
    return _MEDIA_TYPES.get(suffix, "application/octet-stream")


def parse_range(header: str | None, size_bytes: int) -> tuple[int, int] | None:
    """(first, past the last byte) of a Range header with one range; None for the whole file.

    Raises:
        ValueError: The range lies outside the file.
    """
    match = _RANGE.fullmatch(header or "")
    if not match or match.group(0) == "bytes=-":
        return None  # several ranges and other units may be answered with the whole
    first, last = match.groups()
    if not first:
        begin, end = max(0, size_bytes - int(last)), size_bytes
    else:
        begin, end = int(first), min(int(last) + 1, size_bytes) if last else size_bytes
    if begin >= end:
        raise ValueError("outside the file")
    return begin, end


def send_file(
    request: Request, descriptor: int, name: bytes, executor: Executor, *, download: bool
) -> Response:
    """An answer with the content of the open file, which is closed after it.

    Args:
        name: The file's own name, for its type and for the download's name.
        executor: Where the disk is read.
        download: Whether the browser is told to save it.
    """
    size_bytes = os.fstat(descriptor).st_size
    shown = quote(name.decode("utf-8", "replace"), safe="")
    headers = {
        "Accept-Ranges": "bytes",
        "Content-Disposition": f"{'attachment' if download else 'inline'}; filename*=UTF-8''{shown}",
        "Content-Type": media_type_of(name),
    }
    try:
        wanted = parse_range(request.headers.get("range"), size_bytes)
    except ValueError:
        os.close(descriptor)
        return PlainTextResponse("outside the file\n", 416, {"Content-Range": f"bytes */{size_bytes}"})
    begin, end = wanted or (0, size_bytes)
    headers["Content-Length"] = str(end - begin)
    if wanted:
        headers["Content-Range"] = f"bytes {begin}-{end - 1}/{size_bytes}"
    return _DescriptorResponse(descriptor, begin, end, executor, 206 if wanted else 200, headers)


class _DescriptorResponse(StreamingResponse):
    """Streams a part of an open file, and closes it in every case."""

    def __init__(
        self,
        descriptor: int,
        begin: int,
        end: int,
        executor: Executor,
        status: int,
        headers: Mapping[str, str],
    ) -> None:
        super().__init__(self._blocks(begin, end), status, headers)
        self._descriptor = descriptor
        self._executor = executor

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            if scope["method"] == "HEAD":
                self.body_iterator = _nothing()
            await super().__call__(scope, receive, send)
        finally:
            os.close(self._descriptor)

    async def _blocks(self, begin: int, end: int) -> AsyncIterator[bytes]:
        loop = asyncio.get_running_loop()
        while begin < end:
            length = min(BLOCK_BYTES, end - begin)
            # A duplicate, because a read that hangs on a dead mount outlives this answer.
            reading = loop.run_in_executor(self._executor, _read, os.dup(self._descriptor), length, begin)
            async with asyncio.timeout(READ_SECONDS):
                block = await reading
            if not block:
                raise ConnectionError("the file became shorter")
            begin += len(block)
            yield block


def _read(descriptor: int, length: int, offset: int) -> bytes:
    try:
        return os.pread(descriptor, length, offset)
    finally:
        os.close(descriptor)


async def _nothing() -> AsyncIterator[bytes]:
    return
    yield b""
