"""Slots and tickets of a cluster, at the connection: batches begun anew, workers that died."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import threading
import time
from dataclasses import replace

import pytest

pytest.importorskip("psycopg", reason="psycopg is not installed (extra `cluster`)")

from structlog.testing import capture_logs

from dropscribe.config.notation.secret import Secret
from dropscribe.config.sections.queue import QueueConfig
from dropscribe.core.errors import StoreAway, StoreError
from dropscribe.core.model import (
    AtProvider,
    AttemptEnd,
    FileSnapshot,
    Hold,
    JobState,
    NewJob,
    OutputNames,
    Retry,
    Scope,
    ScopeKind,
    StoredResult,
)
from dropscribe.core.retry import RetryLimits
from dropscribe.queue.admission import Admission
from dropscribe.queue.cluster import nodes, ticket_rows
from dropscribe.queue.cluster.dispatcher import ClusterDispatcher, TicketRunner
from dropscribe.queue.cluster.nodes import Heartbeats, beat
from dropscribe.queue.cluster.postgres import MountMap
from dropscribe.queue.cluster.store import ClusterStore
from dropscribe.queue.cluster.ticket_workers import TicketWorkers
from dropscribe.queue.engine import Engine
from dropscribe.queue.intake import ClusterIntake
from dropscribe.queue.job_tasks import JobTasks
from dropscribe.queue.model import STUCK, NodeStats, Pause, Plan, ProviderLimits
from dropscribe.queue.retrying_database import RetryingDatabase
from dropscribe.queue.sql import (
    claims,
    hold_rows,
    intake_queries,
    result_rows,
    rows,
    stats,
    transactions,
)
from support.waiting import until

LANE = ProviderLimits("pulse", 8)
PLAN = Plan({"pulse": LANE}, {"calls": ("pulse",)})
CLAIMS = itertools.count(1)
DUE = claims.Limits(0, 16, 128, rooms={"calls": 64}, folders=("calls",), in_flight=(0,))
LIMITS = RetryLimits(1.0, 2.0, 60.0, 3, 5)
JOB = (
    "INSERT INTO jobs (folder, directory, name, identity, stable_inodes, device, inode, size_bytes, mtime_ns,"
    " state, received_at, due_at, node) VALUES ('calls', ''::bytea, ?::bytea, ?::bytea, FALSE, 1, 1, 1, 1,"
    " ?, 0, 0, ?) RETURNING id"
)


@pytest.fixture
def store(queue_dsn, tmp_path):
    with contextlib.closing(ClusterStore(queue_dsn, MountMap({"share": tmp_path}), "n0")) as made:
        yield made


@pytest.fixture
def other(queue_dsn, tmp_path, store):
    with contextlib.closing(ClusterStore(queue_dsn, MountMap({"share": tmp_path}), "n1")) as made:
        yield made


def admit(store):
    """A node's admission state, with the plan of all nodes."""
    admission = Admission(RetryingDatabase(store))
    admission.plan = PLAN
    return admission


def queue_file(store, name):
    """A file that waits for an attempt; returns its job's id."""
    return store.call(lambda db: db.execute(JOB, (name + b".wav", name, "queued", "")).fetchone()[0]).result()


def fetch(db, ago_seconds):
    """A worker whose last heartbeat is so old fetches all tickets."""
    worker = db.execute(
        "INSERT INTO procrastinate_workers (last_heartbeat) VALUES (now() - ? * interval '1 second')"
        " RETURNING id",
        (ago_seconds,),
    ).fetchone()
    db.execute("UPDATE procrastinate_jobs SET status = 'doing', worker_id = ?", worker)


def begin(store, node, claim_id=None):
    """Begin an attempt as *node*; None where none may start."""
    number = next(CLAIMS) if claim_id is None else claim_id
    claim = ticket_rows.claim
    return store.call(lambda db: claim(db, admit(store), "pulse", number, node, store.now())).result()


def fill_slots(store, node):
    """Begin as many attempts as the provider has slots; returns their jobs."""
    assert store.has_name
    for number in range(LANE.slots):
        queue_file(store, b"%s %d" % (node.encode(), number))
    jobs = [begin(store, node) for _ in range(LANE.slots)]
    assert [job.state for job in jobs] == [JobState.TRANSCRIBING] * LANE.slots
    return jobs


def count_tickets(db):
    return db.execute("SELECT count(*) FROM procrastinate_jobs").fetchone()[0]


