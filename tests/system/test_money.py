"""Money, with the command as a process and an emulated vendor that has a till."""

from __future__ import annotations

import signal
import subprocess

import pytest

from dropscribe.cli import exit_codes
from support.daemon_process import COMMAND, Installation, environment_of
from support.house import digest, read_json

pytestmark = pytest.mark.slow


def command(site: Installation, *words: str) -> str:
    """What a command says that has to succeed."""
    call = [*COMMAND, *words, "-c", str(site.config_path)]
    ran = subprocess.run(call, env=environment_of(), capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def test_the_same_recording_is_paid_for_once_until_it_is_forgotten(tmp_path, vendor):
    """Again under another name, in another run, with a daemon that runs: the till rings once; then forget."""
    emulator, till = vendor
    site = Installation(tmp_path, emulator.url)
    recording = b"the same recording " * 100
    site.drop("first.wav", recording)
    assert site.run_once() == exit_codes.OK
    with site.start_ready() as process:
        site.drop("again.wav", recording)
        process.until((site.done / "again.wav").exists, "again")
        assert till.paid == {digest(recording): 1}
        assert read_json(site.done / "again.json")["reused"] is True
        assert "nothing was sent" in command(site, "why", str(site.done / "again.wav"))
        assert "1 answer forgotten" in command(site, "forget", str(site.done / "first.wav"))
        site.drop("third.wav", recording)
        process.until((site.done / "third.wav").exists, "third")
        assert process.stop() == exit_codes.OK
    assert till.paid == {digest(recording): 2}


def test_a_released_backlog_goes_on_within_seconds(tmp_path, vendor):
    """Old files wait, a new one flows, and the release is noticed by the daemon that runs."""
    emulator, till = vendor
    site = Installation(tmp_path, emulator.url, rule={"backlog": "ask"})
    for number in range(3):
        site.drop(f"old-{number}.wav", b"old %d" % number * 40)
    with site.start_ready() as process:
        process.until(lambda: site.status()["backlog"] == 3, "backlog")
        site.drop("new.wav", b"new" * 100)
        process.until((site.done / "new.wav").exists, "new")
        assert sum(till.paid.values()) == 1
        assert "3 files go on" in command(site, "release", "--folder", "calls")
        process.until(lambda: not list(site.inbox.glob("*.wav")), "released", seconds=15.0)
        assert process.stop() == exit_codes.OK
    assert sum(till.paid.values()) == 4


def test_a_backlog_is_left_by_once(tmp_path, vendor):
    """Nothing is paid for, 75; after the release, with the daemon down, all is done."""
    emulator, till = vendor
    site = Installation(tmp_path, emulator.url, rule={"backlog": "ask"})
    site.drop("old.wav", b"old" * 100)
    assert site.run_once() == exit_codes.LEFT_WAITING
    assert till.paid == {}
    assert "goes on, when dropscribe is started" in command(site, "release", "--folder", "calls")
    assert site.run_once() == exit_codes.OK
    assert sum(till.paid.values()) == 1


def test_a_spent_budget_ends_once_with_files_left(tmp_path, vendor):
    """Run --once does not wait for midnight; a reload with more lets the rest go on."""
    emulator, till = vendor
    site = Installation(
        tmp_path, emulator.url, provider={"budget": {"per_month": "0.001min"}, "concurrency": 1}
    )
    for number in range(3):
        site.drop(f"{number}.wav", b"audio %d" % number * 40)
    assert site.run_once() == exit_codes.LEFT_WAITING
    paid = sum(till.paid.values())
    assert 1 <= paid < 3
    with site.start_ready() as process:
        process.until(lambda: site.status()["held"] == 3 - paid, "held")
        site.provider["budget"] = {"per_month": "600min"}
        site.write_config()
        process.send(signal.SIGHUP)
        process.until(lambda: not list(site.inbox.glob("*.wav")), "all done")
        assert process.stop() == exit_codes.OK
    assert till.paid_again() == 0
