"""``dropscribe forget``: the answers that are kept of a recording go."""

from __future__ import annotations

import hashlib
import time

import pytest

from dropscribe.core.budget import AnswerKey
from dropscribe.core.model import FileSnapshot, Job, JobState
from dropscribe.queue.sql import result_cache
from support.scene import wav_bytes


def remember(store, content: bytes) -> None:
    """Two answers to *content*, in different languages."""
    snapshot = FileSnapshot(1, 2, len(content), 3)
    now = time.time()
    job = Job(
        *(1, "calls", b"a.wav", snapshot), True, False, JobState.TRANSCRIBING, received_at=now, due_at=now
    )
    digest = hashlib.sha256(content).hexdigest()

    def write(db):
        for settings in ("en", "de"):
            result_cache.write_answer(db, AnswerKey(digest, settings), job, b"{}", now)

    store.call(write).result()


def entries(store) -> int:
    """How many answers are kept."""
    return store.call(lambda db: db.execute("SELECT count(*) FROM ledger").fetchone()[0]).result()


@pytest.mark.parametrize("by", ["file", "digest", "DIGEST"])
def test_every_answer_to_a_recording_goes(scene, capsys, by):
    """By the file or by its digest, while the daemon has the queue."""
    content = wav_bytes()
    file = scene.drop("a.wav", content, "done")
    digest = hashlib.sha256(content).hexdigest()
    with scene.queue() as store:
        remember(store, content)
        remember(store, b"another")
        named = {"file": file, "digest": digest, "DIGEST": digest.upper()}[by]
        assert scene.run("forget", named) == 0
        assert entries(store) == 2
    assert "2 answers forgotten" in capsys.readouterr().out
    assert file.exists()


def test_forgetting_works_with_the_daemon_down(scene):
    """The queue's file is all that it needs."""
    with scene.queue() as store:
        remember(store, b"another")
    assert scene.run("forget", hashlib.sha256(b"another").hexdigest()) == 0
    with scene.queue() as store:
        assert entries(store) == 0


def test_what_is_forgotten_is_not_left_in_the_file(scene):
    """The bytes of the answer are overwritten, not only unlinked from the table."""
    marker = hashlib.sha256(b"x").digest() * 40
    with scene.queue() as store:
        sql = "INSERT INTO ledger (sha256, settings, size_bytes, kept_at, folder, job_id, document)"
        row = ("ab" * 32, "en", 1, 1.0, "calls", 1, marker)
        store.call(lambda db: db.execute(f"{sql} VALUES (?, ?, ?, ?, ?, ?, ?)", row)).result()
    assert marker in (scene.root / "state/queue.db").read_bytes()
    assert scene.run("forget", "ab" * 32) == 0
    assert marker not in (scene.root / "state/queue.db").read_bytes()


@pytest.mark.parametrize("name", ["nothing.wav", "ab" * 32])
def test_what_is_not_known_is_told(scene, capsys, name):
    """A file that is not there, or a digest that was never heard of: 74, and a line that names it."""
    assert scene.run("forget", name) == 74
    assert name[:64] in capsys.readouterr().err


def test_a_wrong_file_does_not_stop_the_others(scene, capsys):
    """As with retry: each wrong one is told, and one that is named twice is none."""
    file = scene.drop("a.wav", b"another", "done")
    with scene.queue() as store:
        remember(store, b"another")
    assert scene.run("forget", "nothing.wav", file, file, scene.root) == 74
    said = capsys.readouterr()
    assert said.out == f"{file}: 2 answers forgotten\n"
    assert (
        said.err
        == f"dropscribe: nothing.wav: nothing is there\ndropscribe: {scene.root}: not a regular file\n"
    )