def test_slots_are_shared_by_all_nodes_and_free_with_the_end_of_the_attempt(store, other, tmp_path):
    """Whether an answer is stored, the job goes to its provider's own queue, or it is tried again later."""
    jobs = fill_slots(other, "n1")
    for number in range(4):
        queue_file(store, b"%d" % number)
    assert begin(store, "n0") is None

    keep(other, jobs[0], kept_as(tmp_path, b"a"))
    postpone = Retry(60.0, "busy", "it is busy", None)
    other.call(lambda db: transactions.requeue(db, jobs[1], other.now() + 60, postpone)).result()
    other.call(lambda db: db.execute("UPDATE jobs SET remote_id = 'x' WHERE id = ?", (jobs[2].id,))).result()

    begun = [begin(store, "n0") for _ in range(4)]
    assert [job is not None for job in begun] == [True, True, True, False]


def test_a_dead_nodes_slots_are_free_at_once(store, queue_dsn, tmp_path):
    """Its name's lock ends with its session, long before its attempts are taken back."""
    with contextlib.closing(ClusterStore(queue_dsn, MountMap({"share": tmp_path}), "n1")) as dying:
        fill_slots(dying, "n1")
        queue_file(store, b"a")
        assert begin(store, "n0") is None
    deadline = time.monotonic() + 30
    while (begun := begin(store, "n0")) is None:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert begun.state is JobState.TRANSCRIBING


def test_a_passing_refusal_is_waited_out(store, postgres, queue_dsn):
    """A node that froze within a transaction, and a server that takes no writes for a while."""
    database = queue_dsn.rpartition("/")[2]

    def freeze(db):
        db.execute("SET idle_in_transaction_session_timeout TO '100ms'")
        time.sleep(0.5)
        db.execute("SELECT 1")

    def write(db):
        return db.execute("UPDATE facts SET value = value").rowcount

    with pytest.raises(StoreAway, match="idle-in-transaction"):
        store.call(freeze).result()
    assert store.call(write).result() == 1

    postgres.execute(f"ALTER DATABASE {database} SET default_transaction_read_only = on")
    store._connection.close()
    with pytest.raises(StoreAway, match="read-only"):
        store.call(write).result()
    postgres.execute(f"ALTER DATABASE {database} RESET default_transaction_read_only")
    assert store.call(write).result() == 1
    assert store.has_name


def test_a_query_that_ends_each_session_is_asked_twice_at_most(store):
    """The session may have ended long before; the one after it has not."""
    with contextlib.closing(store.open_reader()) as reader:
        with pytest.raises(StoreAway):
            reader.execute("SELECT pg_terminate_backend(pg_backend_pid())")
        assert reader.execute("SELECT 1").fetchone() == (1,)


async def test_a_node_whose_lost_session_lingers_keeps_its_slots(store, other, monkeypatch):
    """It connects anew before the server has missed the old session, which has the lock on its name."""
    monkeypatch.setattr(nodes, "BEAT_SECONDS", 0.05)
    node = NodeStats("n1", "here", "all", "1", other.now(), other.now(), 0)
    heartbeats = Heartbeats(other, node)
    fill_slots(other, "n1")
    queue_file(store, b"a")
    with contextlib.closing(other._connection.raw):
        other._connection.connect()
        other.has_name = False
        beating = asyncio.create_task(heartbeats.run(RetryingDatabase(other), ()))
        await other.do(lambda _: None)
        assert begin(store, "n0") is None
    ask = "SELECT count(*) FROM pg_locks WHERE pid = pg_backend_pid() AND classid = ?"
    async with asyncio.timeout(30):
        while await other.do(lambda db: db.execute(ask, (nodes.NODE_LOCKS,)).fetchone()) == (0,):  # noqa: ASYNC110 - a server has no Event
            await asyncio.sleep(0.05)
    beating.cancel()
    assert begin(store, "n0") is None


@pytest.mark.parametrize("seconds", [86_400.0, -3600.0])
def test_a_step_of_a_nodes_clock_changes_no_time_of_the_cluster(store, monkeypatch, seconds):
    """A pause that it writes then would end a day too late, and all other nodes would look silent."""
    before, time_by_clock = store.now(), time.time
    monkeypatch.setattr(time, "time", lambda: time_by_clock() + seconds)
    assert 0 <= store.now() - before < 60
    store.call(store.refresh_session).result()
    assert -1 < store.now() - before < 60


async def test_no_node_is_silent_by_a_step_of_the_servers_clock(store, monkeypatch):
    """Each of them has sent its last heartbeat by the clock before."""
    heartbeats = Heartbeats(store, NodeStats("n0", "here", "all", "1", store.now(), store.now(), 0))
    beating = asyncio.create_task(heartbeats.run(RetryingDatabase(store), ()))
    async with asyncio.timeout(30):
        while not heartbeats.has_beaten_for(0.01):  # noqa: ASYNC110 - it has no Event
            await asyncio.sleep(0.01)
    beating.cancel()
    monkeypatch.setattr("dropscribe.queue.cluster.store.read_ahead_seconds", lambda _: 3600.0)
    stepped_at = time.monotonic()
    await store.do(store.refresh_session)
    assert not heartbeats.has_beaten_for(time.monotonic() - stepped_at)
    assert heartbeats.has_beaten_for(0.0)


