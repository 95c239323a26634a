"""Records of one queue taken into another, in each direction, onto what may be there already."""

from __future__ import annotations

import contextlib
import os
import time
from dataclasses import replace
from zlib import crc32

import pytest

from dropscribe.core.errors import StoreError
from dropscribe.core.model import (
    AnswerKey,
    AttemptEnd,
    Booking,
    FileSnapshot,
    Group,
    JobState,
    NewJob,
    Scope,
    ScopeKind,
    Spending,
    StoredResult,
)
from dropscribe.core.routing import BACKLOG
from dropscribe.queue.embedded.store import Store
from dropscribe.queue.portable import read_records
from dropscribe.queue.sql import (
    attempt_rows,
    backlog,
    budget_usage,
    intake_queries,
    result_cache,
    rows,
    transactions,
)
from dropscribe.queue.taking_in import bring

INODE = (1 << 64) - 2
"""As some network file systems number theirs: more than SQLite holds."""

DAY = "2026-11-21"


def open_store(kind, root, request):
    """An empty queue of one kind whose folders are below *root*."""
    if kind == "embedded":
        return Store(root / "state")
    from dropscribe.queue.cluster.mount_map import MountMap
    from dropscribe.queue.cluster.store import ClusterStore

    dsn = request.getfixturevalue("postgres").new_database()
    return ClusterStore(dsn, MountMap({"share": root}), "one")


@pytest.fixture(params=[("embedded", "cluster"), ("cluster", "embedded"), ("embedded", "embedded")], ids=str)
def pair(request, tmp_path):
    """(from, to), each with folders of its own."""
    with contextlib.ExitStack() as stack:
        stores = []
        for name, kind in zip(("from", "to"), request.param, strict=True):
            (tmp_path / name).mkdir()
            stores.append(open_store(kind, tmp_path / name, request))
            stack.callback(stores[-1].close)
        yield stores


@pytest.fixture
def place(tmp_path):
    """Where the new config has the files put."""
    return lambda _folder, rejected: os.fsencode(tmp_path / "to" / ("failed" if rejected else "done"))


def do(store, work):
    return store.call(work).result()


def new_job(name=b"a.wav", *, is_stable=True):
    seen = FileSnapshot(7, crc32(name) if is_stable else INODE, 100, 1_700_000_000_123_456_789)
    return NewJob("calls", b"2026/" + name, seen, 1000.0, stable_inodes=is_stable)


def begun(db, new, provider="main"):
    """A job whose attempt runs."""
    intake_queries.submit(db, [new])
    (job_id,) = db.execute("SELECT max(id) FROM jobs").fetchone()
    return rows.begin_attempt(db, job_id, provider, 1001.0)


def kept(store, root, new=None, *, rejected=False, name=b"a"):
    """A job with a kept answer, booked."""
    group = Group(
        os.fsencode(root / ("failed" if rejected else "done")),
        b"2026",
        name + b".wav",
        (("json", name + b".json"), ("txt", name + b".txt")),
    )
    answer = StoredResult(b'{"text": "heard \\xc3\\xa9"}', "ab" * 32, group)
    spending = Spending(Scope(ScopeKind.PROVIDER, "main"), DAY, 1.5, 60.0)
    booking = Booking(AnswerKey("ab" * 32, "settings"), 1e9, (spending,))

    def write(db):
        job = begun(db, new or new_job(name + b".wav", is_stable=isinstance(store, Store)))
        moved = rows.keep(db, job, answer, AttemptEnd(2.5, 200), rejected=rejected)
        transactions.book(db, job, answer.document, booking, 1002.0)
        return moved

    return do(store, write), answer


def move(pair, place):
    """All of the first queue into the second."""
    reader = pair[0].open_reader()
    try:
        return bring(pair[1], list(read_records(reader)), pair[0].token, place)
    finally:
        reader.close()


def kept_rows(store):
    return do(store, lambda db: rows.kept_jobs(db, "TRUE", ()))


def amounts(store):
    sql = "SELECT money, seconds, unknown FROM spending WHERE kind = 'provider' AND name = 'main'"
    return [tuple(map(float, row)) for row in do(store, lambda db: db.execute(sql).fetchall())]


@pytest.mark.parametrize("rejected", [False, True])
def test_a_kept_answer_arrives_as_it_was(pair, place, tmp_path, rejected):
    """Its document, file, attempts and names; due at once, in the folders of the new config."""
    old, answer = kept(pair[0], tmp_path / "from", rejected=rejected)
    taken = move(pair, place)
    assert (taken.jobs, taken.answers, taken.spending, taken.known) == (1, 1, 1, 0)
    (job,) = kept_rows(pair[1])
    assert (job.path, job.attempts, job.provider, job.due_at) == (old.path, 1, "main", 0.0)
    assert job.state is (JobState.REJECTED if rejected else JobState.TRANSCRIBED)
    assert job.snapshot.same_audio(old.snapshot, stable_inodes=job.stable_inodes)
    assert job.stable_inodes is all(isinstance(store, Store) for store in pair)
    assert job.kept.document == answer.document
    assert job.kept.group.root == place("calls", rejected)
    assert job.kept.group.names == answer.group.names
    assert [tried.status for tried in do(pair[1], lambda db: attempt_rows.read_attempts(db, job.id))] == [200]
    reserved = do(pair[1], lambda db: db.execute("SELECT path FROM reservations").fetchall())
    assert {path for (path,) in reserved} == {job.kept.group.path(name) for name in answer.group.names}
    known = do(pair[1], lambda db: result_cache.read_answer(db, AnswerKey("ab" * 32, "settings"), 0.0))
    assert (known.document, known.filed) == (answer.document, None)
    assert amounts(pair[1]) == [(1.5, 60.0, 0.0)]


