"""Ask the kernel whether anybody on this machine has a file open for writing.

A read lease is granted only where no writer has the file open or mapped, under whatever name
(WATCHING.md §5): 10 µs, where reading every process's descriptors takes 50 ms and sees one user's.

Guarantees: no lease is held when a call returns, and none is asked for while SIGIO would end the process:
it comes when a writer's open breaks a lease, and its default action is to terminate.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import signal
from typing import TYPE_CHECKING

from dropscribe.core.settling import Lease

if TYPE_CHECKING:
    from collections.abc import Iterator

_BUSY = frozenset({errno.EAGAIN, errno.EBUSY})


def ignore_sigio() -> None:
    """Make lease probes safe. Called once, from the main thread, before any thread starts."""
    signal.signal(signal.SIGIO, signal.SIG_IGN)


def probe_lease(descriptor: int) -> Lease:
    """What a read lease on the open file says; *descriptor* was opened read-only.

    UNKNOWN where the file is another user's and CAP_LEASE is missing, or the file system has no leases.
    FREE is worth what the file system's :attr:`~dropscribe.files.mounts.Mount.trusts_leases` says.

    Raises:
        RuntimeError: :func:`ignore_sigio` was not called: probing could end the process.
    """
    if signal.getsignal(signal.SIGIO) is not signal.SIG_IGN:
        raise RuntimeError("ignore_sigio() must come before the first lease probe")
    try:
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except OSError as error:
        return Lease.WRITER if error.errno in _BUSY else Lease.UNKNOWN
    fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    return Lease.FREE


@contextlib.contextmanager
def held_lease(descriptor: int | None) -> Iterator[Lease]:
    """Hold a read lease meanwhile, where one can be had: no writer gets in between check and rename.

    Yields what :func:`probe_lease` would say; UNKNOWN for None, a file that may not be opened. A writer's
    open waits for the end of the block (45 s at most, /proc/sys/fs/lease-break-time).
    """
    state = Lease.UNKNOWN
    if descriptor is not None and signal.getsignal(signal.SIGIO) is signal.SIG_IGN:
        try:
            fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
            state = Lease.FREE
        except OSError as error:
            state = Lease.WRITER if error.errno in _BUSY else Lease.UNKNOWN
    try:
        yield state
    finally:
        if descriptor is not None and state is Lease.FREE:
            fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)
