"""Takes recordings from a page into an inbox: whole, never over anything, under a safe name.

A recording is written under a hidden name that no rule takes, synced, and then moved to its final name. A
connection that breaks leaves nothing behind.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import secrets
import time
import unicodedata
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import Request

from dropscribe.config.model import FolderRule
from dropscribe.core.naming import free_name
from dropscribe.core.settling import Lease
from dropscribe.files.beneath import closing, open_listable_root, open_root, open_with_status, stat_at
from dropscribe.files.capabilities import capabilities_of
from dropscribe.files.mounts import probe_lease
from dropscribe.files.moves import FileName, move_new
from dropscribe.files.own_file import write_all
from dropscribe.pipeline.disk_threads import HANG_SECONDS, SLOWEST_BYTES_PER_SECOND, FolderHangs
from dropscribe.web.site import FolderCalls, Refused

MOST_UPLOAD_BYTES = 8 * 1024**3
MOST_FILES = 100
IDLE_SECONDS = 60.0
MOST_NAME_BYTES = 200
MOST_HEADER_BYTES = 8192  # of one header of a part
LEFTOVER_SECONDS = 2 * 86400.0
"""Age from which a hidden file without a writer is left from a crash; a slow upload may take a day."""
_MODE = 0o660
_JOINERS = "\u200c\u200d"  # parts of Persian and Hindi words, and of emoji
_MALFORMED = "the form is malformed"
_TOO_LARGE = "larger than 8 GiB"


async def take_upload(request: Request, rule: FolderRule, calls: FolderCalls) -> list[str]:
    """Write every file of a multipart form into the rule's inbox, by *calls*; returns their names there.

    Raises Refused if the form or a name cannot be taken, or the inbox cannot be written or does not answer.
    """
    content_type, options = parse_options_header(request.headers.get("content-type"))
    boundary = options.get(b"boundary")
    if content_type != b"multipart/form-data" or not boundary:
        raise Refused(400, "not a form with files")
    if int(request.headers.get("content-length", 0)) > MOST_UPLOAD_BYTES:
        raise Refused(413, _TOO_LARGE)
    form = _Form(rule)
    try:
        await calls.make(HANG_SECONDS, form.open_inbox)
        parser = MultipartParser(boundary, form.callbacks())  # type: ignore[arg-type]  # a TypedDict
        number_bytes, seconds = 0, HANG_SECONDS
        async for block in _blocks_of(request):
            number_bytes += len(block)
            if number_bytes > MOST_UPLOAD_BYTES:
                raise Refused(413, _TOO_LARGE)
            # The last block of a file syncs all of it, to a disk that may be slow.
            seconds = HANG_SECONDS + number_bytes / SLOWEST_BYTES_PER_SECOND
            await calls.make(seconds, parser.write, block)
        return await calls.make(seconds, form.finish)
    except ValueError as error:  # python_multipart's errors are ValueErrors
        raise Refused(400, _MALFORMED) from error
    except FolderHangs as error:
        raise Refused(503, "the inbox's file system does not answer") from error
    except OSError as error:
        raise Refused(507, f"the inbox cannot be written: {error.strerror or error}") from error
    finally:
        closed = asyncio.wrap_future(calls.follow(form.close))
        if not calls.hangs:
            await asyncio.wait((closed,), timeout=HANG_SECONDS)


async def _blocks_of(request: Request) -> AsyncIterator[bytes]:
    """The request's body; each block arrives within :data:`IDLE_SECONDS`."""
    stream = request.stream()
    try:
        while True:
            async with asyncio.timeout(IDLE_SECONDS):
                block = await anext(stream)
            yield block
    except StopAsyncIteration:
        return
    except TimeoutError as error:
        raise Refused(408, "nothing arrived for a minute") from error


