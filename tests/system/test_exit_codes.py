"""Exit codes of ``run``, and the files that ``run --once`` waits for."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys

import pytest

from dropscribe.app.daemon import ONCE_HORIZON_SECONDS
from dropscribe.pipeline.attempts import LONGEST_LOOK_SECONDS
from support.daemon_process import Installation, wait_until
from support.emulator import Fault
from support.faults import mounted
from support.house import digest, tree
from support.scene import wav_bytes


@pytest.fixture
def site(tmp_path, vendor):
    """A config at the emulator."""
    return Installation(tmp_path, vendor[0].url)


def test_once_waits_for_quiet_times(site):
    """A file that must be quiet for a second first is done by its end: 0."""
    site.rule = {"settle": "1s"}
    site.write_config()
    site.drop("a.wav")
    assert site.run_once() == 0
    assert tree(site.done) == {"a.wav", "a.json", "a.txt"}


@pytest.mark.slow
def test_once_waits_for_the_second_name_of_a_file(site):
    """A hard link waits until the job of the first name has ended, and is done then: 0."""
    site.drop("a.wav")
    (site.inbox / "b.wav").hardlink_to(site.inbox / "a.wav")
    assert site.run_once() == 0
    assert tree(site.done) == {f"{stem}.{end}" for stem in "ab" for end in ("wav", "json", "txt")}


@pytest.mark.slow
def test_once_waits_until_a_deleted_file_is_known_to_be_gone(site):
    """The job of a file that was held, and that its owner has deleted, does not make each run end with 75."""
    site.rule = {"backlog": "ask"}
    site.write_config()
    audio = site.drop("a.wav")
    assert site.run_once() == 75
    audio.unlink()
    assert site.run_once() == 0
    assert site.ask("status")["folders"]["calls"]["held"] == 0


def test_a_rule_renamed_while_nothing_runs_takes_over_its_files(site, vendor):
    """A file that waited under the old name is no ghost in the queue: 0 by the next run, and it is filed."""
    emulator, _till = vendor
    emulator.fail(Fault(status=503, headers={"Retry-After": "600"}))
    site.drop("a.wav")
    assert site.run_once() == 75
    config = site.config()
    config["folders"] = {"renamed": config["folders"].pop("calls")}
    site.config_path.write_text(json.dumps(config))
    assert site.ask("status")["removed_folders"] == {"calls": 1}
    assert site.run_once() == 75
    status = site.ask("status")
    assert status["removed_folders"] == {}
    assert sum(status["folders"]["renamed"][key] for key in ("queued", "deferred")) == 1


@pytest.mark.slow
def test_a_renamed_rule_keeps_its_history(site, vendor):
    """What is done, failed and spent is the new name's, and ``retry`` finds the failed file at once."""
    emulator, _till = vendor
    site.rule = {"budget": {"per_day": "0.001min"}}
    site.write_config()
    done = site.drop("done.wav", wav_bytes())
    assert site.run_once() == 0
    emulator.fail(Fault(status=400, body={"error": "no audio"}))
    site.rule = {}
    site.write_config()
    site.drop("failed.wav", b"other audio")
    assert site.run_once() == 3
    config = site.config()
    config["folders"] = {"renamed": config["folders"]["calls"] | {"budget": {"per_day": "0.001min"}}}
    site.write_config(json.dumps(config))

    assert site.command("retry", "--all") == 0
    assert tree(site.inbox) == {"failed.wav"}
    assert site.run_once() == 75
    status = site.ask("status")["folders"]["renamed"]
    assert (status["done"], status["failed"], status["held"]) == (1, 0, 1)
    assert status["hold"]["reason"].startswith("the budget of 0.001 min a day is spent")
    assert [file["folder"] for file in site.ask("list", "--done")["files"]] == ["renamed"]
    assert site.ask("why", str(site.done / done.name))["state"] == "done"
    assert len(site.ask("search", "bytes")["files"]) == 1


