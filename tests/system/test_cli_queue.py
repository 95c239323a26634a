"""``queue export`` and ``queue import``, and what a node takes along: what was paid for is paid for once."""

from __future__ import annotations

import json
import signal
import sqlite3
import subprocess

import pytest

from dropscribe.cli import exit_codes
from support.daemon_process import COMMAND, Installation
from support.daemon_process import _environment as environment
from support.house import digest, read_json

RECORDING = b"a recording that is paid for once " * 20


@pytest.fixture
def site(tmp_path, vendor):
    """A machine with a queue of its own, whose done cannot be made while ``blocked`` is a file."""
    folder = tmp_path / "site"
    rule = {part: str(folder / "blocked" / part) for part in ("done", "failed")}
    provider = {"price_per_minute": 6.0, "budget": {"per_month": 1000}}
    return Installation(folder, vendor[0].url, rule=rule, provider=provider)


def keep_an_answer(site, *, name="call.wav", content=RECORDING):
    """The daemon has an answer that it cannot file, and is stopped."""
    blocked = site.root / "blocked"
    blocked.write_text("in the way")
    site.drop(name, content)
    with site.start_ready() as process:
        process.until_logged("file.not_filed")
        assert process.stop() == exit_codes.OK
    blocked.unlink()
    assert (site.inbox / name).exists()


def with_queue(site, dsn, *, state_dir="state"):
    """The same machine as a node of a cluster."""
    queue = {"type": "postgres", "dsn": dsn, "node": "n0", "roots": {"share": str(site.root)}}
    site.extra = {"queue": queue, "state_dir": state_dir}
    site.write_config()


def without_queue(site, *, state_dir):
    """The same machine with a queue of its own again."""
    site.extra = {"state_dir": state_dir}
    site.write_config()


def ask(site, *words):
    """(exit code, what was printed) of a command."""
    call = [*COMMAND, *map(str, words), "-c", str(site.config_path)]
    ran = subprocess.run(call, env=environment(), capture_output=True, text=True, timeout=60, check=False)
    assert "Traceback" not in ran.stderr
    return ran.returncode, ran.stdout + ran.stderr


def spent(site):
    """Money that the month has cost at the provider."""
    return site.ask("status")["providers"]["pulse"]["budget"]["per_month"]["spent"]


def assert_filed_and_paid_once(site, till, name="call"):
    assert (site.done / f"{name}.wav").read_bytes() == RECORDING
    assert read_json(site.done / f"{name}.json")["source"]["sha256"] == digest(RECORDING)
    assert not (site.inbox / f"{name}.wav").exists()
    assert till.paid == {digest(RECORDING): 1}


def test_a_kept_answer_goes_into_a_cluster_by_a_file(site, vendor, postgres_dsn, tmp_path):
    """Export, import, import again; a node files it, without an upload, and what was spent is known there."""
    keep_an_answer(site)
    money = spent(site)
    file = tmp_path / "moved.jsonl"
    assert ask(site, "queue", "export", file)[0] == exit_codes.OK
    assert file.stat().st_mode & 0o777 == 0o600
    with_queue(site, postgres_dsn, state_dir="state-of-node")
    first, again = ask(site, "queue", "import", file), ask(site, "queue", "import", file)
    assert "1 file with a kept answer, 1 answer of the ledger" in first[1]
    assert "0 files with a kept answer, 0 answers of the ledger, 0 amounts spent" in again[1]
    assert spent(site) == pytest.approx(money)
    assert money > 0
    assert site.status()["publishing"] == 1
    assert site.run_once() == exit_codes.OK
    assert_filed_and_paid_once(site, vendor[1])
    assert "0 files with a kept answer" in ask(site, "queue", "import", file)[1]
    assert site.status()["done"] == 1
    assert site.status()["publishing"] == 0


def test_the_way_back_leads_to_a_queue_of_its_own(site, vendor, postgres_dsn, tmp_path):
    """From a cluster that is at rest into a state directory; an answer of the ledger serves there too."""
    with_queue(site, postgres_dsn)
    keep_an_answer(site)
    money = spent(site)
    assert ask(site, "queue", "export", tmp_path / "moved")[0] == exit_codes.OK
    without_queue(site, state_dir="own-again")
    assert ask(site, "queue", "import", tmp_path / "moved")[0] == exit_codes.OK
    assert spent(site) == pytest.approx(money)
    site.drop("twin.wav", RECORDING)
    assert site.run_once() == exit_codes.OK
    assert_filed_and_paid_once(site, vendor[1])
    assert_filed_and_paid_once(site, vendor[1], "twin")


def test_there_and_back_adds_nothing_up(site, postgres_dsn, tmp_path):
    """What was spent is known by the queue that spent it, whichever way it came."""
    keep_an_answer(site)
    money = spent(site)
    assert ask(site, "queue", "export", tmp_path / "there")[0] == exit_codes.OK
    with_queue(site, postgres_dsn, state_dir="state-of-node")
    assert ask(site, "queue", "import", tmp_path / "there")[0] == exit_codes.OK
    assert ask(site, "queue", "export", tmp_path / "back")[0] == exit_codes.OK
    without_queue(site, state_dir="state")
    assert ask(site, "queue", "import", tmp_path / "back")[0] == exit_codes.OK
    assert spent(site) == pytest.approx(money)
    assert site.status()["publishing"] == 1


