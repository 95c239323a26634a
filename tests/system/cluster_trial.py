"""The long trial of a cluster: ``python tests/system/cluster_trial.py --kills 40 --files 1200 --nodes 3``.

Needs PostgreSQL's programs, which it starts a server with. Prints the seed first and the figures last; exit
code 1 where the promise was broken, and then the folder is kept.
"""

from __future__ import annotations

import argparse
import json
import secrets
import shutil
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from support.cluster_trial import run_cluster_trial  # the path comes first
from support.kill_trial import Trial
from support.postgres import Postgres, why_no_postgres


def main() -> int:
    """Run one trial."""
    parser = argparse.ArgumentParser(description="kill nodes at random, and look at what is left")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(1_000_000))
    parser.add_argument("--files", type=int, default=1200)
    parser.add_argument("--kills", type=int, default=40)
    parser.add_argument("--nodes", type=int, default=3)
    parser.add_argument("--large-bytes", type=int, default=2_000_000)
    parser.add_argument("--crash-database", action="store_true", help="the database too, once in ten kills")
    given = parser.parse_args()
    if reason := why_no_postgres():
        parser.error(reason)
    root, directory = (Path(tempfile.mkdtemp(prefix=f"dropscribe-{what}-")) for what in ("nodes", "pg"))
    print(f"seed {given.seed}, in {root}", flush=True)  # noqa: T201  # its interface
    trial = Trial(given.seed, given.files, given.kills, given.large_bytes, renames_alone=True)
    server = Postgres()
    try:
        server.start(directory)
        restarts = server if given.crash_database else None
        report = run_cluster_trial(trial, root, server.new_database(), nodes=given.nodes, restarts=restarts)
    finally:
        server.stop()
    print(json.dumps(asdict(report), indent=2))  # noqa: T201
    if breaches := report.breaches():
        print(f"BROKEN: {breaches}")  # noqa: T201
        return 1
    shutil.rmtree(root)
    shutil.rmtree(directory)
    return 0


if __name__ == "__main__":
    sys.exit(main())
