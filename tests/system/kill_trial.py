"""The long trial of random kills: ``python tests/system/kill_trial.py --kills 200 --files 2000``.

Prints the seed first and the figures last; exit code 1 where the promise was broken, and then the
folder is kept.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import secrets
import shutil
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from support.kill_trial import Trial, run_trial  # the path comes first
from support.lossy_fuse import LOST_CALLS, mounted_lossy


def main() -> int:
    """Run one trial."""
    parser = argparse.ArgumentParser(description="kill the daemon at random, and look at what is left")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(1_000_000))
    parser.add_argument("--files", type=int, default=2000)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--large-bytes", type=int, default=20_000_000)
    parser.add_argument("--filed", type=Path, help="where done and failed stand: another file system, maybe")
    parser.add_argument(
        "--lossy",
        action="store_true",
        help="done and failed stand on a pass-through that loses the first answer to each call on each path",
    )
    given = parser.parse_args()
    root = Path(tempfile.mkdtemp(prefix="dropscribe-kills-"))
    print(f"seed {given.seed}, in {root}", flush=True)  # noqa: T201  # its interface
    trial = Trial(given.seed, given.files, given.kills, given.large_bytes)
    with contextlib.ExitStack() as mounts:
        if given.lossy:
            folders = root / "backing", root / "lossy"
            given.filed = mounts.enter_context(mounted_lossy(*folders, "--lose", LOST_CALLS))
        report = run_trial(trial, root, given.filed)
    print(json.dumps(asdict(report), indent=2))  # noqa: T201
    if breaches := report.breaches():
        print(f"BROKEN: {breaches}")  # noqa: T201
        return 1
    shutil.rmtree(root)
    return 0


if __name__ == "__main__":
    sys.exit(main())
