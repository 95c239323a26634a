"""``status`` and ``why``: with the daemon up or down, and for whom."""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import re
import sqlite3
import subprocess
import threading
import time

import pytest

from dropscribe.core.model import AttemptEnd, ScopeKind
from dropscribe.files.mounts import Mount, MountKind
from dropscribe.queue.embedded import store as embedded_store
from dropscribe.queue.model import NOT_MOVABLE
from dropscribe.reports import inbox_reader, timed_calls
from dropscribe.service.status import write_live
from support.daemon_process import Installation
from support.scene import CONFIG, Scene, add_attempt, add_hold, add_job, add_pause, json_of, wav_bytes

FOLDER_KEYS = {
    *(
        "available",
        "watch",
        "settling",
        "queued",
        "transcribing",
        "deferred",
        "held",
        "publishing",
        "blocked",
    ),
    *("done", "failed", "oldest_waiting", "hold"),
}
PROVIDER_KEYS = {"state", "reason", "since", "next_probe", "in_flight"}
NOBODY = 65534
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become somebody else")


@contextlib.contextmanager
def as_nobody():
    """This process with another user's rights meanwhile."""
    for command in ("status", "plan", "list", "retry", "why", "release", "forget"):
        importlib.import_module(f"dropscribe.cli.commands.{command}")
    importlib.import_module("dropscribe.service.process")  # main() loads it before the command
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


def test_without_a_folder_no_file_is_named_as_the_newest_failed(scene, capsys):
    """Files of a rule that is gone are no file of this config; list does not name them either."""
    with scene.queue() as store:
        add_job(store, scene, "old.wav", state="failed", ended_at=1.0)
    scene.config.write_text(CONFIG.partition("folders:")[0])
    assert json_of(scene, capsys, "status")["newest_failed"] == []
    assert json_of(scene, capsys, "list")["files"] == []


def test_before_the_first_run_all_is_zero_and_nothing_is_made(scene, capsys):
    """No database yet: zeros, every key, and the state directory is not created by asking."""
    document = json_of(scene, capsys, "status")
    assert (document["schema"], document["running"]) == ("dropscribe.status/1", False)
    assert document["folders"]["calls"].keys() >= FOLDER_KEYS
    assert document["providers"]["main"].keys() >= PROVIDER_KEYS
    assert document["folders"]["calls"]["queued"] == 0
    assert not (scene.root / "state").exists()


@pytest.mark.parametrize("command", ["status", "plan", "list", "why", "retry"])
def test_a_first_start_that_came_to_no_tables_is_no_queue_yet(scene, capsys, command):
    """On a full disk the database's file was made, and nothing was written into it."""
    file = scene.drop("call.wav")
    (scene.root / "state").mkdir()
    (scene.root / "state/queue.db").touch()
    arguments = {"why": [str(file)], "retry": ["--all"]}.get(command, [])
    assert scene.run(command, *arguments) == 0
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("command", ["status", "plan", "list", "why"])
def test_a_queue_that_cannot_be_read_is_an_error_in_words(scene, capsys, command):
    """Its tables are not those of a queue."""
    file = scene.drop("call.wav")
    (scene.root / "state").mkdir()
    path = scene.root / "state/queue.db"
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA user_version = 1")
    assert scene.run(command, *([str(file)] if command == "why" else [])) == 74
    assert f"{path}: was made by an older dropscribe (no such table" in capsys.readouterr().err


def test_a_mount_that_dies_during_the_look_is_not_waited_for(scene, capsys, monkeypatch):
    """It answered the listing, and then no more: status ends, and counts what it has seen."""
    answers = threading.Event()
    monkeypatch.setattr(timed_calls, "ANSWER_SECONDS", 0.2)
    monkeypatch.setattr(os, "access", lambda *_, **__: answers.wait(60))
    scene.drop("new.wav")
    began = time.monotonic()
    calls = json_of(scene, capsys, "status")["folders"]["calls"]
    assert time.monotonic() - began < 30
    assert (calls["settling"], calls["blocked"]) == (0, 1)
    answers.set()


