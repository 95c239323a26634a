"""From a file's arrival to its request at the provider, beside the least that could do it."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from arrivals import Arrivals
from place import HERE, PULSE_PATH, SMALL_BYTES, Scene, Watched, folder, until, wave
from results import Row, percentile

FILES = 150
ROUNDS = 5
MUST_P50_MS, MUST_P95_MS, AIM_P50_MS = 20.0, 60.0, 10.0


def measure(scale: float) -> list[Row]:
    count = max(10, int(FILES * scale) // ROUNDS)
    return [
        _row(name, paces, arrive, count)
        for name, arrive in (("moved in", move_in), ("closed and whole", _write))
        for paces in (5, 25)
    ]


def _row(name: str, per_second: int, arrive: Callable[[Path, Path, bytes], None], count: int) -> Row:
    ours, raw = [], []
    with folder() as root, Arrivals() as arrivals:
        scene = Scene(root / "daemon", arrivals.url)
        watched = root / "raw"
        watched.mkdir()
        with scene.daemon(), _raw_reader(watched, arrivals):
            time.sleep(1)
            for number in range(ROUNDS):
                first = SMALL_BYTES + 4 * count * number
                ours += drop_at_pace(scene.inbox, arrivals, arrive, first, count, per_second)
                raw += drop_at_pace(watched, arrivals, arrive, first + 2 * count, count, per_second)
    p50, p95 = percentile(ours, 50), percentile(ours, 95)
    found = (
        f"p50 {p50:.1f} ms, p95 {p95:.1f} ms (raw: {percentile(raw, 50):.1f} and {percentile(raw, 95):.1f})"
    )
    return Row(
        f"arrival → request, {name}, {per_second} a second in and out",
        "raw inotify reader",
        f"p50 ≤ {MUST_P50_MS:g} ms, p95 ≤ {MUST_P95_MS:g} ms",
        f"p50 ≤ {AIM_P50_MS:g} ms",
        found,
        p50 <= MUST_P50_MS and p95 <= MUST_P95_MS,
        p50 <= AIM_P50_MS,
    )


@contextlib.contextmanager
def _raw_reader(watched: Path, arrivals: Arrivals) -> Iterator[None]:
    command = [sys.executable, str(HERE / "raw_reader.py"), str(watched), "127.0.0.1", str(arrivals.port)]
    with Watched([*command, PULSE_PATH], stdout=subprocess.PIPE) as reader:
        assert reader.process.stdout is not None
        reader.process.stdout.readline()
        yield


def drop_at_pace(
    inbox: Path,
    arrivals: Arrivals,
    arrive: Callable[[Path, Path, bytes], None],
    first: int,
    count: int,
    per_second: int,
) -> list[float]:
    dropped: dict[int, float] = {}
    for number in range(count):
        size_bytes = first + 2 * number
        arrive(inbox, inbox.parent / "arriving", wave(size_bytes, size_bytes))
        dropped[size_bytes] = time.monotonic()
        time.sleep(1 / per_second)
    until(lambda: dropped.keys() <= arrivals.at.keys(), 30)
    return [(arrivals.at[size] - at) * 1_000 for size, at in dropped.items()]


def move_in(inbox: Path, aside: Path, content: bytes) -> None:
    aside.write_bytes(content)
    aside.rename(inbox / f"{len(content)}.wav")


def _write(inbox: Path, _aside: Path, content: bytes) -> None:
    (inbox / f"{len(content)}.wav").write_bytes(content)
