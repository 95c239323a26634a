"""The SQLite store: durable, private, one owner, honest about damage."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import sqlite3
import stat
from dataclasses import replace
from importlib import resources
from pathlib import Path

import pytest

from dropscribe.config.model import QueueConfig
from dropscribe.config.notation.secret import Secret
from dropscribe.core.errors import StoreError, StoreFull, StoreInUse, StoreUnusable
from dropscribe.core.model import FileSnapshot, JobState, NewJob
from dropscribe.core.routing import Route
from dropscribe.queue.embedded import store as store_module
from dropscribe.queue.embedded.store import MIGRATIONS, Store, is_running, open_for_reading, write_once
from dropscribe.queue.engine import open_engine
from dropscribe.queue.sql.claims import (
    LARGE_BYTES,
    ClaimRequest,
    Limits,
    claim,
    claim_for_provider,
    is_poll_expected,
)
from dropscribe.queue.sql.intake_queries import note_inboxes, rename_folders, submit
from dropscribe.queue.sql.rows import LIVE, UPDATE_STATE
from dropscribe.queue.sql.stats import count_ended, read_ended
from support.house import make_config
from support.ready_queue import make_private_file


@pytest.fixture(autouse=True)
def _makes_its_own_tables(monkeypatch):
    monkeypatch.setattr(store_module, "make_private_file", make_private_file)


def test_a_state_directory_has_one_owner(tmp_path):
    """The second daemon is refused while the first lives, and welcome after it."""
    first = Store(tmp_path / "state")
    assert is_running(tmp_path / "state")
    with pytest.raises(StoreInUse):
        Store(tmp_path / "state")
    first.close()
    assert not is_running(tmp_path / "state")
    Store(tmp_path / "state").close()


def test_a_state_directory_that_cannot_be_reached_is_told_of_in_words(tmp_path):
    """The reason has no number of an error, and no second name of the file."""
    state = tmp_path / "state"
    with contextlib.closing(Store(state)) as store:
        state.rename(tmp_path / "old")
        state.symlink_to(state)
        assert store.trouble().reason == os.strerror(errno.ELOOP)


async def test_a_closed_store_answers(tmp_path):
    """Whoever writes after the end is told, and does not wait for ever."""
    store = Store(tmp_path / "state")
    store.close()
    with pytest.raises(StoreError, match="closed"):
        await asyncio.wait_for(store.do(lambda db: db.execute("SELECT 1")), 30)
    with pytest.raises(StoreError, match="closed"):
        store.call(lambda db: db.execute("SELECT 1")).result(30)


def test_a_state_directory_is_private(tmp_path):
    """Transcripts wait in it: mode 0700."""
    Store(tmp_path / "state").close()

    assert stat.S_IMODE((tmp_path / "state").stat().st_mode) == 0o700


@pytest.mark.parametrize(("content", "mode"), [([], 0o700), (["inbox"], 0o755)])
def test_a_directory_of_other_files_keeps_its_mode(tmp_path, content, mode):
    """``state_dir: /var/lib`` closed that directory to all other users; an empty one is the queue's alone."""
    folder = tmp_path / "shared"
    folder.mkdir()
    folder.chmod(0o755)
    for name in content:
        (folder / name).mkdir()

    Store(folder).close()

    assert stat.S_IMODE(folder.stat().st_mode) == mode


@pytest.mark.parametrize("make", [Path.touch, lambda path: path.symlink_to("away")])
def test_what_stands_in_the_place_of_the_directory_is_named(tmp_path, make):
    """A file, or a link to a disk that is not mounted; the system's words are "File exists"."""
    make(tmp_path / "state")
    with pytest.raises(StoreError, match="is not a folder, or a link to one that is not there"):
        Store(tmp_path / "state")


def test_damage_is_told_and_nothing_is_deleted(tmp_path):
    """A database that is none is refused with a remedy, and stays as it was."""
    (tmp_path / "queue.db").write_bytes(b"not a database at all, but long enough to look" * 50)
    before = (tmp_path / "queue.db").read_bytes()

    with pytest.raises(StoreUnusable) as caught:
        Store(tmp_path)

    assert "move it away" in caught.value.remedy
    assert (tmp_path / "queue.db").read_bytes() == before


def test_the_schema_is_made_in_one_step(tmp_path, monkeypatch):
    """A command that reads during the first start met a schema between two versions."""
    monkeypatch.setattr(store_module, "MIGRATIONS", (*MIGRATIONS, "broken.sql"))
    monkeypatch.setattr(
        Path, "read_text", lambda path, _: path.read_bytes().decode() if path.exists() else "no SQL;"
    )
    with pytest.raises(StoreError):
        Store(tmp_path)
    with sqlite3.connect(tmp_path / "queue.db") as db:
        assert db.execute("PRAGMA user_version").fetchone() == (0,)
        assert db.execute("SELECT count(*) FROM sqlite_master").fetchone() == (0,)
    db.close()