def test_a_file_dropped_while_the_daemon_is_down_is_counted_once(scene, capsys):
    """New files settle; one that has a live row is counted by its row alone."""
    scene.drop("new.wav")
    scene.drop("left-alone.pdf")
    scene.drop("known.wav")
    with scene.queue() as store:
        add_job(store, scene, "known.wav")
    calls = json_of(scene, capsys, "status")["folders"]["calls"]
    assert (calls["settling"], calls["queued"]) == (1, 1)
    assert calls["oldest_waiting"] is not None


def test_an_inbox_that_is_away_is_unavailable_and_not_empty(scene, capsys):
    """While the daemon is down the inbox is looked at by the command itself."""
    (scene.root / "inbox").rmdir()
    calls = json_of(scene, capsys, "status")["folders"]["calls"]
    assert calls["available"] is False
    assert "is not there" in calls["reason"]


def test_what_the_running_daemon_says_is_passed_on(scene, capsys):
    """With a daemon on the state directory, settling and blocked are its own counts."""
    scene.drop("new.wav")
    with scene.queue():
        scene.write_live(settling=5, blocked=2)
        document = json_of(scene, capsys, "status")
    assert document["running"] is True
    assert (document["folders"]["calls"]["settling"], document["folders"]["calls"]["blocked"]) == (5, 2)
    assert document["providers"]["main"]["in_flight"] == 1


def test_a_queue_that_another_program_has_locked_needs_no_room(scene, capsys):
    """The status says how long nothing is sent, whatever the trouble is."""
    with scene.queue():
        write_live(scene.root / "state", {"trouble": "database is locked: queue.sqlite3"})
        assert scene.run("status") == 0
    assert "database is locked: queue.sqlite3: nothing is sent meanwhile" in capsys.readouterr().out


def test_a_full_disk_is_told_though_the_daemon_cannot_write_so(scene, capsys, monkeypatch):
    """The state directory is full: the daemon's report is as old as the last room for it."""
    file = scene.drop("call.wav")
    with scene.queue() as store:
        add_job(store, scene, file.name)
        scene.write_live()
        monkeypatch.setattr(embedded_store, "STATE_RESERVE_BYTES", 2**62)
        assert "the disk of the state directory is full" in told_by(scene, capsys, "status")
        assert "nothing is sent now: the disk of the state directory is full" in told_by(
            scene, capsys, "why", file
        )


@needs_root
@pytest.mark.parametrize("command", [("status",), ("plan",), ("why", "inbox/a.wav")])
def test_a_state_directory_that_is_roots_alone_says_so(scene, capsys, monkeypatch, command):
    """Another user is told as whom to ask, and gets 74, not zeros and no traceback."""
    with scene.queue():
        pass
    for folder in (scene.root, *scene.root.parents[:-2]):
        folder.chmod(0o755)
    scene.config.chmod(0o644)
    monkeypatch.chdir(scene.root)
    with as_nobody():
        code = scene.run(*command)
    errors = capsys.readouterr().err
    assert code == 74
    assert "only root may read it" in errors
    assert "sudo" in errors
    assert "Traceback" not in errors


def test_a_state_directory_that_is_a_file_is_nobodys_secret(scene, capsys):
    """No other user could read it."""
    (scene.root / "state").write_text("")
    assert scene.run("status") == 74
    assert capsys.readouterr().err == f"dropscribe: {scene.root}/state: Not a directory\n"


@needs_root
def test_a_queue_that_root_made_in_another_users_directory_is_roots(scene, capsys):
    """A run by root leaves files that the owner of the directory may not read: the message names one."""
    with scene.queue():
        pass
    for folder in (scene.root, *scene.root.parents[:-2]):
        folder.chmod(0o755)
    scene.config.chmod(0o644)
    os.chown(scene.root / "state", 65534, 65534)
    with as_nobody():
        code = scene.run("status")
    said = f"dropscribe: {scene.root}/state/lock: Permission denied\n  only root may read it"
    assert (code, capsys.readouterr().err[: len(said)]) == (74, said)


def state_of(scene, capsys, file) -> tuple[str, str]:
    """State and all the words that `why` has for *file*."""
    document = json_of(scene, capsys, "why", file)
    assert document["schema"] == "dropscribe.why/1"
    return document["state"], " ".join(document["words"])


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("call.wav.part", 'ends in ".part"'),
        (".hidden.wav", 'begins with "."'),
        ("notes.pdf", "suffix"),
        ("@eaDir/call.wav", "@eaDir"),
    ],
)
def test_why_a_name_is_not_taken(scene, capsys, name, words):
    """The reason is the rule's own, in words."""
    assert_words = state_of(scene, capsys, scene.drop(name))
    assert assert_words[0] == "not_taken"
    assert words in assert_words[1]


