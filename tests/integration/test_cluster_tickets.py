"""Slots and tickets of a cluster, at the connection: batches begun anew, workers that died."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time

import pytest

pytest.importorskip("psycopg", reason="psycopg is not installed (extra `cluster`)")

from structlog.testing import capture_logs

from dropscribe.core.errors import StoreError
from dropscribe.core.model import AttemptEnd, JobState, OutputNames, StoredResult
from dropscribe.core.retry import RetryLimits
from dropscribe.queue.cluster import orphan_recovery, slot_limiter, ticket_rows
from dropscribe.queue.cluster.mount_map import MountMap
from dropscribe.queue.cluster.nodes import Node, beat
from dropscribe.queue.cluster.store import ClusterStore
from dropscribe.queue.folder_gate import FolderGate
from dropscribe.queue.model import Plan, ProviderLimits
from dropscribe.queue.patient_database import PatientDatabase
from dropscribe.queue.signals import Signals
from dropscribe.queue.sql import result_rows, rows

LANE = ProviderLimits("pulse", 8)
PLAN = Plan({"pulse": LANE}, {"calls": ("pulse",)})
LIMITS = RetryLimits(1.0, 2.0, 60.0, 3, 5)
JOB = (
    "INSERT INTO jobs (folder, directory, name, identity, stable_inodes, device, inode, size_bytes, mtime_ns,"
    " state, received_at, due_at, node) VALUES ('calls', ''::bytea, ?::bytea, ?::bytea, FALSE, 1, 1, 1, 1,"
    " ?, 0, 0, ?) RETURNING id"
)


@pytest.fixture
def store(postgres_dsn, tmp_path):
    with contextlib.closing(ClusterStore(postgres_dsn, MountMap({"share": tmp_path}), "n0")) as made:
        yield made


@pytest.fixture
def other(postgres_dsn, tmp_path, store):
    with contextlib.closing(ClusterStore(postgres_dsn, MountMap({"share": tmp_path}), "n1")) as made:
        yield made


def free_slots(store):
    """How many another node can have."""
    slots = slot_limiter.Slots()

    def look(db):
        count = sum(slots.take(db, LANE, ticket) for ticket in range(LANE.slots + 1))
        for ticket in range(LANE.slots + 1):
            slots.release(db, LANE.provider, ticket)
        return count

    return store.call(look).result()


def test_slots_that_were_let_go_of_are_everybodys(store, other):
    """However often this node took one beside its others: in time the server plans the question anew."""
    slots = slot_limiter.Slots()
    for ticket in range(LANE.slots):
        assert store.call(lambda db, ticket=ticket: slots.take(db, LANE, ticket)).result()
    assert free_slots(other) == 0
    for ticket in range(30):
        store.call(lambda db, ticket=ticket: slots.release(db, LANE.provider, ticket)).result()
        new = LANE.slots + ticket
        assert store.call(lambda db, new=new: slots.take(db, LANE, new)).result()
    for ticket in range(30, 30 + LANE.slots):
        store.call(lambda db, ticket=ticket: slots.release(db, LANE.provider, ticket)).result()
    assert free_slots(other) == LANE.slots


def test_a_slot_taken_in_a_batch_that_failed_is_not_lost(store, other):
    """Session locks outlive the rollback: the same ticket has the same slot in the transaction begun anew."""
    slots = slot_limiter.Slots()
    slots_taken = []

    def fail(db):
        raise KeyError

    def hold_up(db):
        """Has the next calls come as one batch."""
        time.sleep(0.05)

    store.call(hold_up)
    taking = [
        store.call(lambda db, ticket=ticket: slots_taken.append(slots.take(db, LANE, ticket)))
        for ticket in range(3)
    ]
    failing = store.call(fail)
    with pytest.raises(KeyError):
        failing.result()
    for each in taking:
        each.result()
    assert len(slots_taken) > 3  # else nothing was begun anew
    assert free_slots(other) == LANE.slots - 3
    for ticket in range(3):
        store.call(lambda db, ticket=ticket: slots.release(db, LANE.provider, ticket)).result()
    assert free_slots(other) == LANE.slots


def test_a_kept_answer_whose_worker_died_before_it_began_is_published_by_another(store):
    """Also where the node that had transcribed it is alive and well."""
    now = store.now()

    def prepare(db):
        beat(db, Node("n0", "here", "all", "1"), now, 0, now)
        job_id = db.execute(JOB, (b"a.wav", b"a", "transcribed", "n0")).fetchone()[0]
        ticket_rows.issue_tickets(db, PLAN, lambda new: [77 for _ in new], now)
        return job_id

    job_id = store.call(prepare).result()
    ask = "SELECT ticket FROM jobs WHERE id = ?"
    assert store.call(lambda db: db.execute(ask, (job_id,)).fetchone()).result() == (77,)
    cut_off, void = store.call(lambda db: orphan_recovery.take_back_silent(db, [77], LIMITS, now)).result()
    assert (cut_off, void) == ({}, [77])
    assert store.call(lambda db: db.execute(ask, (job_id,)).fetchone()).result() == (None,)


def test_a_ticket_that_ended_without_its_job_is_given_out_anew(store):
    """A node that stopped while the ticket waited for a slot leaves no file behind."""

    def prepare(db):
        tickets = []
        for name in (b"ended.wav", b"waiting.wav"):
            job_id = db.execute(JOB, (name, name, "queued", "")).fetchone()[0]
            ticket = db.execute(
                "INSERT INTO procrastinate_jobs (queue_name, task_name) VALUES ('pulse/calls', 'take')"
                " RETURNING id"
            ).fetchone()[0]
            db.execute("UPDATE jobs SET ticket = ?, lane = 'pulse' WHERE id = ?", (ticket, job_id))
            tickets.append(ticket)
        db.execute("DELETE FROM procrastinate_jobs WHERE id = ?", tickets[:1])
        return tickets[1]

    waiting = store.call(prepare).result()
    store.call(orphan_recovery.void_ended_tickets).result()
    ask = "SELECT ticket, lane FROM jobs ORDER BY id"
    assert store.call(lambda db: db.execute(ask).fetchall()).result() == [(None, ""), (waiting, "pulse")]


async def test_a_node_that_stops_waits_for_no_slot(store, other):
    """Another node may have the slots for as long as an upload takes."""
    theirs = slot_limiter.Slots()
    for ticket in range(LANE.slots):
        assert other.call(lambda db, ticket=ticket: theirs.take(db, LANE, ticket)).result()

    def prepare(db):
        job_id = db.execute(JOB, (b"a.wav", b"a", "queued", "")).fetchone()[0]
        ticket_rows.issue_tickets(db, PLAN, lambda new: [77 for _ in new], store.now())
        return job_id

    drawn = (store.call(prepare).result(), 77)
    asked = asyncio.Event()

    class AskedDatabase(PatientDatabase):
        async def do(self, work):
            result = await super().do(work)
            asked.set()
            return result

    limiter = slot_limiter.SlotLimiter(AskedDatabase(store, Signals()), store, "n0", FolderGate(Signals()))

    async def begin():
        async with limiter.begun(drawn, LANE) as job:
            return job

    waiting = asyncio.create_task(begin())
    await asked.wait()
    limiter.stop()
    assert await asyncio.wait_for(waiting, 30) is None


async def test_a_ticket_that_is_cancelled_while_its_transaction_waits_begins_no_attempt(store):
    """No coroutine would run the attempt: the row stays queued for another node."""

    def prepare(db):
        job_id = db.execute(JOB, (b"a.wav", b"a", "queued", "")).fetchone()[0]
        ticket_rows.issue_tickets(db, PLAN, lambda new: [77 for _ in new], store.now())
        return job_id

    job_id = store.call(prepare).result()
    database = PatientDatabase(store, Signals())
    limiter = slot_limiter.SlotLimiter(database, store, "n0", FolderGate(Signals()))
    is_free = threading.Event()

    async def begin():
        async with limiter.begun((job_id, 77), LANE):
            pass

    held_up = store.call(lambda _: is_free.wait(30))
    beginning = asyncio.create_task(begin())
    await asyncio.sleep(0)  # its transaction waits behind the one that is held up
    beginning.cancel()
    is_free.set()
    with pytest.raises(asyncio.CancelledError):
        await beginning
    held_up.result()
    ask = "SELECT state, attempts FROM jobs"
    assert await store.do(lambda db: db.execute(ask).fetchall()) == [("queued", 0)]


async def test_a_closed_store_answers(postgres_dsn, tmp_path):
    """Whoever writes after the end is told, and does not wait for ever."""
    store = ClusterStore(postgres_dsn, MountMap({"share": tmp_path}), "n0")
    store.close()
    with pytest.raises(StoreError, match="closed"):
        await asyncio.wait_for(store.do(ticket_rows.is_anything_in_flight), 30)
    PatientDatabase(store, Signals()).post(ticket_rows.is_anything_in_flight)


def test_what_a_living_node_has_begun_is_left_to_it(store):
    """Procrastinate's heartbeat of a worker that finishes what it has is no sign of death."""
    now = store.now()

    def prepare(db):
        beat(db, Node("n0", "here", "all", "1"), now, 0, now)
        job_id = db.execute(JOB, (b"a.wav", b"a", "transcribing", "n0")).fetchone()[0]
        db.execute("UPDATE jobs SET ticket = 77, lane = 'pulse' WHERE id = ?", (job_id,))

    store.call(prepare).result()
    assert store.call(lambda db: orphan_recovery.take_back_silent(db, [77], LIMITS, now)).result() == ({}, [])
    later = now + 60
    cut_off, void = store.call(lambda db: orphan_recovery.take_back_silent(db, [77], LIMITS, later)).result()
    assert {name: [job.path for job in jobs] for name, jobs in cut_off.items()} == {"n0": [b"a.wav"]}
    assert void == [77]


