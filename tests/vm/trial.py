"""Files on real NFS and SMB mounts, within the guest: ``python3 trial.py [--short] [MOUNT.PLACE …]``.

Runs cases (one_case.py), some at the same time, and stops the servers for a while once their files are
dropped. Prints a line of JSON for each case; exit code 1 where one of them broke. A case that hangs is ended,
and the kernel's stacks of what waits are shown.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from one_case import LONGEST_CASE_SECONDS, MOUNTS, PLACES, WRITTEN, Case

from support.daemon_process import wait_until

ONE_CASE = Path(__file__).with_name("one_case.py")
OUTAGE_AFTER_SECONDS, OUTAGE_SECONDS = 15.0, 20.0
LAST_LOOKS_SECONDS = 240.0
AT_ONCE = 4
SHORT = ("nfs4.2-no-delegations.there", "smb-nolease.there")


@dataclass(frozen=True)
class Child:
    """One case in a process of its own, which may hang on a mount for ever."""

    case: Case
    process: subprocess.Popen[bytes]
    said: Path

    @classmethod
    def of(cls, case: Case) -> Child:
        said = Path("/tmp") / f"{case.name}.said"
        with said.open("wb") as output:
            process = subprocess.Popen([sys.executable, str(ONE_CASE), case.name], stdout=output)
        return cls(case, process, said)

    def has_written(self) -> bool:
        """Whether all its files are dropped, or never will be."""
        return WRITTEN in self.said.read_text() or self.process.poll() is not None

    def found(self, until: float) -> dict[str, object]:
        """What it found, or why it found nothing."""
        try:
            self.process.wait(max(0.0, until - time.monotonic()))
            found: dict[str, object] = json.loads(self.said.read_text().splitlines()[-1])
        except subprocess.TimeoutExpired:
            self.process.kill()
            return {"case": self.case.name, "broken": "hangs"}
        except (IndexError, ValueError):
            return {"case": self.case.name, "broken": f"exit code {self.process.returncode}"}
        return found


def _outage() -> None:
    """The servers are away for a while, as at a reboot of their machine."""
    subprocess.run(["rpc.nfsd", "0"], check=False, timeout=60)
    pids = subprocess.run(["pidof", "smbd"], capture_output=True, check=False, timeout=60).stdout.split()
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(pid), signal.SIGTERM)
    time.sleep(OUTAGE_SECONDS)
    subprocess.run(["rpc.nfsd", "8"], check=False, timeout=60)
    subprocess.run(["smbd", "-D"], check=False, timeout=60)


def run_together(cases: list[Case]) -> list[dict[str, object]]:
    """Cases that share one outage, a process each."""
    Path("/proc/sys/fs/leases-enable").write_text(str(int(all(map(_delegates, cases)))))
    until = time.monotonic() + LONGEST_CASE_SECONDS + LAST_LOOKS_SECONDS
    running = [Child.of(case) for case in cases]
    with contextlib.suppress(TimeoutError):
        wait_until(
            lambda: all(child.has_written() for child in running), "the files", seconds=LONGEST_CASE_SECONDS
        )
    time.sleep(OUTAGE_AFTER_SECONDS)
    _outage()
    found = []
    for child in running:
        found.append(child.found(until))
        print(json.dumps(found[-1]), flush=True)  # noqa: T201  # its interface
    if any(each["broken"] == "hangs" for each in found):
        _show_what_waits()
    return found


def _show_what_waits() -> None:
    """The kernel's stack of each thread that waits for a disk or a server."""
    for thread in Path("/proc").glob("[0-9]*/task/[0-9]*"):
        with contextlib.suppress(OSError):
            state = (thread / "stat").read_text().rpartition(")")[2].split()[0]
            if state == "D":
                command = (thread / "cmdline").read_text().replace("\0", " ")
                print(f"{thread} {command}\n{(thread / 'stack').read_text()}", file=sys.stderr)  # noqa: T201


def main() -> int:
    """All cases, or those that are named."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--short", action="store_true")
    parser.add_argument("cases", nargs="*", type=Case.named, metavar="MOUNT.PLACE")
    given = parser.parse_args()
    cases: list[Case] = given.cases or [Case(mount, place) for place in PLACES for mount in MOUNTS]
    if given.short:
        cases = [Case.named(name) for name in SHORT]
    found: list[dict[str, object]] = []
    while cases:
        together = [case for case in cases if given.short or _delegates(case) == _delegates(cases[0])][
            :AT_ONCE
        ]
        cases = [case for case in cases if case not in together]
        found += run_together(together)
    return int(any(each["broken"] for each in found))


def _delegates(case: Case) -> bool:
    return MOUNTS[case.mount].delegations


if __name__ == "__main__":
    sys.exit(main())