def test_a_batch_that_failed_takes_no_slot_twice(store):
    """Its calls are made anew, each alone: the same claim has one attempt and one slot."""
    assert store.has_name
    for number in range(9):
        queue_file(store, b"%d" % number)
    begun, own = [], admit(store)

    def fail(db):
        raise KeyError

    def hold_up(db):
        """Has the next calls come as one batch."""
        time.sleep(0.05)

    store.call(hold_up)
    beginning = [
        store.call(
            lambda db, number=number: begun.append(
                ticket_rows.claim(db, own, "pulse", number, "n0", store.now())
            )
        )
        for number in itertools.islice(CLAIMS, 3)
    ]
    failing = store.call(fail)
    with pytest.raises(KeyError):
        failing.result()
    for each in beginning:
        each.result()
    assert len(begun) > 3  # else nothing was begun anew
    ask = "SELECT count(*), sum(attempts) FROM jobs WHERE state = 'transcribing'"
    assert store.call(lambda db: db.execute(ask).fetchone()).result() == (3, 3)
    others = [begin(store, "n0") for _ in range(6)]
    assert [job is not None for job in others] == [True] * 5 + [False]


def test_a_claim_whose_confirmation_was_lost_finds_its_attempt(store):
    """It is not counted twice, and takes no second slot."""
    for name in (b"a", b"b"):
        queue_file(store, name)
    job = begin(store, "n0", claim_id=7)
    again = begin(store, "n0", claim_id=7)
    assert (again.id, again.attempts) == (job.id, 1)


def claim_due(store, node, running=(0,)):
    """The jobs that *node* takes to publish beside those that are *running* there."""
    limits = replace(DUE, in_flight=running)
    return store.call(lambda db: ticket_rows.claim_due(db, limits, node, store.now())).result()


def test_an_answer_is_published_by_one_node_at_a_time(store, tmp_path):
    """One that no task runs there, because no slot was free or a confirmation was lost, is anybody's."""
    queue_file(store, b"a")
    keep(store, job := begin(store, "n0"), kept_as(tmp_path, b"a"))
    assert claim_due(store, "n0", (0, job.id)) == claim_due(store, "n1") == []
    assert [each.result.document for each in claim_due(store, "n0")] == [b"{}"]
    assert [each.result.document for each in claim_due(store, "n0")] == [b"{}"]
    assert claim_due(store, "n1") == []
    store.call(lambda db: nodes.free_resumable(db, "n0")).result()
    assert [each.path for each in claim_due(store, "n1")] == [b"a.wav"]


def test_a_node_without_the_folders_of_jobs_at_providers_polls_none(store):
    """It counts them, because they take places of their provider."""
    limits = replace(DUE, publications=0, rooms={}, folders=())
    assert store.call(lambda db: ticket_rows.claim_due(db, limits, "n0", store.now())).result() == []


def test_a_node_without_a_folder_leaves_its_jobs_at_providers_to_others(store):
    """A node may have the folders and the providers alone that it is for; it took the jobs of all others."""
    queue_file(store, b"a")
    job = begin(store, "n0")
    sent = AtProvider("v-1", 60.0)
    store.call(lambda db: transactions.record(db, PLAN, job, sent, store.now())).result()

    def cleared(**chains):
        plan = Plan({"gpu": replace(LANE, provider="gpu")}, chains)
        work = transactions.clear_stale_assignments
        return [job.id for job in store.call(lambda db: work(db, plan, store.now())).result()]

    assert cleared(private=("gpu",)) == []
    assert cleared(calls=("gpu",)) == [job.id]
    due = store.call(lambda db: claims.claim_deletion(db, ("pulse",), store.now())).result()
    assert (due.provider, due.remote_id) == ("pulse", "v-1")


def test_a_result_that_has_lost_its_answer_stops_no_other(store, tmp_path):
    """Another program has deleted it; the row goes first for ever, and is no reason to publish nothing."""
    for name in (b"a", b"b"):
        queue_file(store, name)
        keep(store, begin(store, "n0"), kept_as(tmp_path, name))
    store.call(lambda db: db.execute("UPDATE jobs SET ticket = NULL")).result()
    store.call(lambda db: db.execute("DELETE FROM answers WHERE audio = ?", (b"a.wav",))).result()
    assert [job.path for job in claim_due(store, "n0")] == [b"b.wav"]


