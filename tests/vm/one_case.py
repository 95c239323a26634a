"""One case on a real NFS or SMB mount, within the guest: ``python3 one_case.py MOUNT.PLACE``.

The guest is server and client at once. Files are dropped on both sides while the daemon is killed, the
servers are stopped for a while (see trial.py), and names in done are taken; then every file has to be filed
once and whole. Prints WRITTEN once all files are dropped, and at the end what came of it, as a line of JSON.
"""

from __future__ import annotations

import contextlib
import faulthandler
import hashlib
import json
import os
import random
import signal
import struct
import subprocess
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

from dropscribe.files.beneath import closing, open_root
from dropscribe.files.capabilities import capabilities_of
from dropscribe.files.moves import FileName, move_new
from support.billing import Till, Weather, billing_emulator
from support.daemon_process import Installation, wait_until
from support.dropped_files import Dropped, Dropper
from support.kill_trial import Report, Trial, files_in, look_at_the_end, look_for_names, paid_again, told
from support.vendors import heard_text

SHARE = Path("/srv/share")
LOCAL = Path("/var/trial")
NFS, SMB = "127.0.0.1:/srv/share", "//127.0.0.1/share"
FILES_A_SIDE = 7  # beside three slow ones
RACES = 60
WRITTEN = "written"
KILLS_WITHIN_SECONDS = 90.0
LONGEST_CASE_SECONDS = 720.0
LOOK_SECONDS = 5.0


@dataclass(frozen=True)
class Mount:
    """How the share is mounted.

    Attributes:
        delegations: Whether the kernel's NFS server may give any.
    """

    kind: str
    source: str
    options: str
    delegations: bool = True


_PASSWORD = "username=root,password=secret,nosharesock"
MOUNTS = {
    "nfs3": Mount("nfs", NFS, "vers=3,nolock,nosharecache"),
    "nfs4.2": Mount("nfs", NFS, "vers=4.2,nosharecache"),
    "nfs4.2-no-delegations": Mount("nfs", NFS, "vers=4.2,nosharecache", delegations=False),
    "smb": Mount("cifs", SMB, f"vers=3.1.1,{_PASSWORD}"),
    "smb-cache-none": Mount("cifs", SMB, f"vers=3.1.1,cache=none,{_PASSWORD}"),
    "smb-nolease": Mount("cifs", SMB, f"vers=3.1.1,nolease,{_PASSWORD}"),
    "smb-no-oplocks": Mount("cifs", "//127.0.0.1/nooplocks", f"vers=3.1.1,{_PASSWORD}"),
}
PLACES = ("there", "done-local", "exported")
"""Inbox and done on the mount; the inbox alone on the mount; both on the server's disk, watched there."""


@dataclass(frozen=True)
class Case:
    """One mount with its folders, as the server, the client and the daemon see them."""

    mount: str
    place: str

    @classmethod
    def named(cls, name: str) -> Case:
        """The case of a name such as ``smb-nolease.there``."""
        mount, _, place = name.rpartition(".")
        if mount not in MOUNTS or place not in PLACES:
            raise ValueError(name)
        return cls(mount, place)

    @property
    def name(self) -> str:
        return f"{self.mount}.{self.place}"

    @property
    def server(self) -> Path:
        return SHARE / self.name

    @property
    def client(self) -> Path:
        return Path("/mnt") / self.name / self.name

    @property
    def watched(self) -> Path:
        return self.server if self.place == "exported" else self.client

    @property
    def filed(self) -> Path:
        return LOCAL / self.name if self.place == "done-local" else self.watched

    def prepare(self) -> None:
        """Make the folders, and mount."""
        for part in ("inbox/server", "inbox/client", "server", "client", "done", "failed"):
            (self.server / part).mkdir(parents=True)
        for part in ("done", "failed"):
            (self.filed if self.place == "done-local" else self.server).joinpath(part).mkdir(
                parents=True, exist_ok=True
            )
        mount, point = MOUNTS[self.mount], self.client.parent
        point.mkdir(parents=True)
        command = ["mount", "-t", mount.kind, "-o", mount.options, mount.source, str(point)]
        # Samba may have come up just now.
        wait_until(
            lambda: subprocess.run(command, check=False, timeout=60).returncode == 0, f"{point} to be mounted"
        )


@dataclass(frozen=True)
class Side:
    """Where one of the two sides drops: see :class:`support.dropped_files.InboxSite`."""

    root: Path
    inbox: Path


