"""The process: its user, its settings, its signals.

Guarantees: SIGIO, which the kernel sends when a lease is broken, never ends the process
(docs/design/watching.md); no core dump holds a key; a second SIGTERM or SIGINT ends the process even if its
loop hangs. Root privileges are dropped for good, in one step or not at all.
"""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import os
import resource
import signal
from typing import TYPE_CHECKING

from dropscribe.config.extras import CONTAINER_SIGN
from dropscribe.core.errors import ConfigError, Problem

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterator, Mapping

_HIGHEST_ID = 2**32 - 2  # (uid_t) -1 means "leave it" to the kernel
_HIGHEST_UMASK = 0o777

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)

_PR_SET_DUMPABLE = 4  # linux/prctl.h
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8  # malloc.h of glibc

KEPT_BYTES = 4 * 1024 * 1024
"""Freed memory that the allocator keeps for the next block of audio. By default it gives each block
back to the kernel, whose fresh, cleared pages then cost an upload as much as its hash."""


def switch_user(environ: Mapping[str, str]) -> None:
    """Switch to the user PUID and group PGID, with UMASK; before any file is opened or thread started.

    As on NAS devices: their shares belong to a user that the image cannot know. Does nothing outside our own
    image, whose environment has :data:`CONTAINER_SIGN`: an admin may export a PUID for other containers.

    A PUID without PGID is a group of the same number. Groups that the container was given (``group_add``)
    stay, root's own does not. Without root, PUID and PGID are ignored in favour of ``user:``.
    Raises ConfigError if one of the three is not a number as chown(1) and umask(1) take it, or if it may not
    switch.
    """
    if not environ.get(CONTAINER_SIGN):
        return
    if mask := environ.get("UMASK"):
        os.umask(_number("UMASK", mask, 8, _HIGHEST_UMASK))
    user, group = environ.get("PUID") or "", environ.get("PGID") or ""
    if os.geteuid() != 0 or not (user or group):
        return
    user_id = _number("PUID", user or "0", 10, _HIGHEST_ID)
    group_id = _number("PGID", group or str(user_id), 10, _HIGHEST_ID)
    try:
        # The order is forced: without the right to change users, groups cannot be changed either.
        if user_id:
            os.setgroups([each for each in os.getgroups() if each])
        os.setresgid(group_id, group_id, group_id)
        os.setresuid(user_id, user_id, user_id)
    except PermissionError as error:
        remedy = 'give it the capabilities SETUID and SETGID, or user: "1000:1000" in place of PUID and PGID'
        raise ConfigError(
            (Problem(f"environment PUID, PGID: this container may not switch: {remedy}"),)
        ) from error


def _number(name: str, text: str, base: int, highest: int) -> int:
    with contextlib.suppress(ValueError):  # an 8 or 9 in an octal number
        if text.isascii() and text.isdigit() and (value := int(text, base)) <= highest:
            return value
    kind = "an octal mask such as 022" if base == 8 else "a number such as 1000 (`id` shows yours)"
    raise ConfigError((Problem(f"environment {name}: {text!r} is not {kind}"),))


def prepare_process() -> None:
    """Make the process fit to hold keys and leases; call it first, before any thread.

    faulthandler turns the SIGABRT of systemd's watchdog into the traceback of every thread. A SIGHUP waits
    until :func:`route_signals` handles it.
    """
    signal.signal(signal.SIGIO, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
    faulthandler.enable()
    # Either may be refused by a sandbox (SystemCallFilter=~@resources); the unit has LimitCORE=0 then.
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    with contextlib.suppress(AttributeError):  # musl has no mallopt
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_MMAP_THRESHOLD, KEPT_BYTES)
        mallopt(_M_TRIM_THRESHOLD, KEPT_BYTES)
        # The memory of several adds up, and the interpreter's lock serialises allocations anyhow.
        mallopt(_M_ARENA_MAX, 1)


@contextlib.contextmanager
def exit_on_stop(code: int) -> Iterator[None]:
    """Within the block SIGTERM or SIGINT ends the process at once with *code*, until :func:`route_signals`.

    For the time in which the daemon is loaded, and has begun nothing that could be lost.
    """
    with _stop_handler(lambda *_: os._exit(code)):
        yield


@contextlib.contextmanager
def _stop_handler(handler: Callable[..., object]) -> Iterator[None]:
    before = {number: signal.signal(number, handler) for number in STOP_SIGNALS}
    try:
        yield
    finally:
        for number, previous in before.items():
            if signal.getsignal(number) is handler:
                signal.signal(number, previous)


@contextlib.contextmanager
def route_signals(
    loop: asyncio.AbstractEventLoop, stop: asyncio.Event, reload: Callable[[], object]
) -> Iterator[None]:
    """Within the block SIGTERM or SIGINT sets *stop*, SIGHUP calls *reload* in the loop.

    After the first stop signal both have the kernel's own action again: the next one ends the process at
    once, which is safe at any instant because every step is durable.
    """

    def begin_stop(*_: object) -> None:
        # Not by loop.add_signal_handler: a loop that hangs would never come to this.
        for number in STOP_SIGNALS:
            signal.signal(number, signal.SIG_DFL)
        loop.call_soon_threadsafe(stop.set)

    with _stop_handler(begin_stop):
        loop.add_signal_handler(signal.SIGHUP, reload)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})
        try:
            yield
        finally:
            loop.remove_signal_handler(signal.SIGHUP)
            # Its default would replace the exit code of the stop.
            signal.signal(signal.SIGHUP, signal.SIG_IGN)
