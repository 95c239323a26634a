"""Runs the admin's commands for each file that is done, failed or held.

Guarantees: argv, never a shell; the event as JSON on standard input; a few at a time, each with a time
limit after which its whole process group is killed; no key in its environment; no result of a command
affects a file, and nothing waits for a command. With ``retry: true`` an event is stored until its command
has ended well, also over a restart, for a day at most.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
from typing import TYPE_CHECKING, Any

import structlog

from dropscribe.service.notifications import Recipient

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from dropscribe.queue.sql.outbox import Notification

MOST_AT_ONCE = 4
MOST_WAITING = 1000
"""Events beyond these are dropped with a log line: a hook that hangs must not fill the memory."""

_STANDARD_ERROR = 2  # where the daemon's own lines go: its standard output is for tables

_SECRET_NAME = re.compile(r"key|token|secret|passw|pwd$|credential|dsn|conninfo", re.IGNORECASE)
_PROXY_NAME = re.compile(r"_proxy$", re.IGNORECASE)
_SECRET_VALUE = re.compile(r"://[^/@\s]*:[^/@\s]+@|\bpassword=", re.IGNORECASE)
"""A url with a password, or libpq's words with one."""

_SYSTEM_NAMES = {"HOME", "LANG", "LOGNAME", "OLDPWD", "PATH", "PWD", "SHELL", "TMPDIR", "TZ", "USER"}
"""Variables that hold no key. ``api_key: local``, for a server that wants none, may be a word of a path."""

_SERVICE_NAMES = {"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "JOURNAL_STREAM", "INVOCATION_ID"}

log = structlog.get_logger()


def scrub_environment(environment: Mapping[str, str], secrets: Iterable[str]) -> dict[str, str]:
    """*environment* without variables that are secret by name or value, and without systemd's."""
    known = [secret for secret in secrets if secret]
    return {
        name: value
        for name, value in environment.items()
        if name in _SYSTEM_NAMES
        or (
            name not in _SERVICE_NAMES
            and (_PROXY_NAME.search(name) or not (_SECRET_NAME.search(name) or _SECRET_VALUE.search(value)))
            and not any(secret in value for secret in known)
        )
    }


class Hooks:
    """Runs the *commands* of events: ``{"done": ("mail-me", "--done")}``."""

    def __init__(
        self,
        commands: Mapping[str, tuple[str, ...]],
        timeout_seconds: float,
        environment: Mapping[str, str] = os.environ,
        secrets: Iterable[str] = (),
    ) -> None:
        self.commands = commands
        self._timeout_seconds = timeout_seconds
        self._environment = scrub_environment(environment, secrets)
        self._free = asyncio.Semaphore(MOST_AT_ONCE)
        self._running: set[asyncio.Task[None]] = set()

    def notify(self, event: str, payload: Mapping[str, Any]) -> None:
        """Start the command of *event*, where there is one; returns at once.

        *payload* must be JSON values; the command reads it as one object with ``event`` first.
        """
        if event not in self.commands:
            return
        if len(self._running) >= MOST_WAITING:
            log.warning("hook.dropped", hook=event, waiting=len(self._running))
            return
        message = json.dumps({"schema": "dropscribe.event/1", "event": event, **payload}).encode() + b"\n"
        task = asyncio.create_task(self._run_once(event, message))
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def close(self, grace_seconds: float = 0.0) -> None:
        """Let the commands end for *grace_seconds*, then kill them; safe to call twice."""
        if self._running:
            await asyncio.wait(self._running, timeout=grace_seconds)
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)

    async def run(self, event: str, message: bytes) -> str:
        """Run the command of *event* to its end; returns "" or the reason of its failure."""
        async with self._free:
            try:
                return await self._finish(await self._start(self.commands[event], message))
            except (OSError, ValueError) as error:  # no such command, not executable, a NUL in it
                return str(error)

    async def _run_once(self, event: str, message: bytes) -> None:
        if reason := await self.run(event, message):
            log.warning("hook.failed", hook=event, command=self.commands[event][0], reason=reason)

    async def _start(self, command: tuple[str, ...], message: bytes) -> asyncio.subprocess.Process:
        # No pipe anywhere, so nothing can block on a command that does not read or write too much.
        with os.fdopen(os.memfd_create("dropscribe-event"), "w+b", buffering=0) as event_file:
            event_file.write(message)
            event_file.seek(0)
            return await asyncio.create_subprocess_exec(
                *command,
                stdin=event_file,
                stdout=_STANDARD_ERROR,
                env=self._environment,
                start_new_session=True,
            )

    async def _finish(self, process: asyncio.subprocess.Process) -> str:
        try:
            async with asyncio.timeout(self._timeout_seconds):
                code = await process.wait()
        except TimeoutError:
            return f"killed after {self._timeout_seconds:g} s"
        finally:
            # Only while it is not reaped: later its number may be another group's.
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                await process.wait()
        return f"exit {code}" if code else ""


class RetriedHook(Recipient):
    """The command of one event as a recipient: it is run again until it ends well."""

    def __init__(self, hooks: Hooks, event: str) -> None:
        self._hooks = hooks
        self._event = event
        self.name = f"hook:{event}"

    def wants(self, event: str) -> bool:
        """True for its own event alone."""
        return event == self._event

    async def deliver(self, notifications: Sequence[Notification]) -> str:
        """Run the command with the one event."""
        (notification,) = notifications
        return await self._hooks.run(self._event, notification.content.encode() + b"\n")
