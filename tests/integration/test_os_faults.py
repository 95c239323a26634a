"""What the system may say no to, at every call of one file's way, in the queue, and on disks really full."""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import sqlite3

import pytest
from structlog.testing import capture_logs

from dropscribe.core.errors import StoreBusy, StoreError, StoreFull, StoreUnusable
from dropscribe.pipeline import attempts, disk_threads, publisher
from dropscribe.queue import retrying_database
from dropscribe.queue.embedded import store
from dropscribe.queue.embedded.store import STATE_RESERVE_BYTES, Store
from support.faults import WAYS, Faults, filled, tmpfs
from support.house import House, digest, make_config, read_json, tree
from support.scripted import ScriptedProvider, transcript_of

ERRORS = ("ENOSPC", "EIO", "EACCES", "EROFS", "EXDEV", "ESTALE", "EMFILE", "ENAMETOOLONG")


@pytest.fixture(autouse=True)
def _soon(monkeypatch):
    """What is waited for seconds is waited for milliseconds."""
    monkeypatch.setattr(publisher, "LONGEST_WAIT_SECONDS", 0.001)
    monkeypatch.setattr(publisher, "LONGEST_OWN_WAIT_SECONDS", 0.001)
    monkeypatch.setattr(publisher, "MISSING_WAIT_SECONDS", 0.001)
    monkeypatch.setattr(attempts, "LOOK_AGAIN_SECONDS", 0.001)
    monkeypatch.setattr(attempts, "LONGEST_LOOK_SECONDS", 0.001)
    monkeypatch.setattr(disk_threads, "LONGEST_CHECK_SECONDS", 0.001)
    monkeypatch.setattr(retrying_database, "RETRY_SECONDS", 0.01)


@pytest.fixture
def faults(monkeypatch):
    """See :class:`support.faults.Faults`."""
    return Faults(monkeypatch)


class Counting(ScriptedProvider):
    """Remembers whose answers were given: those would be paid for."""

    def __init__(self, **keys):
        super().__init__(**keys)
        self.paid = []

    async def _play(self, step, audio):
        answer = await super()._play(step, audio)
        self.paid.append(os.fsdecode(audio.name))
        return answer


async def ended(house, name):
    """Until its job has ended; one that was withdrawn while its file stayed is taken again, as the intake
    would.
    """
    while True:
        await house.until(lambda: _has_ended(house))
        if not (house.rule().inbox / name).exists():
            return
        await house.submit(name)


async def _has_ended(house):
    stats = await house.stats()
    return stats.queued + stats.deferred + stats.transcribing + stats.publishing + stats.held == 0


def _assert_filed(root, number, content):
    stem = f"call {number}"
    assert tree(root / "inbox") == set()
    assert {name for name in tree(root / "done") if name.startswith((stem + ".", stem + "-", "."))} == {
        f"{stem}.wav",
        f"{stem}.json",
        f"{stem}.txt",
    }
    assert (root / "done" / f"{stem}.wav").read_bytes() == content
    document = read_json(root / "done" / f"{stem}.json")
    assert document["source"]["sha256"] == digest(content)
    assert (root / "done" / f"{stem}.txt").read_text() == document["text"] + "\n"


async def walk_through(root, faults, number, way, count):
    """Every call of one file's way fails, one after the other, each with a file of its own."""
    provider = Counting()
    async with House(make_config(root), {"main": provider}) as house:
        for after in range(400):
            content = b"RIFF %d" % after
            name = f"call {after}.wav"
            (root / "inbox" / name).write_bytes(content)
            faults.always.update(WAYS[way])
            faults.arm(number, after, count)
            await house.submit(name)
            await ended(house, name)
            has_hit = faults.has_hit
            faults.lift()
            _assert_filed(root, after, content)
            assert provider.paid.count(name) == 1
            if not has_hit:
                return after
    raise AssertionError("the way has no end")


@pytest.mark.parametrize(
    ("error", "way"),
    [
        *((error, way) for error in ERRORS for way in ("rename", "copy")),
        *((error, way) for error in ("ENOSPC", "EIO", "EACCES") for way in ("plain", "bare", "plainest")),
    ],
)
@pytest.mark.slow
async def test_a_call_that_fails_once_costs_nothing(memory_path, faults, error, way):
    """Whichever call fails, once, the file ends in done whole, paid once, and nothing else stays there."""
    calls = await walk_through(memory_path, faults, getattr(errno, error), way, 1)
    assert calls > 15


