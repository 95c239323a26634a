"""Jobs that a provider works on by itself: uploaded once, then polled, on both engines."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from types import SimpleNamespace

import pytest
from structlog.testing import capture_logs

from dropscribe.config.model import FolderRule, ProviderConfig
from dropscribe.core.budget import Budget, Limit
from dropscribe.core.model import AtProvider, Hold, Retry, Scope, ScopeKind
from dropscribe.pipeline.handler import Handler
from dropscribe.queue.model import build_plan
from dropscribe.queue.sql.rows import read_at_provider
from support.house import House, make_config, read_json, tree
from support.scripted import ScriptedProvider

HOUR = 3600.0


@pytest.fixture
def vendor(monkeypatch):
    """A provider with jobs of its own: *steps* are what the upload and the polls come to."""
    found = SimpleNamespace(steps=[], uploads=[], polls=[])
    upload_and_answer = Handler.attempt

    async def attempt(self, job):
        if job.remote is None:
            found.uploads.append(job.path)
        else:
            found.polls.append(job.remote.id)
        step = found.steps.pop(0) if found.steps else None
        if step is None:
            return await upload_and_answer(self, replace(job, remote=None))
        if isinstance(step, Exception):
            raise step
        return step

    monkeypatch.setattr(Handler, "attempt", attempt)
    return found


async def _make_due(house):
    await house.store.do(lambda db: db.execute("UPDATE jobs SET due_at = 1.0"))
    house.engine.signals.wake.set()


async def test_a_remote_job_survives_a_restart_and_is_not_uploaded_again(tmp_path, vendor):
    """Nothing is paid twice: the provider's id is stored before the first poll, and polled after a start."""
    vendor.steps = [AtProvider("v-1", HOUR)]
    config = make_config(tmp_path)
    async with House(config, {"main": ScriptedProvider()}) as house:
        await house.drop("call.wav")
        await house.until(lambda: vendor.uploads)

        async def is_at_provider():
            stats = await house.stats()
            return (stats.at_provider, stats.transcribing) == (1, 0)

        await house.until(is_at_provider)
        assert not house.engine.in_flight.at("main")
    async with House(config, {"main": ScriptedProvider()}) as house:
        await _make_due(house)
        await house.until(lambda: house.listener.files)
        assert (await house.stats()).maybe_paid_twice == 0

    assert (vendor.uploads, vendor.polls) == ([b"call.wav"], ["v-1"])
    assert house.listener.files[0].job.attempts == 1
    assert tree(tmp_path / "done") == {"call.wav", "call.json", "call.txt"}


async def test_polls_go_on_until_the_answer_is_there_and_hold_no_slot(tmp_path, vendor):
    """One slot serves another file while the provider works on the first."""
    vendor.steps = [AtProvider("v-1", HOUR)]
    config = make_config(tmp_path)
    limits = build_plan(config)
    async with House(config, {"main": ScriptedProvider()}) as house:
        await house.stats()  # the engine runs by now, on the plan of the config
        one_slot = replace(limits.providers["main"], slots=1)
        house.engine.replan(replace(limits, providers={"main": one_slot}))
        await house.drop("long.wav", b"RIFF long")
        await house.until(lambda: vendor.uploads)
        await house.drop("short.wav", b"RIFF short")
        await house.until(lambda: house.listener.files)
        vendor.steps = [AtProvider("v-1", 0.01), AtProvider("v-1", 0.01)]
        await _make_due(house)
        await house.until(lambda: len(house.listener.files) == 2)

    assert vendor.polls == ["v-1"] * 3
    assert [file.job.path for file in house.listener.files] == [b"short.wav", b"long.wav"]


async def test_a_bug_in_polling_never_uploads_again(tmp_path, vendor):
    """After a few tries the file is in failed with internal_error; it was uploaded once."""
    vendor.steps = [AtProvider("v-1", 0.0), *(ValueError("no such key") for _ in range(3))]
    async with House(make_config(tmp_path), {"main": ScriptedProvider()}) as house:
        await house.drop("call.wav")
        await house.until(lambda: house.listener.files)

    assert vendor.uploads == [b"call.wav"]
    assert read_json(tmp_path / "failed/call.error.json")["code"] == "internal_error"


async def test_a_remote_job_of_a_removed_provider_goes_to_the_rules_own(tmp_path, vendor):
    """A provider that a reload has removed cannot be polled: the file is sent to the one that is there."""
    vendor.steps = [AtProvider("v-1", HOUR)]
    config = make_config(tmp_path)
    plan = build_plan(config)
    async with House(config, {"main": ScriptedProvider()}) as house:
        await house.stats()  # the engine runs by now, on the plan of the config
        old = replace(plan.providers["main"], provider="old")
        house.engine.replan(replace(plan, providers={"old": old}, chains={"calls": ("old",)}))
        await house.drop("call.wav")
        await house.until(lambda: vendor.uploads)

        async def is_at_provider():
            return (await house.stats()).at_provider == 1

        await house.until(is_at_provider)
        house.engine.replan(plan)
        await house.engine.clear_stale_assignments()
        await house.until(lambda: house.listener.files)
        assert (await house.stats()).maybe_paid_twice == 1

    assert vendor.uploads == [b"call.wav"] * 2
    assert vendor.polls == []
    assert tree(tmp_path / "done") == {"call.wav", "call.json", "call.txt"}


