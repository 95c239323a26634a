"""Budgets: charged with the answer, told once, stopped when spent, and on by themselves at the turn."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import io
import time
import wave
from datetime import UTC, datetime, timedelta, timezone

import pytest

from dropscribe.config.model import ProviderConfig
from dropscribe.core.budget import Budget, Limit
from dropscribe.core.model import Scope, ScopeKind
from dropscribe.service.status import status_document
from dropscribe.transcripts.model import Transcript
from dropscribe.transcripts.render import RENDERERS
from support.house import House, make_config, stats_of, tree
from support.scripted import ScriptedProvider

MAIN = Scope(ScopeKind.PROVIDER, "main")
CALLS = Scope(ScopeKind.FOLDER, "calls")


def minutes(amount):
    """A limit of audio."""
    return Limit(amount, is_money=False)


def money(amount):
    """A limit of money."""
    return Limit(amount, is_money=True)


def zone_with_midnight_in(seconds):
    """A time zone whose day ends so soon."""
    clock = datetime.now(tz=UTC) + timedelta(seconds=seconds)
    since_midnight = timedelta(hours=clock.hour, minutes=clock.minute, seconds=clock.second)
    since_midnight += timedelta(microseconds=clock.microsecond)
    ahead = timedelta(days=1) - since_midnight
    return timezone(ahead if ahead < timedelta(hours=14) else ahead - timedelta(days=1))


def budgeted(root, *, of_provider=None, of_folder=None, price=None, time_zone=None, others=(), **keys):
    """One rule on `main`, one file at a time; its day ends in twelve hours."""
    main = ProviderConfig(
        name="main", type="openai", concurrency=1, budget=of_provider, price_per_minute=price
    )
    providers = {"main": main, **{name: ProviderConfig(name=name, type="openai") for name in others}}
    zone = time_zone or zone_with_midnight_in(12 * 3600)
    return make_config(root, providers=providers, budget=of_folder, time_zone=zone, **keys)


def lasting(seconds):
    """An answer to a recording of this length."""
    return Transcript("x", duration=seconds, raw={"text": "x"})


def answering(*seconds):
    """A provider whose answers are of these lengths."""
    return {"main": ScriptedProvider([lasting(each) for each in seconds])}


async def drop_in_turn(house, *names):
    """Each file ends, or waits, before the next is dropped."""
    for name in names:
        await house.drop(name, name.encode())
        await house.rest()


async def accounts_of(house):
    """(scope, spent, unknown) of every budget."""
    return [(account.scope, account.spent, account.unknown) for account in await house.engine.check_budgets()]


async def test_files_that_wait_already_are_stopped_too(tmp_path):
    """All are queued before the first answer: no more are sent than one beyond the limit."""
    async with House(
        budgeted(tmp_path, of_provider=Budget(per_day=minutes(2))), answering(*[60] * 9)
    ) as house:
        for number in range(9):
            await house.drop(f"{number}.wav", b"%d" % number)
        await house.rest()
        stats = await stats_of(house.engine)
    assert len(house.providers["main"].calls) <= 3
    assert stats.folders["calls"].held >= 6


@pytest.mark.parametrize(
    ("keys", "scope"),
    [
        ({"of_provider": Budget(per_day=minutes(2))}, MAIN),
        ({"of_folder": Budget(per_month=minutes(2))}, CALLS),
        ({"of_provider": Budget(per_month=money(1.0)), "price": 0.5}, MAIN),
        ({"of_folder": Budget(per_day=money(1.0)), "price": 0.5}, CALLS),
    ],
    ids=["provider-minutes", "folder-minutes", "provider-money", "folder-money"],
)
async def test_a_spent_budget_stops_what_comes_after(tmp_path, keys, scope):
    """Two minutes are paid for, the third file waits as held, and the reason says until when."""
    async with House(budgeted(tmp_path, **keys), answering(60, 60, 60)) as house:
        await drop_in_turn(house, "a.wav", "b.wav", "c.wav")
        stats = await stats_of(house.engine)
        assert not await house.engine.can_go_on(60.0)  # run --once does not wait for it

    assert len(house.providers["main"].calls) == 2
    assert (stats.folders["calls"].done, stats.folders["calls"].held) == (2, 1)
    (stop,) = stats.holds
    assert stop.scope == scope
    assert "is spent; it resets at 20" in stop.reason
    assert [hold.scope for hold in house.listener.holds] == [scope]
    assert (tmp_path / "inbox/c.wav").exists()


class Hasty(ScriptedProvider):
    """Answers before it has read the recording, which is cut short meanwhile."""

    inbox = None

    async def _play(self, step, audio):
        (self.inbox / audio.name.decode()).write_bytes(b"cut")
        return step


async def test_an_answer_to_a_recording_that_changed_spends_the_budget(tmp_path):
    """It was paid for, although it belongs to no known bytes: nothing more is sent on that day."""
    provider = Hasty([lasting(60)] * 9)
    provider.inbox = tmp_path / "inbox"
    async with House(budgeted(tmp_path, of_provider=Budget(per_day=minutes(1))), {"main": provider}) as house:
        await house.drop("a.wav", bytes(2_000_000))
        await house.rest()
        await drop_in_turn(house, "b.wav")
        stats = await stats_of(house.engine)

    assert (provider.calls, stats.folders["calls"].held) == ([b"a.wav"], 1)
    assert [hold.scope for hold in house.listener.holds] == [MAIN]


async def test_an_answer_that_cannot_be_rendered_spends_the_budget(tmp_path, monkeypatch):
    """Its file fails, and the next one waits: its cost counts as any other."""
    monkeypatch.setitem(RENDERERS, "txt", lambda document, _: document["no such key"])
    config = budgeted(tmp_path, of_provider=Budget(per_day=minutes(1)))
    async with House(config, answering(60, 60)) as house:
        await drop_in_turn(house, "a.wav", "b.wav")
        stats = await stats_of(house.engine)

    assert house.providers["main"].calls == [b"a.wav"]
    assert (stats.folders["calls"].failed, stats.folders["calls"].held) == (1, 1)


@pytest.mark.parametrize("claimed", [2.0**36, float("inf"), float("nan"), -5.0])
async def test_an_implausible_length_costs_no_budget(tmp_path, claimed):
    """59 bytes cannot last two thousand years, whoever says so: the length is unknown, and files go on."""
    config = budgeted(tmp_path, of_provider=Budget(per_month=money(100.0)), price=0.5)
    async with House(config, answering(claimed, 60)) as house:
        await drop_in_turn(house, "a.wav", "b.wav")
        accounts = await accounts_of(house)

    assert accounts == [(MAIN, 0.5, 1)]
    assert len(house.providers["main"].calls) == 2


async def test_a_budget_that_runs_low_is_told_once(tmp_path):
    """At 80 percent, once in the day, also over a restart."""
    config = budgeted(tmp_path, of_provider=Budget(per_day=minutes(5)))
    async with House(config, answering(180, 60, 30)) as house:
        await drop_in_turn(house, "a.wav")
        assert house.listener.warned == []
        await drop_in_turn(house, "b.wav", "c.wav")
    assert [(account.scope, account.spent) for account in house.listener.warned] == [(MAIN, 4.0)]
    async with House(config, answering(1)) as house:
        await drop_in_turn(house, "d.wav")
    assert house.listener.warned == []


async def test_a_stop_survives_a_restart(tmp_path):
    """What was spent is in the queue's database: a new start sends nothing more, and tells nobody again."""
    config = budgeted(tmp_path, of_provider=Budget(per_day=minutes(1)))
    async with House(config, answering(60)) as house:
        await drop_in_turn(house, "a.wav")
        assert len(house.listener.holds) == 1
    async with House(config, answering(60)) as house:
        await drop_in_turn(house, "b.wav")

    assert house.providers["main"].calls == []
    assert house.listener.holds == []


