"""Kills at random over many files and many starts, and what must be true of the end.

The daemon runs as a process against the emulator while files of all kinds are dropped; it is killed
with SIGKILL, started again, killed again. At last one start is left alone until nothing is left to do.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import random
import threading
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

from dropscribe.cli.main import main
from support.billing import Till, Weather, billing_emulator
from support.daemon_process import Installation, Process
from support.vendors import heard_text

CONCURRENCY = 4
SUFFIXES = (".wav", ".mp3", ".flac")
FOLDERS = ("", "", "2026", "2026/autumn", "naïve folder")


@dataclass(frozen=True)
class Trial:
    """What to do.

    Attributes:
        share_refused: Of the files, what the vendor calls no audio.
        large_bytes: Size of the largest files.
        most_alive_seconds: A start lives between 0 and so long after it is ready; one in six is killed
            before that.
        renames_alone: Files come whole, by a rename: for rules that wait for nothing.
    """

    seed: int
    files: int
    kills: int
    large_bytes: int
    share_refused: float = 0.05
    share_503: float = 0.05
    most_alive_seconds: float = 1.5
    delay_seconds: tuple[float, float] = (0.0, 0.3)
    renames_alone: bool = False


class Site(Protocol):
    """Where files are dropped and looked for: one installation, or a cluster's share."""

    root: Path

    @property
    def inbox(self) -> Path: ...

    @property
    def done(self) -> Path: ...

    @property
    def failed(self) -> Path: ...

    @property
    def config_path(self) -> Path: ...


@dataclass
class Report:
    """What came of it; every list but the figures must be empty.

    Attributes:
        interrupted: Attempts that the store counts as maybe paid twice.
        in_flight_at_kills: Attempts that the store had under way when the process was dead.
        unnamed: Files paid for twice of which ``why`` names no interrupted attempt.
    """

    files: int = 0
    kills: int = 0
    starts: int = 0
    done: int = 0
    failed: int = 0
    paid_again: int = 0
    interrupted: int = 0
    in_flight_at_kills: int = 0
    seconds: float = 0.0
    exit_code: int = 0
    lost: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    torn: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    residue: list[str] = field(default_factory=list)
    unnamed: list[str] = field(default_factory=list)

    def breaches(self) -> dict[str, Any]:
        """What broke the promise; {} when it held."""
        found = {key: value for key, value in asdict(self).items() if isinstance(value, list) and value}
        if self.exit_code not in {0, 3}:
            found["exit_code"] = self.exit_code
        if not self.paid_again <= self.interrupted <= self.in_flight_at_kills:
            found["paid"] = (self.paid_again, self.interrupted, self.in_flight_at_kills)
        return found


@dataclass(frozen=True)
class Dropped:
    """One input: where it was dropped and what it was."""

    path: str
    sha256: str
    size_bytes: int
    mtime_ns: int
    mode: int
    is_refused: bool


