"""Probes one file: its status, its writers, and its completeness by the container.

Guarantees: a look opens the file once, follows no link below the inbox, never blocks on a pipe, and leaves no
descriptor and no lease behind.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dropscribe.core.ignored_names import DOWNLOAD_FILES, FOLDER_DOWNLOAD_FILES
from dropscribe.core.settling import Completeness, Signs
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
from dropscribe.files.mounts import LeaseSupport, probe_lease

if TYPE_CHECKING:
    from typing import Self

    from dropscribe.core.model import FileSnapshot
    from dropscribe.core.settling import Lease, Seen
    from dropscribe.files.mounts import Mount, MountCache

_HEAD_BYTES = 512
_LONGEST_NAME = 255  # of every file system of Linux; a longer one cannot exist


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """Result of one probe of a file."""

    snapshot: FileSnapshot
    lease: Lease
    completeness: Completeness
    mount: Mount

    def signs(self, seen: Seen) -> Signs:
        """The evidence for :func:`~dropscribe.core.settling.decide`, of a file noticed as *seen*."""
        has_reliable_leases = self.mount.leases is LeaseSupport.FULL
        size_bytes, caches_attributes = self.snapshot.size_bytes, self.mount.caches_attributes
        return Signs(size_bytes, self.lease, self.completeness, seen, has_reliable_leases, caches_attributes)


class OpenInbox:
    """An inbox, open for a short time; everything below it is reached from its descriptor."""

    def __init__(self, root: bytes) -> None:
        self._root = root
        self.descriptor = open_root(root)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.descriptor)

    def probe(self, path: bytes, mounts: MountCache) -> ProbeResult:
        """Look at the file *path*; raises as ``open_beneath`` does."""
        directory, _, name = path.rpartition(b"/")
        with audio_errors(self._root, path), closing(open_folder(self.descriptor, directory)) as folder:
            descriptor, status = open_with_status(folder, name)
        with closing(descriptor):
            snapshot = snapshot_of(status)
            mount = mounts.of(snapshot.device, descriptor)
            completeness = _completeness(descriptor, snapshot.size_bytes, name)
            return ProbeResult(snapshot, probe_lease(descriptor, mount.leases), completeness, mount)

    def stat(self, path: bytes) -> os.stat_result | None:
        """The status of *path*, None if nothing can be reached there; OSError if that cannot be told."""
        directory, _, name = path.rpartition(b"/")
        try:
            with closing(open_folder(self.descriptor, directory)) as folder:
                return stat_at(folder, name)
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
            with closing(open_folder(self.descriptor, directory)) as folder:
                for suffix, program in suffixes.items():
                    beside = name + suffix
                    if len(beside) <= _LONGEST_NAME and stat_at(folder, beside) is not None:
                        return beside, program
            path, suffixes = directory, FOLDER_DOWNLOAD_FILES
        return None


def _completeness(descriptor: int, size_bytes: int, name: bytes) -> Completeness:
    if size_bytes == 0:
        return Completeness.UNKNOWN
    suffix = os.path.splitext(name)[1].decode("ascii", "replace").lower()
    if suffix == ".json":  # a companion: no part of an object is one
        return Completeness.COMPLETE if read_json(descriptor) else Completeness.UNKNOWN
    head = os.pread(descriptor, _HEAD_BYTES, 0)

    def read_at(offset: int, count: int) -> bytes:
        if offset + count <= len(head):  # most headers need no more than one read
            return head[offset : offset + count]
        return os.pread(descriptor, count, offset)

    return examine(read_at, size_bytes, suffix)
