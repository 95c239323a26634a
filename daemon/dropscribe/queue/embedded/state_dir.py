"""The state directory: locked while a daemon runs, readable only by its user, with room for an answer."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from typing import TYPE_CHECKING

from dropscribe.core.errors import StoreError, StoreFull, StoreInUse, StoreUnusable

if TYPE_CHECKING:
    from pathlib import Path

STATE_RESERVE_BYTES = 4 * 1024 * 1024
"""Room that must be free on the state directory's disk before anything is paid for."""

_LOCK_TRIES = 5
_LOCK_GAP_SECONDS = 0.02


def lock_state_dir(state_dir: Path) -> int:
    """Make *state_dir* if need be, and lock it; returns the descriptor that holds the lock.

    Raises:
        StoreInUse: Another daemon has it.
        StoreUnusable: It is on a network file system.
        StoreError: It cannot be made or opened.
    """
    from dropscribe.files.mounts import MountKind, mount_of  # noqa: PLC0415  # readers lock nothing

    try:
        state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(state_dir / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StoreError(
            str(state_dir), error.strerror or str(error), "give dropscribe a state_dir that it may write to"
        ) from error
    try:
        with contextlib.suppress(PermissionError):  # another user's directory is left alone
            state_dir.chmod(0o700)
        _take_lock(descriptor)
    except BlockingIOError:
        os.close(descriptor)
        raise StoreInUse(
            str(state_dir), "another dropscribe has this state directory", "stop it, or set another state_dir"
        ) from None
    if mount_of(os.fsencode(state_dir)).kind is MountKind.REMOTE:
        os.close(descriptor)
        raise StoreUnusable(
            str(state_dir), "is on a network file system", "set state_dir to a folder on a local disk"
        )
    return descriptor


def _take_lock(descriptor: int) -> None:
    """Lock exclusively; a ``status`` that checks for a daemon holds a shared lock for an instant."""
    for _ in range(_LOCK_TRIES):
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        time.sleep(_LOCK_GAP_SECONDS)
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def make_private_file(path: Path) -> None:
    """Make the database's file for its owner alone: SQLite gives its journals the same mode.

    Raises:
        StoreError: The state directory may not be written.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StoreError(
            str(path), error.strerror or str(error), "give dropscribe a state_dir that it may write to"
        ) from error
    os.close(descriptor)


def trouble_of_disk(state_dir: Path) -> StoreFull | None:
    """Why nothing may be paid for now, or None."""
    disk = os.statvfs(state_dir)
    if disk.f_bavail * disk.f_frsize >= STATE_RESERVE_BYTES:
        return None
    return StoreFull(str(state_dir), "the disk of the state directory is full")