async def test_it_goes_on_by_itself_when_the_day_turns(tmp_path):
    """No probe before midnight; after it the file is sent, and the release is told."""
    zone = zone_with_midnight_in(2.5)
    config = budgeted(tmp_path, of_provider=Budget(per_day=minutes(1)), time_zone=zone)
    async with House(config, answering(60, 6)) as house:
        watching = asyncio.create_task(house.handler.budgets.watch())
        await drop_in_turn(house, "a.wav", "b.wav")
        assert (await house.stats()).held == 1
        (stop,) = (await stats_of(house.engine)).holds
        await house.until(lambda: len(house.listener.files) == 2)
        assert time.time() >= stop.next_probe_at
        await house.until(lambda: house.listener.releases)
        watching.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await watching

    assert [hold.scope for hold in house.listener.releases] == [MAIN]


async def test_the_next_of_a_list_takes_over(tmp_path):
    """A spent budget is a hold: with a list, files go to the next provider."""
    config = budgeted(tmp_path, of_provider=Budget(per_day=minutes(1)), others=("spare",))
    async with House(config, {**answering(60), "spare": ScriptedProvider()}) as house:
        await drop_in_turn(house, "a.wav", "b.wav")

    assert house.providers["spare"].calls == [b"b.wav"]
    assert tree(tmp_path / "inbox") == set()