def test_why_says_that_a_provider_may_have_no_more_files(tmp_path, capsys):
    """With a budget, a file that the provider does not finish keeps the others waiting for a day."""
    budget = CONFIG.replace("0.006", "0.006\n    concurrency: 1\n    budget: {per_day: 5.00}")
    scene = Scene(tmp_path, budget)
    file = scene.drop("b.wav")
    with scene.queue() as store:
        add_job(store, scene, "b.wav")
        assert state_of(scene, capsys, file)[1] == "it is the next in the queue"
        add_job(store, scene, "a.wav", state="transcribing", provider="main", remote_id="1", remote_at=1e9)
        state, words = state_of(scene, capsys, file)
    assert state == "queued"
    assert words.startswith("provider main has 1 file, and may have no more at once, because of a budget;")


def test_why_says_which_attempt_was_answered(scene, capsys):
    """One that found a limit reached sent nothing."""
    file = scene.drop("a.wav")
    with scene.queue() as store:
        job_id = add_job(store, scene, "a.wav", state="rejected")
        add_attempt(store, job_id, time.time(), AttemptEnd(0.0, counted=False))
        add_attempt(store, job_id, time.time(), AttemptEnd(1.0))
    assert scene.run("why", file) == 0
    rows = capsys.readouterr().out.partition("OUTCOME\n")[2].splitlines()
    assert [row.partition(" s  -       ")[2] for row in rows if row] == ["nothing was sent", "answered"]


def test_why_a_name_that_no_file_can_have(scene, capsys):
    """Nothing is there; no folder is to blame."""
    assert state_of(scene, capsys, scene.root / "inbox" / ("x" * 300 + ".wav"))[0] == "unknown"


def test_why_a_symlink_is_not_taken(scene, capsys):
    """A link in an inbox is told from the file that it leads to."""
    link = scene.root / "inbox" / "link.wav"
    link.symlink_to(scene.drop("call.wav", part="done"))
    state, words = state_of(scene, capsys, link)
    assert state == "not_taken"
    assert "symlink" in words


def test_why_a_file_with_a_writer_waits(scene, capsys):
    """With the daemon down the command looks for a writer itself."""
    file = scene.drop("call.wav")
    with file.open("ab"):
        state, words = state_of(scene, capsys, file)
    assert state == "settling"
    assert "open for writing" in words


def test_why_a_cut_off_file_waits(scene, capsys):
    """Its own header speaks."""
    _, words = state_of(scene, capsys, scene.drop("call.wav", wav_bytes()[:2000]))
    assert "header says that more is to come" in words


@pytest.mark.parametrize(
    ("keys", "is_remote", "words"),
    [
        ("", False, "it is taken after 60 s of quiet"),
        ("", True, "it is taken after 300 s of quiet"),
        ("min_age: 10m", False, r"it is taken after (59\d|600) s of quiet"),  # less the file's own age
        ("settle_incomplete: 7s", True, "it is taken after 7 s of quiet"),
    ],
)
def test_why_names_the_quiet_time_that_the_daemon_waits_for(
    scene, capsys, monkeypatch, keys, is_remote, words
):
    """A share's is longer, and the rule's own keys count."""
    scene.config.write_text(CONFIG + (f"    {keys}\n" if keys else ""))
    if is_remote:
        share = Mount(0, MountKind.REMOTE, "nfs4")
        monkeypatch.setattr(inbox_reader.MountCache, "of", lambda *_: share)
    _, told = state_of(scene, capsys, scene.drop("call.wav", wav_bytes()[:2000]))
    assert re.search(words, told)


def test_why_and_plan_tell_how_long_min_age_delays_a_file(scene, capsys):
    """It is complete, and nothing else keeps it."""
    scene.config.write_text(CONFIG + "    min_age: 2h\n")
    _, told = state_of(scene, capsys, scene.drop("call.wav"))
    words = r"it is younger than min_age: it is taken in (1 h 59 min|2 h) unless it changes"
    assert re.search(words, told)
    (file,) = json_of(scene, capsys, "plan")["folders"]["calls"]["files"]
    assert re.fullmatch(words, file["reason"])