def test_a_held_folder_is_probed_while_other_folders_have_jobs(store):
    """They may have jobs for days, and the folder's files would wait as long."""
    for number in range(3):
        queue_file(store, b"%d" % number)
    held = queue_file(store, b"held")
    store.call(lambda db: db.execute("UPDATE jobs SET folder = 'held' WHERE id = ?", (held,))).result()
    scope = Scope(ScopeKind.FOLDER, "held")
    hold = Hold(scope, "refused", "refused", 0.0, next_probe_at=1.0, wait_seconds=1.0)
    store.call(lambda db: hold_rows.write_hold(db, hold)).result()
    own = admit(store)
    own.plan = Plan(PLAN.providers, {**PLAN.chains, "held": ("pulse",)})

    def begin_as_planned():
        claim, number = ticket_rows.claim, next(CLAIMS)
        return store.call(lambda db: claim(db, own, "pulse", number, "n0", store.now())).result()

    assert [begin_as_planned().folder for _ in range(3)] == ["held", "calls", "calls"]


def test_a_closed_folder_is_left_to_other_nodes(store):
    """Its worker fetched the ticket before the folder was closed."""
    queue_file(store, b"a")
    own = admit(store)
    own.folders.close("calls", "unavailable", "it is away")
    begun = store.call(lambda db: ticket_rows.claim(db, own, "pulse", 1, "n0", store.now())).result()
    ask = "SELECT state, ticket, node, attempts FROM jobs"
    rows_found = store.call(lambda db: db.execute(ask).fetchall()).result()
    assert (begun, rows_found) == (None, [("queued", None, "", 0)])


def test_a_suspect_runs_alone_on_all_nodes(store, other):
    """A file that may have crashed a daemon waits for the other such file, whichever node has it."""
    for name in (b"a", b"b", b"c"):
        queue_file(store, name)
    store.call(lambda db: db.execute("UPDATE jobs SET crashes = 3 WHERE name <> ?", (b"c.wav",))).result()
    paths = [job.path for job in (begin(other, "n1"), begin(store, "n0"))]
    assert paths == [b"a.wav", b"c.wav"]
    assert begin(store, "n0") is None


def test_after_a_pause_attempts_run_one_at_a_time(store):
    """Nothing starts before its end; then one attempt shows whether the provider answers again."""
    for number in range(3):
        queue_file(store, b"%d" % number)
    now = store.now()

    def pause(until):
        pause = Pause("pulse", now - 60, until)
        store.call(lambda db: (db.execute("DELETE FROM pauses"), hold_rows.write_pause(db, pause))).result()

    pause(now + 60)
    assert begin(store, "n0") is None
    pause(now - 1)
    assert begin(store, "n0").state is JobState.TRANSCRIBING
    assert begin(store, "n0") is None
    store.call(lambda db: hold_rows.end_pause(db, "pulse", store.now())).result()
    assert begin(store, "n0").state is JobState.TRANSCRIBING


def test_starts_are_spaced_over_all_nodes(store, other):
    """The rate is that of the provider, not of a node."""
    limits = ProviderLimits("pulse", 8, requests_per_minute=6.0)
    for number in range(2):
        queue_file(store, b"%d" % number)

    def begin_limited(node_store, node):
        own, number = admit(node_store), next(CLAIMS)
        own.plan = Plan({"pulse": limits}, PLAN.chains)
        return node_store.call(
            lambda db: ticket_rows.claim(db, own, "pulse", number, node, node_store.now())
        ).result()

    assert begin_limited(store, "n0").state is JobState.TRANSCRIBING
    assert 8 < begin_limited(other, "n1") <= 10.2


def test_a_rate_limit_holds_where_the_provider_counts(store):
    """The first request may have been on its way for longer than the one a minute later."""
    limits = ProviderLimits("pulse", 8, requests_per_minute=6.0)
    now = store.now()
    starts = [
        store.call(lambda db: ticket_rows.reserve_start(db, limits, now)).result() - now for _ in range(7)
    ]
    assert starts[0] == 0.0
    assert starts[6] >= 60.5


def test_tickets_are_issued_for_free_slots_and_again_where_they_are_lost(store):
    """None for a job that has one, nor for more than may start; a dead worker's are issued anew."""
    now, own = store.now(), admit(store)

    def issue():
        store.call(lambda db: ticket_rows.issue_tickets(db, own, now)).result()
        return store.call(count_tickets).result()

    for number in range(LANE.slots):
        queue_file(store, b"%d" % number)
        assert issue() == number + 1
    queue_file(store, b"one more")
    assert issue() == LANE.slots
    for ago_seconds, left in ((5, LANE.slots), (60, 0)):
        store.call(lambda db, ago=ago_seconds: fetch(db, ago)).result()
        store.call(nodes.delete_lost_tickets).result()
        assert store.call(count_tickets).result() == left
    assert issue() == LANE.slots


