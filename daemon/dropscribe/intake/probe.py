"""Probes one file: its status, its writers, and its completeness by the container.

Guarantees: a look opens the file once, follows no link below the inbox, never blocks on a pipe, and leaves no
descriptor and no lease behind.
"""

from __future__ import annotations

import collections
import contextlib
import os
import time
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Self

from dropscribe.core.ignored_names import DOWNLOAD_FILES, FOLDER_DOWNLOAD_FILES
from dropscribe.core.model import FileSnapshot
from dropscribe.core.settling import Completeness, Lease, Seen, Signs
from dropscribe.files.audio import audio_errors, snapshot_of
from dropscribe.files.beneath import (
    UnsafePathError,
    closing,
    open_folder,
    open_root,
    open_with_status,
    stat_at,
)
from dropscribe.files.companions import read_json
from dropscribe.files.containers import examine
from dropscribe.files.mounts import LeaseSupport, Mount, MountCache, probe_lease

_DOWNLOAD_SUFFIXES = tuple(map(os.fsdecode, DOWNLOAD_FILES))
_MOST_LOOKUPS = 20  # of one folder, before its names are read once instead
_LONGEST_NAME = 255  # of every file system of Linux; a longer one cannot exist


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """Result of one probe of a file."""

    snapshot: FileSnapshot
    lease: Lease
    completeness: Completeness
    mount: Mount

    @property
    def age_seconds(self) -> float:
        """Seconds since the file's last change or rename; 0 where another machine sets its times."""
        if self.mount.leases is not LeaseSupport.FULL:
            return 0.0
        changed_ns = max(self.snapshot.mtime_ns, self.snapshot.ctime_ns)
        return max(0.0, time.time() - changed_ns / 1e9)

    def signs(self, seen: Seen) -> Signs:
        """The evidence for :func:`~dropscribe.core.settling.decide`, of a file noticed as *seen*."""
        has_reliable_leases = self.mount.leases is LeaseSupport.FULL
        size_bytes, caches_attributes = self.snapshot.size_bytes, self.mount.caches_attributes
        return Signs(size_bytes, self.lease, self.completeness, seen, has_reliable_leases, caches_attributes)


class OpenInbox:
    """An inbox, open for a short time; everything below it is reached from its descriptor.

    Args:
        download_files: Cache that is filled here: directory → names of download programs' own files.
    """

    def __init__(self, root: bytes, download_files: dict[bytes, frozenset[bytes]] | None = None) -> None:
        self._root = root
        self._lookups: collections.Counter[bytes] = collections.Counter()
        self._download_files = {} if download_files is None else download_files
        self.descriptor = open_root(root)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.descriptor)

    def _open_folder(self, directory: bytes) -> AbstractContextManager[int]:
        if not directory:
            return contextlib.nullcontext(self.descriptor)
        return closing(open_folder(self.descriptor, directory))

    def probe(self, path: bytes, mounts: MountCache) -> ProbeResult:
        """Look at the file *path*; raises as ``open_beneath`` does."""
        directory, _, name = path.rpartition(b"/")
        with audio_errors(self._root, path), self._open_folder(directory) as folder:
            descriptor, status = open_with_status(folder, name)
        with closing(descriptor):
            snapshot = snapshot_of(status)
            mount = mounts.of(snapshot.device, descriptor)
            completeness = _completeness(descriptor, snapshot.size_bytes, name)
            return ProbeResult(snapshot, probe_lease(descriptor, mount.leases), completeness, mount)

    def stat(self, path: bytes) -> os.stat_result | None:
        """The status of *path* (b"": the inbox), None if nothing can be reached there; OSError if unknown."""
        directory, _, name = path.rpartition(b"/")
        try:
            with self._open_folder(directory) as folder:
                return stat_at(folder, name or b".")
        except (FileNotFoundError, NotADirectoryError, UnsafePathError, ValueError):
            return None  # ValueError: a row that another program wrote has an impossible path

    def find_download_file(self, path: bytes) -> tuple[bytes, str] | None:
        """A file beside *path*, or beside a folder that it is in, that marks a running download.

        aria2 and others write a download under its final name, with its full size from the start. Returns the
        name of that file and of the program that makes it.
        """
        suffixes = DOWNLOAD_FILES
        while path:
            directory, _, name = path.rpartition(b"/")
            if found := self._first_beside(directory, name, suffixes):
                return found
            path, suffixes = directory, FOLDER_DOWNLOAD_FILES
        return None

    def _first_beside(
        self, directory: bytes, name: bytes, suffixes: dict[bytes, str]
    ) -> tuple[bytes, str] | None:
        self._lookups[directory] += 1
        beside = ((name + suffix, program) for suffix, program in suffixes.items())
        known = self._download_files.get(directory)
        if known is None:
            with self._open_folder(directory) as folder:
                if self._lookups[directory] <= _MOST_LOOKUPS:
                    short = (one for one in beside if len(one[0]) <= _LONGEST_NAME)
                    return next((one for one in short if stat_at(folder, one[0])), None)
                found = (name for name in os.listdir(folder) if name.endswith(_DOWNLOAD_SUFFIXES))
                known = self._download_files[directory] = frozenset(map(os.fsencode, found))
        return next((one for one in beside if one[0] in known), None) if known else None


def _completeness(descriptor: int, size_bytes: int, name: bytes) -> Completeness:
    if size_bytes == 0:
        return Completeness.UNKNOWN
    suffix = os.path.splitext(name)[1].decode("ascii", "replace").lower()
    if suffix == ".json":  # a companion: no part of an object is one
        return Completeness.COMPLETE if read_json(descriptor) else Completeness.UNKNOWN
    return examine(lambda offset, count: os.pread(descriptor, count, offset), size_bytes, suffix)
