"""Many small files through an instant provider: files a second and CPU, process start counted."""

from __future__ import annotations

import itertools
import os
import shutil
import statistics
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from place import HERE, KEY, PULSE_PATH, Scene, Watched, folder, make_files, provider
from results import Row, at_least, at_most, ratio

FILES = 2_000
ROUNDS = 5


@dataclass
class Track:
    """One contestant's rounds."""

    files_per_second: list[float] = field(default_factory=list)
    cpu_seconds: list[float] = field(default_factory=list)

    def ran(self, run: Watched, count: int) -> None:
        assert run.finish() == 0
        self.files_per_second.append(count / run.wall_seconds)
        self.cpu_seconds.append(run.cpu_seconds / count * 1_000)

    @property
    def rate(self) -> str:
        return f"{statistics.median(self.files_per_second):.0f}/s"


def measure(scale: float) -> list[Row]:
    # Each begins with nothing left to write of what came before it. Nothing is deleted in between: for
    # minutes after, ext4 would look at each deleted inode whenever it makes one, and only some make any.
    count = max(100, int(FILES * scale))
    eight, many, bare, curl = Track(), Track(), Track(), Track()
    with folder() as root, provider() as url:
        make_files(root / "source", count)
        numbers = itertools.count()
        for _ in range(ROUNDS):
            _run_daemon(eight, root, next(numbers), url, 8, count)
            os.sync()
            bare.ran(_bare_loop(root / "source", url), count)
            _run_daemon(many, root, next(numbers), url, 64, count)
            os.sync()
            curl.ran(_xargs_curl(root / "source", root / "answers", url), count)
    return [
        _against("8 in flight", "bare httpx loop", eight, bare, 0.4, 0.5),
        _against("64 in flight", "bare httpx loop at 8", many, bare, 0.4, 0.5),
        _against("8 in flight", "xargs -P8 curl", eight, curl, 1.15, 1.4),
        _cpu(eight, bare),
    ]


def _run_daemon(track: Track, root: Path, number: int, url: str, in_flight: int, count: int) -> None:
    scene = Scene(root / f"run-{number}", url, in_flight)
    scene.write_config()
    shutil.copytree(root / "source", scene.inbox, dirs_exist_ok=True)
    os.sync()
    track.ran(scene.run_once(), count)
    assert scene.count_done() == count


def _bare_loop(source: Path, url: str) -> Watched:
    return Watched([sys.executable, str(HERE / "bare_loop.py"), str(source), url + PULSE_PATH, "8"])


def _xargs_curl(source: Path, answers: Path, url: str) -> Watched:
    answers.mkdir(exist_ok=True)
    curl = ["curl", "-sS", "-H", f"Authorization: Bearer {KEY}", "-H", "Content-Type: audio/wav"]
    curl += ["--data-binary", f"@{source}/{{}}", "-o", f"{answers}/{{}}.json", url + PULSE_PATH]
    with subprocess.Popen(["ls", str(source)], stdout=subprocess.PIPE) as names:
        return Watched(["xargs", "-P8", "-I{}", *curl], stdin=names.stdout)


def _against(what: str, beside: str, ours: Track, theirs: Track, must: float, aim: float) -> Row:
    value = ratio(ours.files_per_second, theirs.files_per_second)
    note = f"{value:.2f} ({ours.rate} beside {theirs.rate})"
    return at_least(f"small files, {what}: files a second", beside, value, must, aim, note)


def _cpu(ours: Track, bare: Track) -> Row:
    value = ratio(ours.cpu_seconds, bare.cpu_seconds)
    ours_seconds, bare_seconds = statistics.median(ours.cpu_seconds), statistics.median(bare.cpu_seconds)
    note = f"{value:.2f} ({ours_seconds:.2f} s beside {bare_seconds:.2f} s)"
    return at_most("CPU seconds per 1,000 files", "bare httpx loop", value, 2.8, 2.2, note)
