"""Runs the admin's commands for each file that is done, failed or held.

Guarantees: argv, never a shell; the event as JSON on standard input; a few at a time, each with a time
limit after which its whole process group is killed; no key in its environment; no result of a command
affects a file, and nothing waits for a command; a command's output becomes events of the log, so that it
neither tears nor forges a line there. With ``retry: true`` an event is stored until its command
has ended well, also over a restart, for a day at most.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
from collections.abc import Iterable, Mapping, Sequence
from typing import IO, Any

import structlog

from dropscribe.core.text.redaction import NAMES_OF_SECRETS
from dropscribe.queue.sql.outbox import Notification
from dropscribe.service.notifications import Recipient

MOST_AT_ONCE = 4
MOST_WAITING = 1000
"""Events beyond these are dropped with a log line: a hook that hangs must not fill the memory."""

MOST_OUTPUTS = 100  # read at once; programs that commands leave running must not take all open files
MOST_LINES = 100  # of a command's output that are logged; the rest is read, slowly, and dropped
_LONGEST_LINE_BYTES = 4096
_BLOCK_BYTES = 65536
_DROPPING_SECONDS = 0.01  # between two reads of output that is dropped
_LAST_OUTPUT_SECONDS = 0.5  # for the output of commands that have ended, when the daemon ends

_SECRET_NAME = re.compile(f"{NAMES_OF_SECRETS}|dsn|conninfo", re.IGNORECASE)
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
        self._outputs: set[asyncio.Task[None]] = set()

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
        await _cancel(self._running)
        if self._outputs:
            await asyncio.wait(self._outputs, timeout=_LAST_OUTPUT_SECONDS)
        await _cancel(self._outputs)

    async def run(self, event: str, message: bytes) -> str:
        """Run the command of *event* to its end; returns "" or the reason of its failure."""
        async with self._free:
            try:
                return await self._finish(await self._start(event, message))
            except (OSError, ValueError) as error:  # no such command, not executable, a NUL in it
                return str(error)

    async def _run_once(self, event: str, message: bytes) -> None:
        if reason := await self.run(event, message):
            log.warning("hook.failed", hook=event, command=self.commands[event][0], reason=reason)

    async def _start(self, event: str, message: bytes) -> asyncio.subprocess.Process:
        # No pipe to its standard input, so nothing can block on a command that does not read.
        with (
            os.fdopen(os.memfd_create("dropscribe-event"), "w+b", buffering=0) as event_file,
            await self._open_output(event) as output,
        ):
            event_file.write(message)
            event_file.seek(0)
            return await asyncio.create_subprocess_exec(
                *self.commands[event],
                stdin=event_file,
                stdout=output,
                stderr=output,
                env=self._environment,
                start_new_session=True,
            )

    async def _open_output(self, event: str) -> IO[bytes]:
        """A pipe for the output of a command, which is logged until it and all that it started have ended."""
        if len(self._outputs) >= MOST_OUTPUTS:
            return os.fdopen(os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC), "wb", buffering=0)
        reading, writing = os.pipe()
        reader = asyncio.StreamReader(limit=_BLOCK_BYTES)
        protocol, pipe = asyncio.StreamReaderProtocol(reader), os.fdopen(reading, "rb", buffering=0)
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(lambda: protocol, pipe)
        task = asyncio.create_task(_log_output(event, reader, transport))
        self._outputs.add(task)
        task.add_done_callback(self._outputs.discard)
        return os.fdopen(writing, "wb", buffering=0)

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


async def _cancel(tasks: set[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def _log_output(event: str, reader: asyncio.StreamReader, transport: asyncio.BaseTransport) -> None:
    """Log what the command of *event* writes, line by line, until nobody can write any more."""
    rest, left = b"", MOST_LINES
    try:
        while block := await reader.read(_BLOCK_BYTES):
            *lines, rest = (rest + block).split(b"\n")
            if len(rest) >= _LONGEST_LINE_BYTES:
                lines, rest = [*lines, rest], b""
            left = _log_lines(event, lines, left)
            if left <= 0:
                await asyncio.sleep(_DROPPING_SECONDS)
        _log_lines(event, [rest], left)
    finally:
        transport.close()


def _log_lines(event: str, lines: Iterable[bytes], left: int) -> int:
    """Log those of *lines* that are not empty, *left* at most; returns how many more may be logged."""
    for line in filter(None, map(bytes.rstrip, lines)):
        if left > 0:
            log.info("hook.output", hook=event, text=line[:_LONGEST_LINE_BYTES].decode("utf-8", "replace"))
            left -= 1
            if not left:
                log.info("hook.output_dropped", hook=event, lines=MOST_LINES)
    return left


class RetriedHook(Recipient):
    """The command of one event as a recipient: it is run again until it ends well."""

    def __init__(self, hooks: Hooks, event: str) -> None:
        self._hooks = hooks
        self._event = event
        self.name = f"hook:{event}"

    @property
    def label(self) -> str:
        """As its name: which of the hooks it is."""
        return self.name

    def wants(self, event: str) -> bool:
        """True for its own event alone."""
        return event == self._event

    async def deliver(self, notifications: Sequence[Notification]) -> str:
        """Run the command with the one event."""
        (notification,) = notifications
        return await self._hooks.run(self._event, notification.content.encode() + b"\n")
