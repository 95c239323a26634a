"""Sends a recording or a sidecar by descriptor, with one byte range (RFC 9110, 14.1.2)."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING
from urllib.parse import quote

from starlette.responses import PlainTextResponse, StreamingResponse

from dropscribe.files.audio import open_beneath
from dropscribe.pipeline.disk_threads import FolderHangs

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.types import Receive, Scope, Send

    from dropscribe.web.folder_threads import FolderCalls

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
_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})", re.IGNORECASE)


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
    if not match or not any(match.groups()):
        return None  # several ranges and other units may be answered with the whole
    first, last = match.groups()
    if not first:
        begin, end = max(0, size_bytes - int(last)), size_bytes
    else:
        begin, end = int(first), min(int(last) + 1, size_bytes) if last else size_bytes
    if begin >= end:
        raise ValueError("outside the file")
    return begin, end


class OpenFile:
    """A regular file beneath a folder, open for reading. All calls may block.

    Raises:
        AudioError, OSError: As :func:`open_beneath`.
    """

    def __init__(self, root: bytes, path: bytes) -> None:
        self.name = os.path.basename(path)
        # A file object, which is closed also where nobody waits for it any more.
        self._file = open(open_beneath(root, path), "rb", buffering=0)  # noqa: SIM115
        self.size_bytes = os.fstat(self._file.fileno()).st_size

    def read(self, length: int, offset: int) -> bytes:
        """At most *length* bytes from *offset* on."""
        return os.pread(self._file.fileno(), length, offset)

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _range_of(request: Request) -> str | None:
    """The Range header where it counts: of a GET without If-Range (RFC 9110, 13.1.5 and 14.2).

    No answer has a validator, so that none in If-Range can match the file.
    """
    is_ignored = request.method != "GET" or "if-range" in request.headers
    return None if is_ignored else request.headers.get("range")


def send_file(request: Request, file: OpenFile, calls: FolderCalls, *, download: bool) -> Response:
    """An answer with the content of *file*, which is closed after it.

    Args:
        calls: How the disk is read.
        download: Whether the browser is told to save it.
    """
    name, size_bytes = file.name, file.size_bytes
    shown = quote(name.decode("utf-8", "replace"), safe="")
    headers = {
        "Accept-Ranges": "bytes",
        "Content-Disposition": f"{'attachment' if download else 'inline'}; filename*=UTF-8''{shown}",
        "Content-Type": media_type_of(name),
    }
    try:
        wanted = parse_range(_range_of(request), size_bytes)
    except ValueError:
        calls.follow(file.close)
        return PlainTextResponse("outside the file\n", 416, {"Content-Range": f"bytes */{size_bytes}"})
    begin, end = wanted or (0, size_bytes)
    headers["Content-Length"] = str(end - begin)
    if wanted:
        headers["Content-Range"] = f"bytes {begin}-{end - 1}/{size_bytes}"
    return _FileResponse(file, calls, begin, end, 206 if wanted else 200, headers)


class _FileResponse(StreamingResponse):
    """Streams a part of an open file, and closes it in every case."""

    def __init__(
        self,
        file: OpenFile,
        calls: FolderCalls,
        begin: int,
        end: int,
        status: int,
        headers: Mapping[str, str],
    ) -> None:
        super().__init__(self._blocks(begin, end), status, headers)
        self._file = file
        self._calls = calls

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            if scope["method"] == "HEAD":
                self.body_iterator = _nothing()
            await super().__call__(scope, receive, send)
        finally:
            self._calls.follow(self._file.close)  # a read that hangs outlives this answer

    async def _blocks(self, begin: int, end: int) -> AsyncIterator[bytes]:
        while begin < end:
            length = min(BLOCK_BYTES, end - begin)
            try:
                block = await self._calls.make_within(READ_SECONDS, self._file.read, length, begin)
            except FolderHangs as error:
                raise ConnectionError("the disk does not answer") from error
            if not block:
                raise ConnectionError("the file became shorter")
            begin += len(block)
            yield block


async def _nothing() -> AsyncIterator[bytes]:
    return
    yield b""