async def test_a_start_tells_of_the_files_at_a_provider_that_has_left_the_config(tmp_path, vendor):
    """Or has another name: the log has a line for each file that is sent again, and it is counted."""
    vendor.steps = [AtProvider("v-1", HOUR)]
    old = {"old": ProviderConfig(name="old", type="openai", concurrency=1)}
    async with House(make_config(tmp_path, providers=old), {"old": ScriptedProvider()}) as house:
        await house.drop("call.wav")

        async def is_at_provider():
            return (await house.stats()).at_provider == 1

        await house.until(is_at_provider)
    with capture_logs() as lines:
        async with House(make_config(tmp_path), {"main": ScriptedProvider()}) as house:
            await house.until(lambda: house.listener.files)
            assert (await house.stats()).maybe_paid_twice == 1
    told = [line for line in lines if line["event"] == "job.provider_removed"]
    assert [(line["path"], line["provider"]) for line in told] == [(b"call.wav", "old")]


async def test_no_more_jobs_are_given_to_a_provider_than_it_may_have(tmp_path, vendor):
    """The next upload waits until the provider has finished one of its jobs."""
    vendor.steps = [AtProvider("v-1", HOUR)]
    config = make_config(tmp_path)
    plan = build_plan(config)
    async with House(config, {"main": ScriptedProvider()}) as house:
        await house.stats()  # the engine runs by now, on the plan of the config
        one_job = replace(plan.providers["main"], remote_jobs=1)
        house.engine.replan(replace(plan, providers={"main": one_job}))
        await house.drop("first.wav", b"RIFF 1")
        await house.until(lambda: vendor.uploads)
        await house.drop("second.wav", b"RIFF 2")
        stats = await house.stats()
        assert (stats.at_provider, stats.queued) == (1, 1)
        await _make_due(house)
        await house.until(lambda: len(house.listener.files) == 2)

    assert vendor.uploads == [b"first.wav", b"second.wav"]


async def test_jobs_of_a_rule_that_has_left_keep_no_other_waiting(tmp_path, vendor, monkeypatch):
    """They are not polled, take no place of those that are, and `run --once` does not wait for them."""
    monkeypatch.setattr("dropscribe.queue.job_tasks.POLLING_SLOTS", 2)
    vendor.steps = [AtProvider(f"v-{number}", HOUR) for number in range(4)]
    rules = {name: _rule(tmp_path, name) for name in ("leaves", "stays")}
    plan = build_plan(config := make_config(tmp_path, rules=rules))
    async with House(config, {"main": ScriptedProvider()}) as house:
        for number in range(3):
            await house.drop(f"{number}.wav", b"RIFF %d" % number, "leaves")
        await house.until(lambda: len(vendor.uploads) == 3)
        await house.drop("call.wav", folder="stays")

        async def are_at_provider():
            return len(await house.store.do(lambda db: read_at_provider(db, rules))) == 4

        await house.until(are_at_provider)
        two_jobs = replace(plan.providers["main"], remote_jobs=2)
        house.engine.replan(replace(plan, chains={"stays": ("main",)}, providers={"main": two_jobs}))
        await house.engine.clear_stale_assignments()
        await house.drop("another.wav", folder="stays")
        await house.until(lambda: house.listener.files)
        await _make_due(house)
        await house.until(lambda: len(house.listener.files) == 2)
        await house.rest()

    assert vendor.polls == ["v-3"]
    assert {path.name for path in (tmp_path / "done").rglob("*.wav")} == {"another.wav", "call.wav"}


async def test_a_job_that_begins_during_a_reload_is_polled(tmp_path, monkeypatch):
    """The jobs at providers are counted anew then; the queue has not taken the new one yet."""
    reloads, polls = [], []

    async def attempt(_, job):
        if job.remote is not None:
            polls.append(job.remote.id)
            return AtProvider(job.remote.id, HOUR)
        reloads.append(asyncio.create_task(house.engine.clear_stale_assignments()))
        await asyncio.sleep(0)
        return AtProvider("v-1", 0.01)

    monkeypatch.setattr(Handler, "attempt", attempt)
    house = House(make_config(tmp_path))
    async with house:
        await house.drop("call.wav")
        await house.until(lambda: polls)
        await asyncio.gather(*reloads)