class Dropper:
    """Drops files in every manner, some while the daemon is dead: known by their digest."""

    def __init__(self, trial: Trial, site: Site, till: Till) -> None:
        self.dropped: dict[str, Dropped] = {}
        self._trial = trial
        self._site = site
        self._till = till
        self._rng = random.Random(f"{trial.seed} files")
        self._pending = [self._name(number) for number in range(trial.files)]

    def drop(self, count: int) -> None:
        """The next *count* files, one after the other."""
        for _ in range(count):
            if self._pending:
                self._drop(self._pending.pop(0))

    def drop_rest(self) -> None:
        """All that is left."""
        self.drop(len(self._pending))

    def _name(self, number: int) -> str:
        """Three neighbours share a stem, and so the names of their sidecars."""
        folder = FOLDERS[number // 3 % len(FOLDERS)]
        return f"{folder}/{number // 3}{SUFFIXES[number % 3]}".removeprefix("/")

    def _content(self, name: str) -> bytes:
        sizes = (self._rng.randint(1, 60_000), 1_000_000, self._trial.large_bytes)
        (size,) = self._rng.choices(sizes, (93, 5, 2))
        return f"{name} {self._trial.seed} ".encode() + self._rng.randbytes(size)

    def _drop(self, name: str) -> None:
        content = self._content(name)
        sha256 = hashlib.sha256(content).hexdigest()
        is_refused = self._rng.random() < self._trial.share_refused
        if is_refused:
            self._till.refused.add(sha256)
        path = self._site.inbox / name
        path.parent.mkdir(parents=True, exist_ok=True)
        manners = (self._rename_in, self._write_in_place, self._write_slowly)
        manner = self._rename_in if self._trial.renames_alone else self._rng.choice(manners)
        status = manner(path, content)
        mode = status.st_mode & 0o777
        self.dropped[sha256] = Dropped(name, sha256, len(content), status.st_mtime_ns, mode, is_refused)

    def _rename_in(self, path: Path, content: bytes) -> os.stat_result:
        temp = self._site.root / "dropping"
        temp.write_bytes(content)
        temp.chmod(self._rng.choice((0o600, 0o644, 0o755)))
        status = temp.stat()
        temp.rename(path)
        return status

    def _write_in_place(self, path: Path, content: bytes) -> os.stat_result:
        with path.open("wb") as file:
            file.write(content)
            file.flush()
            return os.fstat(file.fileno())

    def _write_slowly(self, path: Path, content: bytes) -> os.stat_result:
        """Longer than the rule's quiet time, with the file open all the while."""
        third = len(content) // 3 + 1
        with path.open("wb") as file:
            for start in range(0, len(content), third):
                file.write(content[start : start + third])
                file.flush()
                time.sleep(self._rng.uniform(0.0, 0.15))
            return os.fstat(file.fileno())


def run_trial(trial: Trial, root: Path, filed: Path | None = None) -> Report:
    """Do it below *root*, which is empty and on a local file system.

    Args:
        filed: Where done and failed stand; default: in *root*.
    """
    began = time.monotonic()
    emulator, till = billing_emulator()
    weather = random.Random(f"{trial.seed} weather")
    emulator.script = Weather(weather, share_503=trial.share_503, delay_seconds=trial.delay_seconds)
    report = Report(files=trial.files)
    with emulator:
        site = Installation(
            root,
            emulator.url,
            provider={"concurrency": CONCURRENCY},
            rule={
                "settle": "100ms",
                "rescan": "1s",
                "done": str((filed or root) / "done"),
                "failed": str((filed or root) / "failed"),
            },
            extra={"hold": {"first": "100ms", "max": "500ms"}},
        )
        dropper = Dropper(trial, site, till)
        _kill_again_and_again(trial, site, dropper, report)
        dropper.drop_rest()
        report.exit_code = site.run_once()
    report.starts = site.starts
    report.paid_again = till.paid_again()
    report.interrupted = told(site, "status")["folders"]["calls"]["maybe_paid_twice"]
    look_at_the_end(site, dropper.dropped, report)
    look_for_names(site, dropper.dropped, till, report)
    report.seconds = round(time.monotonic() - began, 1)
    return report


def _kill_again_and_again(trial: Trial, site: Installation, dropper: Dropper, report: Report) -> None:
    rng = random.Random(f"{trial.seed} kills")
    share = -(-trial.files // trial.kills)
    while report.kills < trial.kills:
        dropping = threading.Thread(target=dropper.drop, args=(share,))
        dropping.start()
        with site.start() as process:
            _live(process, rng, trial.most_alive_seconds)
            process.kill()
        report.kills += 1
        report.in_flight_at_kills += told(site, "status")["folders"]["calls"]["transcribing"]
        dropping.join()


def _live(process: Process, rng: random.Random, most_seconds: float) -> None:
    """Let it run for a random time: the instant of the kill is what is tried, not a wait for anything."""
    if rng.random() > 1 / 6:
        process.until_logged("daemon.ready")
        time.sleep(rng.uniform(0.0, most_seconds))
    else:
        time.sleep(rng.uniform(0.0, 0.5))


def look_at_the_end(site: Site, dropped: dict[str, Dropped], report: Report) -> None:
    """Compare what is in inbox, done and failed with what was dropped."""
    seen: dict[str, str] = {}
    report.residue += _files(site.inbox)
    for folder, is_failed in ((site.done, False), (site.failed, True)):
        claimed: set[str] = set()
        names = _files(folder)
        for name in names:
            if name.endswith(SUFFIXES):
                _look_at_audio(folder, name, is_failed, dropped, seen, report)
                claimed |= {name, *_sidecars(name, is_failed)}
        report.residue += sorted(set(names) - claimed)
        report.wrong += sorted(f"{name}: missing" for name in claimed - set(names))
    report.lost += sorted(found.path for sha256, found in dropped.items() if sha256 not in seen)


def _look_at_audio(
    folder: Path,
    name: str,
    is_failed: bool,
    dropped: dict[str, Dropped],
    seen: dict[str, str],
    report: Report,
) -> None:
    path = folder / name
    sha256, status = hashlib.sha256(path.read_bytes()).hexdigest(), path.stat()
    was = dropped.get(sha256)
    if was is None:
        report.torn.append(name)
        return
    if sha256 in seen:
        report.doubled.append(name)
    seen[sha256] = name
    if (was.mtime_ns, was.mode, was.is_refused) != (status.st_mtime_ns, status.st_mode & 0o777, is_failed):
        report.wrong.append(f"{name}: {was} {status}")
    report.failed += is_failed
    report.done += not is_failed
    with contextlib.suppress(FileNotFoundError):  # a missing sidecar is told of with the names
        if not _is_about(path, was, is_failed):
            report.wrong.append(f"{name}: a sidecar that is not its own")


def _is_about(path: Path, was: Dropped, is_failed: bool) -> bool:
    """Whether the sidecars tell of this very audio."""
    if is_failed:
        error = json.loads(path.with_suffix(".error.json").read_text("utf-8"))
        return bool(error["file"] == Path(was.path).name and error["code"] and error["reason"])
    document = json.loads(path.with_suffix(".json").read_text("utf-8"))
    heard = heard_text(was.size_bytes, was.sha256)
    source = document["source"]
    told = (source["path"], source["sha256"], source["bytes"], document["text"])
    text = path.with_suffix(".txt").read_text("utf-8")
    return told == (was.path, was.sha256, was.size_bytes, heard) and text == heard + "\n"


def _sidecars(name: str, is_failed: bool) -> list[str]:
    forms = ("error.json",) if is_failed else ("json", "txt")
    return [str(Path(name).with_suffix(f".{form}")) for form in forms]


def _files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir())


def look_for_names(site: Site, dropped: dict[str, Dropped], till: Till, report: Report) -> None:
    """Every file that was paid for twice is named by ``why``, with one interrupted attempt a time."""
    for sha256, times in till.paid.items():
        if times < 2:
            continue
        path = dropped[sha256].path
        attempts = told(site, "why", str(site.inbox / path))["attempts"]
        if sum(attempt["code"] == "interrupted" for attempt in attempts) < times - 1:
            report.unnamed.append(path)


def told(site: Site, *arguments: str) -> Any:
    """What a command says in JSON, run in this process: hundreds of them would take minutes otherwise."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        code = main([*arguments, "--json", "-c", str(site.config_path)])
    if code != 0:
        raise AssertionError(f"{arguments}: exit code {code}: {said.getvalue()}")
    return json.loads(said.getvalue())