async def test_an_answer_that_was_in_flight_does_not_lift_the_stop(tmp_path):
    """A good answer releases a hold, but no budget: only the turn of the day does."""
    config = budgeted(tmp_path, of_provider=Budget(per_day=minutes(1)))
    main = dataclasses.replace(config.providers["main"], concurrency=2)
    gate = asyncio.Event()
    script = ScriptedProvider([lasting(60), lasting(60)], gate=gate)
    config = dataclasses.replace(config, providers={"main": main})
    async with House(config, {"main": script}) as house:
        await house.drop("a.wav", b"a")
        await house.drop("b.wav", b"b")
        await house.until(lambda: script.in_flight == 2)
        gate.set()
        await house.rest()
        await drop_in_turn(house, "c.wav")
        assert (await house.stats()).held == 1

    assert len(script.calls) == 2


async def test_what_a_reused_answer_costs_is_nothing(tmp_path):
    """The same recording again is not charged, for it is not sent."""
    config = budgeted(tmp_path, of_provider=Budget(per_day=minutes(9)), ledger_keep_seconds=9e6)
    async with House(config, answering(60, 60)) as house:
        for name in ("a.wav", "b.wav"):
            await house.drop(name, b"the same")
            await house.rest()
        assert await accounts_of(house) == [(MAIN, 1.0, 0)]


def recording(seconds):
    """A WAV file of silence."""
    target = io.BytesIO()
    with wave.open(target, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(bytes(16000 * seconds))
    return target.getvalue()


@pytest.mark.parametrize(
    ("content", "expected"), [(recording(30), (MAIN, 0.5, 0)), (b"no header", (MAIN, 0.0, 1))]
)
async def test_an_unknown_length_is_looked_up_or_counted_as_unknown(tmp_path, content, expected):
    """Where the provider does not say how long it was, the header does; else one more is not known."""
    script = {"main": ScriptedProvider([Transcript("x", raw={"text": "x"})])}
    config = budgeted(tmp_path, of_provider=Budget(per_day=minutes(9)))
    async with House(config, script) as house:
        await house.drop("a.wav", content)
        await house.rest()
        assert await accounts_of(house) == [expected]


async def test_nothing_is_written_where_nobody_asks(tmp_path):
    """Without a price and a budget the way of a file is the same as ever."""
    async with House(make_config(tmp_path)) as house:
        await drop_in_turn(house, "a.wav")
        count = await house.store.do(lambda db: db.execute("SELECT count(*) FROM spending").fetchone())
    assert count == (0,)


async def test_status_shows_spent_and_left(tmp_path):
    """Limit, spent, left, unit and turn for each limit; null where there is none."""
    budget = Budget(per_day=money(2.0))
    config = budgeted(tmp_path, of_provider=budget, price=0.5)
    async with House(config, answering(90)) as house:
        await drop_in_turn(house, "a.wav")
        stats = await stats_of(house.engine)
    document = status_document(config, stats, {}, running=True, now=time.time())

    assert document["folders"]["calls"]["budget"] is None
    shown = document["providers"]["main"]["budget"]
    assert shown["per_month"] is None
    assert shown["per_day"] == {
        "limit": 2.0,
        "spent": 0.75,
        "left": 1.25,
        "unit": "money",
        "unknown_files": 0,
        "turns_at": shown["per_day"]["turns_at"],
    }