@dataclass(frozen=True)
class End:
    """The folders at the end, seen by the server where they are on the share."""

    root: Path
    inbox: Path
    done: Path
    failed: Path
    config_path: Path


def run_case(case: Case) -> dict[str, object]:
    """One case, its figures and what broke."""
    began = time.monotonic()
    case.prepare()
    emulator, till = billing_emulator()
    rng = random.Random(case.name)
    emulator.script = Weather(rng, share_503=0.05, delay_seconds=(0.0, 1.0))
    rule = {
        "inbox": str(case.watched / "inbox"),
        "done": str(case.filed / "done"),
        "failed": str(case.filed / "failed"),
        "settle": "auto",
    }
    report = Report()
    with emulator:
        (LOCAL / case.name).mkdir(parents=True, exist_ok=True)
        site = Installation(LOCAL / case.name, emulator.url, rule=rule)
        filed = case.filed if case.place == "done-local" else case.server
        end = End(case.server, case.server / "inbox", filed / "done", filed / "failed", site.config_path)
        taken = _take_names(end)
        dropped = _work(case, site, till, rng, report, end)
        overwritten = [str(path) for path in taken if path.read_bytes() != b"somebody's"]
        for path in taken:
            path.unlink()
    report.files, report.starts = len(dropped), site.starts
    report.torn += sorted(till.paid.keys() - {file.sha256 for file in dropped.values()})
    # A refusal costs nothing, and a rule that is held for three of them sends one again.
    till.paid = Counter({sha256: times for sha256, times in till.paid.items() if sha256 not in till.refused})
    report.paid_again = paid_again(dropped, till)
    # While the server is away an upload may stop for longer than the provider waits, but such a one is never
    # received whole: only what was under way at a kill may be paid for again.
    interrupted = told(site, "status")["folders"]["calls"]["maybe_paid_twice"]
    report.interrupted = min(interrupted, report.in_flight_at_kills)
    look_at_the_end(end, dropped, report, keeps=lambda *_: True)
    look_for_names(site, dropped, till, report)
    if case.place == "there":
        overwritten += _overwritten_in_races(case)
    return {
        "case": case.name,
        "files": report.files,
        "done": report.done,
        "failed": report.failed,
        "kills": report.kills,
        "paid again": report.paid_again,
        "longest wait": _longest_wait(site),
        "seconds": round(time.monotonic() - began),
        "broken": report.breaches() | ({"overwritten": overwritten} if overwritten else {}),
    }


def _longest_wait(site: Installation) -> float:
    """Seconds from the first look at a file to its end, of the slowest one."""
    logs = (path.read_text("utf-8", "replace") for path in site.root.glob("run-*.log"))
    lines = [json.loads(line) for log in logs for line in log.splitlines() if '"file.done"' in line]
    return max((line["waited_seconds"] for line in lines), default=0.0)


def _take_names(end: End) -> list[Path]:
    """Somebody has files in done under names that will be wanted."""
    taken = [end.done / side / name for side in ("server", "client") for name in ("0.wav", "slow.json")]
    for path in taken:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"somebody's")
    return taken


def _work(
    case: Case, site: Installation, till: Till, rng: random.Random, report: Report, end: End
) -> dict[str, Dropped]:
    sides = {"server": case.server, "client": case.client}
    droppers = {name: _dropper(case, name, root, till) for name, root in sides.items()}
    slow = {name: SlowWriters(root / "inbox" / name, f"{case.name} {name}") for name, root in sides.items()}
    threads = [threading.Thread(target=each.drop_rest, daemon=True) for each in droppers.values()]
    threads += [thread for each in slow.values() for thread in each.threads]
    began = time.monotonic()
    kills_at = sorted(began + rng.uniform(5.0, KILLS_WITHIN_SECONDS) for _ in range(3))
    process = site.start()
    for thread in threads:
        thread.start()
    is_written = False
    while not is_written or not _is_over(site, end):
        if not is_written and not any(thread.is_alive() for thread in threads):
            is_written = True
            print(WRITTEN, flush=True)  # noqa: T201  # the servers may be stopped now
        if time.monotonic() - began > LONGEST_CASE_SECONDS:
            break  # what is left is told by the report
        if kills_at and time.monotonic() > kills_at[0]:
            kills_at.pop(0)
            process.kill()
            report.kills += 1
            report.in_flight_at_kills += told(site, "status")["folders"]["calls"]["transcribing"]
            process = site.start()
        print(f"{case.name}: {time.monotonic() - began:.0f} s, {len(_left(end))} left", file=sys.stderr)  # noqa: T201
        faulthandler.dump_traceback_later(60)  # of the trial itself, where it hangs
        time.sleep(LOOK_SECONDS)
    process.stop(signal.SIGTERM)
    found = {name: {**droppers[name].dropped, **slow[name].dropped} for name in sides}
    return {
        f"{name}/{path}": replace(file, path=f"{name}/{path}")
        for name, files in found.items()
        for path, file in files.items()
    }