QUICK_REPORTS = """
import sys
from dropscribe.app import status_publisher
status_publisher._WAITS_SECONDS = 0.3
from dropscribe.cli.main import main
sys.exit(main())
"""


def test_the_wait_of_a_settling_file_is_told_as_it_is_now(tmp_path):
    """Not as it was when the daemon last looked at it, which does so less and less often."""
    site = Installation(tmp_path, "http://127.0.0.1:9", rule={"settle_incomplete": "1h"})
    file = site.drop("cut.wav", wav_bytes()[:2000])

    def is_told_between_two_looks():
        found = re.search(r"quiet for (\d+) s of 3600 s", str(site.ask("why", str(file))["words"]))
        return found and int(found[1]) in {*range(1, 5), *range(12, 19), *range(23, 39)}

    with site.start(program=QUICK_REPORTS) as process:
        process.until(is_told_between_two_looks, "a wait that is not one of a look")
        assert process.stop() == 0


IDLE_AT_ONCE = f"from dropscribe.intake import pending\npending.IDLE_WRITER_SECONDS = 0.0\n{QUICK_REPORTS}"


@pytest.mark.slow
def test_a_program_that_keeps_a_file_open_keeps_no_disk_awake(tmp_path):
    """The time that it does so is told as of the last look, and not written between two."""
    site = Installation(tmp_path, "http://127.0.0.1:9")
    file, live = site.drop("open.wav", wav_bytes()), tmp_path / "state/live.json"
    with file.open("ab"), site.start(program=IDLE_AT_ONCE) as process:
        process.until(lambda: live.exists() and "has not changed" in live.read_text(), "the idle writer")
        written = set()
        end = time.monotonic() + 6.0
        while time.monotonic() < end:
            written.add(live.stat().st_mtime_ns)
            time.sleep(0.05)
        assert process.stop() == 0
    assert len(written) <= 4


def test_why_a_file_that_stays_open_is_taken(scene, capsys):
    """Where the rule says so."""
    scene.config.write_text(f"{CONFIG}    settle: ignore_writers\n")
    file = scene.drop("call.wav")
    with file.open("ab"):
        _, words = state_of(scene, capsys, file)
    assert "open for writing: it is taken after 300 s without a change" in words


@pytest.mark.parametrize(
    "name",
    [
        *("call.json", "call.wav.json", "call.transcript.json", "call.srt", "call.minutes.txt"),
        *("call.xml", "CALL.WAV.meta", "call.wav.META"),
    ],
)
def test_why_knows_every_file_beside_a_filed_recording(tmp_path, capsys, name):
    """Transcripts of now and of earlier `outputs`, the template's output, companions in any case."""
    (tmp_path / "minutes.txt.j2").write_text("{{ audio }}")
    rule = (
        '    outputs: [json]\n    template: minutes.txt.j2\n    companions: ["{stem}.xml", "{name}.meta"]\n'
    )
    scene = Scene(tmp_path, CONFIG + rule)
    audio = scene.drop("CALL.WAV" if name.startswith("C") else "call.wav", part="done")
    with scene.queue() as store:
        filed = {"state": "done", "ended_at": time.time(), "filed": os.fsencode(audio)}
        add_job(store, scene, audio.name, **filed)
    assert state_of(scene, capsys, scene.drop(name, b"x", part="done"))[0] == "done"


def test_why_passes_on_what_the_running_daemon_says(scene, capsys):
    """The settling words of ``live.json`` are those of ``why``."""
    file = scene.drop("call.mp3", b"x")
    with scene.queue():
        scene.write_live(waiting={"call.mp3": "quiet for 1 s of 5 s"})
        state, words = state_of(scene, capsys, file)
    assert (state, "quiet for 1 s of 5 s" in words) == ("settling", True)


def told_by(scene, capsys, command, *arguments) -> str:
    """What the command prints for people, on one line."""
    assert scene.run(command, *arguments) == 0
    return " ".join(capsys.readouterr().out.split())