def test_a_newer_schema_is_refused(tmp_path):
    """An older dropscribe never writes into a newer one's database."""
    Store(tmp_path).close()
    with sqlite3.connect(tmp_path / "queue.db") as db:
        db.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
    db.close()

    with pytest.raises(StoreUnusable, match="newer"):
        Store(tmp_path)


def test_the_schema_comes_with_its_version(tmp_path):
    """A fresh database is at the newest version."""
    Store(tmp_path).close()

    reader = open_for_reading(tmp_path)
    assert reader.execute("PRAGMA user_version").fetchone() == (len(MIGRATIONS),)
    reader.close()


async def test_a_database_of_version_1_goes_on(tmp_path):
    """What an older daemon left behind is migrated with nothing lost, and its files are fed."""
    path = tmp_path / "queue.db"
    with sqlite3.connect(path) as db:
        db.executescript(resources.files("dropscribe.queue.sql").joinpath("schema.sql").read_text("utf-8"))
        db.execute("PRAGMA user_version = 1")
        columns = "folder, directory, name, identity, stable_inodes, device, inode, size_bytes, mtime_ns"
        db.execute(
            f"INSERT INTO jobs ({columns}, state, received_at, due_at)"
            " VALUES ('calls', x'', x'612e776176', x'01', 1, 1, 2, 3, 4, 'queued', 5.0, 5.0),"
            " ('calls', x'', x'622e776176', x'02', 1, 1, 2, 3, 4, 'done', 5.0, 5.0),"  # with no end
            " ('calls', x'', x'622e776176', x'02', 1, 1, 2, 3, 4, 'done', 6.0, 6.0)"
        )
    db.close()

    store = Store(tmp_path)
    request = ClaimRequest("main", (Route("calls", serves_unassigned=True),), 1)
    (job,) = await store.do(lambda db: claim_for_provider(db, request, 10.0, has_suspect=False))
    version = await store.do(lambda db: db.execute("PRAGMA user_version").fetchone()[0])
    store.close()

    assert (job.path, job.snapshot.size_bytes, job.may_be_cached) == (b"a.wav", 3, False)
    assert version == len(MIGRATIONS) > 1


def test_a_command_writes_beside_a_daemon(tmp_path):
    """A short write of a command is seen by the daemon that has the state directory."""
    store = Store(tmp_path)
    write_once(tmp_path, lambda db: db.execute("INSERT INTO facts VALUES ('by', 'hand')"))
    seen = store.call(lambda db: db.execute("SELECT value FROM facts WHERE name = 'by'").fetchone()).result()
    store.close()

    assert seen == ("hand",)
    assert write_once(tmp_path / "nowhere", lambda _: 1) is None


def test_a_command_does_not_write_into_what_an_older_daemon_made(tmp_path):
    """The new daemon migrates; a command says that it has to be started first."""
    with sqlite3.connect(tmp_path / "queue.db") as db:
        db.execute("PRAGMA user_version = 1")
    db.close()

    with pytest.raises(StoreUnusable, match="older"):
        write_once(tmp_path, lambda _: 1)


@pytest.mark.parametrize(
    ("which", "index"),
    [
        ("directory = x'' AND name = x'01'", "jobs_live_place"),
        ("directory = x'' ORDER BY name", "jobs_live_place"),
        ("identity = x'01'", "jobs_live_identity"),
    ],
)
def test_the_history_is_not_read_for_live_jobs(tmp_path, which, index):
    """A listing of an inbox takes no longer for the files of years."""
    store = Store(tmp_path)
    sql = f"EXPLAIN QUERY PLAN SELECT inode FROM jobs WHERE {LIVE} AND folder = 'calls' AND {which}"
    ((*_, plan),) = store.call(lambda db: db.execute(sql).fetchall()).result()
    store.close()

    assert index in plan


def test_the_history_is_not_read_for_jobs_at_providers(tmp_path):
    """`run --once` asks for them ten times a second."""
    store, thousands = Store(tmp_path), []

    def look(db):
        new = [NewJob("calls", b"%d" % n, FileSnapshot(1, n, 3, 4), 5.0) for n in range(1000)]
        submit(db, new)
        db.execute("UPDATE jobs SET state = 'done', ended_at = 6.0")
        db.set_progress_handler(lambda: thousands.append(1), 1000)  # each so many steps of SQLite
        expected = is_poll_expected(db, ("calls",), (), 7.0, 67.0)
        db.set_progress_handler(None, 0)
        return expected

    assert not store.call(look).result()
    assert not thousands
    store.close()


