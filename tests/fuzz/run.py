"""Fuzzes one target with atheris.

``python tests/fuzz/run.py TARGET --seconds 600`` searches anew. With ``--runs 20000`` in its place it repeats
one search (under ``PYTHONHASHSEED=0``), so that the checks of a commit do not depend on chance. An input that
makes the program break a promise, or takes more than ten seconds or 2 GiB, ends it with an error and is
written to the working directory.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import atheris

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

with atheris.instrument_imports(include=["dropscribe", "plistlib", "yaml"]):
    import plistlib  # noqa: F401  # the program imports it only where such a file comes

    from fuzz.targets import TARGETS

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("target", choices=TARGETS)
limit = parser.add_mutually_exclusive_group(required=True)
limit.add_argument("--seconds", type=int)
limit.add_argument("--runs", type=int)
parser.add_argument("--keep", metavar="FOLDER", help="keep inputs that reach new code here")
given = parser.parse_args()
ends = [f"-max_total_time={given.seconds}"] if given.seconds else [f"-runs={given.runs}", "-seed=1"]
# What is found goes into the first folder, never into the corpus of the repository.
folders = [given.keep or tempfile.mkdtemp(), str(HERE / "corpus" / given.target)]
limits = ["-timeout=10", "-rss_limit_mb=2048", "-max_len=16384"]
atheris.Setup([sys.argv[0], *ends, *limits, "-print_final_stats=1", *folders], TARGETS[given.target])
atheris.Fuzz()