def test_a_second_time_changes_nothing(pair, place, tmp_path):
    """Not even after the first one's job has ended."""
    kept(pair[0], tmp_path / "from")
    move(pair, place)
    (job,) = kept_rows(pair[1])
    done = place("calls", False) + b"/2026/a.wav"
    do(pair[1], lambda db: rows.end(db, rows.standing_of(job), JobState.DONE, filed=done))
    taken = move(pair, place)
    assert (taken.jobs, taken.answers, taken.spending, taken.known) == (0, 0, 0, 3)
    assert kept_rows(pair[1]) == []
    assert amounts(pair[1]) == [(1.5, 60.0, 0.0)]


def test_what_was_spent_since_is_added_alone(pair, place, tmp_path):
    """A later export of the same queue: the difference counts."""
    kept(pair[0], tmp_path / "from")
    move(pair, place)
    more = Spending(Scope(ScopeKind.PROVIDER, "main"), DAY, 0.5, None)
    do(pair[0], lambda db: budget_usage.write_spending(db, more, 1003.0))
    do(pair[1], lambda db: budget_usage.write_spending(db, more, 1003.0))
    move(pair, place)
    assert amounts(pair[1]) == [(2.5, 60.0, 2.0)]


def test_what_waits_there_makes_room(pair, place, tmp_path):
    """The same file was found there again before: one job is left, with the answer."""
    kept(pair[0], tmp_path / "from")
    do(pair[1], lambda db: intake_queries.submit(db, [new_job()]))
    assert move(pair, place).jobs == 1
    states = do(pair[1], lambda db: db.execute("SELECT state FROM jobs ORDER BY id").fetchall())
    assert states == [("withdrawn",), ("transcribed",)]


def test_what_has_begun_there_stays(pair, place, tmp_path):
    """It is being paid for already, and its handler would be late."""
    kept(pair[0], tmp_path / "from")
    do(pair[1], lambda db: begun(db, new_job()))
    assert move(pair, place).jobs == 0
    states = do(pair[1], lambda db: db.execute("SELECT state FROM jobs").fetchall())
    assert states == [("transcribing",)]


def test_a_name_that_is_reserved_there_is_left_to_its_owner(pair, place, tmp_path):
    """Publishing finds another one where the name turns out to be taken."""
    kept(pair[0], tmp_path / "from")
    owner, _ = kept(pair[1], tmp_path / "to", new_job(b"other.wav"))
    assert move(pair, place).jobs == 1
    owners = do(pair[1], lambda db: db.execute("SELECT DISTINCT job_id FROM reservations").fetchall())
    assert owners == [(owner.id,)]
    assert len(kept_rows(pair[1])) == 2


def test_a_folder_is_past_its_first_start(pair, place, tmp_path):
    """A rule that asks does not take what is dropped now for a backlog."""
    kept(pair[0], tmp_path / "from")
    move(pair, place)
    do(pair[1], lambda db: backlog.begin(db, {"calls": True, "new": True}, time.time()))
    dropped = [replace(new_job(b"old.wav"), folder=folder) for folder in ("calls", "new")]
    do(pair[1], lambda db: intake_queries.submit(db, dropped))
    sql = "SELECT folder, pin FROM jobs WHERE state = 'queued' ORDER BY folder"
    assert do(pair[1], lambda db: db.execute(sql).fetchall()) == [("calls", ""), ("new", BACKLOG)]


def test_more_than_one_page(pair, place, tmp_path):
    """Pages and batches end where they end; every record goes once."""
    for number in range(70):
        kept(pair[0], tmp_path / "from", name=b"%d" % number)
    assert move(pair, place).jobs == 70
    assert len(kept_rows(pair[1])) == 70


def test_a_place_that_is_not_here_is_refused(request, tmp_path):
    """From a node without a root: nobody makes up a path of it."""
    (tmp_path / "to").mkdir()
    target = Store(tmp_path / "to" / "state")
    kept_record = {
        "document": b"{}",
        "sha256": "",
        "root": b"//share/done",
        "directory": b"",
        "audio": b"a",
        "sidecars": b"",
    }
    record = {
        "kind": "job",
        "id": 1,
        "folder": "gone",
        "directory": b"",
        "name": b"a.wav",
        "device": 1,
        "inode": 1,
        "size_bytes": 1,
        "mtime_ns": 1,
        "stable_inodes": False,
        "incomplete": False,
        "state": "transcribed",
        "provider": "main",
        "received_at": 1.0,
        "attempts": 1,
        "ambiguous": 0,
        "spent_seconds": 0.0,
        "kept": kept_record,
        "tries": [],
    }
    with contextlib.closing(target), pytest.raises(StoreError, match="is no place here"):
        bring(target, [record], "token", lambda _folder, _rejected: None)
