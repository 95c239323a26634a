"""Fuzzes one target with atheris: ``python tests/fuzz/run.py TARGET SECONDS [FOLDER]``.

Inputs that reach new code are kept in FOLDER, if given. An input that makes the program break a promise, or
takes longer than ten seconds or 2 GiB, ends the run with an error and is written to the working directory.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import atheris

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

with atheris.instrument_imports(include=["dropscribe", "plistlib", "yaml"]):
    import plistlib  # noqa: F401  # the program imports it only where such a file comes

    from fuzz.targets import TARGETS

name, seconds, *kept = sys.argv[1:]
# What is found goes into the first folder, never into the corpus of the repository.
folders = [kept[0] if kept else tempfile.mkdtemp(), str(HERE / "corpus" / name)]
limits = [f"-max_total_time={seconds}", "-timeout=10", "-rss_limit_mb=2048", "-max_len=16384"]
atheris.Setup([sys.argv[0], *limits, "-print_final_stats=1", *folders], TARGETS[name])
atheris.Fuzz()
