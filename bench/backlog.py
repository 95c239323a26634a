"""A hundred thousand files at once: queued in time, held in little memory, known again at the next start."""

from __future__ import annotations

import os
import sqlite3
import statistics
import subprocess
import sys
import time
from pathlib import Path

from place import HERE, Scene, Watched, folder, make_many, provider, until
from results import MIB, Row, at_most

FILES = 100_000
IDLE_SECONDS = 10.0
_MOST_TIMES = 4.0
"""As much as 15 s are on a machine that lists the names in 3.7 s."""
_AIM_TIMES = 2.2


def measure(scale: float) -> list[Row]:
    count = max(1_000, int(FILES * scale))
    with folder() as root, provider(key="another") as url:  # it refuses the key: all files wait
        bare = [_names_loop(root / "before", count)]
        scene = Scene(root / "daemon", url)
        empty_seconds = _start_seconds(scene)
        make_many(root / "aside", count)
        with scene.daemon() as daemon:
            time.sleep(1)
            idle_bytes = daemon.memory_bytes()
            daemon.forget_peak()
            queued_seconds = _move_all(root / "aside", scene, count)
            time.sleep(3)
            idle_percent = daemon.idle_percent(IDLE_SECONDS)
            more_bytes = daemon.memory_bytes("VmHWM") - idle_bytes
        bare.append(_names_loop(root / "after", count))
        known_seconds = _start_seconds(scene)
        missed = count - _count(scene)
    bare_seconds = statistics.mean(bare)
    times = queued_seconds / bare_seconds if missed == 0 else float("inf")
    queued_note = f"{times:.2f} ({queued_seconds:.1f} s beside {bare_seconds:.1f} s), {missed} missed"
    more = (known_seconds - empty_seconds, f"{known_seconds:.2f} s beside {empty_seconds:.2f} s")
    return [
        at_most(
            f"{count:,} files mv'd in at once, all queued",
            "names-only scandir loop",
            times,
            _MOST_TIMES,
            _AIM_TIMES,
            queued_note,
        ),
        at_most(
            f"{count:,} files waiting: memory (MiB more)",
            "idle daemon",
            more_bytes / MIB,
            35,
            25,
            f"+ {more_bytes / MIB:.1f} at its peak",
        ),
        at_most(
            f"{count:,} files waiting: idle CPU (%)", "one core", idle_percent, 2, 1, f"{idle_percent:.1f}"
        ),
        at_most(f"start to READY, {count:,} known files (s more)", "empty start", more[0], 3, 1, more[1]),
    ]


def _start_seconds(scene: Scene) -> float:
    with scene.daemon() as daemon:
        return daemon.ready_seconds


def _move_all(source: Path, scene: Scene, count: int) -> float:
    began = time.monotonic()
    for name in os.listdir(source):
        os.rename(source / name, scene.inbox / name)
    until(lambda: _count(scene) >= count, look_seconds=0.1)
    return time.monotonic() - began


def _count(scene: Scene) -> int:
    """Live jobs: what the queue has on disk."""
    with sqlite3.connect(f"file:{scene.database}?mode=ro", uri=True) as reader:
        found = reader.execute(
            "SELECT sum(n) FROM counts WHERE state IN ('queued', 'transcribing')"
        ).fetchone()
    reader.close()
    return int(found[0] or 0)


def _names_loop(root: Path, count: int) -> float:
    """The least that can notice files: list the folder again and again, keep the names that are new."""
    (root / "names").mkdir(parents=True)
    make_many(root / "names-aside", count)
    command = [sys.executable, str(HERE / "names_loop.py"), str(root / "names"), str(count)]
    with Watched(command, stdout=subprocess.PIPE) as loop:
        assert loop.process.stdout is not None
        loop.process.stdout.readline()
        began = time.monotonic()
        for name in os.listdir(root / "names-aside"):
            os.rename(root / "names-aside" / name, root / "names" / name)
        loop.process.stdout.readline()
        return time.monotonic() - began