def test_jobs_that_an_earlier_version_gave_to_its_tickets_are_claimed_too(store, tmp_path):
    """Its nodes named a job in each ticket, and may have stopped with tickets that nobody fetched."""
    queue_file(store, b"a")
    keep(store, begin(store, "n0"), kept_as(tmp_path, b"a"))
    queue_file(store, b"b")
    store.call(lambda db: db.execute("UPDATE jobs SET ticket = 7, lane = 'pulse', node = ''")).result()
    assert begin(store, "n0").path == b"b.wav"
    store.call(nodes.delete_lost_tickets).result()
    assert [job.path for job in claim_due(store, "n0")] == [b"a.wav"]


async def test_a_node_that_stops_waits_for_no_turn(store):
    """Another node may make the next attempt that the rate allows."""
    queue_file(store, b"a")
    await store.do(lambda db: db.execute("INSERT INTO paces VALUES ('pulse', ?)", (store.now() + 0.9,)))
    asked = asyncio.Event()

    class AskedDatabase(RetryingDatabase):
        async def do(self, work):
            result = await super().do(work)
            asked.set()
            return result

    admission = Admission(AskedDatabase(store))
    admission.plan = PLAN
    tickets = TicketRunner(admission, "n0")
    waiting = asyncio.create_task(tickets.claim("pulse"))
    await asked.wait()
    tickets.stopped.set()
    assert await asyncio.wait_for(waiting, 30) is None
    ask = "SELECT state, attempts FROM jobs"
    assert await store.do(lambda db: db.execute(ask).fetchall()) == [("queued", 0)]


def _hold_up(store):
    """A call that the writer is in, until the event is set: what is called meanwhile waits behind it."""
    has_begun, may_end = threading.Event(), threading.Event()

    def work(_):
        has_begun.set()
        return may_end.wait(30)

    held_up = store.call(work)
    assert has_begun.wait(30)
    return held_up, may_end


async def test_a_ticket_that_is_cancelled_while_its_transaction_waits_begins_no_attempt(store):
    """No coroutine would run the attempt: the row stays queued for another node."""
    queue_file(store, b"a")
    tickets = TicketRunner(admit(store), "n0")
    held_up, may_end = _hold_up(store)
    beginning = asyncio.create_task(tickets.claim("pulse"))
    await asyncio.sleep(0)  # its transaction waits behind the one that is held up
    beginning.cancel()
    may_end.set()
    with pytest.raises(asyncio.CancelledError):
        await beginning
    held_up.result()
    ask = "SELECT state, attempts FROM jobs"
    assert await store.do(lambda db: db.execute(ask).fetchall()) == [("queued", 0)]


async def test_claims_that_wait_for_no_rate_share_a_transaction(store):
    """One after another they would have a commit each."""
    for number in range(3):
        queue_file(store, b"%d" % number)
    tickets = TicketRunner(admit(store), "n0")
    _, may_end = _hold_up(store)
    claiming = [asyncio.create_task(tickets.claim("pulse")) for _ in range(4)]
    await asyncio.sleep(0)
    waiting = store._calls.qsize()
    may_end.set()
    jobs = await asyncio.gather(*claiming)
    assert [job is not None for job in jobs] == [True, True, True, False]
    assert waiting >= 4


@pytest.mark.parametrize("is_stored", [False, True])
async def test_a_job_that_cannot_be_recorded_is_given_back(store, queue_dsn, tmp_path, is_stored):
    """The database refuses a statement: that is a bug, and the file is counted as if the daemon had ended."""
    assert store.has_name
    queue_file(store, b"a")
    job = await asyncio.to_thread(begin, store, "n0")
    if is_stored:
        job = await asyncio.to_thread(keep, store, job, kept_as(tmp_path, b"a"))

    class Runner:
        async def run(self, job):
            await store.do(lambda db: db.execute("SELECT 1 / 0"))

    dsn = Secret(queue_dsn, "test")
    queue = QueueConfig(type="postgres", dsn=dsn, roots={"share": tmp_path}, node="n0")
    with capture_logs() as told:
        assert await ClusterDispatcher(admit(store), store, queue)._run_one(Runner(), job) is None
    assert [(line["event"], line["path"]) for line in told] == [("job.bug", b"a.wav")]
    ask = "SELECT state, attempts, crashes, ticket FROM jobs"
    state, crashes = ("transcribed", 0) if is_stored else ("queued", 1)
    assert await store.do(lambda db: db.execute(ask).fetchall()) == [(state, int(is_stored), crashes, None)]


async def test_a_closed_store_answers(queue_dsn, tmp_path):
    """Whoever writes after the end is told, and does not wait for ever."""
    store = ClusterStore(queue_dsn, MountMap({"share": tmp_path}), "n0")
    store.close()
    with pytest.raises(StoreError, match="closed"):
        await asyncio.wait_for(store.do(ticket_rows.is_anything_in_flight), 30)
    RetryingDatabase(store).post(ticket_rows.is_anything_in_flight)


