"""The spool below the state directory: pieces on their way, and answers to pieces that are paid for.

Guarantees: only the owner can read the files (0600); pieces have no names, so none outlives the daemon;
an answer that was written survives a crash.
"""

from __future__ import annotations

import contextlib
import errno
import io
import json
import os
import shutil
import stat
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from dropscribe.files.beneath import closing, open_root, sync
from dropscribe.transcripts.model import Transcript, parse_transcript

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

# Disk space that the spool leaves free: the queue is on the same disk and must be able to store results.
SPARE_BYTES = 64 * 2**20
# A piece's answer is kept this long for the other pieces; longer than any sensible `give_up_after`.
KEPT_SECONDS = 30 * 86400.0
# The same after all pieces are answered: long enough for a restart after a crash at that moment.
WHOLE_SECONDS = 600.0


class _Piece(io.BufferedRandom):
    """A piece's file, which leaves room for the queue however long the piece becomes."""

    def __init__(self, raw: io.FileIO, folder: str) -> None:
        super().__init__(raw)
        self._folder = folder

    def write(self, content: ReadableBuffer) -> int:
        """See the base class; OSError (ENOSPC) where there is no room."""
        _require_room(self._folder, memoryview(content).nbytes)
        return super().write(content)


def _require_room(folder: str, count: int) -> None:
    if shutil.disk_usage(folder).free < count + SPARE_BYTES:
        raise OSError(errno.ENOSPC, f"no room in {folder} for {count} bytes")


class Spool:
    """One state directory's spool."""

    def __init__(self, state_dir: Path) -> None:
        self._folder = os.fspath(state_dir / "spool")
        self._answers = os.path.join(self._folder, "answers")

    def sweep(self) -> None:
        """Remove the files of an earlier daemon, and answers that are no longer needed."""
        with contextlib.suppress(FileNotFoundError), os.scandir(self._folder) as entries:
            for entry in entries:
                if not entry.is_dir(follow_symlinks=False):
                    os.unlink(entry.path)
        self.forget_old()

    def forget_old(self) -> None:
        """Remove answers that have reached the end of their lifetime."""
        with contextlib.suppress(FileNotFoundError), os.scandir(self._answers) as entries:
            for entry in entries:
                if time.time() - entry.stat().st_mtime > KEPT_SECONDS:
                    shutil.rmtree(entry.path, ignore_errors=True)

    def new_piece(self, most_bytes: int) -> BinaryIO:
        """An open file without a name, of mode 0600.

        Raises OSError (ENOSPC) where *most_bytes* would not leave room for the queue.
        """
        os.makedirs(self._folder, mode=0o700, exist_ok=True)
        _require_room(self._folder, most_bytes)
        raw = tempfile.TemporaryFile(dir=self._folder, buffering=0)  # noqa: SIM115 - the sender closes it
        os.fchmod(raw.fileno(), stat.S_IRUSR | stat.S_IWUSR)
        return _Piece(raw, self._folder)

    def read_answer(self, sha256: str, key: str) -> Transcript | None:
        """The answer to one piece of the recording, if it has been paid for."""
        try:
            with open(self._path(sha256, key), encoding="utf-8") as file:
                return parse_transcript(json.load(file))
        except (OSError, ValueError, TypeError, KeyError):
            return None

    def write_answer(self, sha256: str, key: str, transcript: Transcript) -> None:
        """Store one piece's answer durably."""
        folder = os.path.join(self._answers, sha256)
        os.makedirs(folder, mode=0o700, exist_ok=True)
        path = self._path(sha256, key)
        descriptor = os.open(f"{path}.new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump(asdict(transcript), file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(f"{path}.new", path)
        for changed in (folder, self._answers, self._folder):
            with closing(open_root(os.fsencode(changed))) as opened:
                sync(opened)

    def mark_whole(self, sha256: str) -> None:
        """Keep the answers for WHOLE_SECONDS, because all pieces are answered; another answer undoes it."""
        as_of = time.time() - KEPT_SECONDS + WHOLE_SECONDS
        with contextlib.suppress(FileNotFoundError):
            os.utime(os.path.join(self._answers, sha256), (as_of, as_of))
        self.forget_old()

    def forget(self, sha256: str) -> int:
        """Remove the answers to one recording's pieces; returns their number."""
        folder = os.path.join(self._answers, sha256)
        try:
            count = sum(name.endswith(".json") for name in os.listdir(folder))
        except FileNotFoundError:
            return 0
        shutil.rmtree(folder, ignore_errors=True)
        return count

    def _path(self, sha256: str, key: str) -> str:
        return os.path.join(self._answers, sha256, f"{key}.json")
