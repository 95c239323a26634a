"""``list``: the files themselves, newest first, with their place or the reason; and status names failures."""

from __future__ import annotations

import json
import re
import time

import pytest

from dropscribe.cli.main import build_parser, main
from dropscribe.core.model import AttemptEnd
from dropscribe.core.routing import BACKLOG
from support.scene import add_attempt, add_hold, add_job


@pytest.fixture
def mixed(scene):
    """A done, a failed, a queued and a settling file."""
    now = time.time()
    with scene.queue() as store:
        done = {"state": "done", "ended_at": now - 300, "provider": "main", "attempts": 1}
        add_job(store, scene, "old.wav", received_at=now - 400, filed=b"/srv/done/old.wav", **done)
        failed = {"state": "failed", "ended_at": now - 200, "filed": b"/srv/failed/bad.wav"}
        job_id = add_job(store, scene, "bad.wav", received_at=now - 300, **failed)
        add_attempt(store, job_id, now - 210, AttemptEnd(1.0, status=400, code="undecodable", reason="no"))
        add_job(store, scene, "queued.wav", received_at=now - 100)
    scene.drop("new.wav")
    return scene


def files_of(scene, capsys, *arguments) -> list[dict]:
    """What ``list --json`` prints."""
    assert scene.run("list", "--json", *arguments) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["schema"] == "dropscribe.list/1"
    return document["files"]


def test_doubtful_transcripts_are_found(scene, capsys):
    """--suspect lists done files whose .json warns of something that may be missing, and why says it too."""
    now = time.time()
    with scene.queue() as store:
        transcripts = {"cut.wav": ["incomplete_audio"], "fine.wav": [], "bare.wav": ["no_timestamps"]}
        for name, warnings in transcripts.items():
            audio = scene.drop(name, part="done")
            document = {"schema": "dropscribe.transcript/1", "warnings": warnings}
            audio.with_suffix(".json").write_text(json.dumps(document))
            add_job(store, scene, name, state="done", ended_at=now, filed=str(audio).encode())

    (found,) = files_of(scene, capsys, "--suspect")

    assert (found["place"].rpartition("/")[2], found["code"]) == ("cut.wav", "incomplete_audio")
    scene.run("why", scene.root / "done" / "cut.wav")
    assert "was incomplete when it was sent" in capsys.readouterr().out


def test_an_inbox_that_cannot_be_listed_is_named(mixed, capsys):
    """That no file of it is listed does not say that none waits."""
    (mixed.root / "inbox" / "new.wav").unlink()
    (mixed.root / "inbox").rmdir()
    assert mixed.run("list", "--waiting") == 0
    output = capsys.readouterr()
    assert "queued.wav" in output.out
    assert "folder calls" in output.err
    assert "is not there" in output.err
    assert mixed.run("list", "--waiting", "--json") == 0
    assert "is not there" in json.loads(capsys.readouterr().out)["unavailable"]["calls"]
    assert mixed.run("list", "--done") == 0
    assert capsys.readouterr().err == ""


def test_every_file_is_listed_newest_first(mixed, capsys):
    """Settling, queued, failed and done files stand in one list with their state and place."""
    found = [(file["state"], file["place"].rpartition("/")[2]) for file in files_of(mixed, capsys)]

    assert found == [
        ("settling", "new.wav"),
        ("queued", "queued.wav"),
        ("failed", "bad.wav"),
        ("done", "old.wav"),
    ]


@pytest.mark.parametrize(
    ("options", "names"),
    [
        (["--failed"], ["bad.wav"]),
        (["--done"], ["old.wav"]),
        (["--waiting"], ["new.wav", "queued.wav"]),
        (["--failed", "--done"], ["bad.wav", "old.wav"]),
        (["--since", "250s"], ["new.wav", "queued.wav", "bad.wav"]),
        (["--folder", "calls", "--limit", "1"], ["new.wav"]),
    ],
)
def test_options_choose_files(mixed, capsys, options, names):
    """State, age and number narrow the list."""
    found = [file["place"].rpartition("/")[2] for file in files_of(mixed, capsys, *options)]

    assert found == names


def test_a_failed_file_tells_its_reason(mixed, capsys):
    """The last attempt's code and reason stand beside the place, in the table and in JSON."""
    (failed,) = files_of(mixed, capsys, "--failed")
    assert (failed["code"], failed["reason"], failed["place"]) == ("undecodable", "no", "/srv/failed/bad.wav")

    assert mixed.run("list", "--failed") == 0
    assert "undecodable: no" in capsys.readouterr().out


