"""A slot is handed on with the answer, and never given out twice."""

from __future__ import annotations

import asyncio
import contextlib
import threading

from dropscribe.config.model import ProviderConfig
from dropscribe.queue import rows_engine
from dropscribe.queue.embedded import engine
from support.house import House, make_config
from support.scripted import ScriptedProvider, transcript_of


def _config(root, slots, **keys):
    return make_config(
        root, providers={"main": ProviderConfig(name="main", type="openai", concurrency=slots)}, **keys
    )


async def test_never_more_attempts_are_under_way_than_slots(tmp_path):
    """Neither at the provider nor in the rows, where a crash would find them."""
    script = ScriptedProvider([lambda _: asyncio.sleep(0.002)] * 40)
    async with House(_config(tmp_path, 2), {"main": script}) as house:
        await house.store.do(lambda db: _refuse_more_than(db, 2))
        for number in range(40):
            await house.drop(f"{number}.wav", b"RIFF %d" % number)
        await house.until(lambda: len(house.listener.files) == 40)

    assert script.most_in_flight == 2
    assert len(script.calls) == 40
    assert all(file.is_done and file.attempts == 1 for file in house.listener.files)


def _refuse_more_than(db, slots):
    db.execute(
        "CREATE TRIGGER too_many AFTER UPDATE OF state ON jobs"
        f" WHEN (SELECT count(*) FROM jobs WHERE state = 'transcribing') > {slots}"
        " BEGIN SELECT RAISE(ABORT, 'more attempts than slots'); END"
    )


async def test_the_next_is_claimed_in_the_transaction_that_keeps(tmp_path):
    """While the store is busy both wait for it, the answer first."""
    script = ScriptedProvider(gate=asyncio.Event())
    async with House(_config(tmp_path, 1), {"main": script}) as house:
        await house.drop("first.wav", b"RIFF first")
        await house.drop("second.wav", b"RIFF second")
        await house.until(lambda: script.in_flight == 1)
        commits = _counted(house, "COMMIT")
        house.store._connection.create_function("commits", 0, lambda: len(commits))
        await house.store.do(_mark_steps)
        with _busy(house):
            script.gate.set()
            await house.until(lambda: house.store._calls.qsize() == 2)
        await house.until(lambda: len(house.listener.files) == 2)
        steps = await house.store.do(lambda db: db.execute("SELECT step, commits FROM steps").fetchall())

    (kept, kept_at), (claimed, claimed_at) = steps[:2]
    assert (kept, claimed) == ("transcribed", "transcribing")
    assert kept_at == claimed_at


def _counted(house, statement):
    found = []
    house.store._connection.set_trace_callback(lambda sql: found.append(sql) if sql == statement else None)
    return found


@contextlib.contextmanager
def _busy(house):
    release = threading.Event()
    ended = house.store.call(lambda _: release.wait(10))
    try:
        yield
    finally:
        release.set()
        ended.result(10)


def _mark_steps(db):
    db.execute("CREATE TABLE steps (step TEXT, commits INTEGER)")
    db.execute(
        "CREATE TEMP TRIGGER steps_of AFTER UPDATE OF state ON main.jobs WHEN new.state <> old.state BEGIN"
        " INSERT INTO steps VALUES (new.state, commits()); END"
    )


async def test_answers_that_find_no_room_keep_their_slots(tmp_path, monkeypatch):
    """However long the queue cannot grow, no more is sent than can wait in memory; all is kept after."""
    for module in (rows_engine, engine):
        monkeypatch.setattr(module, "FULL_LOOK_SECONDS", 0.01)
    script = ScriptedProvider([lambda _: transcript_of("word " * 20_000)] * 6, gate=asyncio.Event())
    async with House(_config(tmp_path, 1), {"main": script}) as house:
        for number in range(6):
            await house.drop(f"{number}.wav", b"RIFF %d" % number)
        await house.until(lambda: script.in_flight == 1)
        await house.store.do(_grow_no_more)
        failures = _counted(house, "ROLLBACK")
        script.gate.set()
        await house.until(lambda: len(failures) >= 50)
        assert len(script.calls) <= 2
        await house.store.do(lambda db: db.execute("PRAGMA max_page_count = 1000000").fetchall())
        await house.until(lambda: len(house.listener.files) == 6)

    assert len(script.calls) == 6


def _grow_no_more(db):
    (pages,) = db.execute("PRAGMA page_count").fetchone()
    db.execute(f"PRAGMA max_page_count = {pages}").fetchall()