async def test_an_upload_whose_rule_leaves_meanwhile_takes_no_place_of_others(tmp_path, monkeypatch):
    """Its job is not polled any more, and would keep the place for ever."""
    gate, sent = asyncio.Event(), []

    async def attempt(_, job):
        sent.append(job.folder)
        if job.folder == "leaves":
            await gate.wait()
        return AtProvider(f"v-{job.id}", HOUR)

    monkeypatch.setattr(Handler, "attempt", attempt)
    rules = {name: _rule(tmp_path, name) for name in ("leaves", "stays")}
    plan = build_plan(config := make_config(tmp_path, rules=rules))
    one_job = {"main": replace(plan.providers["main"], remote_jobs=1)}
    async with House(config) as house:
        await house.drop("call.wav", folder="leaves")
        await house.until(lambda: sent)
        house.engine.replan(replace(plan, chains={"stays": ("main",)}, providers=one_job))
        await house.engine.clear_stale_assignments()
        gate.set()
        await house.until(lambda: not house.engine.in_flight)
        await house.drop("another.wav", folder="stays")
        await house.until(lambda: "stays" in sent)


async def test_a_job_is_waited_for_while_its_provider_takes_no_other(tmp_path, vendor):
    """`run --once` files what is paid for, also where the account is empty by now."""
    vendor.steps = [AtProvider("v-1", HOUR), AtProvider("v-1", HOUR)]
    async with House(make_config(tmp_path, hold=(HOUR, HOUR)), {"main": ScriptedProvider()}) as house:
        await house.drop("call.wav")
        await house.until(lambda: vendor.uploads and not house.engine.in_flight)
        scope, now = Scope(ScopeKind.PROVIDER, "main"), house.engine.now()
        await house.engine.holds.hold(Hold(scope, "quota", "HTTP 402", now, now + HOUR, HOUR))
        assert await house.engine.can_go_on(60.0)


def _with_a_budget(root, **keys):
    """A config whose provider has one slot, and so one job at a time."""
    budget = Budget(per_day=Limit(1000.0, is_money=False))
    account = ProviderConfig(name="main", type="assemblyai", concurrency=1, budget=budget)
    return make_config(root, providers={"main": account}, **keys)


async def test_where_there_is_a_budget_no_more_files_are_at_the_provider_than_it_has_slots(tmp_path, vendor):
    """Nor of several rules: each upload may spend the rest."""
    rules = {name: _rule(tmp_path, name) for name in ("calls", "memos")}
    vendor.steps = [AtProvider(f"v-{number}", HOUR) for number in range(6)]
    async with House(_with_a_budget(tmp_path, rules=rules), {"main": ScriptedProvider()}) as house:
        for number in range(6):
            name = ("calls", "memos")[number % 2]
            await house.drop(f"{number}.wav", b"RIFF %d" % number, name)
        await house.until(lambda: vendor.uploads and not house.engine.in_flight)
        await asyncio.sleep(1.0)
    assert len(vendor.uploads) == 1


async def test_files_behind_a_job_that_cannot_be_asked_for_are_not_waited_for(tmp_path, vendor):
    """`run --once` ends: the job keeps the only place at the provider."""
    vendor.steps = [AtProvider("v-1", HOUR), Retry(HOUR, "http_503", "busy")]
    async with House(_with_a_budget(tmp_path), {"main": ScriptedProvider()}) as house:
        await house.drop("call.wav")
        await house.until(lambda: vendor.uploads and not house.engine.in_flight)
        await house.store.do(lambda db: db.execute("UPDATE jobs SET remote_at = remote_at - 660"))
        await _make_due(house)
        await house.until(lambda: vendor.polls and not house.engine.in_flight.polling)
        await house.drop("another.wav", b"RIFF another")
        assert not await house.engine.can_go_on(60.0)
        # Nor as a probe that is due; in a cluster the job may be another node's.
        house.engine.in_flight.at_provider.clear()
        hold = Hold(Scope(ScopeKind.PROVIDER, "main"), "quota", "HTTP 402", 0.0, 1.0, HOUR)
        house.engine.holds.replace_holds([hold])
        assert not await house.engine.can_go_on(60.0)


def _rule(root, name):
    places = {"inbox": root / name, "done": root / "done" / name, "failed": root / "failed" / name}
    return FolderRule(name=name, providers=("main",), **places)


@pytest.mark.parametrize("minutes", [1, 11])
async def test_nobody_waits_for_polls_that_fail_and_fail(tmp_path, vendor, minutes):
    """`run --once` ends some minutes after the upload, and at once where the provider is held."""
    vendor.steps = [AtProvider("v-1", HOUR)]
    async with House(make_config(tmp_path, hold=(HOUR, HOUR)), {"main": ScriptedProvider()}) as house:
        await house.drop("call.wav")

        async def is_at_provider():
            return (await house.stats()).at_provider == 1

        await house.until(is_at_provider)
        assert await house.engine.can_go_on(60.0)
        vendor.steps = [Retry(30.0, "http_503", "busy")]
        await house.store.do(
            lambda db: db.execute("UPDATE jobs SET remote_at = remote_at - ?", (60 * minutes,))
        )
        await _make_due(house)
        await house.until(lambda: vendor.polls and not house.engine.in_flight.polling)
        assert await house.engine.can_go_on(60.0) == (minutes < 10)
        scope, now = Scope(ScopeKind.PROVIDER, "main"), house.engine.now()
        await house.engine.holds.hold(Hold(scope, "unauthorized", "bad key", now, now + HOUR, HOUR))
        assert not await house.engine.can_go_on(60.0)