def test_a_node_takes_along_what_its_own_queue_kept(site, vendor, postgres_dsn):
    """By itself, at its first start with a queue, once; there is nothing left to be paid again."""
    keep_an_answer(site)
    money = spent(site)
    with_queue(site, postgres_dsn)
    assert site.run_once() == exit_codes.OK
    assert_filed_and_paid_once(site, vendor[1])
    assert spent(site) == pytest.approx(money)
    logs = [(site.root / f"run-{number}.log").read_text() for number in (2,)]
    taken = [json.loads(line) for line in logs[0].splitlines() if '"queue.taken_along"' in line]
    assert [(each["jobs"], each["answers"]) for each in taken] == [(1, 1)]
    with sqlite3.connect(site.root / "state" / "queue.db") as own:
        assert own.execute("SELECT state FROM jobs").fetchall() == [("withdrawn",)]
        assert own.execute("SELECT count(*) FROM answers").fetchone() == (0,)
    own.close()
    assert site.run_once() == exit_codes.OK
    assert "queue.taken_along" not in (site.root / "run-3.log").read_text()
    assert site.status()["done"] == 1


def test_a_crash_between_there_and_here_takes_nothing_along_twice(site, vendor, postgres_dsn):
    """The answer stands in both: the next start lets go of it here, and counts nothing again."""
    keep_an_answer(site)
    money = spent(site)
    with_queue(site, postgres_dsn)
    assert site.run_once(crash_at="taken_along") == -signal.SIGKILL
    assert site.run_once() == exit_codes.OK
    assert_filed_and_paid_once(site, vendor[1])
    assert spent(site) == pytest.approx(money)
    folder = site.status()
    assert (folder["done"], folder["publishing"], folder["queued"]) == (1, 0, 0)


def test_what_cannot_go_along_stops_the_start(site, vendor, postgres_dsn, tmp_path):
    """A kept answer whose place no root has: said in words, nothing is paid for, and nothing is lost."""
    keep_an_answer(site)
    with_queue(site, postgres_dsn)
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "inbox").mkdir(parents=True)
    config = site.config()
    config["queue"]["roots"] = {"other": str(elsewhere)}
    memos = {part: str(elsewhere / part) for part in ("inbox", "done", "failed")}
    config["folders"]["memos"] = {**memos, "provider": "pulse"}
    site.write_config(json.dumps(config))
    assert site.run_once() == exit_codes.IO_ERROR
    assert "keeps answers that cannot go along" in (site.root / "run-2.log").read_text()
    with_queue(site, postgres_dsn)
    assert site.run_once() == exit_codes.OK
    assert_filed_and_paid_once(site, vendor[1])


def test_what_a_daemon_has_is_not_exported(site, postgres_dsn, tmp_path):
    """69 while it runs: with its own queue, and in a cluster on any node."""
    for _ in ("own", "cluster"):
        with site.start_ready() as process:
            if site.extra:
                process.until(lambda: site.ask("status")["nodes"], "a beat")
            code, words = ask(site, "queue", "export", tmp_path / "moved")
            assert code == exit_codes.IN_USE
            assert "stop" in words
            process.stop()
        with_queue(site, postgres_dsn)
    assert not (tmp_path / "moved").exists()


def test_nothing_is_overwritten_and_nothing_is_made_up(site, tmp_path):
    """No queue: 74. A file that is there: 74, and it stays as it is."""
    assert ask(site, "queue", "export", tmp_path / "moved")[0] == exit_codes.IO_ERROR
    keep_an_answer(site)
    (tmp_path / "moved").write_text("mine")
    code, words = ask(site, "queue", "export", tmp_path / "moved")
    assert (code, (tmp_path / "moved").read_text()) == (exit_codes.IO_ERROR, "mine")
    assert "nothing is overwritten" in words
    assert sorted(path.name for path in tmp_path.iterdir()) == ["moved", "site"]


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (lambda lines: lines[:-1], "torn"),
        (lambda lines: [*lines[:-2], lines[-1]], "torn"),
        (lambda lines: [lines[0], lines[1].replace(b"calls", b"cells"), *lines[2:]], "torn"),
        (lambda lines: [lines[0].replace(b"queue/1", b"queue/2"), *lines[1:]], "dropscribe.queue/2"),
        (lambda _: [b"{}\n"], "no file of"),
        (lambda _: [b"\x00\xff"], "no file of"),
    ],
    ids=["no end", "a line less", "changed", "newer", "JSON", "bytes"],
)
def test_a_file_that_is_not_whole_is_refused(site, tmp_path, harm, words):
    """Before anything of it is used."""
    keep_an_answer(site)
    file = tmp_path / "moved"
    assert ask(site, "queue", "export", file)[0] == exit_codes.OK
    file.write_bytes(b"".join(harm(file.read_bytes().splitlines(keepends=True))))
    without_queue(site, state_dir="other")
    code, said = ask(site, "queue", "import", file)
    assert code == exit_codes.IO_ERROR
    assert words in said
    assert not (site.root / "other").exists()