def _dropper(case: Case, side: str, root: Path, till: Till) -> Dropper:
    trial = Trial(
        seed=0 if side == "server" else 1,
        files=FILES_A_SIDE,
        kills=0,
        large_bytes=5_000_000,
        share_odd_names=0.4 if MOUNTS[case.mount].kind == "nfs" else 0.0,  # SMB has no such names
        share_odd_times=0.0,
    )
    return Dropper(trial, Side(root / side, root / "inbox" / side), till)


def _is_over(site: Installation, end: End) -> bool:
    if _left(end):
        return False
    folder = told(site, "status")["folders"]["calls"]
    return not any(folder[key] for key in ("queued", "deferred", "held", "transcribing", "publishing"))


def _left(end: End) -> list[str]:
    """Files in the inbox, other than the daemon's own."""
    return [name for name in files_in(end.inbox) if not name.startswith(".dropscribe/")]


class SlowWriters:
    """Three files that grow for half a minute: one tells its length, one nothing, one is opened anew."""

    SECONDS = 25.0

    def __init__(self, folder: Path, seed: str) -> None:
        self._folder = folder
        rng = random.Random(f"{seed} slow")
        contents = {"slow.wav": _wav(rng, 800_000), "slow.mp3": rng.randbytes(600_000)}
        contents["anew.wav"] = _wav(rng, 400_000)
        self.dropped = {name: self._dropped(name, content) for name, content in contents.items()}
        self.threads = [
            threading.Thread(target=self._write, args=(name, content, name == "anew.wav"), daemon=True)
            for name, content in contents.items()
        ]

    def _dropped(self, name: str, content: bytes) -> Dropped:
        sha256 = hashlib.sha256(content).hexdigest()
        words = heard_text(len(content), sha256)
        return Dropped(name, sha256, len(content), 0, 0, is_refused=False, words=words)

    def _write(self, name: str, content: bytes, opens_anew: bool) -> None:
        path, step = self._folder / name, len(content) // 8 + 1
        with contextlib.ExitStack() as opened:
            file = opened.enter_context(path.open("wb", buffering=0))
            for start in range(0, len(content), step):
                if opens_anew and start:
                    file.close()
                    file = opened.enter_context(path.open("ab", buffering=0))
                file.write(content[start : start + step])
                time.sleep(self.SECONDS / 8)


def _wav(rng: random.Random, count: int) -> bytes:
    head = struct.pack(
        "<4sI8sIHHIIHH4sI", b"RIFF", 36 + count, b"WAVEfmt ", 16, 1, 1, 8000, 16000, 2, 16, b"data", count
    )
    return head + rng.randbytes(count)


def _overwritten_in_races(case: Case) -> list[str]:
    """Names at which a move on the mount replaced a file that the server made at the same time."""
    folder, overwritten = case.server / "races", []
    made_by_server: set[Path] = set()
    folder.mkdir(exist_ok=True)
    with closing(open_root(os.fsencode(case.client / "races"))) as opened:
        can = capabilities_of(opened)
        for number in range(RACES):
            source, target = b"source %d" % number, b"target %d" % number
            (folder / source.decode()).write_bytes(b"audio")
            made = threading.Thread(target=_make, args=(folder / target.decode(), made_by_server))
            made.start()
            with contextlib.suppress(FileExistsError):
                names = FileName(opened, source), FileName(opened, target)
                move_new(*names, can, b".aside", lambda name: name.status() is not None)
            made.join()
            left = sorted(path.read_bytes() for path in folder.glob(f"* {number}"))
            if left != [b"audio"] + [b"somebody's"] * (folder / target.decode() in made_by_server):
                overwritten.append(target.decode())
    return overwritten


def _make(path: Path, made: set[Path]) -> None:
    time.sleep(random.random() * 0.01)
    with contextlib.suppress(FileExistsError), path.open("xb") as file:
        file.write(b"somebody's")
        made.add(path)


if __name__ == "__main__":
    print(json.dumps(run_case(Case.named(sys.argv[1]))), flush=True)  # noqa: T201
