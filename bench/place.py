"""A place to measure in: folders, files, a provider, the daemon, and what the system says of a process."""

from __future__ import annotations

import atexit
import compileall
import contextlib
import json
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

HERE = Path(__file__).parent
REPOSITORY = HERE.parent
EMULATOR = REPOSITORY / "tests" / "support" / "emulator.py"
PULSE_PATH = "/waves/v1/pulse/get_text"
KEY = "sk_emulator_key"
SMALL_BYTES = 8 * 1024
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(REPOSITORY / "daemon"), "BENCH_KEY": KEY}

# As an installation is; with PYTHONDONTWRITEBYTECODE a checkout would be compiled anew at each start.
compileall.compile_dir(REPOSITORY / "daemon", quiet=1)


def wave(size_bytes: int, number: int = 0) -> bytes:
    """A whole WAV file of exactly *size_bytes*, different for each *number*."""
    format_chunk = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, 16_000, 32_000, 2, 16)
    data_bytes = size_bytes - 12 - len(format_chunk) - 8
    head = struct.pack("<4sI4s", b"RIFF", size_bytes - 8, b"WAVE") + format_chunk
    body = number.to_bytes(8, "little") * (data_bytes // 8 + 1)
    return head + struct.pack("<4sI", b"data", data_bytes) + body[:data_bytes]


def make_files(folder: Path, count: int, mean_bytes: int = SMALL_BYTES) -> None:
    """*count* small recordings, no two of one size, as no two calls are of one length."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        size_bytes = max(64, mean_bytes - count) + 2 * number
        (folder / f"{number:06d}.wav").write_bytes(wave(size_bytes, number))


def make_many(folder: Path, count: int) -> None:
    """The smallest whole WAV files, by the hundred thousand."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        (folder / f"{number:06d}.wav").write_bytes(wave(128, number))


class Watched:
    """A process and what the system says of it."""

    def __init__(self, command: list[str], **options: Any) -> None:
        self.began = time.monotonic()
        self.process = subprocess.Popen(command, env=ENVIRONMENT, **options)
        self.cpu_seconds = 0.0
        self.wall_seconds = 0.0
        self.ready_seconds = 0.0

    def finish(self) -> int:
        """Wait for its end; its CPU and wall seconds are known then."""
        _, status, usage = os.wait4(self.process.pid, 0)
        self.wall_seconds = time.monotonic() - self.began
        self.cpu_seconds = usage.ru_utime + usage.ru_stime
        self.process.returncode = os.waitstatus_to_exitcode(status)
        return self.process.returncode

    def cpu_so_far(self) -> float:
        """CPU seconds used until now."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS_PER_SECOND

    def memory_bytes(self, what: str = "VmRSS") -> int:
        """VmRSS (now) or VmHWM (its peak)."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        found = re.search(rf"^{what}:\s+(\d+) kB", status, re.MULTILINE)
        assert found is not None
        return int(found[1]) * 1024

    def forget_peak(self) -> None:
        """VmHWM counts anew from here."""
        Path(f"/proc/{self.process.pid}/clear_refs").write_text("5")

    def idle_percent(self, seconds: float) -> float:
        """Share of one core used over *seconds* of doing nothing."""
        before = self.cpu_so_far()
        time.sleep(seconds)
        return (self.cpu_so_far() - before) / seconds * 100

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(60)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


@contextlib.contextmanager
def provider(*, key: str = KEY) -> Iterator[str]:
    """The tests' emulator, instant, as a process; yields its URL. Another *key* refuses everything."""
    options = ["--instant"] if key == KEY else ["--key", key]
    command = [sys.executable, str(EMULATOR), "--port", "0", *options]
    with Watched(command, stdout=subprocess.PIPE, text=True) as emulator:
        assert emulator.process.stdout is not None
        yield emulator.process.stdout.readline().strip()


@dataclass
class Scene:
    """One installation of dropscribe below *root*."""

    root: Path
    url: str
    in_flight: int = 8
    extra: str = ""

    @property
    def inbox(self) -> Path:
        return self.root / "inbox"

    @property
    def done(self) -> Path:
        return self.root / "done"

    @property
    def database(self) -> Path:
        return self.root / "state" / "queue.db"

    def config(self) -> dict[str, Any]:
        return {
            "state_dir": "state",
            "providers": {
                "p": {
                    "type": "pulse",
                    "url": self.url + PULSE_PATH,
                    "api_key": KEY,
                    "concurrency": self.in_flight,
                    "requests_per_minute": None,  # the default would be what is measured
                    "max_upload": "4GB",
                }
            },
            "folders": {
                "calls": {"inbox": "inbox", "done": "done", "failed": "failed", "provider": "p"},
            },
        }

    def write_config(self) -> Path:
        for folder in (self.inbox, self.done, self.root / "failed"):
            folder.mkdir(parents=True, exist_ok=True)
        path = self.root / "dropscribe.yaml"
        path.write_text(json.dumps(self.config()))
        path.chmod(0o600)
        return path

    def command(self, *options: str) -> list[str]:
        return [sys.executable, "-m", "dropscribe", "run", *options, "-c", str(self.write_config())]

    def run_once(self) -> Watched:
        """Start ``run --once``; its log goes to a file, as a service's would to the journal."""
        with (self.root / "log").open("ab") as log:
            return Watched(self.command("--once"), stderr=log)

    @contextlib.contextmanager
    def daemon(self) -> Iterator[Watched]:
        """The daemon, once it has said READY; ``ready_seconds`` is how long that took."""
        command = self.command()
        with (self.root / "log").open("ab") as log, _notify_socket() as inlet:
            daemon = Watched(command, stderr=log)
            daemon.ready_seconds = _await_ready(inlet) - daemon.began
        # The socket is gone now: a daemon that reports to nobody goes on.
        with daemon:
            yield daemon

    def count_done(self) -> int:
        return sum(1 for name in os.listdir(self.done) if name.endswith(".wav"))


@contextlib.contextmanager
def _notify_socket() -> Iterator[socket.socket]:
    with tempfile.TemporaryDirectory() as aside, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as inlet:
        inlet.bind(f"{aside}/notify")
        ENVIRONMENT["NOTIFY_SOCKET"] = f"{aside}/notify"
        try:
            yield inlet
        finally:
            del ENVIRONMENT["NOTIFY_SOCKET"]


def _await_ready(inlet: socket.socket) -> float:
    inlet.settimeout(120)
    while b"READY=1" not in inlet.recv(4096):
        pass
    return time.monotonic()


def until(condition: Callable[[], Any], seconds: float = 300.0, look_seconds: float = 0.01) -> float:
    """Wait for *condition*; returns how long it took."""
    began = time.monotonic()
    while not condition():
        if time.monotonic() - began > seconds:
            raise TimeoutError(f"not after {seconds} s")
        time.sleep(look_seconds)
    return time.monotonic() - began


@contextlib.contextmanager
def folder() -> Iterator[Path]:
    """A folder on the disk of $BENCH_DIR or of temporary files.

    It is removed when the program ends, not sooner: for minutes after many files were deleted, ext4 looks
    at each of their inodes before it makes a new one, and the next benchmark would pay for it.
    """
    path = Path(tempfile.mkdtemp(prefix="dropscribe-bench-", dir=os.environ.get("BENCH_DIR")))
    atexit.register(shutil.rmtree, path, ignore_errors=True)
    yield path
