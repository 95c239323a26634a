"""Signals to the running command, with uploads in flight."""

from __future__ import annotations

import signal

import pytest

from support.daemon_process import Installation, Process, wait_until
from support.emulator import Emulator, Fault
from support.house import digest, tree

pytestmark = pytest.mark.slow

SLOW = Fault(delay_seconds=1.0)
NEVER = Fault(delay_seconds=600.0)


def in_flight(emulator: Emulator, process: Process, count: int) -> None:
    """Wait until *count* files have been sent whole and none is answered."""
    process.until(lambda: sum(request.complete for request in emulator.requests) >= count, f"{count} uploads")


def audio(number: int) -> bytes:
    """Content that tells the files apart."""
    return b"audio %d" % number * 50


def groups(*names: str) -> set[str]:
    """The files that stand in done for these audio files."""
    return {f"{name}.{suffix}" for name in names for suffix in ("wav", "json", "txt")}


@pytest.mark.slow
def test_sigterm_lets_uploads_finish_and_begins_none(tmp_path, vendor):
    """In flight is finished and filed within the grace, what waits stays; exit 0; nothing is paid twice."""
    emulator, till = vendor
    site = Installation(tmp_path, emulator.url, provider={"concurrency": 2})
    emulator.fail(SLOW, SLOW)
    for number in range(4):
        site.drop(f"{number}.wav", audio(number))
    with site.start() as process:
        in_flight(emulator, process, 2)
        assert process.stop() == 0
    assert len(tree(site.inbox)) == 2
    assert len(tree(site.done)) == 6
    assert sum(till.paid.values()) == 2
    assert site.run_once() == 0
    assert till.paid == {digest(audio(number)): 1 for number in range(4)}
    assert tree(site.done) == groups("0", "1", "2", "3")
    assert site.status()["maybe_paid_twice"] == 0


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_what_outlasts_the_grace_is_handed_back(tmp_path, vendor, number):
    """Exit 0 soon after the grace; the audio is in the inbox, is counted, and the next start goes on."""
    emulator, _till = vendor
    site = Installation(tmp_path, emulator.url, extra={"shutdown_grace": "200ms"})
    emulator.fail(NEVER, NEVER)
    site.drop("a.wav", audio(1))
    site.drop("b.wav", audio(2))
    with site.start() as process:
        in_flight(emulator, process, 2)
        process.send(number)
        assert process.wait(10) == 0
    assert tree(site.inbox) == {"a.wav", "b.wav"}
    status = site.status()
    assert (status["queued"] + status["deferred"], status["transcribing"]) == (2, 0)
    assert status["maybe_paid_twice"] == 2
    assert site.run_once() == 0
    assert tree(site.done) == groups("a", "b")
    (first, second) = site.ask("why", str(site.inbox / "a.wav"))["attempts"]
    assert (first["code"], first["counted"], second["code"]) == ("interrupted", False, "")


def test_sigterm_twice_ends_at_once(tmp_path, vendor):
    """The second one does not wait for the grace; the next start goes on from what the rows say."""
    emulator, _till = vendor
    site = Installation(tmp_path, emulator.url, extra={"shutdown_grace": "10m"})
    emulator.fail(NEVER)
    site.drop("a.wav", audio(1))
    with site.start() as process:
        in_flight(emulator, process, 1)
        process.send(signal.SIGTERM)
        process.until_logged("daemon.stopping")
        process.send(signal.SIGTERM)
        assert process.wait(10) == -signal.SIGTERM
    assert tree(site.inbox) == {"a.wav"}
    assert site.run_once() == 0
    assert tree(site.done) == groups("a")