def test_the_history_is_not_read_for_stored_results(tmp_path):
    """They are looked for each second."""
    store, thousands = Store(tmp_path), []

    def look(db):
        submit(db, [NewJob("calls", b"%d" % n, FileSnapshot(1, n, 3, 4), 5.0) for n in range(1000)])
        db.execute("UPDATE jobs SET state = 'done', ended_at = 6.0")
        db.set_progress_handler(lambda: thousands.append(1), 1000)  # as above
        found = claim(db, (), Limits(0, 0, 128, {"calls": 64}, ("calls",), ()), 7.0)
        db.set_progress_handler(None, 0)
        return found

    assert store.call(look).result() == ([], [], None)
    assert not thousands
    store.close()


def test_a_renamed_rule_is_known_by_an_inbox_of_any_bytes(tmp_path):
    """Two names that differ in them are two inboxes."""
    store = Store(tmp_path)
    before, after = {"calls": "/srv/\udcff"}, {"other": "/srv/\udcfe", "renamed": "/srv/\udcff"}
    found = [store.call(lambda db, new=new: note_inboxes(db, new)).result() for new in (before, after)]
    store.close()

    assert found == [{}, {"calls": "renamed"}]


def test_what_a_renamed_rule_has_done_adds_to_that_of_its_new_name(tmp_path):
    """The name may have been another rule's before; the page shows what ended on each day."""
    store = Store(tmp_path)

    def write(db):
        for folder, at in (("old", 0.0), ("old", 90_000.0), ("new", 90_000.0)):
            count_ended(db, folder, JobState.DONE, 7.0, at)
        rename_folders(db, {"old": "new"}, ["old"])
        return read_ended(db, ["new"], [0.0, 86_400.0])

    days = store.call(write).result()
    store.close()

    assert [(day.done, day.seconds) for day in days] == [(1, 7.0), (2, 14.0)]


def test_a_rule_may_be_given_a_name_that_another_had_long_ago(tmp_path):
    """That one has left the config; what is stored of it is no rule."""
    store = Store(tmp_path)
    configs = ({"calls": "/srv/a", "memos": "/srv/b"}, {"calls": "/srv/a"}, {"memos": "/srv/a"})
    found = [store.call(lambda db, new=new: note_inboxes(db, new)).result() for new in configs]
    store.close()

    assert found == [{}, {}, {"calls": "memos"}]


def test_files_of_one_submission_are_claimed_in_the_order_of_their_rows(tmp_path):
    """Of files that are found together, the one listed last is no earlier one."""
    store = Store(tmp_path)
    names = (b"a.wav", b"b.wav", b"c.wav")
    new = [NewJob("calls", name, FileSnapshot(1, n, 3, 4), 10.0 - n) for n, name in enumerate(names)]
    store.call(lambda db: submit(db, new)).result()
    request = ClaimRequest("main", (Route("calls", serves_unassigned=True),), 2)
    claimed = store.call(lambda db: claim_for_provider(db, request, 10.0, has_suspect=False)).result()
    store.close()

    assert [job.path for job in claimed] == [b"a.wav", b"b.wav"]


def test_a_claimed_job_excludes_others_from_the_same_claim(tmp_path):
    """Of files that may have crashed the daemon one is claimed, of huge ones as many as may go."""
    store = Store(tmp_path)
    sizes = (LARGE_BYTES, LARGE_BYTES, 3, 3, 3)
    new = [NewJob("calls", b"%d" % n, FileSnapshot(1, n, size, 4), 5.0) for n, size in enumerate(sizes)]
    store.call(lambda db: submit(db, new)).result()
    store.call(lambda db: db.execute("UPDATE jobs SET crashes = 3 WHERE id IN (3, 4)")).result()
    request = ClaimRequest("main", (Route("calls", serves_unassigned=True),), 5, most_large=1)
    claimed = store.call(lambda db: claim_for_provider(db, request, 10.0, has_suspect=False)).result()
    store.close()

    assert [job.path for job in claimed] == [b"0", b"2", b"4"]


async def test_calls_that_wait_share_a_transaction_and_fail_alone(tmp_path):
    """One call's error rolls back that call and no other."""
    store = Store(tmp_path)

    def insert(name):
        def work(db):
            db.execute("INSERT INTO facts VALUES (?, 'x')", (name,))
            if name == "bad":
                raise ValueError(name)

        return work

    results = await asyncio.gather(
        *(store.do(insert(name)) for name in ("a", "bad", "b")), return_exceptions=True
    )
    names = await store.do(lambda db: {row[0] for row in db.execute("SELECT name FROM facts")})
    store.close()

    assert [type(result) for result in results] == [type(None), ValueError, type(None)]
    assert names >= {"a", "b"}
    assert "bad" not in names


async def test_counts_are_read_while_a_program_locks_the_database(tmp_path):
    """The page and ``/status`` had no answer then, while ``dropscribe status`` had one."""
    store = Store(tmp_path)
    engine = open_engine(None, store)
    with contextlib.closing(sqlite3.connect(store.path)) as other:
        other.execute("BEGIN EXCLUSIVE")
        stats = await asyncio.wait_for(engine.stats(), 20)  # the writer waits for 30
    store.close()

    assert stats.removed == {}