@pytest.mark.parametrize("error", ["EIO", "EACCES"])
async def test_a_move_by_link_that_was_cut_off_leaves_no_second_file(tmp_path, faults, error):
    """Its link has changed the audio's ctime: the content is compared, and the move goes on."""

    def fail():
        raise OSError(getattr(errno, error), "once")

    faults.always.update(WAYS["plain"])
    provider = Counting()
    async with House(make_config(tmp_path), {"main": provider}) as house:
        (tmp_path / "inbox/call 0.wav").write_bytes(b"RIFF")
        faults.before["rename"] = fail  # by which the original is set aside, after the link
        await house.submit("call 0.wav")
        await ended(house, "call 0.wav")
        _assert_filed(tmp_path, 0, b"RIFF")
    assert "rename" not in faults.before
    assert provider.paid.count("call 0.wav") == 1


@pytest.mark.slow
@pytest.mark.parametrize(("error", "way"), [("ENOSPC", "rename"), ("EACCES", "rename"), ("EIO", "copy")])
async def test_calls_that_fail_for_a_while_cost_nothing(memory_path, faults, error, way):
    """A disk in trouble for seven calls, from whichever on, is waited for; paid once."""
    await walk_through(memory_path, faults, getattr(errno, error), way, 7)


async def test_a_file_renamed_over_the_audio_in_the_last_instant_is_not_filed_for_it(tmp_path, faults):
    """Between the check and the move: the new file goes back to its place, and no stale transcript stays."""
    async with House(make_config(tmp_path)) as house:
        _replace_before(tmp_path, faults, "renameat2")
        await house.drop("call.wav", b"old")
        await house.rest()

    assert (tmp_path / "inbox/call.wav").read_bytes() == b"the new recording"
    assert tree(tmp_path / "done") == set()


@pytest.mark.parametrize("call", ["link", "rename"])
async def test_a_file_renamed_over_a_copied_audio_is_not_removed_for_it(tmp_path, faults, call):
    """Between the copy and the removal of the original: the new file stays, the copy goes.

    Once the copy is written, ``link`` names it, and ``rename`` sets the original aside.
    """
    faults.always.update(WAYS["copy"])
    async with House(make_config(tmp_path)) as house:
        faults.before["utime"] = lambda: _replace_before(tmp_path, faults, call)
        await house.drop("call.wav", b"old")
        await house.rest()

    assert (tmp_path / "inbox/call.wav").read_bytes() == b"the new recording"
    assert tree(tmp_path / "inbox") == {"call.wav"}
    assert tree(tmp_path / "done") == set()


def _replace_before(root, faults, call):
    (root / "new").write_bytes(b"the new recording")
    faults.before[call] = lambda: os.rename(root / "new", root / "inbox/call.wav")


# The queue's file ----------------------------------------------------------------------------------


def _big_answer(_audio):
    return transcript_of("word " * 100_000)


async def test_a_full_queue_keeps_the_answer_in_memory_and_pays_once(tmp_path):
    """While the database may not grow an answer waits for room; then it is kept and published."""
    script = ScriptedProvider([_big_answer], gate=asyncio.Event())
    async with House(make_config(tmp_path), {"main": script}) as house:
        await house.drop("call.wav")
        await house.until(lambda: script.in_flight == 1)
        await house.store.do(_grow_no_more)
        script.gate.set()
        await house.until(lambda: house.engine.trouble)
        assert tree(tmp_path / "inbox") == {"call.wav"}
        await house.engine.database.do(lambda db: db.execute("PRAGMA max_page_count = 1000000").fetchall())
        await house.until(lambda: house.listener.files)
        await house.until(lambda: not house.engine.trouble)

    assert tree(tmp_path / "done") == {"call.wav", "call.json", "call.txt"}
    assert len(script.calls) == 1


def _grow_no_more(db):
    (pages,) = db.execute("PRAGMA page_count").fetchone()
    db.execute(f"PRAGMA max_page_count = {pages}").fetchall()


async def test_a_locked_queue_is_waited_for(tmp_path, monkeypatch):
    """Another process that locks the database for a while stops uploads and loses no answer."""
    monkeypatch.setattr(store, "_BUSY_SECONDS", 0.05)
    script = ScriptedProvider(gate=asyncio.Event())
    async with House(make_config(tmp_path), {"main": script}) as house:
        await house.drop("call.wav")
        await house.until(lambda: script.in_flight == 1)
        other = sqlite3.connect(tmp_path / "state/queue.db", isolation_level=None)
        try:
            other.execute("BEGIN EXCLUSIVE")
            script.gate.set()
            await house.until(lambda: house.engine.trouble)
            with pytest.raises(StoreBusy):
                await house.drop("late.wav")
            other.execute("COMMIT")
        finally:
            other.close()
        await house.submit("late.wav")
        await house.rest()

    assert tree(tmp_path / "done") >= {"call.wav", "late.wav"}
    assert script.calls == [b"call.wav", b"late.wav"]