def test_a_pause_is_told_with_its_end(scene, capsys):
    """The provider is ready for programs and paused for people; a file's turn comes after the pause."""
    files = [scene.drop(f"{number}.wav") for number in range(3)]
    with scene.queue() as store:
        for number, file in enumerate(files):
            add_job(store, scene, file.name, received_at=time.time() - 9 + number)
        add_pause(store, time.time() + 3570)
        scene.write_live()
        provider = json_of(scene, capsys, "status")["providers"]["main"]
        status = told_by(scene, capsys, "status")
        whys = [state_of(scene, capsys, file) for file in files]
    assert (provider["state"], provider["next_probe"]) == ("ready", None)
    assert provider["paused_until"]
    assert re.search(r"provider main is paused: .*; the next one goes \d\d.* \(in 59 min\)", status)
    assert re.search(r"main +paused +1", status)
    for state, words in whys:
        assert state == "queued"
        assert re.search(r"^provider main is paused: .*; the next one goes \d\d.* \(in 59 min\)", words)
    assert [words.split("min) ")[-1] for _, words in whys] == [
        "it is the next in the queue",
        "1 file of its folder goes first",
        "2 files of its folder go first",
    ]


def test_a_held_provider_is_probed_after_its_pause(scene, capsys):
    """The probe's time is the pause's end, for programs, in ``status`` and in ``why``."""
    file = scene.drop("call.wav")
    now = time.time()
    with scene.queue() as store:
        add_job(store, scene, file.name)
        add_hold(store, since=now - 60, next_probe_at=now - 1)
        add_pause(store, now + 3570)
        scene.write_live()
        provider = json_of(scene, capsys, "status")["providers"]["main"]
        status = told_by(scene, capsys, "status")
        state, words = state_of(scene, capsys, file)
    assert provider["state"] == "held"
    assert provider["next_probe"] == provider["paused_until"]
    assert re.search(r"tried again \d\d.* \(in 59 min\)", status)
    assert state == "held"
    assert re.search(r"one file tries it again \d\d.* \(in 59 min\)", words)


def test_a_probe_that_is_due_goes_with_the_next_file(scene, capsys):
    """Its time is over, so ``why`` names no time."""
    file = scene.drop("call.wav")
    with scene.queue() as store:
        add_job(store, scene, file.name)
        add_hold(store, since=time.time() - 60, next_probe_at=time.time() - 1)
        scene.write_live()
        _state, words = state_of(scene, capsys, file)
    assert "the next file tries it again; when that goes well" in words


@pytest.mark.parametrize(("seconds", "told"), [(1.0, ""), (45.0, r"\(in 4\d s\)"), (6e301, r"\(in 36\d d\)")])
def test_why_tells_of_a_rate_limit(scene, capsys, seconds, told):
    """A wait of more than a few seconds has its reason and its end."""
    file = scene.drop("call.wav")
    with scene.queue() as store:
        add_job(store, scene, file.name)
        scene.write_live(next_starts={"main": time.time() + seconds})
        state, words = state_of(scene, capsys, file)
    limit = r"the rate limit of provider main \(requests_per_minute\) allows its next request \d\d.*"
    assert state == "queued"
    assert re.fullmatch(f"{limit}{told} " if told else "", words.removesuffix("it is the next in the queue"))


@pytest.mark.parametrize("is_provider_held", [False, True])
def test_why_a_file_of_a_held_rule_waits(scene, capsys, is_provider_held):
    """The provider refuses the rule's params: asking it once more would find nothing."""
    file = scene.drop("call.wav")
    with scene.queue() as store:
        if is_provider_held:
            add_hold(store, since=time.time(), next_probe_at=time.time() + 60)
        add_hold(
            store, kind=ScopeKind.FOLDER, name="calls", since=time.time(), next_probe_at=time.time() + 60
        )
        add_job(store, scene, "call.wav")
        scene.write_live()
        explanation = json_of(scene, capsys, "why", file)
    assert explanation["words"][0].startswith("rule calls is held")
    remedy = "correct the params of the rule or of its provider in the config, and reload it"
    assert explanation["remedy"] == remedy