def test_what_a_living_node_has_begun_is_left_to_it(store):
    """Procrastinate's heartbeat of a worker that finishes what it has is no sign of death."""
    now = store.now()

    def prepare(db):
        beat(db, NodeStats("n0", "here", "all", "1", now, now, 0))
        ticket_rows.issue_tickets(db, admit(store), now)
        fetch(db, 60)

    def recover(db, at):
        cut_off = nodes.take_back_silent(db, LIMITS, at)
        nodes.delete_lost_tickets(db)
        return {name: [job.path for job in jobs] for name, jobs in cut_off.items()}

    queue_file(store, b"a")
    store.call(prepare).result()
    assert begin(store, "n0").path == b"a.wav"
    assert store.call(lambda db: recover(db, now)).result() == {}
    assert store.call(lambda db: recover(db, now + 60)).result() == {"n0": [b"a.wav"]}


async def test_a_start_bounds_the_waits_that_a_clock_has_left(store):
    """The server's clock was of another year; a wait that a provider asked for stays."""
    first, second = queue_file(store, b"a"), queue_file(store, b"b")
    due = "UPDATE jobs SET due_at = ? WHERE id = ?"
    soon = store.now() + 600
    await store.do(lambda db: [db.execute(due, (soon, first)), db.execute(due, (4e9, second))])
    await nodes.recover_own(admit(store), "n0")
    (kept,), (late,) = await store.do(lambda db: db.execute("SELECT due_at FROM jobs ORDER BY id").fetchall())
    assert kept == soon
    assert late <= store.now() + 86_400


def test_each_silent_node_is_told_of_with_its_own_files_once_they_are_taken_back(store):
    """A look that is rolled back and begun anew says nothing."""

    def prepare(db):
        for node, name in (("n1", b"a"), ("n2", b"b"), ("n2", b"c")):
            db.execute(JOB, (name + b".wav", name, "transcribing", node))

    store.call(prepare).result()
    with capture_logs() as during:
        cut_off = store.call(lambda db: nodes.take_back_silent(db, LIMITS, store.now())).result()
    assert during == []
    with capture_logs() as told:
        nodes.log_silent_nodes(cut_off)
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
        return intake_queries.withdraw(db, "calls", [(b"", b"a.wav"), (b"", b"b.wav")], "gone")

    assert store.call(look).result() == ([(b"", b"a.wav")] if ends else [])


def test_a_new_queue_has_statistics_soon(postgres_dsn, tmp_path):
    """Without autovacuum too: a file's place is looked up by its name, not by reading all that waits."""
    look_up = (
        "EXPLAIN SELECT id FROM jobs WHERE folder = 'calls' AND directory = ''::bytea AND name = '1'::bytea"
        f" AND id < 1000000 AND {rows.LIVE}"
    )
    with contextlib.closing(ClusterStore(postgres_dsn, MountMap({"share": tmp_path}), "n0")) as store:
        store.call(lambda db: db.execute("ALTER TABLE jobs SET (autovacuum_enabled = false)")).result()
        inbox = ClusterIntake(Admission(RetryingDatabase(store)), store)
        for first in range(0, 300, 100):
            names = [b"%06d.wav" % number for number in range(first, first + 100)]
            inbox.submit([NewJob("calls", name, FileSnapshot(1, 1, 1, 1), 0.0) for name in names])
        plan = " ".join(row[0] for row in store.call(lambda db: db.execute(look_up).fetchall()).result())
    assert "name = " in plan.partition("Index Cond: ")[2].partition("Filter: ")[0]


def test_new_files_are_submitted_by_a_few_statements(store):
    """Each waits for the server's answer, and meanwhile no other node may write."""
    new = [NewJob("calls", b"%d.wav" % number, FileSnapshot(1, number, 1, 1), 0.0) for number in range(128)]

    class Counted:
        statements = 0

        def __init__(self, db):
            self.db = db

        def execute(self, sql, values):
            Counted.statements += 1
            return self.db.execute(sql, values)

    submitted = store.call(lambda db: intake_queries.submit(Counted(db), new)).result()
    assert [each.is_new for each in submitted] == [True] * 128
    assert Counted.statements < 10


def kept_as(folder, name):
    """An answer with the names of its files."""
    names = OutputNames(bytes(folder) + b"/done", b"", name + b".wav", (("json", name + b".json"),))
    return StoredResult(b"{}", "digest", names)


def keep(store, job, kept):
    return store.call(
        lambda db: result_rows.store_result(db, job, kept, AttemptEnd(1.0), rejected=False)
    ).result()


