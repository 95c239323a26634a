"""Read leases: ask the kernel whether any process on this machine has a file open for writing.

A read lease (``F_SETLEASE``, fcntl(2)) is granted only if no process has the file open or mapped for writing,
under any of its names. Leases are asked for only where this kernel itself decides them
(docs/design/watching.md).

A lease ends when its file is closed, soon: until then a writer's open waits, at most 45 s
(/proc/sys/fs/lease-break-time).

Guarantees: no lease is requested while SIGIO would end the process: the kernel sends it when a writer's open
breaks a lease, and its default action is to terminate.
"""

from __future__ import annotations

import errno
import fcntl
import signal

from dropscribe.core.settling import Lease
from dropscribe.files.mounts import LeaseSupport, lease_support

_BUSY = frozenset({errno.EAGAIN, errno.EBUSY})


def ignore_sigio() -> None:
    """Make lease probes safe. Called once, from the main thread, before any thread starts."""
    signal.signal(signal.SIGIO, signal.SIG_IGN)


def probe_lease(descriptor: int, support: LeaseSupport | None = None) -> Lease:
    """Whether a local process has the open file open for writing; *descriptor* was opened read-only.

    UNKNOWN if the file belongs to another user and CAP_LEASE is missing, or if the file system's leases say
    nothing about local writers. FREE excludes remote writers only where
    :attr:`~dropscribe.files.mounts.Mount.has_reliable_leases` is true.
    """
    is_none = (support or lease_support(descriptor)) is LeaseSupport.NONE
    return Lease.UNKNOWN if is_none else _acquire(descriptor)


def hold_lease(descriptor: int | None, support: LeaseSupport | None = None) -> Lease:
    """As :func:`probe_lease`, so that no writer can open the file between a check and a rename.

    Where a writer's open would wait for another machine, no lease is held: UNKNOWN there, and for None, a
    file that may not be opened.
    """
    if descriptor is None or (support or lease_support(descriptor)) is not LeaseSupport.FULL:
        return Lease.UNKNOWN
    return _acquire(descriptor)


def _acquire(descriptor: int) -> Lease:
    if signal.getsignal(signal.SIGIO) is not signal.SIG_IGN:
        return Lease.UNKNOWN
    try:
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except OSError as error:
        return Lease.WRITER if error.errno in _BUSY else Lease.UNKNOWN
    return Lease.FREE
