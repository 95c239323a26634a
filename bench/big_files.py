"""Four recordings of 500 MB at once: how fast, and how much the daemon grows."""

from __future__ import annotations

import os
import shutil
import statistics
import time
from pathlib import Path

from place import KEY, PULSE_PATH, Scene, Watched, folder, provider, until, wave
from results import MIB, Row, at_least, at_most

SIZE_BYTES = 500_000_000
AT_ONCE = 4
ROUNDS = 3


def measure(scale: float) -> list[Row]:
    size_bytes = max(10_000_000, int(SIZE_BYTES * scale))
    ours, curls, grown = [], [], []
    with folder() as root, provider() as url:
        source = root / "source.wav"
        source.write_bytes(wave(size_bytes))
        for number in range(ROUNDS):
            rate, growth_bytes = _daemon(root / f"run-{number}", url, source, size_bytes)
            ours.append(rate)
            grown.append(growth_bytes)
            curls.append(_curl(source, url, size_bytes))
            shutil.rmtree(root / f"run-{number}")
        source.unlink()
    value = statistics.median(a / b for a, b in zip(ours, curls, strict=True))
    rates = [statistics.median(rates) for rates in (ours, curls)]
    found = f"{value:.2f} ({rates[0]:.0f} MB/s beside {rates[1]:.0f} MB/s)"
    name = f"{AT_ONCE} × {size_bytes // 1_000_000} MB at once"
    growth = max(grown) / MIB
    return [
        at_least(f"{name}: MB/s", "curl -T of one", value, 0.6, 0.8, found),
        at_most(f"{name}: growth (MiB)", "itself idle", growth, 32, 16, f"+ {growth:.1f} at its peak"),
    ]


def _daemon(root: Path, url: str, source: Path, size_bytes: int) -> tuple[float, float]:
    scene = Scene(root, url, AT_ONCE)
    scene.write_config()
    for number in range(AT_ONCE):
        shutil.copyfile(source, root / f"{number}.wav")
    os.sync()
    with scene.daemon() as daemon:
        (scene.inbox / "warm.wav").write_bytes(wave(1_000))
        until(lambda: scene.count_done() == 1)
        idle_bytes = daemon.memory_bytes()
        daemon.forget_peak()
        began = time.monotonic()
        for number in range(AT_ONCE):
            (root / f"{number}.wav").rename(scene.inbox / f"{number}.wav")
        until(lambda: scene.count_done() == AT_ONCE + 1)
        seconds = time.monotonic() - began
        growth_bytes = daemon.memory_bytes("VmHWM") - idle_bytes
    return AT_ONCE * size_bytes / seconds / 1e6, growth_bytes


def _curl(source: Path, url: str, size_bytes: int) -> float:
    # Without Expect: it would wait a second for a "100 Continue" that the instant emulator never sends.
    command = ["curl", "-sS", "-o", os.devnull, "-H", f"Authorization: Bearer {KEY}", "-H", "Expect:"]
    curl = Watched([*command, "-T", str(source), url + PULSE_PATH])
    assert curl.finish() == 0
    return size_bytes / curl.wall_seconds / 1e6