def test_a_node_that_thaws_takes_no_names_for_what_another_has_filed(store, other, tmp_path):
    """It is told that it is late, and the names are another file's for the asking."""

    def begin(db, name):
        (job_id,) = db.execute(JOB, (name + b".wav", name, "queued", "n0")).fetchone()
        return claims.begin_attempt(db, job_id, "pulse", 0.0)

    job = keep(store, store.call(lambda db: begin(db, b"a")).result(), kept_as(tmp_path, b"a"))
    other.call(lambda db: rows.move(db, job, JobState.DONE, "ended_at = ?", (time.time(),))).result()

    with pytest.raises(rows.LateTransitionError):
        keep(store, job, kept_as(tmp_path, b"a (2)"))

    next_job = other.call(lambda db: begin(db, b"b")).result()
    assert keep(other, next_job, kept_as(tmp_path, b"a (2)")) is not None
    assert store.call(lambda db: db.execute("SELECT job_id FROM answers").fetchall()).result() == [
        (next_job.id,)
    ]


def test_nodes_with_long_names_have_sessions_of_their_own():
    """Names of pods differ at their end: ending a silent node's sessions must not end its neighbour's."""
    names = [f"dropscribe-transcription-worker-7d9c8b6f5d-production-{pod}" for pod in ("abcde", "abcdf")]
    sessions = {nodes.session_name(name) for name in names}
    assert len(sessions) == 2
    assert all(len(session.encode()) <= 63 for session in sessions)
    assert nodes.session_name("nas") == "dropscribe nas"


async def test_a_pool_that_was_stopped_before_it_opened_starts_no_worker(queue_dsn):
    """Its jobs would begin after the drain, and be cancelled at once."""

    def take(kind):
        raise AssertionError(f"{kind} was fetched")

    admission = Admission(RetryingDatabase(None))
    admission.plan = PLAN
    pool = TicketWorkers(queue_dsn, "n0")
    pool.serve(admission)
    running = asyncio.create_task(pool.run(take))
    await pool.stop()  # before the task has opened the connections
    await asyncio.wait({running}, timeout=0.5)
    workers = [task for task in asyncio.all_tasks() if task.get_name().startswith("worker ")]
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running
    assert workers == []


async def test_a_ticket_that_comes_while_the_run_ends_is_left_to_others(monkeypatch):
    """After an error no group would take a task for it."""
    begun, taken = [], []

    class LateWorker:
        worker_id = 1

        def __init__(self, app, **_):
            self.app, self.stopped = app, asyncio.Event()
            begun.append(self)

        def stop(self):
            self.stopped.set()

        async def run(self):
            await self.stopped.wait()
            await self.app.tasks[ticket_rows.TASK](lane="pulse")

    monkeypatch.setattr("dropscribe.queue.cluster.ticket_workers.Worker", LateWorker)
    admission = Admission(RetryingDatabase(None))
    admission.plan = PLAN
    pool = TicketWorkers("postgresql://127.0.0.1:1/nowhere", "n0")
    pool.serve(admission)
    running = asyncio.create_task(pool.run(taken.append))
    await until(lambda: begun)
    running.cancel()
    await asyncio.wait([running])
    assert (len(begun), taken) == (1, [])


@pytest.mark.slow
async def test_a_worker_uses_no_session_that_began_read_only(store, postgres, queue_dsn):
    """Sessions that begin while a server takes no writes stay so: no ticket was fetched for an hour."""
    own, fetched = admit(store), asyncio.Event()
    await store.do(lambda db: db.execute(JOB, (b"a.wav", b"a", "queued", "")))
    await store.do(lambda db: ticket_rows.issue_tickets(db, own, store.now()))

    def take(_):
        fetched.set()

    change = f"ALTER DATABASE {queue_dsn.rpartition('/')[2]}"
    postgres.execute(f"{change} SET default_transaction_read_only = on")
    workers = TicketWorkers(queue_dsn, "n0")
    workers.serve(own)
    running = asyncio.create_task(workers.run(take))
    try:
        await asyncio.sleep(1)
        postgres.execute(f"{change} RESET default_transaction_read_only")
        await asyncio.wait_for(fetched.wait(), 60)
    finally:
        running.cancel()
        await asyncio.wait([running])


@pytest.mark.parametrize(
    "change", ["state = 'done', code = '', ended_at = 1", "code = 'not_movable'", "code = 'writer'"]
)
async def test_a_folder_that_refused_a_file_reopens_once_another_node_has_filed_it(
    store, queue_dsn, tmp_path, change
):
    """The job that closed the folder never comes back to this node; others wait for their own files alone."""
    queue_file(store, b"a")
    job = keep(store, await asyncio.to_thread(begin, store, "n0"), kept_as(tmp_path, b"a"))
    admission = admit(store)
    dsn = Secret(queue_dsn, "test")
    queue = QueueConfig(type="postgres", dsn=dsn, roots={"share": tmp_path}, node="n0")
    dispatcher = ClusterDispatcher(admission, store, queue)

    async def is_closed_after(values):
        await store.do(lambda db: db.execute(f"UPDATE jobs SET {values}"))
        async with asyncio.TaskGroup() as group:
            await dispatcher._look(JobTasks(admission, group, None))
        return "calls" in admission.folders.closed

    admission.folders.close("calls", STUCK, "Read-only file system")
    admission.in_flight.tasks[job.id] = asyncio.current_task()
    assert await is_closed_after("ticket = 0, node = 'n0'")  # its publication is under way
    admission.in_flight.tasks.clear()
    assert await is_closed_after("ticket = NULL, code = 'EROFS', due_at = 4e9")
    assert not await is_closed_after(change)


