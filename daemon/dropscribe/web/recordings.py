"""Sends a recording or a sidecar by descriptor, with one byte range (RFC 9110, 14.1.2)."""

from __future__ import annotations

import os
import re
from collections.abc import AsyncIterator
from io import FileIO
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse

from dropscribe.files.audio import open_beneath
from dropscribe.pipeline.disk_threads import HANG_SECONDS, FolderHangs
from dropscribe.providers.formats import media_type
from dropscribe.web.site import FolderCalls

BLOCK_BYTES = 256 * 1024
READ_SECONDS = 30.0  # How long one block may take to read from a slow disk

_SIDECAR_TYPES = {
    ".json": "application/json",
    ".txt": "text/plain; charset=utf-8",
    ".md": "text/markdown; charset=utf-8",
    ".srt": "application/x-subrip",
    ".vtt": "text/vtt",
}
_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})", re.IGNORECASE)


def parse_range(header: str | None, size_bytes: int) -> tuple[int, int] | None:
    """(first, past the last byte) of a Range header with one range; None for the whole file.

    Raises ValueError where the range lies outside the file.
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


async def send_file(
    request: Request, calls: FolderCalls, root: bytes, path: bytes, *, download: bool
) -> Response:
    """The content of the regular file at *path* beneath *root*, to be shown or saved (*download*).

    Raises:
        AudioError, OSError: As :func:`open_beneath`.
        FolderHangs: It was not opened in time.
    """
    file, size_bytes = await calls.make(HANG_SECONDS, _open, root, path)
    name = os.path.basename(path).decode("utf-8", "replace")
    suffix = os.path.splitext(name)[1].lower()
    shown = "attachment" if download else "inline"
    headers = {
        "Accept-Ranges": "bytes",
        "Content-Disposition": f"{shown}; filename*=UTF-8''{quote(name, safe='')}",
        "Content-Type": _SIDECAR_TYPES.get(suffix) or media_type(suffix, head=b""),
    }
    # It counts for a GET alone, and never with If-Range, because no answer has a validator that could be
    # in it (RFC 9110, 13.1.5 and 14.2).
    is_ignored = request.method != "GET" or "if-range" in request.headers
    try:
        wanted = parse_range(None if is_ignored else request.headers.get("range"), size_bytes)
    except ValueError:
        calls.follow(file.close)
        return PlainTextResponse("outside the file\n", 416, {"Content-Range": f"bytes */{size_bytes}"})
    begin, end = wanted or (0, size_bytes)
    headers["Content-Length"] = str(end - begin)
    if wanted:
        headers["Content-Range"] = f"bytes {begin}-{end - 1}/{size_bytes}"
    blocks = _blocks(file, calls, begin, begin if request.method == "HEAD" else end)
    return StreamingResponse(blocks, 206 if wanted else 200, headers)


def _open(root: bytes, path: bytes) -> tuple[FileIO, int]:
    """The open file and its size. It is a file object, which is closed also where nobody waits for it."""
    file = open(open_beneath(root, path), "rb", buffering=0)  # noqa: SIM115
    return file, os.fstat(file.fileno()).st_size


async def _blocks(file: FileIO, calls: FolderCalls, begin: int, end: int) -> AsyncIterator[bytes]:
    """The bytes of *file*, which is closed at the end, or after a read that hangs and outlives the answer."""
    try:
        while begin < end:
            length = min(BLOCK_BYTES, end - begin)
            block = await calls.make(READ_SECONDS, os.pread, file.fileno(), length, begin)
            if not block:
                raise ConnectionError("the file became shorter")
            begin += len(block)
            yield block
    except FolderHangs as error:
        raise ConnectionError("the disk does not answer") from error
    finally:
        calls.follow(file.close)
