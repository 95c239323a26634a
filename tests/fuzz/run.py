"""Fuzzes one target with atheris.

``python tests/fuzz/run.py TARGET --seconds 600`` searches anew. With ``--runs 20000`` in its place it repeats
one search (under ``PYTHONHASHSEED=0``), so that the checks of a commit do not depend on chance. An input that
makes the program break a promise, or takes more than ten seconds or 2 GiB, ends it with an error and is
written to the working directory. So does a search that ran fewer inputs than it was to.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("target", choices=sorted(path.name for path in (HERE / "corpus").iterdir()))
limit = parser.add_mutually_exclusive_group(required=True)
limit.add_argument("--seconds", type=int)
limit.add_argument("--runs", type=int)
parser.add_argument("--keep", metavar="FOLDER", help="keep inputs that reach new code here")
given = parser.parse_args()
ends = [f"-max_total_time={given.seconds}"] if given.seconds else [f"-runs={given.runs}", "-seed=1"]
limits = ["-timeout=10", "-rss_limit_mb=2048", "-max_len=16384", "-print_final_stats=1"]
ran = 0
# The search ends its process without cleaning up.
with tempfile.TemporaryDirectory(prefix="dropscribe-fuzz-") as temporary:
    # What is found goes into the first folder, never into the corpus of the repository.
    folders = [given.keep or tempfile.mkdtemp(dir=temporary), str(HERE / "corpus" / given.target)]
    with subprocess.Popen(
        [sys.executable, str(HERE / "search.py"), given.target, *ends, *limits, *folders],
        stderr=subprocess.PIPE,
        env={**os.environ, "TMPDIR": temporary},
    ) as search:
        assert search.stderr is not None
        for line in search.stderr:
            sys.stderr.buffer.write(line)
            sys.stderr.flush()
            if found := re.match(rb"stat::number_of_executed_units:\s*(\d+)", line):
                ran = int(found[1])
if search.returncode == 0 and ran < (given.runs or 1):
    sys.exit(f"{given.target}: only {ran} inputs were run")
sys.exit(search.returncode)
