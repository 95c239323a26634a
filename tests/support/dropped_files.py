"""The files of the kill trials: every kind of name, date and content, dropped in every manner."""

from __future__ import annotations

import hashlib
import os
import random
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from support.vendors import heard_text

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from support.billing import Till
    from support.kill_trial import Trial

SUFFIXES = (".wav", ".mp3", ".flac")
FOLDERS = ("", "", "2026", "2026/autumn", "naïve folder", "Gespr\udce4che")
LONGEST_NAME_BYTES = 255

_PLAIN_STEM = "{}"
_ODD_STEMS = (
    "{} caf\udce9 \udcff",  # bytes of Latin-1: no UTF-8
    "{} first line\nsecond\r\n",
    "{} 😀👩🏽‍💻",
    "-{} 'a' \"b\" \\ %2f $(c) ",
    "{} LONG ",
    "{} LÖNG ",
)
_EQUAL_WORDS = ("", "Thank you.")
_SECOND = 1_000_000_000
_ODD_TIMES_NS = (
    -2_147_483_647 * _SECOND,  # 1901, the earliest date of ext4
    -_SECOND // 2,
    1,
    2**32 * _SECOND + 5,  # 2106
    4_323_000_000 * _SECOND,  # 2107, the end of FAT
    10_413_792_000 * _SECOND,  # 2300: nanoseconds past 64 bits
    2**40 * _SECOND,  # the file system takes the latest date that it has
    -(2**40) * _SECOND,
)


class InboxSite(Protocol):
    """The installation into which files are dropped; *root* is on the file system of the inbox."""

    root: Path

    @property
    def inbox(self) -> Path: ...


@dataclass(frozen=True)
class Dropped:
    """One input: where it was dropped and what it was."""

    path: str
    sha256: str
    size_bytes: int
    mtime_ns: int
    mode: int
    is_refused: bool
    words: str


class Dropper:
    """Drops files in every manner, some while the daemon is dead.

    Three files in a row share a folder and a stem, and so the names of their sidecars.

    Attributes:
        dropped: The dropped files, by their path below the inbox.
    """

    def __init__(self, trial: Trial, site: InboxSite, till: Till) -> None:
        self.dropped: dict[str, Dropped] = {}
        self._trial = trial
        self._site = site
        self._till = till
        self._rng = random.Random(f"{trial.seed} files")
        groups = range(-(-trial.files // 3))
        self._pending = [name for group in groups for name in self._names(group)][: trial.files]
        self._contents: list[bytes] = []
        self._likeness = ""
        self._words = ""

    def drop(self, count: int) -> None:
        """The next *count* files, one after the other."""
        for _ in range(count):
            if self._pending:
                self._drop(self._pending.pop(0))

    def drop_rest(self) -> None:
        """All that is left."""
        self.drop(len(self._pending))

    def _names(self, group: int) -> list[str]:
        folder = FOLDERS[group % len(FOLDERS)]
        is_odd = self._is_drawn(self._trial.share_odd_names)
        stem = (self._rng.choice(_ODD_STEMS) if is_odd else _PLAIN_STEM).format(group)
        return [f"{folder}/{_lengthened(stem, suffix)}".removeprefix("/") for suffix in SUFFIXES]

    def _content(self, number: int, name: str) -> bytes:
        """New bytes, those of the neighbour before, or those of any file before."""
        if number % 3 == 0:
            is_equal = self._is_drawn(self._trial.share_equal)
            self._likeness = self._rng.choice(("bytes", "words")) if is_equal else ""
            self._words = self._rng.choice(_EQUAL_WORDS)
            if self._contents and self._is_drawn(self._trial.share_older_bytes):
                return self._rng.choice(self._contents)
        elif self._likeness == "bytes":
            return self._contents[-1]
        sizes = (self._rng.randint(1, 60_000), 1_000_000, self._trial.large_bytes)
        (size,) = self._rng.choices(sizes, (93, 5, 2))
        return f"{name!r} {self._trial.seed} ".encode() + self._rng.randbytes(size)

    def _is_drawn(self, share: float) -> bool:
        return self._rng.random() < share

    def _drop(self, name: str) -> None:
        content = self._content(len(self.dropped), name)
        sha256 = hashlib.sha256(content).hexdigest()
        if not copies(self.dropped, sha256):
            self._contents.append(content)
            if self._is_drawn(self._trial.share_refused):
                self._till.refused.add(sha256)
            if self._likeness == "words":
                self._till.words[sha256] = self._words
        path = self._site.inbox / name
        path.parent.mkdir(parents=True, exist_ok=True)
        manners = (self._rename_in, self._write_in_place, self._write_slowly)
        manner = self._rename_in if self._trial.renames_alone else self._rng.choice(manners)
        mtime_ns = self._rng.choice(_ODD_TIMES_NS) if self._is_drawn(self._trial.share_odd_times) else None
        status = manner(path, content, mtime_ns)
        self.dropped[name] = Dropped(
            name,
            sha256,
            len(content),
            status.st_mtime_ns,
            status.st_mode & 0o777,
            sha256 in self._till.refused,
            self._till.words.get(sha256, heard_text(len(content), sha256)),
        )

    def _rename_in(self, path: Path, content: bytes, mtime_ns: int | None) -> os.stat_result:
        temp = self._site.root / "dropping"
        temp.write_bytes(content)
        temp.chmod(self._rng.choice((0o600, 0o644, 0o755)))
        if mtime_ns is not None:
            os.utime(temp, ns=(mtime_ns, mtime_ns))
        status = temp.stat()
        temp.rename(path)
        return status

    def _write_in_place(self, path: Path, content: bytes, mtime_ns: int | None) -> os.stat_result:
        return self._write(path, [content], mtime_ns)

    def _write_slowly(self, path: Path, content: bytes, mtime_ns: int | None) -> os.stat_result:
        """Longer than the rule's quiet time, with the file open all the while."""
        third = len(content) // 3 + 1
        pieces = [content[start : start + third] for start in range(0, len(content), third)]
        return self._write(path, pieces, mtime_ns, most_pause_seconds=0.15)

    def _write(
        self, path: Path, pieces: list[bytes], mtime_ns: int | None, most_pause_seconds: float = 0.0
    ) -> os.stat_result:
        with path.open("wb") as file:
            for piece in pieces:
                file.write(piece)
                file.flush()
                time.sleep(self._rng.uniform(0.0, most_pause_seconds))
            if mtime_ns is not None:
                os.utime(file.fileno(), ns=(mtime_ns, mtime_ns))
            return os.fstat(file.fileno())


def copies(dropped: Mapping[str, Dropped], sha256: str) -> list[Dropped]:
    """All files with these bytes."""
    return [file for file in dropped.values() if file.sha256 == sha256]


def _lengthened(stem: str, suffix: str) -> str:
    """The stem with the suffix; a long one fills the file system's longest name."""
    for filler in ("LONG ", "LÖNG "):
        if stem.endswith(filler):
            room = LONGEST_NAME_BYTES - len(suffix) - len(os.fsencode(stem))
            count, rest = divmod(room, len(filler.encode()))
            return stem + filler * count + "x" * rest + suffix
    return stem + suffix
