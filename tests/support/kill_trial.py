"""Kills at random over many files and many starts, and what must be true of the end.

The daemon runs as a process against the emulator while files of all kinds are dropped; it is killed
with SIGKILL, started again, killed again. At last one start is left alone until nothing is left to do.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import random
import threading
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from dropscribe.cli.main import main
from support.billing import Till, Weather, billing_emulator
from support.daemon_process import Installation, Process
from support.dropped_files import SUFFIXES, Dropped, Dropper, copies

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Mapping

CONCURRENCY = 4


@dataclass(frozen=True)
class Trial:
    """The settings of one trial.

    Attributes:
        share_refused: Of the files, those that the vendor refuses as no audio.
        share_equal: Of the groups of three files: half have equal bytes, half equal words in different bytes.
        share_older_bytes: Of these groups: the first file has the bytes of a file that was dropped before.
        share_odd_names, share_odd_times: Of the groups, and of the files.
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
    share_equal: float = 0.4
    share_older_bytes: float = 0.1
    share_odd_names: float = 0.4
    share_odd_times: float = 0.25
    share_503: float = 0.05
    most_alive_seconds: float = 1.5
    delay_seconds: tuple[float, float] = (0.0, 0.3)
    renames_alone: bool = False


class Site(Protocol):
    """The folders of a trial: of one installation, or of a cluster's share."""

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
    """The result of a trial; every list must be empty.

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
        """The broken promises; {} if all were kept."""
        found = {key: value for key, value in asdict(self).items() if isinstance(value, list) and value}
        if self.exit_code not in {0, 3}:
            found["exit_code"] = self.exit_code
        if not self.paid_again <= self.interrupted <= self.in_flight_at_kills:
            found["paid"] = (self.paid_again, self.interrupted, self.in_flight_at_kills)
        return found


def run_trial(trial: Trial, root: Path, filed: Path | None = None) -> Report:
    """Run *trial* below *root*, which is empty and on a local file system.

    Args:
        filed: The folder with done and failed; default: *root*.
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
        report.exit_code = _run_to_the_end(trial, site)
    report.starts = site.starts
    report.paid_again = paid_again(dropper.dropped, till)
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


def _run_to_the_end(trial: Trial, site: Installation) -> int:
    """Let one start work until every file is filed; the exit code of another one that finds nothing to do."""

    def is_over() -> bool:
        folder = told(site, "status")["folders"]["calls"]
        return not files_in(site.inbox) and folder["publishing"] == 0

    with site.start_ready() as process:
        process.until(is_over, "the end", 60 + trial.files)
        process.stop()
    return site.run_once()


def _live(process: Process, rng: random.Random, most_seconds: float) -> None:
    """Let it run for a random time: the instant of the kill is what is tried, not a wait for anything."""
    if rng.random() > 1 / 6:
        process.until_logged("daemon.ready")
        time.sleep(rng.uniform(0.0, most_seconds))
    else:
        time.sleep(rng.uniform(0.0, 0.5))


def keeps_mode_and_time(was: Dropped, status: os.stat_result) -> bool:
    """Whether a filed audio has the mode and the time that it had when it was dropped."""
    return (was.mtime_ns, was.mode) == (status.st_mtime_ns, status.st_mode & 0o777)


def look_at_the_end(
    site: Site,
    dropped: Mapping[str, Dropped],
    report: Report,
    keeps: Callable[[Dropped, os.stat_result], bool] = keeps_mode_and_time,
) -> None:
    """Compare what is in inbox, done and failed with what was dropped."""
    seen: set[str] = set()
    report.residue += files_in(site.inbox)
    for folder, is_failed in ((site.done, False), (site.failed, True)):
        claimed: set[str] = set()
        names = files_in(folder)
        for name in names:
            if name.endswith(SUFFIXES):
                if was := _look_at_audio(folder, name, is_failed, dropped, seen, report):
                    report.wrong += [] if keeps(was, (folder / name).stat()) else [f"{name}: {was}"]
                claimed |= {name, *_sidecars(name, is_failed)}
        report.residue += sorted(set(names) - claimed)
        report.wrong += sorted(f"{name}: missing" for name in claimed - set(names))
    report.lost += sorted(dropped.keys() - seen)


def _look_at_audio(
    folder: Path,
    name: str,
    is_failed: bool,
    dropped: Mapping[str, Dropped],
    seen: set[str],
    report: Report,
) -> Dropped | None:
    """The file that was dropped, where the audio and its sidecars belong to one."""
    path = folder / name
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    report.failed += is_failed
    report.done += not is_failed
    if sha256 not in {was.sha256 for was in dropped.values()}:
        report.torn.append(name)
        return None
    try:
        was = dropped.get(_told_path(path, Path(name).parent, is_failed))
    except FileNotFoundError:  # a missing sidecar is told of with the names
        return None
    if was is None or was.sha256 != sha256:
        report.wrong.append(f"{name}: a sidecar that is not its own")
        return None
    if was.path in seen:
        report.doubled.append(name)
    seen.add(was.path)
    if was.is_refused != is_failed or not (is_failed or _holds_its_words(path, was)):
        report.wrong.append(f"{name}: {was}")
    return was


def _told_path(path: Path, folder: Path, is_failed: bool) -> str:
    """The file's path in its inbox, from its sidecar; "" if that does not hold it."""
    if not is_failed:
        document = json.loads(path.with_suffix(".json").read_text("utf-8"))
        return str(document["source"]["path"])
    error = json.loads(path.with_suffix(".error.json").read_text("utf-8"))
    return str(folder / error["file"]) if error["code"] and error["reason"] else ""


def _holds_its_words(path: Path, was: Dropped) -> bool:
    document = json.loads(path.with_suffix(".json").read_text("utf-8"))
    source = document["source"]
    told = (source["sha256"], source["bytes"], document["text"])
    text = path.with_suffix(".txt").read_text("utf-8")
    return told == (was.sha256, was.size_bytes, was.words) and text == was.words + "\n"


def _sidecars(name: str, is_failed: bool) -> list[str]:
    forms = ("error.json",) if is_failed else ("json", "txt")
    return [str(Path(name).with_suffix(f".{form}")) for form in forms]


def files_in(folder: Path) -> list[str]:
    """All files below *folder*."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir())


def paid_again(dropped: Mapping[str, Dropped], till: Till) -> int:
    """Answers paid for beyond one for each file: files with equal bytes may be sent at the same time."""
    return sum(max(0, times - len(copies(dropped, sha256))) for sha256, times in till.paid.items())


def look_for_names(site: Site, dropped: Mapping[str, Dropped], till: Till, report: Report) -> None:
    """Every file that was paid for twice is named by ``why``, with one interrupted attempt a time."""
    for sha256, times in till.paid.items():
        alike = copies(dropped, sha256)
        if times <= len(alike):
            continue
        stories = [told(site, "why", str(site.inbox / copy.path))["attempts"] for copy in alike]
        interrupted = sum(attempt["code"] == "interrupted" for record in stories for attempt in record)
        if interrupted < times - len(alike):
            report.unnamed.append(alike[0].path)


def told(site: Site, *arguments: str) -> Any:
    """The JSON output of a command, run in this process: hundreds of processes would take minutes."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        code = main([*arguments, "--json", "-c", str(site.config_path)])
    if code != 0:
        raise AssertionError(f"{arguments}: exit code {code}: {said.getvalue()}")
    return json.loads(said.getvalue())