def test_sighup_takes_a_good_config_and_disturbs_no_file(tmp_path, vendor):
    """What is in flight ends under the rule it began with; what comes later goes by the new one."""
    emulator, till = vendor
    site = Installation(tmp_path, emulator.url, rule={"params": {"language": "en"}})
    emulator.fail(SLOW)
    site.drop("before.wav", audio(1))
    with site.start() as process:
        in_flight(emulator, process, 1)
        site.rule = {"params": {"language": "de"}, "done": str(tmp_path / "new"), "outputs": ["json"]}
        site.write_config()
        process.send(signal.SIGHUP)
        process.until_logged("config.reloaded")
        site.drop("after.wav", audio(2))
        process.until_logged("file.done", 2)
        assert process.stop() == 0
    assert tree(tmp_path / "done") == groups("before")
    assert tree(tmp_path / "new") == {"after.wav", "after.json"}
    assert [dict(request.params)["language"] for request in emulator.requests] == ["en", "de"]
    assert till.paid_again() == 0


@pytest.mark.slow
def test_sighup_adds_and_removes_rules(tmp_path, vendor):
    """A new rule's inbox is watched from then on, and a removed one's left alone; the others never notice."""
    emulator, _till = vendor
    site = Installation(tmp_path, emulator.url)
    config = site.config()
    other = tmp_path / "other"
    other.mkdir()
    config["folders"] = {"other": {"inbox": str(other), "done": "far", "failed": "near", "provider": "pulse"}}
    with site.start_ready() as process:
        site.extra = {"folders": config["folders"]}
        site.write_config()
        process.send(signal.SIGHUP)
        process.until_logged("config.reloaded")
        site.drop("left.wav", audio(1))
        (other / "taken.wav").write_bytes(audio(2))
        process.until_logged("file.done")
        assert process.stop() == 0
    assert tree(site.inbox) == {"left.wav"}
    assert tree(tmp_path / "far") == groups("taken")


def test_sighup_refuses_a_bad_config(tmp_path, vendor):
    """Each problem is logged with file:line:column, and the old config goes on working."""
    emulator, _till = vendor
    site = Installation(tmp_path, emulator.url)
    with site.start_ready() as process:
        site.write_config("providers:\n  pulse: {type: pulze}\nfolders: {}\nlogg: {}\n")
        process.send(signal.SIGHUP)
        refusals = process.until_logged("config.refused", 2)
        assert all(line["level"] == "error" for line in refusals)
        places = [line["place"] for line in refusals]
        assert f"{site.config_path}:4:1" in places
        site.drop("a.wav", audio(1))
        process.until_logged("file.done")
        assert process.stop() == 0
    assert tree(site.done) == groups("a")


def test_a_warning_about_the_config_is_an_event_of_the_log(tmp_path, vendor):
    """At the start and at a reload; no line is anything but a JSON object."""
    emulator, _till = vendor
    site = Installation(tmp_path, emulator.url)
    site.config_path.chmod(0o644)
    with site.start_ready() as process:
        (warning,) = process.until_logged("config.warning")
        assert warning["place"].startswith(f"{site.config_path}:")
        assert warning["reason"].startswith("providers.pulse.api_key: others on this machine can read")
        assert warning["hint"] == f"chmod 600 {site.config_path}"
        process.send(signal.SIGHUP)
        process.until_logged("config.warning", 2)
        assert process.stop() == 0
    assert [line["text"] for line in process.lines() if "text" in line] == []


def test_sighup_refuses_another_state_directory(tmp_path, vendor):
    """The queue cannot move under a running daemon: it is refused in clear words, and nothing changes."""
    emulator, _till = vendor
    site = Installation(tmp_path, emulator.url)
    with site.start_ready() as process:
        site.extra = {"state_dir": "elsewhere", "shutdown_grace": "1s"}
        site.write_config()
        process.send(signal.SIGHUP)
        (refusal,) = process.until_logged("config.refused")
        assert refusal["place"].startswith(str(site.config_path))
        assert "state_dir" in refusal["reason"]
        assert "restart" in refusal["reason"]
        site.drop("a.wav", audio(1))
        process.until_logged("file.done")
        assert process.stop() == 0
        assert not process.logged("config.reloaded")
    assert not (tmp_path / "elsewhere").exists()