def test_a_waiting_file_has_the_state_that_status_counts(scene, capsys):
    """Held by its provider, in the backlog, or deferred: with the reason of the hold or of the failure."""
    now = time.time()
    with scene.queue() as store:
        add_job(store, scene, "backlog.wav", received_at=now - 4, pin=BACKLOG)
        failure = {"code": "server_error", "reason": "try later", "provider": "main"}
        add_job(store, scene, "deferred.wav", received_at=now - 3, due_at=now + 900, **failure)
        before = files_of(scene, capsys)
        add_hold(store, since=now, next_probe_at=now + 60)
        after = files_of(scene, capsys)
    scene.run("status", "--json")
    counts = json.loads(capsys.readouterr().out)["folders"]["calls"]

    assert [(file["state"], file["code"], file["reason"]) for file in before] == [
        ("deferred", "server_error", "try later"),
        ("held", None, "waits until it is released (backlog: ask)"),
    ]
    assert [(file["state"], file["code"], file["reason"]) for file in after] == [
        ("held", "insufficient_quota", "no credit is left"),
        ("held", None, "waits until it is released (backlog: ask)"),
    ]
    assert (counts["held"], counts["queued"], counts["deferred"]) == (2, 0, 0)


def test_a_queued_file_that_has_changed_counts_once(scene, capsys):
    """It waits as before, in ``list`` and in ``status``, until the changed file has settled."""
    audio = scene.drop("call.wav")
    with scene.queue() as store:
        add_job(store, scene, "call.wav", received_at=time.time() - 9, pin=BACKLOG)
    audio.write_bytes(b"RIFF, and longer than before")

    (file,) = files_of(scene, capsys, "--waiting")
    scene.run("status", "--json")
    counts = json.loads(capsys.readouterr().out)["folders"]["calls"]

    assert file["state"] == "held"
    assert (counts["held"], counts["settling"]) == (1, 0)


def test_status_names_the_newest_failed_file(mixed, capsys):
    """A failure is not only counted."""
    assert mixed.run("status") == 0
    assert "/srv/failed/bad.wav" in capsys.readouterr().out

    assert mixed.run("status", "--json") == 0
    (failed,) = json.loads(capsys.readouterr().out)["newest_failed"]
    assert (failed["folder"], failed["code"]) == ("calls", "undecodable")


def test_a_folder_that_no_rule_has_is_a_mistake(mixed, capsys):
    """A misspelt name gets a suggestion and 78, not an empty list."""
    assert mixed.run("list", "--folder", "cals") == 78
    assert "calls" in capsys.readouterr().err


def test_an_empty_queue_lists_nothing(scene, capsys):
    """Before the first run there is nothing to list, and nothing is created."""
    assert scene.run("list") == 0
    assert capsys.readouterr().out == "no files\n"
    assert not (scene.root / "state").exists()


@pytest.mark.parametrize("limit", ["9223372036854775808", "9" * 26, "9" * 5000])
@pytest.mark.parametrize("command", [["list"], ["search", "word"]])
def test_a_limit_above_any_number_of_files(mixed, command, limit):
    """It is as good as no limit."""
    assert mixed.run(*command, "--limit", limit) == 0


@pytest.mark.parametrize("limit", ["0", "-1", "x", "1.5", "", "000"])
def test_a_limit_that_is_no_number_of_files(mixed, capsys, limit):
    """Usage, in words."""
    assert mixed.run("list", f"--limit={limit}") == 2
    assert f"argument --limit: {limit!r} is not a whole number from 1 up" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        ["list", "--folder", ""],
        ["search", "word", "--folder", ""],
        ["retry", "--folder", ""],
        ["release", "--folder", ""],
        ["status", "-c", ""],
        ["transcribe", "a.wav", "--provider", ""],
        ["transcribe", "a.wav", "--output", ""],
        ["transcribe", ""],
        ["why", ""],
        ["retry", ""],
        ["init", ""],
    ],
)
def test_an_empty_value_is_a_mistake(monkeypatch, tmp_path, capsys, arguments):
    """It does not mean the default, or all."""
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    assert capsys.readouterr().err.endswith(": the value is empty\n")


def test_the_ages_in_the_help_are_accepted(capsys):
    """Those that ``list --help`` gives as examples are ages that --since takes."""
    main(["list", "--help"])
    shown = re.search(r"--since AGE +files of the last ((?:\w+, )+)", capsys.readouterr().out)[1]
    ages = shown.removesuffix(", ").split(", ")
    assert [build_parser().parse_args(["list", "--since", age]).since for age in ages] == [
        1800,
        43200,
        172800,
    ]
