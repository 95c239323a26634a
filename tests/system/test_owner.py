"""Two daemons at one inbox that cannot see each other's locks, as two machines or two containers cannot.

The second one runs in a network namespace of its own: abstract names end there. Its times are shortened.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from support.daemon_process import Installation, Process, _environment, wait_until
from support.emulator import Fault
from support.house import tree

QUICK = """
import sys
from dropscribe.intake import scanner, ownership
ownership.BEAT_SECONDS, ownership.STALE_SECONDS, ownership.START_SECONDS = 0.3, 2.0, 1.0
rounds.AVAILABLE_SECONDS = 0.1
from dropscribe.cli.main import main
sys.exit(main())
"""


@pytest.fixture(scope="module")
def apart():
    """The command's prefix that gives it a network namespace of its own."""
    prefix = ["unshare", "-n"] if os.geteuid() == 0 else ["unshare", "-r", "-n"]
    try:
        subprocess.run([*prefix, "true"], check=True, capture_output=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        pytest.skip("no network namespace may be made here: no daemon can be shut off from the other's locks")
    return prefix


@pytest.fixture
def site(tmp_path, vendor):
    """An installation, and a config with a state directory of its own on the same inbox."""
    made = Installation(tmp_path, vendor[0].url)
    (tmp_path / "other.yaml").write_text(json.dumps(made.config() | {"state_dir": "other-state"}))
    return made


def start_apart(site: Installation, apart: list[str], *options: str, log: str = "apart.log") -> Process:
    """The other daemon, shut off."""
    command = [*apart, sys.executable, "-c", QUICK, "run", *options, "-c", str(site.root / "other.yaml")]
    return Process(command, _environment(), site.root / log)


def start_quick(site: Installation) -> Process:
    process = site.start(program=QUICK)
    process.until_logged("inbox.available")
    return process


@pytest.mark.parametrize("options", [[], ["--once"]])
def test_a_second_daemon_is_refused(site, vendor, apart, options):
    """69, with host and remedy; the first one never notices, and each file is paid for once."""
    with start_quick(site) as first:
        with start_apart(site, apart, *options) as second:
            for number in range(20):
                site.drop(f"{number}.wav", b"audio %d" % number)
            assert second.wait() == 69
            assert second.logged("daemon.ready") == []
            told = second.log_path.read_text()
        first.until(lambda: len(first.logged("file.done")) == 20, "all files")
        assert first.stop() == 0
    assert str(site.inbox) in told
    assert f"host {os.uname().nodename}" in told
    assert "queue: {type: postgres}" in told
    assert "docs/cluster.md" in told
    assert "Traceback" not in told
    assert list(vendor[1].paid.values()) == [1] * 20


def test_a_restart_after_a_kill_is_instant(site):
    """At the usual times: the same lock on the same boot is proof that the owner is dead."""
    with site.start_ready() as first:
        first.kill()
    assert (site.inbox / ".dropscribe" / "owner").exists()
    site.drop("a.wav")
    began = time.monotonic()
    with site.start() as second:
        second.until_logged("file.done")
        assert time.monotonic() - began < 8
        assert len(second.logged("inbox.taken_over")) == 1
        assert second.stop() == 0
    assert tree(site.inbox) == set()


def test_a_dead_owner_elsewhere_is_taken_over(site, apart):
    """The start goes on without the inbox, says whom it watches, and takes over."""
    with start_quick(site) as first:
        first.kill()
    with start_apart(site, apart) as second:
        second.until_logged("inbox.taken_over")
        second.until_logged("inbox.available")
        events = [line.get("event") for line in second.lines()]
        assert events.index("daemon.ready") < events.index("inbox.taken_over")
        (line,) = second.logged("inbox.unavailable")
        assert f"host {os.uname().nodename}" in line["reason"]
        assert second.stop() == 0
    assert list(site.inbox.iterdir()) == []


def test_run_once_waits_until_a_dead_owner_is_taken_over(site, apart):
    """It does not end with an inbox that nobody has looked into."""
    with start_quick(site) as first:
        first.kill()
    site.drop("a.wav", b"")  # fails unsent: there is no network where the second one runs
    with start_apart(site, apart, "--once") as second:
        assert second.wait(120) == 3


def test_a_frozen_owner_loses_the_inbox_and_gets_it_back(site, vendor, apart):
    """Thawed, it takes nothing while the other lives, says why, and goes on when that one has stopped."""
    with start_quick(site) as first:
        first.send(signal.SIGSTOP)
        with start_apart(site, apart) as second:
            second.until_logged("inbox.available")
            first.send(signal.SIGCONT)
            first.until_logged("inbox.lost")
            site.drop("a.wav")
            wait_until(lambda: "another dropscribe has it" in (_reason(site) or ""), "the words in status")
            assert vendor[1].paid == {}
            assert second.stop() == 0
        first.until_logged("file.done")
        assert first.stop() == 0
    # The other one failed to reach the vendor from where it was; it left the file where it stood.
    assert tree(site.inbox) == set()
    assert sum(vendor[1].paid.values()) == 1


def _reason(site: Installation) -> str | None:
    live = json.loads((site.root / "state" / "live.json").read_text())
    return live["folders"]["calls"]["reason"]


def test_the_inbox_is_kept_until_uploads_have_ended(site, vendor):
    """A daemon elsewhere must not start on the files that a stopping one has in flight."""
    emulator, _ = vendor
    emulator.fail(Fault(delay_seconds=1.5))
    site.drop("a.wav")
    with start_quick(site) as first:
        first.until(lambda: any(request.complete for request in emulator.requests), "the upload")
        first.send(signal.SIGTERM)
        first.until_logged("daemon.stopping")
        owner = site.inbox / ".dropscribe" / "owner"
        seen = json.loads(owner.read_text())["beat"]
        first.until(lambda: json.loads(owner.read_text())["beat"] > seen, "a beat")
        assert tree(site.done) == set()
        assert first.wait() == 0
    assert tree(site.done) == {"a.wav", "a.json", "a.txt"}
    assert list(site.inbox.iterdir()) == []