def test_why_a_file_is_deferred(scene, capsys):
    """When it is tried again, and because of what."""
    file = scene.drop("call.wav")
    with scene.queue() as store:
        job_id = add_job(
            store, scene, "call.wav", due_at=time.time() + 600, code="http_503", reason="overloaded"
        )
        add_attempt(store, job_id, time.time(), AttemptEnd(1.0, 503, "http_503", "overloaded"))
        scene.write_live()
        document = json_of(scene, capsys, "why", file)
    assert document["state"] == "deferred"
    assert "http_503: overloaded" in document["words"][0]
    assert document["attempts"][0]["status"] == 503
    scene.run("status")
    assert "nothing is wrong" not in (printed := capsys.readouterr().out)
    assert "folder calls: 1 file to be tried again after a failure" in printed


def test_why_a_file_is_not_filed(scene, capsys):
    """A full disk under done: the transcript is kept, and nothing is paid again."""
    file = scene.drop("call.wav")
    with scene.queue() as store:
        add_job(
            store,
            scene,
            "call.wav",
            state="transcribed",
            due_at=time.time() + 60,
            code="ENOSPC",
            reason="done: No space left on device",
        )
        scene.write_live()
        state, words = state_of(scene, capsys, file)
    state_when_down, words_when_down = state_of(scene, capsys, file)
    assert state == state_when_down == "publishing"
    assert "No space left on device" in words
    assert "nothing is sent or paid for again" in words
    assert "could not be put into done: ENOSPC: done: No space left on device" in words_when_down
    assert "when dropscribe is started" in words_when_down


@pytest.mark.parametrize(("state", "wait_seconds"), [("queued", 60), ("queued", -60), ("transcribed", 60)])
def test_a_file_that_cannot_be_moved_says_why(scene, capsys, state, wait_seconds):
    """With the path and the remedy: by `status`, and by `why` with the daemon up or down."""
    file = scene.drop("a/call.wav")
    reason = f"{scene.root}/inbox/a: Permission denied; give uid 7 write access to it"
    with scene.queue() as store:
        due_at = time.time() + wait_seconds
        add_job(store, scene, "a/call.wav", state=state, due_at=due_at, code=NOT_MOVABLE, reason=reason)
        scene.write_live()
        assert scene.run("status") == 0
        told = " ".join(capsys.readouterr().out.split())
        _, words = state_of(scene, capsys, file)
    _, words_when_down = state_of(scene, capsys, file)
    assert reason in words
    assert reason in words_when_down
    assert "goes to done when" not in words_when_down
    if wait_seconds > 0:
        assert f"folder calls: 1 file cannot be moved; because: {reason}" in told


def test_a_folder_that_takes_no_files_is_named(scene, capsys):
    """With the running daemon's reason: first of all by `status`, and by `why` of each file that waits."""
    file = scene.drop("call.wav")
    reason = f"{scene.root}/done: Read-only file system"
    with scene.queue() as store:
        add_job(store, scene, "call.wav")
        scene.write_live(reason=reason)
        assert scene.run("status") == 0
        told = " ".join(capsys.readouterr().out.split())
        _, words = state_of(scene, capsys, file)
    assert f"but: folder calls takes nothing new: {reason}" in told
    assert f"its folder waits: {reason}" in words


@pytest.mark.parametrize(
    "asked", ["inbox/a/call.wav", "done/a/call-2.wav", "done/a/call-2.json", "done/a/call-2.txt"]
)
def test_a_done_file_is_known_by_every_name(scene, capsys, monkeypatch, asked):
    """Where it was dropped, where it is, and its sidecars lead to one story; relative paths do too."""
    filed = scene.drop("a/call-2.wav", part="done")
    scene.drop("a/call-2.json", b"{}", part="done")
    scene.drop("a/call-2.txt", b"hello\n", part="done")
    with scene.queue() as store:
        add_job(
            store,
            scene,
            "a/call.wav",
            state="done",
            filed=os.fsencode(filed),
            provider="main",
            ended_at=time.time(),
        )
    monkeypatch.chdir(scene.root)
    state, words = state_of(scene, capsys, asked)
    assert state == "done"
    assert str(filed) in words