@pytest.mark.slow
def test_why_and_list_know_the_files_of_a_rule_that_has_left_the_config(site, vendor, tmp_path):
    """One that waits, one that is done, and none that the queue has never seen."""
    emulator, _till = vendor
    done = site.drop("done.wav")
    assert site.run_once() == 0
    emulator.fail(Fault(status=503, headers={"Retry-After": "600"}))
    waiting, new = site.drop("waiting.wav", b"other audio"), site.drop("sub/new.wav", b"new audio")
    new.rename(tmp_path / "new.wav")
    assert site.run_once() == 75
    (tmp_path / "new.wav").rename(new)
    config = site.config()
    config["folders"] = {"others": config["folders"]["calls"] | {"inbox": str(tmp_path / "others/inbox")}}
    (tmp_path / "others/inbox").mkdir(parents=True)
    site.write_config(json.dumps(config))
    told = site.ask("why", str(waiting))
    assert (told["folder"], told["state"], len(told["attempts"])) == ("calls", "unavailable", 1)
    assert told["words"] == [
        "its folder calls is not in the config any more: it waits until the folder is there again"
    ]
    assert told["remedy"] == "add the folder calls again"
    listed = site.ask("list")["files"]
    assert [(file["folder"], file["state"], file["place"]) for file in listed] == [
        ("calls", "unavailable", str(waiting)),
        ("calls", "done", str(site.done / done.name)),
    ]
    assert listed[0]["reason"] == "its folder calls is not in the config any more"
    assert site.ask("why", str(new))["state"] == "unknown"
    for folders in (config["folders"], {"renamed": site.config()["folders"]["calls"]}):
        site.write_config(json.dumps(config | {"folders": folders}))
        told = site.ask("why", str(site.done / done.name))
        assert (told["folder"], told["state"]) == ("calls", "done")
        assert told["words"][0] == "its folder calls is not in the config any more"


@pytest.mark.slow
def test_a_start_that_fails_after_a_rename_can_be_undone(site, vendor):
    """The rows have the new name already; the old name takes them back."""
    emulator, _till = vendor
    emulator.fail(Fault(status=503, headers={"Retry-After": "600"}))
    site.drop("a.wav")
    assert site.run_once() == 75
    config = site.config()
    taken = socket.create_server(("127.0.0.1", 0))
    renamed = {**config, "folders": {"renamed": config["folders"]["calls"]}}
    renamed["http"] = {"listen": f"127.0.0.1:{taken.getsockname()[1]}"}
    with taken:
        site.write_config(json.dumps(renamed))
        assert site.run_once() == 74
    site.write_config(json.dumps(config))
    assert site.run_once() == 75
    status = site.ask("status")
    assert status["removed_folders"] == {}
    assert sum(status["folders"]["calls"][key] for key in ("queued", "deferred")) == 1


def test_once_waits_for_a_retry_that_is_due_soon(site, vendor):
    """A 503 with a retry after a second: done, 0."""
    emulator, _till = vendor
    emulator.fail(Fault(status=503, headers={"Retry-After": "1"}))
    site.drop("a.wav")
    assert site.run_once() == 0
    assert tree(site.done) == {"a.wav", "a.json", "a.txt"}


def test_once_does_not_wait_for_a_retry_that_is_due_late(site, vendor):
    """A 503 with a retry after ten minutes: 75, and the file is where it was."""
    emulator, _till = vendor
    emulator.fail(Fault(status=503, headers={"Retry-After": "600"}))
    site.drop("a.wav")
    assert site.run_once() == 75
    assert tree(site.inbox) == {"a.wav"}


def test_once_does_not_wait_for_a_long_pause(site, vendor):
    """A 429 with a retry after an hour pauses the provider: 75, and the files behind it are unsent."""
    emulator, _till = vendor
    emulator.fail(*[Fault(status=429, headers={"Retry-After": "3600"})] * 9)
    for name in "abcdef":
        site.drop(f"{name}.wav", name.encode())
    assert site.run_once() == 75
    assert tree(site.inbox) == {f"{name}.wav" for name in "abcdef"}


@pytest.mark.slow
def test_once_leaves_what_the_rate_limit_allows_late(site):
    """One request in ten minutes, two files: 75 after the first; the running daemon tells of the second."""
    site.provider = {"requests_per_minute": 0.1}
    site.write_config()
    for name in "ab":
        site.drop(f"{name}.wav", name.encode())
    assert site.run_once() == 75
    assert len(tree(site.inbox)) == 1
    (left,) = site.inbox.iterdir()
    with site.start_ready():  # the request of the run before counts
        limit = "the rate limit of provider pulse (requests_per_minute) allows its next"
        words = wait_until(lambda: _beginning(limit, site.ask("why", str(left))["words"]), "the rate limit")
        assert site.ask("status")["providers"]["pulse"]["next_request"]
    assert words[1] == "it is the next in the queue"
    assert left.exists()


def _beginning(words, told):
    return told if len(told) == 2 and told[0].startswith(words) else None


@pytest.mark.slow
def test_once_says_that_a_file_failed(site, vendor):
    """3 in the run in which it failed; 0 in the next, which had nothing to do with it."""
    _emulator, till = vendor
    till.refused.add(digest(b"no audio"))
    site.drop("bad.wav", b"no audio")
    site.drop("good.wav")
    assert site.run_once() == 3
    assert site.run_once() == 0


