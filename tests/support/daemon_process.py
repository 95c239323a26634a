"""The command as a process: started on a config of its own, waited for, signalled, killed, started again."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import dropscribe
from dropscribe.cli.main import main
from support.vendors import KEY

if TYPE_CHECKING:
    from collections.abc import Callable

COMMAND = (sys.executable, "-m", "dropscribe")
PULSE_PATH = "/waves/v1/pulse/get_text"
_SOURCES = str(Path(dropscribe.__file__).parents[1])
_LOOK_SECONDS = 0.01


def wait_until(condition: Callable[[], Any], what: str, seconds: float = 30.0) -> Any:
    """Return the first true value of *condition*.

    Raises:
        TimeoutError: It stayed false for *seconds*; the message says *what* was waited for.
    """
    until = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > until:
            raise TimeoutError(f"waited {seconds} s for {what}")
        time.sleep(_LOOK_SECONDS)
    return value


class Process:
    """One run of the command.

    Attributes:
        log_path: The file of its standard error, one JSON object a line.
    """

    def __init__(self, arguments: list[str], environment: dict[str, str], log_path: Path) -> None:
        self.log_path = log_path
        with log_path.open("wb") as log:
            self._process = subprocess.Popen(
                arguments, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=log
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self.kill()

    @property
    def is_running(self) -> bool:
        return self._process.poll() is None

    def lines(self) -> list[dict[str, Any]]:
        """Its log lines so far; lines that are no JSON (warnings of the config) as {"text": …}."""
        return [_parsed(line) for line in self.log_path.read_text("utf-8", "replace").splitlines()]

    def logged(self, event: str) -> list[dict[str, Any]]:
        """Its log lines of one event so far."""
        return [line for line in self.lines() if line.get("event") == event]

    def until(self, condition: Callable[[], Any], what: str, seconds: float = 30.0) -> Any:
        """As :func:`wait_until`, while the process lives."""

        def holds() -> Any:
            alive = self.is_running
            if not (value := condition()) and not alive:
                raise AssertionError(f"it ended while waiting for {what}:\n{self._tail()}")
            return value

        try:
            return wait_until(holds, what, seconds)
        except TimeoutError as error:
            raise TimeoutError(f"{error}\n{self._tail()}") from None

    def until_logged(self, event: str, times: int = 1, seconds: float = 30.0) -> list[dict[str, Any]]:
        """Wait for the *times*-th line of *event*; returns all of them."""
        self.until(lambda: len(self.logged(event)) >= times, f"{times} of {event}", seconds)
        return self.logged(event)

    def send(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def kill(self) -> int:
        """SIGKILL, and wait for the end."""
        self._process.kill()
        return self.wait()

    def wait(self, seconds: float = 60.0) -> int:
        """Its exit code; a negative number is the signal that ended it."""
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise TimeoutError(f"still running after {seconds} s:\n{self._tail()}") from None

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Ask it to end; its exit code."""
        self.send(number)
        return self.wait()

    def _tail(self) -> str:
        return "\n".join(self.log_path.read_text("utf-8", "replace").splitlines()[-40:])


@dataclass
class Installation:
    """A root folder with a config for one rule ``calls`` on one provider ``pulse`` at the emulator.

    Attributes:
        url: The emulator's.
        provider, rule, extra: Keys laid over the config's parts.
    """

    root: Path
    url: str
    provider: dict[str, Any] = field(default_factory=dict)
    rule: dict[str, Any] = field(default_factory=dict)
    extra: dict[str, Any] = field(default_factory=dict)
    starts: int = 0

    def __post_init__(self) -> None:
        self.inbox.mkdir(parents=True, exist_ok=True)
        self.write_config()

    @property
    def config_path(self) -> Path:
        return self.root / "dropscribe.yaml"

    @property
    def inbox(self) -> Path:
        return Path(self.rule.get("inbox", self.root / "inbox"))

    @property
    def done(self) -> Path:
        return Path(self.rule.get("done", self.root / "done"))

    @property
    def failed(self) -> Path:
        return Path(self.rule.get("failed", self.root / "failed"))

    def config(self) -> dict[str, Any]:
        """The config as the file will hold it."""
        provider = {
            "type": "pulse",
            "url": self.url + PULSE_PATH,
            "api_key": KEY,
            "concurrency": 4,
            "requests_per_minute": 60_000,
        }
        rule = {"inbox": str(self.inbox), "provider": "pulse", "settle": "200ms"}
        return {
            "state_dir": "state",
            "providers": {"pulse": provider | self.provider},
            "folders": {"calls": rule | self.rule},
            "retry": {"first": "100ms", "max": "500ms"},
            "log": {"format": "json", "level": "debug"},
        } | self.extra

    def write_config(self, text: str | None = None) -> None:
        """Replace the config in one step; JSON is YAML too."""
        temp = self.config_path.with_suffix(".new")
        temp.write_text(text if text is not None else json.dumps(self.config(), indent=2), "utf-8")
        temp.chmod(0o600)
        temp.replace(self.config_path)

    def drop(self, name: str, content: bytes = b"audio") -> Path:
        """A file into the inbox, whole from its first instant."""
        path = self.inbox / name
        path.parent.mkdir(parents=True, exist_ok=True)
        temp = self.root / f"dropping-{path.name}"
        temp.write_bytes(content)
        temp.rename(path)
        return path

    def start(
        self, *options: str, crash_at: str = "", config: Path | None = None, program: str | None = None
    ) -> Process:
        """``dropscribe run OPTIONS``; *program* is Python source to run in place of the module."""
        self.starts += 1
        command = COMMAND if program is None else (sys.executable, "-c", program)
        return Process(
            [*command, "run", *options, "-c", str(config or self.config_path)],
            environment_of(crash_at),
            self.root / f"run-{self.starts}.log",
        )

    def start_ready(self, *options: str, crash_at: str = "") -> Process:
        """As :meth:`start`, and wait until it watches."""
        process = self.start(*options, crash_at=crash_at)
        try:
            process.until_logged("inbox.available")
        except BaseException:
            process.kill()
            raise
        return process

    def run_once(self, crash_at: str = "", program: str | None = None) -> int:
        """``dropscribe run --once``; its exit code."""
        with self.start("--once", crash_at=crash_at, program=program) as process:
            return process.wait()

    def command(self, *arguments: str) -> int:
        """The exit code of another command, in this process."""
        return main([*arguments, "-c", str(self.config_path)])

    def ask(self, *arguments: str) -> Any:
        """The JSON output of another command, in this process."""
        with (
            contextlib.redirect_stdout(io.StringIO()) as told,
            contextlib.redirect_stderr(io.StringIO()) as problems,
        ):
            code = self.command(*arguments, "--json")
        if code != 0:
            raise AssertionError(problems.getvalue())
        return json.loads(told.getvalue())

    def status(self) -> dict[str, Any]:
        """``status --json`` of the rule."""
        folder: dict[str, Any] = self.ask("status")["folders"]["calls"]
        return folder


def environment_of(crash_at: str = "") -> dict[str, str]:
    named = {"DROPSCRIBE_CRASH_AT": crash_at} if crash_at else {}
    return {**os.environ, "PYTHONPATH": _SOURCES, **named}


def _parsed(line: str) -> dict[str, Any]:
    try:
        parsed = json.loads(line)
    except ValueError:
        parsed = None
    return parsed if isinstance(parsed, dict) else {"text": line}