def test_each_silent_node_is_told_of_with_its_own_files_once_they_are_taken_back(store):
    """A look that is rolled back and begun anew says nothing."""

    def prepare(db):
        for node, name in (("n1", b"a"), ("n2", b"b"), ("n2", b"c")):
            db.execute(JOB, (name + b".wav", name, "transcribing", node))

    store.call(prepare).result()
    with capture_logs() as during:
        cut_off, _ = store.call(
            lambda db: orphan_recovery.take_back_silent(db, [], LIMITS, store.now())
        ).result()
    assert during == []
    with capture_logs() as told:
        orphan_recovery.tell_of_silent(cut_off)
    counts = {line["node"]: line["cut_off"] for line in told if line["event"] == "node.silent"}
    files = sorted(line["path"] for line in told if line["event"] == "attempt.interrupted")
    assert (counts, files) == ({"n1": 1, "n2": 2}, [b"a.wav", b"b.wav", b"c.wav"])


@pytest.mark.parametrize(
    ("row", "ends"),
    [
        ({}, True),
        ({"received_at": -20.0}, False),
        ({"received_at": -20.0, "code": "missing"}, True),
        ({"received_at": -5.0, "code": "missing"}, False),
        ({"state": "transcribing"}, False),
        ({"state": "transcribed"}, False),
        ({"state": "transcribed", "ticket": 77}, False),
        ({"ticket": 77}, True),
    ],
)
def test_what_waits_for_a_file_that_is_gone_ends(store, row, ends):
    """Unless it is so young that a share may not show its file yet, or a node has drawn it."""
    now = store.now()
    row = {"state": "queued", "code": "", "received_at": -100.0, "ticket": None} | row

    def look(db):
        job_id = db.execute(JOB, (b"a.wav", b"a", row["state"], "n1")).fetchone()[0]
        changes = "UPDATE jobs SET received_at = ?, code = ?, ticket = ? WHERE id = ?"
        db.execute(changes, (now + row["received_at"], row["code"], row["ticket"], job_id))
        return ticket_rows.withdraw(db, "calls", [(b"", b"a.wav"), (b"", b"b.wav")], "gone", now)

    assert store.call(look).result() == ([(b"", b"a.wav")] if ends else [])


