"""Process-wide settings made at the start, and signal handlers.

Guarantees: SIGIO, which the kernel sends when a lease is broken, never ends the process
(docs/design/watching.md); no core dump holds a key; a second SIGTERM or SIGINT ends the process even if its
loop hangs.
"""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import resource
import signal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterator

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)

_PR_SET_DUMPABLE = 4  # linux/prctl.h
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8  # malloc.h of glibc

KEPT_BYTES = 4 * 1024 * 1024
"""Freed memory that the allocator keeps for the next block of audio. By default it gives each block
back to the kernel, whose fresh, cleared pages then cost an upload as much as its hash."""


def prepare_process() -> None:
    """Make the process fit to hold keys and leases; call it first, before any thread.

    faulthandler turns the SIGABRT of systemd's watchdog into the traceback of every thread.
    """
    signal.signal(signal.SIGIO, signal.SIG_IGN)
    faulthandler.enable()
    # Either may be refused by a sandbox (SystemCallFilter=~@resources); the unit has LimitCORE=0 then.
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    _keep_freed_memory()


def _keep_freed_memory() -> None:
    # One arena: the memory of several adds up, and the interpreter's lock serialises allocations anyhow.
    with contextlib.suppress(AttributeError):  # musl has no mallopt
        mallopt = ctypes.CDLL(None).mallopt
        for what, value in (
            (_M_MMAP_THRESHOLD, KEPT_BYTES),
            (_M_TRIM_THRESHOLD, KEPT_BYTES),
            (_M_ARENA_MAX, 1),
        ):
            mallopt(what, value)


@contextlib.contextmanager
def route_signals(
    loop: asyncio.AbstractEventLoop, stop: asyncio.Event, reload: Callable[[], object] | None = None
) -> Iterator[None]:
    """While inside: SIGTERM or SIGINT sets *stop*, SIGHUP calls *reload* in the loop.

    After the first stop signal both have the kernel's own action again: the next one ends the process at
    once, which is safe at any instant because every step is durable. Without *reload* SIGHUP,
    a terminal that went away, is a stop signal too.
    """

    def begin_stop() -> None:
        stop.set()
        for number in STOP_SIGNALS:
            loop.remove_signal_handler(number)
            signal.signal(number, signal.SIG_DFL)

    for number in STOP_SIGNALS:
        loop.add_signal_handler(number, begin_stop)
    loop.add_signal_handler(signal.SIGHUP, reload or begin_stop)
    try:
        yield
    finally:
        for number in (*STOP_SIGNALS, signal.SIGHUP):
            loop.remove_signal_handler(number)
