"""A clock that is set back, by minutes or years: no file waits for a time by the old clock."""

from __future__ import annotations

import asyncio
import contextlib
import time

import pytest

from dropscribe.config.model import ProviderConfig
from dropscribe.core.budget import Budget, Limit
from dropscribe.core.errors import ProviderUnusable, TemporaryFailure
from dropscribe.pipeline import budgets
from dropscribe.queue.model import Pause
from dropscribe.queue.sql import hold_rows, transactions
from support.house import House, make_config
from support.scripted import ScriptedProvider

HOUR, YEARS = 3600.0, 3e8
REAL = time.time


@pytest.fixture
def clock(monkeypatch):
    """How far the wall clock is ahead: its one element may be changed at any time."""
    ahead = [YEARS]
    monkeypatch.setattr(time, "time", lambda: REAL() + ahead[0])
    return ahead


TROUBLES = {
    "retry": TemporaryFailure("http_500", "HTTP 500", status=500),
    "pause": TemporaryFailure(
        "http_429", "HTTP 429", status=429, retry_after_seconds=0.3, slows_provider=True
    ),
    "hold": ProviderUnusable("unauthorized", "bad key", status=401),
}


@pytest.mark.parametrize("trouble", TROUBLES)
@pytest.mark.parametrize("seconds", [HOUR, YEARS])
async def test_what_waits_when_the_clock_is_set_back_goes_on(tmp_path, clock, trouble, seconds):
    """After as long as it would have waited."""
    config = make_config(tmp_path, hold=(0.3, 0.3), retry={"first_seconds": 0.3, "max_seconds": 0.3})
    async with House(config, {"main": ScriptedProvider([TROUBLES[trouble]])}) as house:
        await house.drop("call.wav")
        await house.until(lambda: house.listener.attempts and not house.engine.in_flight)
        clock[0] -= seconds
        await house.until(lambda: house.listener.files)

    assert len(house.providers["main"].calls) == 2


async def test_a_pause_of_an_earlier_run_is_no_longer_than_it_was(tmp_path, clock):
    """The clock was set back while no daemon ran."""
    config = make_config(tmp_path)
    async with House(config) as house:
        pause = Pause("main", time.time(), time.time() + 0.3)
        await house.store.do(lambda db: hold_rows.write_pause(db, pause))
    clock[0] = 0.0
    async with House(config) as house:
        await house.drop("call.wav")
        await house.until(lambda: house.listener.files)


async def test_a_file_that_was_seen_before_the_clock_was_set_back_is_due(tmp_path, clock):
    """It has waited for its end meanwhile."""
    async with House(make_config(tmp_path)) as house:
        (tmp_path / "inbox/call.wav").write_bytes(b"RIFF some audio")
        job = house.new_job("call.wav")
        clock[0] = 0.0
        await asyncio.to_thread(house.engine.intake.submit, [job])
        house.engine.signals.wake.set()
        await house.until(lambda: house.listener.files)


async def test_the_history_is_left_as_it_is(tmp_path):
    """Nothing waits there, and its times belong together."""
    times = "SELECT received_at, due_at, ended_at FROM jobs"
    async with House(make_config(tmp_path)) as house:
        await house.drop("call.wav")
        await house.until(lambda: house.listener.files and not house.engine.in_flight)
        before = await house.store.do(lambda db: db.execute(times).fetchall())
        await house.store.do(lambda db: transactions.set_clock_back(db, YEARS, time.time() - YEARS))
        assert await house.store.do(lambda db: db.execute(times).fetchall()) == before


async def test_a_budget_of_a_day_to_come_stops_nothing(tmp_path, clock, monkeypatch):
    """What was spent by the old clock is not of today."""
    monkeypatch.setattr(budgets, "LONGEST_SLEEP_SECONDS", 0.05)
    budget = Budget(per_day=Limit(0.001, is_money=False))
    account = ProviderConfig(name="main", type="openai", budget=budget)
    async with House(make_config(tmp_path, providers={"main": account})) as house:
        watching = asyncio.create_task(house.handler.budgets.watch())
        await house.drop("a.wav", b"a")
        await house.until(lambda: house.listener.holds)
        await house.drop("b.wav", b"b")
        clock[0] = 0.0
        await house.until(lambda: len(house.listener.files) == 2)
        watching.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await watching