@pytest.mark.parametrize("damage", ["garbage", "cut", "header"])
async def test_a_damaged_queue_is_refused_with_a_remedy_and_left_as_it_is(tmp_path, damage):
    """At the start: nothing is deleted or rewritten, and the message says what to do."""
    async with House(make_config(tmp_path)) as house:
        await house.drop("call.wav")
        await house.rest()
    path = tmp_path / "state/queue.db"
    content = path.read_bytes()
    damaged = {
        "garbage": b"this is no database, whatever its name says " * 100,
        "cut": content[: len(content) // 3],
        "header": b"\0" * 100 + content[100:],
    }[damage]
    path.write_bytes(damaged)

    with pytest.raises(StoreUnusable) as raised:
        store.Store(tmp_path / "state")

    assert "move it away" in raised.value.remedy
    assert path.read_bytes() == damaged
    assert not store.is_running(tmp_path / "state")


async def test_a_queue_that_is_damaged_while_it_runs_ends_the_daemon_and_loses_nothing(tmp_path):
    """The run ends with StoreUnusable; the audio stays in its inbox."""
    with pytest.raises(BaseExceptionGroup) as raised:
        async with House(make_config(tmp_path)) as house:
            await house.drop("before.wav")
            await house.rest()
            house.store.call(_forget_pages).result()
            _overwrite(tmp_path / "state/queue.db")
            (tmp_path / "inbox/call.wav").write_bytes(b"audio")
            with pytest.raises(StoreUnusable):
                await house.submit("call.wav")
            house.engine.signals.wake.set()
            await asyncio.wait([house.feeding], timeout=10)

    assert raised.group_contains(StoreUnusable)
    assert (tmp_path / "inbox/call.wav").read_bytes() == b"audio"


def _forget_pages(db):
    db.execute("COMMIT")
    db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    db.execute("PRAGMA shrink_memory").fetchall()
    db.execute("BEGIN")


def _overwrite(path):
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(0)
        file.write(b"\xa5" * size)


# Disks that are really full ------------------------------------------------------------------------


async def test_a_full_done_for_real(tmp_path):
    """The answer is kept, the audio stays, uploads of that folder stop, all goes on; paid once each."""
    provider = Counting()
    with tmpfs(tmp_path / "done"):
        async with House(make_config(tmp_path), {"main": provider}) as house:
            await house.drop("early.wav", b"RIFF")
            await house.until(lambda: house.listener.files)
            early = tree(tmp_path / "done")
            with filled(tmp_path / "done"):
                await house.drop("first.wav", b"RIFF" * 20_000)
                await house.until(lambda: house.engine.folders.closed_reason("calls"))
                await house.drop("second.wav", b"RIFF" * 20_000)
                await house.rest()
                stats = await house.stats()
                assert (stats.publishing, stats.queued) == (1, 1)
                assert tree(tmp_path / "inbox") == {"first.wav", "second.wav"}
                assert tree(tmp_path / "done") == {".ballast"} | early
            await house.until(lambda: len(house.listener.files) == 3)
        assert tree(tmp_path / "done") == early | {
            f"{stem}.{suffix}" for stem in ("first", "second") for suffix in ("wav", "json", "txt")
        }
    assert sorted(provider.paid) == ["early.wav", "first.wav", "second.wav"]


async def test_a_full_state_directory_for_real(tmp_path):
    """Uploads stop before they are paid for, and go on when there is room."""
    provider = Counting()
    with tmpfs(tmp_path / "state", "8m"):
        async with House(make_config(tmp_path), {"main": provider}) as house:
            await house.drop("first.wav")
            await house.rest()
            with filled(tmp_path / "state", leave_bytes=1024 * 1024):
                await house.drop("second.wav")
                await house.until(lambda: house.engine.trouble)
                assert provider.paid == ["first.wav"]
            await house.until(lambda: len(house.listener.files) == 2)
    assert provider.paid == ["first.wav", "second.wav"]


async def test_a_state_directory_that_fills_up_in_flight_for_real(tmp_path):
    """Not a byte left when the answer comes: it waits for room, is kept, and was paid once."""
    provider = Counting(script=[_big_answer], gate=asyncio.Event())
    with tmpfs(tmp_path / "state", "8m"):
        async with House(make_config(tmp_path), {"main": provider}) as house:
            await house.drop("call.wav")
            await house.until(lambda: provider.in_flight == 1)
            with filled(tmp_path / "state"):
                provider.gate.set()
                await house.until(lambda: house.engine.trouble)
                assert tree(tmp_path / "inbox") == {"call.wav"}
            await house.until(lambda: house.listener.files)
    assert provider.paid == ["call.wav"]
    assert tree(tmp_path / "done") == {"call.wav", "call.json", "call.txt"}


async def test_a_full_state_directory_is_nothing_to_wait_for(tmp_path):
    """Nothing is sent while it is full, and ``run --once``, which would wait without end, is told so."""
    provider = Counting()
    with tmpfs(tmp_path / "state", "8m"):
        async with House(make_config(tmp_path), {"main": provider}) as house:
            with filled(tmp_path / "state", leave_bytes=STATE_RESERVE_BYTES // 2):
                await house.drop("call.wav")
                await house.until(lambda: house.engine.trouble)
                assert not await house.engine.can_go_on(60.0)
                assert provider.paid == []
            assert await house.engine.can_go_on(60.0)
            await house.until(lambda: house.listener.files)


def _lose(state):
    state.rename(state.with_name("old"))


def _delete(state):
    (state / "queue.db").unlink()


def _restore(state):
    shutil.copy(state / "queue.db", state / "backup").rename(state / "queue.db")


@pytest.mark.parametrize(("change", "words"), [(_lose, "gone"), (_delete, "gone"), (_restore, "replaced")])
async def test_nothing_is_paid_for_once_the_queue_has_lost_its_file(tmp_path, change, words):
    """What is written into a deleted file is lost with the process: the run ends, another takes the files."""
    provider = Counting()
    with pytest.raises(BaseExceptionGroup) as raised:
        async with House(make_config(tmp_path), {"main": provider}) as house:
            change(tmp_path / "state")
            await house.drop("call.wav")
            await asyncio.wait([house.feeding], timeout=10)
    house.own_store.close()
    assert raised.group_contains(StoreError, match=words)
    assert provider.paid == []
    async with House(house.config, {"main": provider}) as house:
        await house.submit("call.wav")
        await house.until(lambda: house.listener.files)


async def test_an_upload_under_way_is_filed_before_a_run_that_has_lost_its_queue_ends(tmp_path):
    """The next run would send it again; nothing else is begun."""
    provider = Counting(gate=asyncio.Event())
    with pytest.raises(BaseExceptionGroup):
        async with House(make_config(tmp_path), {"main": provider}) as house:
            await house.drop("call.wav")
            await house.until(lambda: provider.in_flight)
            _delete(tmp_path / "state")
            await house.drop("late.wav")
            await asyncio.wait([house.feeding], timeout=0.1)
            provider.gate.set()
            await asyncio.wait([house.feeding], timeout=10)
    house.own_store.close()
    assert provider.paid == ["call.wav"]
    assert tree(tmp_path / "inbox") == {"late.wav"}
    assert tree(tmp_path / "done") == {"call.wav", "call.json", "call.txt"}


async def test_an_answer_that_waits_is_filed_before_a_run_that_has_lost_its_queue_ends(tmp_path):
    """It is in the deleted file alone, and was paid for."""
    provider, done = Counting(gate=asyncio.Event()), tmp_path / "done"
    with pytest.raises(BaseExceptionGroup) as raised, capture_logs() as told:
        async with House(make_config(tmp_path), {"main": provider}) as house:
            await house.drop("call.wav")
            await house.until(lambda: provider.in_flight)
            done.write_bytes(b"no folder")
            provider.gate.set()
            await house.until(lambda: house.engine.folders.closed)
            _delete(tmp_path / "state")
            house.engine.signals.wake.set()
            await house.until(lambda: "gone" in (house.engine.trouble or ""))
            done.unlink()
            await house.until(lambda: house.listener.files)
            await asyncio.wait([house.feeding], timeout=10)
    house.own_store.close()
    assert raised.group_contains(StoreError, match="gone")
    assert [line["event"] for line in told if line["log_level"] == "error"] == ["store.lost"]
    assert provider.paid == ["call.wav"]
    assert tree(done) == {"call.wav", "call.json", "call.txt"}


def test_a_start_on_a_full_disk_says_so(tmp_path):
    """Without a free block SQLite gets no shared memory for its file, which is an error of the disk to it."""
    with tmpfs(tmp_path / "state", "2m"):
        Store(tmp_path / "state").close()
        with filled(tmp_path / "state"), pytest.raises(StoreFull) as caught:
            Store(tmp_path / "state")
        assert "full" in caught.value.reason
        assert "make room" in caught.value.remedy
        Store(tmp_path / "state").close()
