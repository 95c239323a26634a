"""One look at one file: what is there now, who writes it, what its container says.

Guarantees: a look opens the file once, follows no symlink, never blocks on a pipe, and leaves nothing
open and nothing leased.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dropscribe.core.settling import Completeness, Lease
from dropscribe.files.audio import open_beneath, snapshot_of
from dropscribe.files.containers import look as look_at_container
from dropscribe.files.lease import probe_lease

if TYPE_CHECKING:
    from dropscribe.core.model import FileSnapshot

_HEAD_BYTES = 512


@dataclass(frozen=True, slots=True)
class Look:
    """What one look told."""

    snapshot: FileSnapshot
    lease: Lease
    completeness: Completeness

    @property
    def signature(self) -> tuple[int, int, int, int, int]:
        """What must stay the same for the file to count as quiet."""
        seen = self.snapshot
        return seen.device, seen.inode, seen.size_bytes, seen.mtime_ns, seen.ctime_ns


def look_at(root: bytes, path: bytes) -> Look:
    """Look at the file *path* below *root*.

    Raises:
        AudioMissing, AudioForbidden, AudioUnsafe, OSError: As ``open_beneath`` does.
    """
    descriptor = open_beneath(root, path)
    try:
        snapshot = snapshot_of(os.fstat(descriptor))
        lease = probe_lease(descriptor)
        return Look(snapshot, lease, _completeness(descriptor, snapshot, lease, path))
    finally:
        os.close(descriptor)


def _completeness(descriptor: int, snapshot: FileSnapshot, lease: Lease, path: bytes) -> Completeness:
    if lease is Lease.WRITER or snapshot.size_bytes == 0:
        return Completeness.UNKNOWN
    suffix = os.path.splitext(path)[1].decode("ascii", "replace").lower()
    head = os.pread(descriptor, _HEAD_BYTES, 0)

    def read_at(offset: int, count: int) -> bytes:
        if offset + count <= len(head):  # most headers need no more than one read
            return head[offset : offset + count]
        return os.pread(descriptor, count, offset)

    return look_at_container(read_at, snapshot.size_bytes, suffix)