class _Form:
    """The files of one form while they arrive. Blocking: used in a thread, one call at a time."""

    def __init__(self, rule: FolderRule) -> None:
        self._rule = rule
        self._inbox, self._file = -1, -1
        self._field, self._value = bytearray(), bytearray()
        self._name, self._hidden = b"", b""
        self._whole: list[tuple[bytes, bytes]] = []
        self._has_ended = False

    def open_inbox(self) -> None:
        """Open the inbox; before all other calls."""
        self._inbox = open_root(os.fsencode(self._rule.inbox))

    def callbacks(self) -> dict[str, object]:
        """Callbacks for the multipart parser."""
        return {
            "on_header_field": partial(self._add_to_header, self._field),
            "on_header_value": partial(self._add_to_header, self._value),
            "on_header_end": self._end_header,
            "on_headers_finished": self._open,
            "on_part_data": self._add_data,
            "on_part_end": self._end,
            "on_end": self._end_form,
        }

    def finish(self) -> list[str]:
        """Give every file its name in the inbox; none of a form that is cut short."""
        if not self._has_ended:
            raise Refused(400, _MALFORMED)
        if not self._whole:
            raise Refused(400, "no file was chosen")
        names = []
        while self._whole:
            names.append(os.fsdecode(self._publish(*self._whole[0])))
            self._whole.pop(0)
        os.fsync(self._inbox)
        return names

    def close(self) -> None:
        """Remove incomplete uploads, and close the inbox if it was opened."""
        if self._inbox < 0:
            return
        if self._file >= 0:
            os.close(self._file)
        for hidden in filter(None, [self._hidden, *(hidden for hidden, _ in self._whole)]):
            with contextlib.suppress(OSError):
                os.unlink(hidden, dir_fd=self._inbox)
        os.close(self._inbox)

    def _add_to_header(self, part: bytearray, data: bytes, start: int, end: int) -> None:
        part += data[start:end]
        if len(self._field) + len(self._value) > MOST_HEADER_BYTES:
            raise Refused(400, _MALFORMED)

    def _end_header(self) -> None:
        if self._field.lower() == b"content-disposition":
            name = parse_options_header(bytes(self._value))[1].get(b"filename", b"")
            self._name = name.replace(b"%22", b'"')  # HTML Living Standard, "multipart/form-data"
        self._field.clear()
        self._value.clear()

    def _open(self) -> None:
        if not self._name:
            return
        if len(self._whole) >= MOST_FILES:
            raise Refused(413, f"more than {MOST_FILES} files at once")
        self._name = safe_name(self._name)
        if reason := self._rule.patterns.reason_not_taken(self._name):
            raise Refused(415, f"{os.fsdecode(self._name)}: {reason}")
        self._hidden = _hidden_name()
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        self._file = os.open(self._hidden, flags, _MODE, dir_fd=self._inbox)

    def _add_data(self, data: bytes, start: int, end: int) -> None:
        if self._file >= 0:
            write_all(self._file, memoryview(data)[start:end])

    def _end(self) -> None:
        if self._file < 0:
            return
        os.fsync(self._file)
        os.close(self._file)
        self._whole.append((self._hidden, self._name))
        self._file, self._hidden, self._name = -1, b"", b""

    def _end_form(self) -> None:
        self._has_ended = True

    def _publish(self, hidden: bytes, name: bytes) -> bytes:
        """Move to the first free name; nothing is overwritten."""
        source, can = FileName(self._inbox, hidden), capabilities_of(self._inbox)
        status = source.status()

        def is_upload(found: FileName) -> bool:
            other = found.status()
            return status is not None and other is not None and os.path.samestat(other, status)

        while True:
            free = free_name(name, lambda other: stat_at(self._inbox, other) is None)
            with contextlib.suppress(FileExistsError):
                move_new(source, FileName(self._inbox, free), can, _hidden_name(), is_upload)
                return free


_HIDDEN_NAME = re.compile(rb"\.dropscribe-upload-[0-9a-f]{16}\.part")


def _hidden_name() -> bytes:
    return b".dropscribe-upload-" + secrets.token_hex(8).encode() + b".part"


def remove_leftovers(inbox: Path) -> int:
    """Remove incomplete uploads that a crash has left in *inbox*; returns their number.

    Another node of a cluster may be writing one: it has a writer, or has changed within LEFTOVER_SECONDS.
    Raises OSError if the inbox cannot be listed.
    """
    removed = 0
    with closing(open_listable_root(os.fsencode(inbox))) as folder:
        for name in filter(_HIDDEN_NAME.fullmatch, map(os.fsencode, os.listdir(folder))):
            with contextlib.suppress(OSError):  # a link or a folder, or gone, or not permitted
                descriptor, status = open_with_status(folder, name)
                with closing(descriptor):
                    is_old = time.time() - status.st_mtime > LEFTOVER_SECONDS
                    if is_old and probe_lease(descriptor) is not Lease.WRITER:
                        os.unlink(name, dir_fd=folder)
                        removed += 1
    return removed


def safe_name(name: bytes) -> bytes:
    """The last part of a client's file name without control characters, hidden marks and excess length."""
    text = name.decode("utf-8", "replace").replace("\\", "/").rpartition("/")[2]
    text = "".join(each for each in text if each in _JOINERS or unicodedata.category(each)[0] != "C")
    stem, dot, suffix = text.strip().lstrip(".~#").rpartition(".")
    if not dot or len(suffix.encode()) > MOST_NAME_BYTES // 2:
        stem, suffix = stem + dot + suffix, ""
    room = MOST_NAME_BYTES - len(suffix.encode()) - 1
    cut = stem.encode()[:room].decode("utf-8", "ignore")
    return (f"{cut}.{suffix}" if suffix else cut or "recording").encode()
