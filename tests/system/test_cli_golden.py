"""What the commands print, word by word: it is read by somebody who was called at night."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from pathlib import Path

import pytest

from dropscribe.core.model import AttemptEnd, ScopeKind
from support.scene import Scene, add_attempt, add_hold, add_job, comparable, wav_bytes

GOLDEN = Path(__file__).parent / "golden"

LONG_AGO_SECONDS = 2 * 3600 + 30 * 60 + 20  # 20 s of room for a slow machine
HOLD_SECONDS = 3600 + 20 * 60 + 20
PROBE_SECONDS = 2 * 3600 + 30 * 60 + 30


@pytest.fixture
def scene(monkeypatch):
    """A scene in a folder whose path is always as long, so that columns stay where they are."""
    root = Path(tempfile.mkdtemp(prefix="dropscribe-", dir="/tmp"))
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield Scene(root)
    shutil.rmtree(root)
    monkeypatch.undo()
    time.tzset()


@pytest.fixture
def golden(scene, capsys):
    """Compares what was printed with a file; GOLDEN=write in the environment writes it."""
    writes = os.environ.get("GOLDEN") == "write"

    def compare(name: str) -> None:
        printed = capsys.readouterr()
        found = comparable(printed.out + printed.err, scene.root)
        if writes:
            (GOLDEN / name).write_text(found)
        assert found == (GOLDEN / name).read_text()

    return compare


def test_check(scene, golden):
    """Check tells every folder and provider in tables, with what is wrong behind them."""
    (scene.root / "failed").rmdir()
    config = scene.config.read_text()
    scene.config.write_text(config + "  memos:\n    inbox: memos/inbox\n    provider: main\n")
    assert scene.run("check") == 0
    golden("check.txt")


def test_plan(scene, golden):
    """Plan tells of each file what would happen to it, and of each folder what it would cost."""
    scene.drop("2026/call.wav", wav_bytes(90))
    scene.drop("2026/empty.wav", b"")
    scene.drop("2026/cut.wav", wav_bytes(4)[:4000])
    scene.drop("memo.mp3", b"not a header in it")
    scene.drop("upload.wav.part")
    scene.drop("notes.pdf")
    scene.drop(b"caf\xe9.wav", wav_bytes(30))
    scene.drop("@eaDir/thumb.wav")
    (scene.root / "inbox" / "link.wav").symlink_to("memo.mp3")
    queued = scene.drop("queued.wav", wav_bytes(30))
    with scene.queue() as store:
        add_job(store, scene, queued.name)
    assert scene.run("plan") == 0
    golden("plan.txt")


def test_status_of_a_held_provider(scene, golden):
    """Status begins with what is wrong, and says when it is tried again."""
    now = time.time()
    with scene.queue() as store:
        for number in range(3):
            add_job(store, scene, f"{number}.wav", received_at=now - LONG_AGO_SECONDS)
        add_job(store, scene, "done.wav", state="done")
        add_job(store, scene, "failed.wav", state="failed")
        add_hold(store, since=now - HOLD_SECONDS, next_probe_at=now + PROBE_SECONDS)
        scene.write_live(settling=1, blocked=2)
        assert scene.run("status") == 0
    golden("status-held.txt")


def test_status_of_a_daemon_that_is_down(scene, golden):
    """A file that was dropped while the daemon is down is seen."""
    scene.drop("new.wav")
    assert scene.run("status") == 0
    golden("status-down.txt")


def test_status_when_all_is_well(scene, golden):
    """Nothing is wrong: one line says so."""
    with scene.queue() as store:
        add_job(store, scene, "done.wav", state="done")
        scene.write_live()
        assert scene.run("status") == 0
    golden("status-well.txt")


def test_why_a_file_waits_for_a_held_provider(scene, golden):
    """Why names the provider, the reason, the next try, and every attempt."""
    file = scene.drop("2026/call.wav")
    now = time.time()
    with scene.queue() as store:
        job_id = add_job(store, scene, "2026/call.wav", received_at=now - LONG_AGO_SECONDS)
        cut_off = AttemptEnd(0.0, code="interrupted", reason="the daemon ended", counted=False)
        add_attempt(store, job_id, now - LONG_AGO_SECONDS, cut_off)
        refused = AttemptEnd(0.4, 402, "insufficient_quota", "no credit is left", counted=False)
        add_attempt(store, job_id, now - HOLD_SECONDS, refused)
        # The provider's own word for it, which is not a budget of the config.
        add_hold(store, code="budget_exceeded", since=now - HOLD_SECONDS, next_probe_at=now + PROBE_SECONDS)
        add_hold(
            store,
            kind=ScopeKind.FOLDER,
            name="calls",
            since=now - HOLD_SECONDS,
            next_probe_at=now + PROBE_SECONDS,
        )
        scene.write_live()
        assert scene.run("why", file) == 0
    golden("why-held.txt")


def test_why_a_file_failed(scene, golden):
    """Why says where it is, the reason, and what to type."""
    failed = scene.drop("call.wav", part="failed")
    now = time.time()
    with scene.queue() as store:
        job_id = add_job(
            store,
            scene,
            "call.wav",
            state="failed",
            filed=os.fsencode(failed),
            provider="main",
            received_at=now - LONG_AGO_SECONDS,
            ended_at=now - HOLD_SECONDS,
        )
        rejected = AttemptEnd(1.2, 400, "invalid_audio", "the audio could not be decoded")
        add_attempt(store, job_id, now - HOLD_SECONDS, rejected)
    assert scene.run("why", failed) == 0
    golden("why-failed.txt")


def test_why_a_file_is_not_taken(scene, golden):
    """Why says which rule it stands in, and what about its name keeps it there."""
    file = scene.drop("upload.wav.part")
    assert scene.run("why", file) == 0
    golden("why-not-taken.txt")