def test_a_failed_file_whose_queue_was_lost_tells_by_its_error_file(scene, capsys):
    """The error file holds the reason when no row does."""
    failed = scene.drop("call.wav", part="failed")
    error = {"schema": "dropscribe.error/1", "file": "call.wav", "folder": "calls", "code": "too_long"}
    scene.drop("call.error.json", json.dumps({**error, "reason": "42 hours"}).encode(), part="failed")
    state, words = state_of(scene, capsys, failed)
    assert (state, "too_long: 42 hours" in words) == ("failed", True)
    error["reason"] = "half a letter: \ud83d"  # as JSON may have it, and no encoding
    scene.drop("call.error.json", json.dumps(error).encode(), part="failed")
    assert scene.run("why", failed) == 0
    assert "half a letter: \\ud83d" in capsys.readouterr().out
    state, words = state_of(scene, capsys, scene.drop("call.mp3", part="failed"))
    assert (state, "too_long" in words) == ("unknown", False)  # the error file is that of call.wav


def test_an_error_about_the_arguments_prints_no_name_as_it_is(scene, capsys):
    """A pattern of the shell may name more files than a command takes, and each can have any name."""
    assert scene.run("why", "a.wav", "\x1b]0;b\x07\u202e\udcff\nc.wav") == 2
    assert r"unrecognized arguments: \x1b]0;b\x07\u202e\udcff\nc.wav" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["a\nto do  rm -rf ~ 'x.wav", "b\x1b[2J\udcff\\.wav"])
def test_a_name_with_control_characters_writes_no_line_of_its_own(scene, capsys, name):
    """Each sentence stays on its line, and the remedy is a command that names the file."""
    with scene.queue() as store:
        file = scene.drop(name, part="failed")
        columns = {"state": "failed", "ended_at": time.time(), "provider": "main", "code": "undecodable"}
        add_job(store, scene, name, filed=os.fsencode(file), **columns)
        scene.write_live()
        assert scene.run("why", os.fsdecode(os.fsencode(file))) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[0] for line in lines[1:]] == ["rule", "state", "", "", "received", "to do"]
    assert "\x1b" not in "".join(lines)
    command = lines[-1].partition("dropscribe retry ")[2]
    printed = subprocess.run(["bash", "-c", f"printf %s {command}"], capture_output=True, check=True).stdout
    assert printed == os.fsencode(file)


def test_a_name_that_is_no_utf8(scene, capsys):
    """A recorder's Latin-1 name is a name like any other."""
    state, _ = state_of(scene, capsys, scene.drop(b"caf\xe9.wav"))
    assert state == "settling"


def test_a_file_outside_every_folder(scene, capsys, tmp_path):
    """It exists, so it is told about (0); a path that nobody knows is 74."""
    assert scene.run("why", scene.config) == 0
    assert "in no inbox, done or failed folder" in capsys.readouterr().out
    assert scene.run("why", scene.root / "done/") == 0
    assert "it is the done folder of calls: name a file in it" in capsys.readouterr().out
    assert scene.run("why", tmp_path / "inbox" / "nothing.wav") == 74
    assert scene.run("why", tmp_path / "elsewhere.wav") == 74


@needs_root
def test_an_unreadable_file_names_owner_mode_and_remedy(scene, capsys):
    """A recorder's 0600 is no failure: owner, mode, and what to do (asked as another user)."""
    file = scene.drop("call.wav")
    file.chmod(0o600)
    for folder in (scene.root, *scene.root.parents[:-2], scene.root / "inbox"):
        folder.chmod(0o755)
    scene.config.chmod(0o644)
    with as_nobody():
        code = scene.run("why", file)
    told = capsys.readouterr().out
    assert code == 0
    assert "blocked" in told
    assert "owner root, mode 0600" in told
    assert "chmod g+r" in told


@needs_root
@pytest.mark.parametrize("mode", [0o000, 0o444, 0o311])
def test_a_sub_folder_that_cannot_be_listed_is_named_with_the_remedy(scene, capsys, mode):
    """Its files are not taken for absent: owner, mode and remedy of the folder, by every command."""
    file = scene.drop("2026/05/call.wav")
    for folder in (scene.root, *scene.root.parents[:-2], *file.parents[1:3]):
        folder.chmod(0o755)
    file.parent.chmod(mode)
    os.chown(file.parent, NOBODY, NOBODY)
    scene.config.chmod(0o644)
    with as_nobody():
        told = [json_of(scene, capsys, "why", each) for each in (file, file.parent)]
        blocked = json_of(scene, capsys, "status")["folders"]["calls"]["blocked"]
        (listed,) = json_of(scene, capsys, "list", "--waiting")["files"]
        (planned,) = json_of(scene, capsys, "plan")["folders"]["calls"]["files"]
    reason = f"the folder 2026/05 cannot be listed: owner nobody, mode {mode:04o}: closed to uid {NOBODY}"
    remedy = "give it access (chmod u+rx, or an ACL)"
    for each in told:
        assert (each["state"], each["words"]) == ("blocked", [f"it may not be read: {reason}"])
        assert each["remedy"] == remedy
    assert blocked == 1
    assert (listed["state"], listed["place"]) == ("blocked", str(file.parent))
    for row in (listed, planned):
        assert f"mode {mode:04o}" in row["reason"]


