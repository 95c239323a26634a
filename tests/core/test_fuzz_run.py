"""A search of the fuzzer that did nothing is a failure, and none leaves files behind."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

RUN = Path(__file__).parent.parent / "fuzz" / "run.py"

ATHERIS = """
import contextlib, os, sys, tempfile
instrument_imports = lambda **_: contextlib.nullcontext()
def Setup(arguments, target):
    tempfile.mkdtemp()
def Fuzz():
    print("stat::number_of_executed_units: {ran}", file=sys.stderr, flush=True)
    os._exit({code})
"""


@pytest.mark.slow
@pytest.mark.parametrize(("ran", "code", "ends_with"), [(20, 0, 0), (19, 0, 1), (20, 77, 77)])
def test_a_search_ends_as_its_inputs_did(tmp_path, ran, code, ends_with):
    """As atheris does, the stand-in ends the process without cleaning up."""
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    (tmp_path / "atheris.py").write_text(ATHERIS.format(ran=ran, code=code))
    ended = subprocess.run(
        [sys.executable, RUN, "links", "--runs", "20"],
        env=os.environ | {"PYTHONPATH": str(tmp_path), "TMPDIR": str(temporary)},
        capture_output=True,
        check=False,
    )
    assert ended.returncode == ends_with, ended.stderr
    assert list(temporary.iterdir()) == []
