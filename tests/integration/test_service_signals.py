"""Signals, as a process of its own meets them."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import dropscribe

SOURCE = str(Path(dropscribe.__file__).parents[1])

DAEMON = """
import asyncio, sys
from dropscribe.service.process import prepare_process, route_signals
prepare_process()

def say(word):
    print(word, flush=True)

if "early" in sys.argv:
    import os, signal; os.kill(os.getpid(), signal.SIGHUP)

async def main():
    stop = asyncio.Event()
    with route_signals(asyncio.get_running_loop(), stop, lambda: say("reloaded")):
        say("up")
        if "hang" in sys.argv:
            import time; time.sleep(60)
        await stop.wait()
        say("stopping")
        if "drain" in sys.argv:
            import time; time.sleep(60)  # a loop that hangs: only the kernel can end it
    say("stopped")
asyncio.run(main())
if "late" in sys.argv:
    import os, signal; os.kill(os.getpid(), signal.SIGHUP)
"""


@pytest.fixture
def start():
    """Starts the daemon above; ends it, whatever the test found."""
    started = []

    def start(*arguments: str) -> subprocess.Popen[str]:
        daemon = subprocess.Popen(
            [sys.executable, "-c", DAEMON, *arguments],
            env={**os.environ, "PYTHONPATH": SOURCE},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(daemon)
        assert daemon.stdout.readline() == "up\n"
        return daemon

    yield start
    for daemon in started:
        daemon.kill()
        daemon.communicate(timeout=10)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_first_stop_signal_stops_in_order(start, number):
    """SIGTERM and SIGINT let the daemon end by its own road, with exit 0."""
    daemon = start()
    daemon.send_signal(number)
    assert daemon.communicate(timeout=10)[0] == "stopping\nstopped\n"
    assert daemon.returncode == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_second_stop_signal_ends_even_a_loop_that_hangs(start, number):
    """The second one is the kernel's, so that no Python code has to run for it."""
    daemon = start("drain")
    daemon.send_signal(signal.SIGTERM)
    assert daemon.stdout.readline() == "stopping\n"
    daemon.send_signal(number)
    assert daemon.wait(timeout=10) == -number


def test_a_loop_that_hangs_before_the_first_stop_signal_is_ended_too(start):
    """A person presses Ctrl-C, waits a moment, and presses it again."""
    daemon = start("hang")
    for _ in range(50):
        daemon.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            assert daemon.wait(timeout=0.2) == -signal.SIGINT
            return
    pytest.fail("it goes on")


def test_hup_reloads_and_disturbs_nothing(start):
    """Each SIGHUP is one call of reload, in the loop; the daemon goes on."""
    daemon = start()
    for _ in range(2):
        daemon.send_signal(signal.SIGHUP)
        assert daemon.stdout.readline() == "reloaded\n"
    assert daemon.poll() is None


def test_a_hup_during_the_start_reloads_afterwards(start):
    """A script may send one right after the start, when the config has been read already."""
    daemon = start("early")
    assert daemon.stdout.readline() == "reloaded\n"
    assert daemon.poll() is None


@pytest.mark.parametrize(
    ("number", "arguments", "code"), [(signal.SIGTERM, ["run"], 0), (signal.SIGINT, ["run", "--once"], 75)]
)
def test_a_stop_signal_while_the_daemon_is_loaded_is_an_orderly_end(tmp_path, number, arguments, code):
    """Its exit code is that of a daemon that was told to stop: what waits in the inboxes is not known."""
    (tmp_path / "inbox").mkdir()
    (tmp_path / "config.yaml").write_text(CONFIG)
    command = [sys.executable, "-c", STOPPED_WHILE_LOADED, str(int(number)), *arguments, "-c", "config.yaml"]
    where = {"cwd": tmp_path, "env": {**os.environ, "PYTHONPATH": SOURCE}}

    found = subprocess.run(command, check=False, capture_output=True, timeout=60, **where)

    assert (found.returncode, b"Traceback" in found.stderr) == (code, False)


CONFIG = """
state_dir: state
providers: {one: {type: pulse, url: "http://127.0.0.1:9/", api_key: k}}
folders: {calls: {inbox: inbox, provider: one}}
"""

STOPPED_WHILE_LOADED = """
import os, sys
from dropscribe.cli.main import main

class StopAtImport:
    def find_spec(self, name, *_):
        if name == "dropscribe.cli.commands.run":
            os.kill(os.getpid(), number)

number = int(sys.argv.pop(1))
sys.meta_path.insert(0, StopAtImport())
sys.exit(main())
"""


def test_a_hup_at_the_end_changes_no_exit_code(start):
    """A script that reloads does not know that the daemon is about to end."""
    daemon = start("late")
    daemon.send_signal(signal.SIGTERM)
    assert daemon.wait(timeout=10) == 0


def test_a_broken_lease_does_not_end_the_process(start):
    """SIGIO, whose default is to terminate, is ignored from the start."""
    daemon = start()
    daemon.send_signal(signal.SIGIO)
    daemon.send_signal(signal.SIGHUP)
    assert daemon.stdout.readline() == "reloaded\n"


def test_an_abort_prints_the_traceback_of_every_thread(start):
    """The watchdog's SIGABRT leaves a traceback that names the line that hangs."""
    daemon = start("drain")
    daemon.send_signal(signal.SIGTERM)
    assert daemon.stdout.readline() == "stopping\n"
    daemon.send_signal(signal.SIGABRT)
    assert "Current thread" in daemon.communicate(timeout=10)[1]


def test_no_core_dump_can_hold_a_key(start):
    """The limit is zero, and the kernel counts the process as not dumpable."""
    daemon = start()
    assert resource.prlimit(daemon.pid, resource.RLIMIT_CORE) == (0, 0)
    # A process that is not dumpable has its /proc entries owned by root, whoever it runs as.
    dumpable = subprocess.run(
        [sys.executable, "-c", PRINT_DUMPABLE], env={"PYTHONPATH": SOURCE}, capture_output=True, check=True
    )
    assert dumpable.stdout == b"0\n"


PRINT_DUMPABLE = """
import ctypes
from dropscribe.service.process import prepare_process
prepare_process()
print(ctypes.CDLL(None).prctl(3, 0, 0, 0, 0))
"""