@needs_root
def test_a_queued_file_in_a_closed_folder_says_so_first(scene, capsys):
    """Its job waits, and the reason is told before its turn in the queue."""
    file = scene.drop("2026/call.wav")
    for folder in (scene.root, *scene.root.parents[:-2], file.parents[1]):
        folder.chmod(0o755)
    with scene.queue() as store:
        add_job(store, scene, "2026/call.wav")
    for path in (scene.root / "state", *(scene.root / "state").iterdir()):
        os.chown(path, NOBODY, NOBODY)
    file.parent.chmod(0)
    scene.config.chmod(0o644)
    with as_nobody():
        document = json_of(scene, capsys, "why", file)
    assert document["state"] == "queued"
    assert document["words"][0].startswith("it may not be read: the folder 2026 cannot be listed: owner root")


@needs_root
def test_a_closed_folder_below_failed_is_not_taken_for_an_absent_file(scene, capsys):
    """`why` names the folder; `retry` says that it may not look."""
    file = scene.drop("2026/call.wav", part="failed")
    for folder in (scene.root, *scene.root.parents[:-2], *file.parents[1:2]):
        folder.chmod(0o755)
    file.parent.chmod(0)
    scene.config.chmod(0o644)
    with as_nobody():
        document = json_of(scene, capsys, "why", file)
        code = scene.run("retry", file)
    assert document["state"] == "blocked"
    assert "its folder 2026: owner root, mode 0000" in document["words"][0]
    assert code == 74
    assert "Permission denied" in capsys.readouterr().err


def test_root_is_told_which_folder_the_daemon_cannot_list(scene, capsys):
    """Whoever asks may list the folder; the daemon, which said that it cannot, is believed."""
    file = scene.drop("2026/05/secret.wav")
    said = "cannot be listed: owner root, mode 0700: closed to uid 999; give it access"
    with scene.queue():
        scene.write_live(blocked=1, waiting={"2026": said})
        document = json_of(scene, capsys, "why", file)
        listed = json_of(scene, capsys, "list")["files"][0]
    assert (document["state"], document["remedy"]) == ("blocked", "give it access")
    assert "the folder 2026 cannot be listed: owner root, mode 0700" in document["words"][0]
    assert listed["state"] == "blocked"
    assert "the folder 2026 cannot be listed" in listed["reason"]


def test_root_is_told_what_the_daemon_may_not_read(scene, capsys):
    """Whoever asks may read the file; the daemon, which said that it may not, is believed."""
    file = scene.drop("secret.wav")
    said = "may not be read: owner root, mode 0600: not readable by uid 999; give it read access"
    with scene.queue():
        scene.write_live(blocked=1, waiting={"secret.wav": said})
        assert json_of(scene, capsys, "why", file)["state"] == "blocked"
        assert json_of(scene, capsys, "list")["files"][0]["state"] == "blocked"
        (planned,) = json_of(scene, capsys, "plan")["folders"]["calls"]["files"]
    assert planned["reason"] == said


@needs_root
@pytest.mark.parametrize(
    ("command", "arguments"), [("status", []), ("release", ["--folder", "calls"]), ("forget", ["0" * 64])]
)
def test_another_users_queue_names_the_user_to_ask_as(scene, capsys, command, arguments):
    """Reports and commands that write the queue say the same."""
    with scene.queue():
        pass
    for folder in (scene.root, *scene.root.parents[:-2]):
        folder.chmod(0o755)
    scene.config.chmod(0o644)
    with as_nobody():
        assert scene.run(command, *arguments) == 74
    said = capsys.readouterr().err
    assert f"dropscribe: {scene.root}/state: Permission denied\n" in said
    assert "run: sudo dropscribe" in said