def test_sighup_with_a_new_key_probes_the_held_provider_at_once(tmp_path, vendor):
    """A provider held for a bad key does not wait out its hold once the key is another one."""
    emulator, till = vendor
    hold = {"hold": {"first": "1h", "max": "1h"}}
    site = Installation(tmp_path, emulator.url, provider={"api_key": "sk_wrong_key"}, extra=hold)
    site.drop("a.wav", audio(1))
    with site.start() as process:
        process.until_logged("provider.held")
        site.provider = {}
        site.write_config()
        process.send(signal.SIGHUP)
        process.until_logged("file.done", seconds=10)
        assert process.logged("provider.released")
        assert process.stop() == 0
    assert sum(till.paid.values()) == 1
    assert site.ask("status")["providers"]["pulse"]["state"] == "ready"


def test_sighup_again_and_again_while_busy(tmp_path, vendor):
    """Reloads by the dozen, good and bad, while files come and go: all end once, nothing is paid twice."""
    emulator, till = vendor
    site = Installation(tmp_path, emulator.url)
    names = [str(number) for number in range(40)]
    emulator.fail(*[Fault(delay_seconds=0.1)] * len(names))
    with site.start_ready() as process:
        for number, name in enumerate(names):
            site.drop(f"{name}.wav", audio(number))
            site.provider = {"concurrency": 1 + number % 4, "timeout": 60 + number}
            site.rule = {"settle": f"{100 + number}ms"}
            if number % 5:
                site.write_config()
            else:
                site.write_config("folders: [")
            process.send(signal.SIGHUP)
        site.write_config()
        reloads = len(process.logged("config.reloaded"))
        process.send(signal.SIGHUP)
        process.until_logged("config.reloaded", reloads + 1)
        process.until_logged("file.done", len(names))
        assert process.stop() == 0
    assert tree(site.done) == groups(*names)
    assert tree(site.inbox) == set()
    assert till.paid == {digest(audio(number)): 1 for number in range(len(names))}


EARLY_RELOAD = """
import os, signal, sys
from importlib.abc import MetaPathFinder

class Reload(MetaPathFinder):
    def find_spec(self, name, *_):
        if name == "dropscribe.cli.commands.run":
            os.kill(os.getpid(), signal.SIGHUP)

sys.meta_path.insert(0, Reload())
from dropscribe.cli.main import main
sys.exit(main())
"""


def test_a_reload_while_the_program_is_loaded_is_not_lost(tmp_path, vendor):
    """A SIGHUP before the daemon is there ends nothing; the config is read again after the start."""
    emulator, _till = vendor
    site = Installation(tmp_path, emulator.url)
    with site.start(program=EARLY_RELOAD) as process:
        process.until_logged("config.reloaded")
        assert process.stop() == 0


def test_a_stop_during_the_start_is_clean(tmp_path, vendor):
    """SIGTERM as soon as it watches, with files that have not settled: exit 0, and they wait."""
    emulator, till = vendor
    site = Installation(tmp_path, emulator.url, rule={"settle": "30s"})
    site.drop("a.wav", audio(1))
    with site.start() as process:
        process.until_logged("daemon.ready")
        assert process.stop() == 0
    assert tree(site.inbox) == {"a.wav"}
    assert not till.paid


@pytest.mark.slow
def test_status_tells_what_is_in_flight(tmp_path, vendor):
    """While an upload runs, status counts it once, as transcribing; after the end as done."""
    emulator, _till = vendor
    site = Installation(tmp_path, emulator.url)
    emulator.fail(Fault(delay_seconds=5.0))  # longer than a command takes on loaded cores
    site.drop("a.wav", audio(1))
    with site.start() as process:
        in_flight(emulator, process, 1)
        status = site.status()
        assert [status[key] for key in ("settling", "queued", "transcribing", "done")] == [0, 0, 1, 0]
        process.until_logged("file.done")
        wait_until(lambda: site.status()["done"] == 1, "status to tell it")
        assert process.stop() == 0
