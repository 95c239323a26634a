"""Read leases: ask the kernel whether any process on this machine has a file open for writing.

A read lease (``F_SETLEASE``, fcntl(2)) is granted only if no process has the file open or mapped for writing,
under any of its names. Leases are asked for only where this kernel itself decides them
(docs/design/watching.md).

Guarantees: no lease is held when a call returns. Releasing a lease never raises. No lease is requested while
SIGIO would end the process: the kernel sends it when a writer's open breaks a lease, and its default action
is to terminate.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import signal
from typing import TYPE_CHECKING

from dropscribe.core.settling import Lease
from dropscribe.files.mounts import LeaseSupport, lease_support

if TYPE_CHECKING:
    from collections.abc import Iterator

_BUSY = frozenset({errno.EAGAIN, errno.EBUSY})


def ignore_sigio() -> None:
    """Make lease probes safe. Called once, from the main thread, before any thread starts."""
    signal.signal(signal.SIGIO, signal.SIG_IGN)


def probe_lease(descriptor: int, support: LeaseSupport | None = None) -> Lease:
    """Whether a local process has the open file open for writing; *descriptor* was opened read-only.

    UNKNOWN if the file belongs to another user and CAP_LEASE is missing, or if the file system's leases say
    nothing about local writers. FREE excludes remote writers only where
    :attr:`~dropscribe.files.mounts.Mount.has_reliable_leases` is true.

    Raises:
        RuntimeError: :func:`ignore_sigio` was not called: probing could end the process.
    """
    if signal.getsignal(signal.SIGIO) is not signal.SIG_IGN:
        raise RuntimeError("ignore_sigio() must come before the first lease probe")
    if (support or lease_support(descriptor)) is LeaseSupport.NONE:
        return Lease.UNKNOWN
    state = _acquire(descriptor)
    if state is Lease.FREE:
        _release(descriptor)
    return state


@contextlib.contextmanager
def held_lease(descriptor: int | None, support: LeaseSupport | None = None) -> Iterator[Lease]:
    """Hold a read lease inside the block, so that no writer can open the file between check and rename.

    A writer's open waits for the end of the block, at most 45 s (/proc/sys/fs/lease-break-time). On a file
    system that is not local no lease is held.

    Yields:
        As :func:`probe_lease`; UNKNOWN for None, a file that may not be opened.
    """
    is_safe = signal.getsignal(signal.SIGIO) is signal.SIG_IGN
    if descriptor is None or not is_safe or (support or lease_support(descriptor)) is not LeaseSupport.FULL:
        yield Lease.UNKNOWN
        return
    state = _acquire(descriptor)
    try:
        yield state
    finally:
        if state is Lease.FREE:
            _release(descriptor)


def _acquire(descriptor: int) -> Lease:
    try:
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except OSError as error:
        return Lease.WRITER if error.errno in _BUSY else Lease.UNKNOWN
    return Lease.FREE


def _release(descriptor: int) -> None:
    # EAGAIN here only means that the kernel has taken the lease back already.
    with contextlib.suppress(OSError):
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)
