"""A kill at every durable step, in a process of its own, then a new start on what is left.

The process is the queue, the work and the publishing on real files; the provider's calls are written to
a file outside, so that what was paid for is known after the kill.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from support.crash_points import COMPANION_POINTS, POINTS
from support.house import digest, read_json, tree

TESTS = Path(__file__).parent.parent

PROGRAM = """
import asyncio, contextlib, os, sys
sys.path.insert(0, {tests!r})
from pathlib import Path
from dropscribe.files.mounts import ignore_sigio
from support.house import House, make_config
from support.scripted import ScriptedProvider

ignore_sigio()
root, failing = Path(sys.argv[1]), sys.argv[2] == "failed"

class Counting(ScriptedProvider):
    async def _play(self, step, audio):
        transcript = await super()._play(step, audio)
        with open(root / "paid", "ab", buffering=0) as file:
            file.write(audio.name + b"\\n")
        if failing:
            from dropscribe.core.errors import AudioRejected
            raise AudioRejected("bad_format", "no", status=415)
        return transcript

async def main():
    config = make_config(root, ledger_keep_seconds=86400.0, companions=("{{stem}}.xml",))
    async with House(config, {{"main": Counting()}}) as house:
        for name in sorted(os.listdir(root / "inbox")):
            if name.endswith(".wav"):
                with contextlib.suppress(FileNotFoundError):  # its job of before the kill has filed it by now
                    await house.submit(name)
        await house.rest()

asyncio.run(main())
"""


def run(root: Path, way: str, crash_at: str = "") -> int:
    environment = {**os.environ, "DROPSCRIBE_CRASH_AT": crash_at, "PYTHONPATH": os.pathsep.join(sys.path)}
    program = PROGRAM.format(tests=str(TESTS))
    done = subprocess.run(
        [sys.executable, "-c", program, str(root), way],
        env=environment,
        capture_output=True,
        timeout=60,
        check=False,
    )
    if done.returncode not in {0, -signal.SIGKILL}:
        raise AssertionError(done.stderr.decode())
    return done.returncode


QUICK = {"answered", "kept", "sidecars_synced", "audio_moved"}
"""One step of each kind: the answer is lost, kept, being filed, filed."""
STEPS = [
    pytest.param(each, marks=[] if each in QUICK else pytest.mark.slow)
    for each in (*COMPANION_POINTS, *POINTS)
    if each[:3] != "cop"
]


@pytest.mark.parametrize("way", ["done", pytest.param("failed", marks=pytest.mark.slow)])
@pytest.mark.parametrize("point", STEPS)
@pytest.mark.parametrize("time", [1, pytest.param(3, marks=pytest.mark.slow)])
def test_a_kill_at_a_durable_step_loses_nothing(tmp_path, point, way, time):
    """Whatever step the kill hits, the next start ends every file once, with its sidecars and its companion.

    Paid again: at most what was in flight without its answer kept, so never more than 4 of 5 here, and
    nothing at all for kills after the answer was kept.
    """
    contents = {f"{number}.wav": b"audio number %d" % number for number in range(5)}
    (tmp_path / "inbox").mkdir()
    for name, content in contents.items():
        (tmp_path / "inbox" / name).write_bytes(content)
        (tmp_path / "inbox" / name).with_suffix(".xml").write_bytes(b"companion of " + content)

    killed = run(tmp_path, way, f"{point}:{time}")
    assert killed == -signal.SIGKILL
    assert run(tmp_path, way) == 0

    assert tree(tmp_path / "inbox") == set()
    suffixes = (".wav", ".xml", *((".json", ".txt") if way == "done" else (".error.json",)))
    expected = {Path(name).stem + suffix for name in contents for suffix in suffixes}
    assert tree(tmp_path / way) == expected
    for name, content in contents.items():
        assert (tmp_path / way / name).read_bytes() == content
        companion = (tmp_path / way / name).with_suffix(".xml")
        assert companion.read_bytes() == b"companion of " + content
        if way == "done":
            source = read_json(tmp_path / "done" / f"{Path(name).stem}.json")["source"]
            assert (source["file"], source["sha256"]) == (name, digest(content))
    paid = (tmp_path / "paid").read_bytes().splitlines()
    again = len(paid) - len(contents)
    in_flight = 4
    assert 0 <= again <= in_flight


@pytest.mark.slow
@pytest.mark.parametrize("point", ["kept", "sidecar_linked", "audio_moved", "ended"])
def test_a_kill_after_the_answer_leaves_it_in_the_ledger(tmp_path, point):
    """What was answered before the kill is not paid for when the same recordings are dropped once more."""
    contents = {f"{number}.wav": b"audio number %d" % number for number in range(5)}
    (tmp_path / "inbox").mkdir()
    for name, content in contents.items():
        (tmp_path / "inbox" / name).write_bytes(content)
    assert run(tmp_path, "done", point) == -signal.SIGKILL
    assert run(tmp_path, "done") == 0
    paid = (tmp_path / "paid").read_bytes()

    for name, content in contents.items():
        (tmp_path / "inbox" / f"again-{name}").write_bytes(content)
    assert run(tmp_path, "done") == 0

    assert (tmp_path / "paid").read_bytes() == paid
    for name in contents:
        document = read_json(tmp_path / "done" / f"again-{Path(name).stem}.json")
        assert (document["reused"], document["source"]["file"]) == (True, f"again-{name}")