def test_once_left_waiting_outranks_failed(site, vendor):
    """One failed, and one that somebody is writing: 75, without waiting for the writer, which is named."""
    _emulator, till = vendor
    till.refused.add(digest(b"no audio"))
    site.drop("bad.wav", b"no audio")
    with (site.inbox / "open.wav").open("wb") as writer:
        writer.write(b"begun")
        writer.flush()
        with site.start("--once") as process:
            assert process.wait() == 75
            (left,) = process.logged("file.left")
    assert (left["folder"], left["path"]) == ("calls", "open.wav")
    assert "open" in left["reason"]
    assert tree(site.failed) == {"bad.wav", "bad.error.json"}
    assert tree(site.inbox) == {"open.wav"}


@pytest.mark.slow
def test_once_does_not_wait_for_a_held_provider(site):
    """A key that is not taken: 75, and every file is where it was."""
    site.provider = {"api_key": "sk_wrong"}
    site.write_config()
    for number in range(3):
        site.drop(f"{number}.wav")
    assert site.run_once() == 75
    assert len(tree(site.inbox)) == 3


def test_once_with_an_inbox_that_is_away(site):
    """It ends at once with 75: what such an inbox holds was not done."""
    site.inbox.rmdir()
    assert site.run_once() == 75
    assert not site.inbox.exists()


@pytest.mark.slow
def test_a_second_daemon_on_the_same_state_directory(site):
    """69 for the second, in words; the first one never notices."""
    with site.start_ready() as first:
        with site.start() as second:
            assert second.wait() == 69
            assert str(site.root / "state") in second.log_path.read_text()
        site.drop("a.wav")
        first.until_logged("file.done")
        assert first.stop() == 0


@pytest.mark.slow
def test_a_second_daemon_on_the_same_inbox(site):
    """69 also with a state directory of its own: two daemons would pay twice for each file."""
    other = site.root / "other.yaml"
    other.write_text(json.dumps(site.config() | {"state_dir": "other-state"}))
    with site.start_ready() as first:
        with site.start(config=other) as second:
            assert second.wait() == 69
            assert str(site.inbox) in second.log_path.read_text()
        assert first.stop() == 0


def test_one_inbox_by_two_paths(site):
    """69 also for two rules of one daemon, by a bind mount: and no other daemon is to be stopped."""
    with mounted(site.root / "memos", "--bind", site.inbox):
        config = site.config()
        memos = {"inbox": "memos", "done": "memos-done", "failed": "memos-failed", "provider": "pulse"}
        config["folders"]["memos"] = memos
        site.write_config(json.dumps(config))
        with site.start("--once") as process:
            assert process.wait() == 69
            said = process.log_path.read_text()
    assert "another rule of this daemon has it" in said
    assert "the other daemon" not in said


@pytest.mark.slow
def test_a_killed_daemon_leaves_no_lock(site):
    """Locks end with their process: a start right after SIGKILL is no second daemon."""
    with site.start_ready() as first:
        first.kill()
    assert site.run_once() == 0


def test_a_bad_config(site):
    """78, each problem as file:line:column: message, and no traceback."""
    site.write_config("providers: {pulse: {type: pulse}}\nfolder: {}\n")
    with site.start() as process:
        assert process.wait() == 78
        told = process.log_path.read_text()
    assert f"{site.config_path}:2:1: " in told
    assert "Traceback" not in told


def test_a_port_that_is_taken(site):
    """74, in words; nothing was sent."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        site.extra = {"http": {"listen": address}}
        site.write_config()
        site.drop("a.wav")
        with site.start() as process:
            assert process.wait() == 74
            told = process.log_path.read_text()
    assert address in told
    assert "Traceback" not in told
    assert tree(site.inbox) == {"a.wav"}


def test_without_proc_nothing_begins(site):
    """A bare chroot has no /proc, through which files are reached: 74 and the remedy, at once."""
    site.drop("a.wav")
    hidden = ["unshare", "--mount", "sh", "-c", 'mount -t tmpfs none /proc && exec "$@"', "sh"]
    if shutil.which("unshare") is None or subprocess.run([*hidden, "true"], check=False).returncode:
        pytest.skip("/proc cannot be hidden from a process here")
    command = [*hidden, sys.executable, "-m", "dropscribe", "run", "--once", "-c", str(site.config_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, "mount -t proc proc /proc" in done.stderr) == (74, True), done.stderr
    assert tree(site.inbox) == {"a.wav"}


def test_a_disk_that_stays_broken_ends_run_once():
    """Looks at a file that cannot be read become rarer than the retries that run --once waits for."""
    assert LONGEST_LOOK_SECONDS > ONCE_HORIZON_SECONDS
