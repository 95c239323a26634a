"""Notifications to systemd: ready, reloading, stopping, the status line, the watchdog.

Guarantees: never raises; a NOTIFY_SOCKET that cannot be used is logged once, not passed over.
"""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Callable, Mapping

import structlog

SEND_TIMEOUT_SECONDS = 1.0
"""A service manager that does not read its socket may hold up the loop for no longer."""

log = structlog.get_logger()


class Notifier:
    """The line to the service manager; every call is harmless where there is none.

    ``watchdog_seconds`` is half of the time that its watchdog allows (sd_watchdog_enabled(3)), or None.
    """

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        self._address = environment.get("NOTIFY_SOCKET", "")
        self._has_warned = False
        self.watchdog_seconds = _watchdog_seconds(environment) if self._address else None

    def send(self, *assignments: str, status: str = "") -> None:
        """Send *assignments* such as ``READY=1`` (sd_notify(3)), and one line for ``systemctl status``."""
        if not self._address:
            return
        # In the status a newline would begin another assignment.
        status_line = ("STATUS=" + " ".join(status.splitlines()),) if status else ()
        try:
            _send_datagram(self._address, "\n".join(assignments + status_line))
        except OSError as error:
            if not self._has_warned:
                self._has_warned = True
                reason = error.strerror or str(error)
                log.warning("notify.unusable", notify_socket=self._address, reason=reason)

    def reloading(self) -> None:
        """The config is being read again; READY=1 must follow (sd_notify(3), RELOADING)."""
        now_microseconds = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        self.send("RELOADING=1", f"MONOTONIC_USEC={now_microseconds}")

    def extend_timeout(self, seconds: float) -> None:
        """Extend the unit's timeout: start, reload or stop needs *seconds* from now."""
        self.send(f"EXTEND_TIMEOUT_USEC={max(1, int(seconds * 1_000_000))}")

    async def feed_watchdog(self, is_alive: Callable[[], bool]) -> None:
        """Send WATCHDOG=1 while *is_alive* says so, until cancelled; returns at once without a watchdog.

        Runs in the loop that does the work, so a loop that hangs starves it: never in a thread.
        """
        while self.watchdog_seconds is not None:
            if is_alive():
                self.send("WATCHDOG=1")
            else:
                log.error("watchdog.starved")
            await asyncio.sleep(self.watchdog_seconds)


def _send_datagram(address: str, text: str) -> None:
    if address[:1] not in {"/", "@"} or len(address) < 2:
        raise OSError(None, "neither a path nor an abstract socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as datagrams:
        datagrams.settimeout(SEND_TIMEOUT_SECONDS)
        abstract_or_path = "\0" + address[1:] if address[0] == "@" else address
        datagrams.sendto(text.encode("utf-8", "replace"), abstract_or_path)


def _watchdog_seconds(environment: Mapping[str, str]) -> float | None:
    if environment.get("WATCHDOG_PID") not in {None, "", str(os.getpid())}:
        return None
    microseconds = environment.get("WATCHDOG_USEC", "")
    if not microseconds.isdecimal() or int(microseconds) == 0:
        return None
    return int(microseconds) / 2_000_000