def kept_as(tmp_path, name):
    """An answer with the names of its files."""
    names = OutputNames(bytes(tmp_path) + b"/done", b"", name + b".wav", (("json", name + b".json"),))
    return StoredResult(b"{}", "digest", names)


def keep(store, job, kept):
    return store.call(
        lambda db: result_rows.store_result(db, job, kept, AttemptEnd(1.0), rejected=False)
    ).result()


def test_a_node_that_thaws_takes_no_names_for_what_another_has_filed(store, other, tmp_path):
    """It is told that it is late, and the names are another file's for the asking."""

    def begin(db, name):
        (job_id,) = db.execute(JOB, (name + b".wav", name, "queued", "n0")).fetchone()
        return rows.begin_attempt(db, job_id, "pulse", 0.0)

    job = keep(store, store.call(lambda db: begin(db, b"a")).result(), kept_as(tmp_path, b"a"))
    other.call(lambda db: rows.end(db, rows.standing_of(job), JobState.DONE)).result()

    with pytest.raises(rows.LateTransitionError):
        keep(store, job, kept_as(tmp_path, b"a (2)"))

    next_job = other.call(lambda db: begin(db, b"b")).result()
    assert keep(other, next_job, kept_as(tmp_path, b"a (2)")) is not None
    assert store.call(lambda db: db.execute("SELECT job_id FROM answers").fetchall()).result() == [
        (next_job.id,)
    ]
