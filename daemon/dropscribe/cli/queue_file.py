"""The file of ``dropscribe queue export``: a header, a record a line, and a digest of all that behind it.

Guarantees: it appears whole and synced under a name that was free, readable by its owner alone; one that is
torn or was changed is refused before anything of it is used.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dropscribe import __version__
from dropscribe.core.errors import StoreError
from dropscribe.files.writing import move_new, sync_folder
from dropscribe.transcripts.document import path_text, utc_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import BinaryIO

    from dropscribe.queue.portable import Record

QUEUE_SCHEMA = "dropscribe.queue/1"
_SCHEMA_NAME = QUEUE_SCHEMA.partition("/")[0]


def write_queue_file(path: bytes, records: Iterable[Record], source: str, now: float) -> None:
    """Write *records* of the queue whose token is *source*.

    Raises:
        FileExistsError: Something has that name.
        OSError: The disk's answer; nothing is left behind.
    """
    folder, name = os.path.split(os.path.abspath(path))
    if os.path.lexists(path):
        raise FileExistsError(17, "is there already; nothing is overwritten", path_text(path))
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    temp = b".%b.%d.tmp" % (name, os.getpid())
    try:
        with open(os.open(temp, _NEW, 0o600, dir_fd=descriptor), "wb") as file:
            _write_lines(file, records, source, now)
            file.flush()
            os.fsync(file.fileno())
        move_new(descriptor, temp, os.path.join(folder, name))
        sync_folder(folder)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temp, dir_fd=descriptor)
        raise
    finally:
        os.close(descriptor)


_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC


def _write_lines(file: BinaryIO, records: Iterable[Record], source: str, now: float) -> None:
    digest, count = hashlib.sha256(), 0
    header = {"schema": QUEUE_SCHEMA, "version": __version__, "exported_at": utc_text(now), "source": source}
    file.write(_line(header, digest))
    for record in records:
        file.write(_line(record, digest))
        count += 1
    file.write(_line({"kind": "end", "records": count, "sha256": digest.hexdigest()}, digest))


def _line(record: Record, digest: hashlib._Hash) -> bytes:
    line = json.dumps(record, default=_as_text, separators=(",", ":")).encode() + b"\n"
    digest.update(line)
    return line


def _as_text(value: object) -> dict[str, str]:
    if isinstance(value, bytes):
        return {"base64": base64.b64encode(value).decode()}
    raise TypeError(type(value))


def _from_text(found: dict[str, Any]) -> Any:
    return base64.b64decode(found["base64"]) if found.keys() == {"base64"} else found


@dataclass(frozen=True, slots=True)
class QueueFile:
    """A file that was found to be whole.

    Attributes:
        source: The token of the queue that it came from.
    """

    path: str
    source: str

    def records(self) -> Iterator[Record]:
        """Each record, in order."""
        with open(self.path, "rb") as file:
            next(file)
            for line in file:
                record = json.loads(line, object_hook=_from_text)
                if record["kind"] != "end":
                    yield record


def open_queue_file(path: str) -> QueueFile:
    """Check that all of it is there.

    Raises:
        StoreError: It is none, torn, changed, or of a version that this dropscribe does not know.
        OSError: It cannot be read.
    """
    with open(path, "rb") as file:
        header = _object_of(file.readline())
        schema = str(header.get("schema"))
        if schema.partition("/")[0] != _SCHEMA_NAME:
            raise StoreError(path, "is no file of 'dropscribe queue export'")
        if schema != QUEUE_SCHEMA:
            remedy = "import it with the dropscribe that wrote it, or a later one"
            raise StoreError(path, f"is of a version that this dropscribe does not know ({schema})", remedy)
        file.seek(0)
        if not _is_whole(file):
            raise StoreError(path, "is torn, or was changed: its digest is another", "export it again")
    return QueueFile(path, str(header["source"]))


def _is_whole(file: BinaryIO) -> bool:
    digest, count, last = hashlib.sha256(), -1, b""
    for line in file:
        if last:
            digest.update(last)
            count += 1
        last = line
    end = _object_of(last)
    return end.get("kind") == "end" and (end.get("records"), end.get("sha256")) == (count, digest.hexdigest())


def _object_of(line: bytes) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