@pytest.mark.slow
async def test_a_node_without_connections_for_its_workers_says_so_and_goes_on_beside_a_long_job(
    store, postgres, queue_dsn, tmp_path, monkeypatch
):
    """Of a CONNECTION LIMIT, say, its writer has one. Nothing was said, and free slots waited for hours."""
    monkeypatch.setattr("dropscribe.queue.cluster.ticket_workers.CONNECTION_SECONDS", 0.5)
    begun, may_end = [], asyncio.Event()

    class Runner:
        async def run(self, job):
            begun.append(job.path)
            await may_end.wait()

    admission = admit(store)
    queue = QueueConfig(type="postgres", dsn=Secret(queue_dsn, "test"), roots={"share": tmp_path}, node="n0")
    engine = Engine(admission, ClusterDispatcher(admission, store, queue), ClusterIntake(admission, store))
    allow = f"ALTER DATABASE {queue_dsn.rpartition('/')[2]} ALLOW_CONNECTIONS"
    (mine,) = await store.do(lambda db: db.execute("SELECT pg_backend_pid()").fetchone())

    with capture_logs() as told:
        running = asyncio.create_task(engine.dispatcher.run(Runner()))
        try:
            await store.do(lambda db: db.execute(JOB, (b"long.wav", b"long", "queued", "")))
            await until(lambda: begun, 60)
            postgres.execute(f"{allow} false")
            postgres.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                f" WHERE application_name = 'dropscribe n0' AND pid <> {mine}"
            )
            await store.do(lambda db: db.execute(JOB, (b"b.wav", b"b", "queued", "")))
            await until(lambda: engine.trouble, 60)
            assert "not currently accepting connections" in engine.trouble
            await asyncio.sleep(2)  # it tries again meanwhile
            postgres.execute(f"{allow} true")
            await until(lambda: len(begun) == 2 and not engine.trouble, 60)
        finally:
            running.cancel()
            await asyncio.wait([running])
    warnings = [line["event"] for line in told if line["log_level"] in {"warning", "error"}]
    assert warnings == ["workers.refused"]


@pytest.mark.slow
def test_a_database_that_ends_while_tickets_are_issued_is_waited_for(store, other, monkeypatch):
    """The library's own error would end the daemon as a bug."""

    def end_the_session(db, *_):
        pid = db.raw.info.backend_pid
        other.call(lambda db: db.execute("SELECT pg_terminate_backend(?)", (pid,)).fetchone()).result()
        return [ticket_rows._ticket("pulse", "calls")]

    own = admit(store)
    monkeypatch.setattr(ticket_rows, "_to_transcribe", end_the_session)
    with pytest.raises(StoreAway):
        store.call(lambda db: ticket_rows.issue_tickets(db, own, 0.0)).result()


@pytest.mark.parametrize(
    "due", ["0", *(pytest.param(each, marks=pytest.mark.slow) for each in ("1000000000 + n", "4000000000"))]
)
def test_the_cost_of_claims_and_counts_does_not_grow_with_the_files_that_wait(store, due):
    """Whether they are due at once, one after the other, or later; also when a statement is used again."""
    rows_read = (
        "SELECT seq_tup_read + idx_tup_fetch FROM pg_stat_xact_user_tables"
        " WHERE schemaname = 'dropscribe' AND relname = 'jobs'"
    )
    waiting = (
        "INSERT INTO jobs (folder, directory, name, identity, stable_inodes, device, inode, size_bytes,"
        " mtime_ns, state, received_at, due_at) SELECT 'calls', ''::bytea, n::text::bytea, n::text::bytea,"
        f" FALSE, 1, 1, 1, 1, 'queued', 0, {due} FROM generate_series(1, 5000) AS n"
    )
    store.call(lambda db: db.execute(waiting)).result()
    store.call(lambda db: db.execute("ANALYZE jobs")).result()
    own = admit(store)
    own.plan = Plan({"pulse": LANE}, {"calls": ("pulse",), "notes": ("pulse",)})

    def look(db):
        ticket_rows.issue_tickets(db, own, store.now())
        ticket_rows.claim(db, own, "pulse", next(CLAIMS), "n0", store.now())
        ticket_rows.claim_due(db, DUE, "n0", store.now())
        stats._oldest_received_at(db, "notes")
        return db.execute(rows_read).fetchone()[0]

    assert max(store.call(look).result() for _ in range(12)) < 500
