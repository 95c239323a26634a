"""Compares two sources of hints behind one interface: watchdog's public API and inotify itself."""

from __future__ import annotations

import os
import select
import statistics
import time
from pathlib import Path

from place import folder
from results import Row

from dropscribe.intake.hints import Hint, HintKind, InotifyHints, WatchdogHints

BURST = 100_000
MOVE_OUTS = 5
_QUIET_SECONDS = 1.5


def measure(scale: float) -> list[Row]:
    count = max(1_000, int(BURST * scale))
    table: list[Row] = []
    behind, burst = {}, {}
    for name in ("inotify", "watchdog"):
        with folder() as root:
            behind[name] = _behind_move_out(name, root)
            burst[name] = _burst(name, root, count)
    table.append(
        _row(
            "hint right behind a file that is moved out (ms)",
            f"{behind['inotify'] * 1_000:.1f} beside {behind['watchdog'] * 1_000:.0f}",
        )
    )
    told = {
        name: f"{lost:,} not told, said so: {said}; {seconds:.1f} s"
        for name, (lost, said, seconds) in burst.items()
    }
    table.append(_row(f"{count:,} files mv'd in: hints", f"{told['inotify']} – beside – {told['watchdog']}"))
    return table


def _row(benchmark: str, found: str) -> Row:
    return Row(benchmark, "watchdog's public API", "", "", found, None, None)


def _open(name: str, inbox: Path) -> InotifyHints | WatchdogHints:
    source = InotifyHints() if name == "inotify" else WatchdogHints(os.fsencode(inbox))
    folder = os.open(inbox, os.O_RDONLY | os.O_DIRECTORY)
    source.watch(b"", folder)
    os.close(folder)
    time.sleep(0.2)
    return source


def _read(source: InotifyHints | WatchdogHints, seconds: float) -> list[Hint]:
    ready = select.poll()
    ready.register(source.fileno(), select.POLLIN)
    return source.read() if ready.poll(int(seconds * 1_000)) else []


def _behind_move_out(name: str, root: Path) -> float:
    inbox, aside = root / "inbox", root / "aside"
    inbox.mkdir()
    aside.mkdir()
    source = _open(name, inbox)
    waits = []
    for number in range(MOVE_OUTS):
        (inbox / "old.wav").write_bytes(b"x")
        (aside / f"new-{number}.wav").write_bytes(b"x")
        time.sleep(0.7)
        source.read()
        (inbox / "old.wav").rename(aside / f"old-{number}.wav")
        began = time.monotonic()
        (aside / f"new-{number}.wav").rename(inbox / f"new-{number}.wav")
        while not any(hint.path == b"new-%d.wav" % number for hint in _read(source, 2)):
            pass
        waits.append(time.monotonic() - began)
    source.close()
    return statistics.median(waits)


def _burst(name: str, root: Path, count: int) -> tuple[int, bool, float]:
    """(files never told of, whether it said that hints were lost, seconds until the last hint)."""
    inbox, aside = root / "burst", root / "burst-aside"
    inbox.mkdir()
    aside.mkdir()
    for number in range(count):
        (aside / f"{number}.wav").touch()
    source = _open(name, inbox)
    told: set[bytes] = set()
    said = False
    began = last = time.monotonic()
    for number in range(count):
        os.rename(aside / f"{number}.wav", inbox / f"{number}.wav")
        if number % 512 == 0:
            said |= _take(source.read(), told)
    while hints := _read(source, _QUIET_SECONDS):
        said |= _take(hints, told)
        last = time.monotonic()
    source.close()
    return count - len(told), said, last - began


def _take(hints: list[Hint], told: set[bytes]) -> bool:
    told.update(hint.path for hint in hints if hint.kind <= HintKind.MOVED)
    return any(hint.kind is HintKind.LOST for hint in hints)
