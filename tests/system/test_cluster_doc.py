"""docs/cluster.md, followed word by word: three nodes on one machine, one of them killed in mid-upload."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

import dropscribe
from support.postgres import why_no_postgres

ROOT = Path(__file__).parents[2]
DOCUMENT = ROOT / "docs/cluster.md"
FILES = 24
SLOTS = 9
LONGEST_SECONDS = 170

AS_SOMEBODY = ["unshare", "--user", "--map-user=1000", "--map-group=1000"]
"""What an ordinary user may do: PostgreSQL refuses to be started by root."""


def find_obstacle() -> str:
    """Why the walkthrough cannot be followed here; empty where it can."""
    if (reason := why_no_postgres()) is not None:
        return reason
    if not list(Path("/usr/lib/postgresql").glob("*/bin/psql")):
        return "PostgreSQL's programs are not where Debian has them"
    if (
        os.geteuid() == 0
        and subprocess.run([*AS_SOMEBODY, "true"], capture_output=True, check=False).returncode
    ):
        return "root cannot become an ordinary user here: no user namespaces"
    return ""


pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(LONGEST_SECONDS + 30),
    pytest.mark.skipif(bool(find_obstacle()), reason=find_obstacle()),
]


def blocks() -> list[str]:
    """What the document has typed, in order; installing is a block of another kind."""
    return re.findall(r"^```sh\n(.*?)^```$", DOCUMENT.read_text("utf-8"), re.MULTILINE | re.DOTALL)


@pytest.fixture
def home():
    """A short path: a socket's has 107 bytes at most. Whatever was started in it ends with it."""
    folder = Path(tempfile.mkdtemp(prefix="doc-"))
    yield folder
    for pid in (
        folder / "trial/database/postmaster.pid",
        *folder.glob("trial/**/pid"),
        *folder.glob("trial/*.pid"),
    ):
        with contextlib.suppress(OSError, ValueError):
            os.kill(int(pid.read_text().splitlines()[0]), signal.SIGKILL)
    shutil.rmtree(folder)


def make_clone(folder: Path) -> Path:
    """A clone as the first block leaves it: installed into .venv; its files are this one's."""
    programs = folder / "clone/.venv/bin"
    programs.mkdir(parents=True)
    (folder / "clone/tests").symlink_to(ROOT / "tests")
    (programs / "python3").symlink_to(sys.executable)
    package = shlex.quote(str(Path(dropscribe.__file__).parents[1]))
    start = f"PYTHONPATH={package} exec {shlex.quote(sys.executable)} -m dropscribe"
    (programs / "dropscribe").write_text(f'#!/bin/sh\n{start} "$@"\n')
    (programs / "dropscribe").chmod(0o755)
    return folder / "clone"


def follow(home: Path) -> list[str]:
    """Type one block after the other into one shell; what each has said."""
    script = home / "follow.sh"
    script.write_text("set -eu\n" + "printf '\\f'\n".join(blocks()))
    command = [*(AS_SOMEBODY if os.geteuid() == 0 else []), "sh", str(script)]
    environment = {"HOME": str(home), "PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8", "TZ": "UTC"}
    with (home / "said").open("w+b") as said:
        process = subprocess.Popen(
            command,
            cwd=make_clone(home),
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=subprocess.STDOUT,
        )
        try:
            code = process.wait(LONGEST_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            code = process.wait()
        text = (home / "said").read_text("utf-8")
    assert code == 0, text[-6000:]
    return text.split("\f")


def test_three_nodes_come_up_and_what_a_killed_one_had_is_done_by_the_others(home):
    """All recordings end in done, no more is sent twice than was in the air, and status told so all along."""
    database, provider, configs, start, kill, silent, done, end = follow(home)

    assert "server started" in database
    assert provider == ""
    assert "yes: answers and takes the key" in configs
    assert "dropscribe is running on 3 nodes, and nothing is wrong." in start
    assert len(re.findall(r"^node-[abc] .* beating +0 ", start, re.MULTILINE)) == 3
    in_flight = max(int(found) for found in re.findall(r"^node-b .* beating +(\d+) ", kill, re.MULTILINE))
    assert 0 < in_flight <= SLOTS
    assert "dropscribe is running on 2 nodes, but:\n  node node-b is silent: its last heartbeat was" in silent
    assert "may have been paid for twice" in silent
    names = {f"call-{number}" for number in range(FILES)}
    assert set(re.findall(r"^(call-\d+)\.wav$", done, re.MULTILINE)) == names
    assert set(re.findall(r"^(call-\d+)\.json$", done, re.MULTILINE)) == names
    assert "interrupted: the daemon ended; it may have been paid for (not counted)" in done
    (requests,) = map(int, re.findall(r'^\{"count": (\d+)\}$', done, re.MULTILINE))
    assert FILES + 1 < requests <= FILES + 1 + SLOTS
    assert "dropscribe is running on 3 nodes" in end
    assert "no node is running" in end
    assert "server stopped" in end
    assert not (home / "trial").exists()
