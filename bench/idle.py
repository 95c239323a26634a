"""The cost of an idle daemon: memory, and a deep tree of folders."""

from __future__ import annotations

import contextlib
import statistics
import subprocess
import sys
import time
from pathlib import Path

from place import Scene, Watched, folder, provider, until
from results import MIB, Row, at_most, in_turn, ratio

ROUNDS = 5
FOLDERS = 10_000
IDLE_SECONDS = 10.0
_IMPORTS = "import httpx, watchdog, yaml, structlog; print(flush=True); input()"


def measure(scale: float) -> list[Row]:
    with folder() as root, provider() as url:
        return [_memory(root, url), *_tree(root, url, max(100, int(FOLDERS * scale)))]


def _memory(root: Path, url: str) -> Row:
    scene = Scene(root / "memory", url)
    ours, imports = in_turn(ROUNDS, lambda: _daemon_bytes(scene), _imports_bytes)
    value = ratio(ours, imports)
    sizes = [statistics.median(values) / MIB for values in (ours, imports)]
    found = f"{value:.2f} ({sizes[0]:.1f} MiB beside {sizes[1]:.1f} MiB)"
    return at_most(
        "idle memory, no extras", "import httpx, watchdog, yaml, structlog", value, 1.6, 1.3, found
    )


def _daemon_bytes(scene: Scene) -> float:
    with scene.daemon() as daemon:
        time.sleep(1)
        return daemon.memory_bytes()


def _imports_bytes() -> float:
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with Watched([sys.executable, "-c", _IMPORTS], **pipes) as bare:
        assert bare.process.stdout is not None
        bare.process.stdout.readline()
        return bare.memory_bytes()


def _tree(root: Path, url: str, count: int) -> list[Row]:
    scene = Scene(root / "tree", url)
    scene.write_config()
    _make_tree(scene.inbox, count)
    began = time.monotonic()
    with scene.daemon() as daemon:
        until(lambda: _watches(daemon) > count)
        seconds = time.monotonic() - began
        time.sleep(2)
        percent = daemon.idle_percent(IDLE_SECONDS)
    name = f"{count:,} folders, deep tree"
    return [
        at_most(f"{name}: start to all watched (s)", "–", seconds, 2, None, f"{seconds:.2f}"),
        at_most(f"{name}: idle CPU (%)", "one core", percent, 1, None, f"{percent:.1f}"),
    ]


def _watches(daemon: Watched) -> int:
    """inotify watches that the process has, by /proc."""
    count = 0
    for info in Path(f"/proc/{daemon.process.pid}/fdinfo").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            count += info.read_text().count("inotify wd:")
    return count


def _make_tree(top: Path, count: int) -> None:
    """Ten folders in each, as deep as *count* asks."""
    made = [top]
    for number in range(count):
        made.append(made[number // 10] / f"f{number % 10}")
        made[-1].mkdir()