async def test_a_change_of_state_that_fails_halfway_leaves_nothing(tmp_path):
    """Such a statement is not undone alone (UPDATE OR FAIL): its transaction is."""
    store = Store(tmp_path)
    new = [NewJob("calls", b"%d" % n, FileSnapshot(1, n, 3, 4), 5.0) for n in range(2)]
    store.call(lambda db: submit(db, new)).result()
    with pytest.raises(sqlite3.IntegrityError):
        await store.do(lambda db: db.execute(f"{UPDATE_STATE} 'transcribing', identity = x'00'"))
    states = await store.do(lambda db: db.execute("SELECT state FROM jobs").fetchall())
    counts = await store.do(lambda db: db.execute("SELECT state, n FROM counts WHERE n > 0").fetchall())
    store.close()

    assert states == [("queued",)] * 2
    assert counts == [("queued", 2)]


def test_no_transaction_needs_a_file_outside_the_state_directory(tmp_path):
    """SQLite would put the journal of a large statement into /var/tmp, which may be full."""

    def write(db):
        rows = ((f"name {number}", "x" * 100) for number in range(5_000))
        db.executemany("INSERT INTO facts VALUES (?, ?)", rows)
        db.execute("UPDATE facts SET value = value || name, name = name || '!' WHERE name LIKE 'name %'")
        descriptors = os.listdir("/proc/self/fd")
        return [place for each in descriptors if "etilqs" in (place := _place_of(each))]

    store = Store(tmp_path / "state")
    try:
        assert store.call(write).result(30) == []
    finally:
        store.close()


def _place_of(descriptor):
    try:
        return os.readlink(f"/proc/self/fd/{descriptor}")
    except OSError:
        return ""


async def test_a_full_disk_is_told_as_full(tmp_path):
    """SQLite's own word for a full disk becomes StoreFull, and the store works on when there is room."""
    store = Store(tmp_path)
    pages = await store.do(lambda db: db.execute("PRAGMA page_count").fetchone()[0])
    store._connection.execute(f"PRAGMA max_page_count = {pages + 1}")

    with pytest.raises(StoreFull):
        await store.do(lambda db: db.execute("INSERT INTO facts VALUES ('big', ?)", ("x" * 1_000_000,)))

    store._connection.execute("PRAGMA max_page_count = 1000000")
    await store.do(lambda db: db.execute("INSERT INTO facts VALUES ('small', 'x')"))
    store.close()


async def test_a_spent_quota_is_told_as_a_full_disk(tmp_path, monkeypatch):
    """SQLite has no word for it: the daemon ended, and what was under way was paid for again."""

    def write(_db):
        error = sqlite3.OperationalError("disk I/O error")
        error.sqlite_errorcode = sqlite3.SQLITE_IOERR_WRITE
        raise error

    def refuse(*_):
        raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))

    store = Store(tmp_path)
    with pytest.raises(StoreError) as caught:
        await store.do(write)
    assert not isinstance(caught.value, StoreFull)
    for name in ("posix_fallocate", "write", "pwrite"):
        monkeypatch.setattr(os, name, refuse)
    with pytest.raises(StoreFull, match="quota"):
        await store.do(write)
    monkeypatch.undo()
    store.close()


def test_a_directory_that_cannot_be_made_names_the_remedy(tmp_path):
    """A file in the way is told with its path and what to do."""
    from dropscribe.core.errors import StoreError

    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError) as caught:
        Store(tmp_path / "file" / "state")

    assert "state_dir" in caught.value.remedy
    assert os.fspath(tmp_path / "file") in caught.value.path


def test_a_node_does_not_leave_paid_answers_behind(tmp_path):
    """Nothing is paid twice: `queue:` is refused while the machine's own queue holds unpublished answers."""
    own = Store(tmp_path)
    columns = "folder, directory, name, identity, stable_inodes, device, inode, size_bytes, mtime_ns, state"
    row = ("calls", b"", b"a.wav", b"i1", 1, 1, 1, 1, 1, "transcribed", 0.0, 0.0)
    own.call(
        lambda db: db.execute(
            f"INSERT INTO jobs ({columns}, received_at, due_at) VALUES ({', '.join('?' * len(row))})", row
        )
    ).result()
    queue = QueueConfig(
        type="postgres", dsn=Secret("postgresql://127.0.0.1:1/none", "the test"), roots={}, node="a"
    )
    config = replace(make_config(tmp_path), queue=queue)

    with pytest.raises(StoreUnusable, match="1 transcripts") as refused:
        open_engine(config.queue, own)

    assert "run --once" in refused.value.remedy
    own.close()
