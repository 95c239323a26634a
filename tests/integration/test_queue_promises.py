"""What the queue promises on both engines: bounded attempts, fair slots, visible pauses, odd values."""

from __future__ import annotations

import asyncio
import os
import time
from dataclasses import replace
from types import SimpleNamespace

import pytest

from dropscribe.config.model import FolderRule, ProviderConfig
from dropscribe.core.errors import AmbiguousFailure, AudioRejected, ProviderUnusable, TemporaryFailure
from dropscribe.core.model import Scope, ScopeKind
from dropscribe.pipeline.claims import build_runtime
from dropscribe.pipeline.handler import Handler
from dropscribe.queue import holds
from dropscribe.queue.holds import ProviderRates
from dropscribe.queue.model import LONGEST_PAUSE_SECONDS, build_plan
from dropscribe.queue.retrying_database import RetryingDatabase
from dropscribe.queue.sql import intake_queries
from support.house import House, make_config, read_json, stats_of, tree
from support.scripted import ScriptedProvider, transcript_of


def one_provider(root, slots, **keys):
    return make_config(
        root, providers={"main": ProviderConfig(name="main", type="openai", concurrency=slots)}, **keys
    )


async def test_a_bug_ends_a_file_after_a_few_attempts_and_its_neighbours_flow(tmp_path, monkeypatch):
    """Nothing is paid without end: internal_error in failed after three attempts, the others in done."""
    attempt, attempts = Handler.attempt, []

    async def attempt_with_bug(self, job):
        if job.path == b"poison.wav" and job.internal_errors < 3:
            attempts.append(job.internal_errors)
            raise OverflowError("int too large to convert to float")
        return await attempt(self, job)

    monkeypatch.setattr(Handler, "attempt", attempt_with_bug)
    script = ScriptedProvider()
    async with House(make_config(tmp_path), {"main": script}) as house:
        await house.drop("poison.wav", b"RIFF poison")
        await house.drop("good.wav", b"RIFF good")
        await house.until(lambda: len(house.listener.files) == 2)

    assert attempts == [0, 1, 2]
    assert script.calls == [b"good.wav"]
    assert read_json(tmp_path / "failed/poison.error.json")["code"] == "internal_error"
    assert tree(tmp_path / "done") == {"good.wav", "good.json", "good.txt"}


async def is_deferred(house):
    return (await house.stats()).deferred == 1


async def test_a_limit_that_is_reached_is_checked_before_a_file_is_sent_again(tmp_path):
    """Attempts that were counted before max_ambiguous was lowered count: the file is not sent once more."""
    script = ScriptedProvider([AmbiguousFailure("no_answer", "silence")])
    async with House(make_config(tmp_path, retry={"first_seconds": 60.0}), {"main": script}) as house:
        await house.drop("call.wav")
        await house.until(lambda: is_deferred(house))
    async with House(make_config(tmp_path, retry={"max_ambiguous": 1}), {"main": script}) as house:
        await house.store.do(lambda db: db.execute("UPDATE jobs SET due_at = 1.0"))
        await house.until(lambda: house.listener.files)

    assert len(script.calls) == 1
    error = read_json(tmp_path / "failed/call.error.json")
    assert (error["code"], error["reason"]) == ("gave_up", "sent whole 1 time without a usable answer")


@pytest.mark.parametrize("slots", [1, 2])
async def test_a_folder_with_many_files_does_not_starve_its_neighbour(tmp_path, slots):
    """Slots go round the folders: one file of another folder is among the next ones to be sent."""
    rules = {
        name: FolderRule(
            name=name,
            inbox=tmp_path / name,
            done=tmp_path / f"{name}-done",
            failed=tmp_path / f"{name}-failed",
            providers=("main",),
        )
        for name in ("many", "one")
    }
    script = ScriptedProvider(gate=asyncio.Event())
    async with House(one_provider(tmp_path, slots, rules=rules), {"main": script}) as house:
        for number in range(40):
            await house.drop(f"{number}.wav", b"RIFF %d" % number, folder="many")
        await house.until(lambda: script.in_flight == slots)
        await house.drop("single.wav", b"RIFF single", folder="one")
        script.gate.set()
        await house.until(lambda: b"single.wav" in script.calls, 30.0)
        sent_before = script.calls.index(b"single.wav")

    assert sent_before <= 2 * slots + 1


async def test_large_uploads_leave_a_slot_to_small_files(tmp_path, monkeypatch):
    """Two huge files of two slots: the small one goes while a huge one is under way."""
    for module in ("sql.claims", "admission"):
        monkeypatch.setattr(f"dropscribe.queue.{module}.LARGE_BYTES", 1000)
    script = ScriptedProvider(gate=asyncio.Event())
    async with House(one_provider(tmp_path, 2), {"main": script}) as house:
        await house.drop("huge-1.wav", b"RIFF 1" * 1000)
        await house.drop("huge-2.wav", b"RIFF 2" * 1000)
        await house.drop("small.wav", b"RIFF small")
        await house.until(lambda: script.in_flight == 2)
        assert sorted(script.calls) == [b"huge-1.wav", b"small.wav"]
        script.gate.set()
        await house.until(lambda: len(house.listener.files) == 3, 30.0)

    assert len(script.calls) == 3


async def test_a_pause_is_visible_bounded_and_survives_a_restart(tmp_path):
    """A provider that asks for two hours is asked again after one; stats name the end; one file probes."""
    config = one_provider(tmp_path, 4)
    async with House(config) as house:
        await house.stats()
        house.engine.rates.pause("main", 7200.0)
        await house.until(lambda: house.engine.trouble is None)
        (pause,) = (await stats_of(house.engine)).pauses.values()
        assert pause.until <= house.engine.now() + LONGEST_PAUSE_SECONDS
    script = ScriptedProvider(gate=asyncio.Event())
    async with House(config, {"main": script}) as house:
        for number in range(6):
            await house.drop(f"{number}.wav", b"RIFF %d" % number)
        assert "main" in (await stats_of(house.engine)).pauses
        assert script.calls == []
        await house.store.do(lambda db: db.execute("UPDATE pauses SET until = 2.0"))
        house.engine.rates.pauses = {"main": replace(pause, until=2.0)}
        house.engine.signals.wake.set()
        await house.until(lambda: script.in_flight)
        assert script.in_flight == 1
        script.gate.set()
        await house.until(lambda: len(house.listener.files) == 6, 30.0)
        assert (await stats_of(house.engine)).pauses == {}


@pytest.mark.parametrize("is_held", [True, False])
async def test_trying_a_provider_now_ends_its_pause(tmp_path, is_held):
    """A provider that asked for an hour, held or not, is asked at once where a user says so."""
    held = [ProviderUnusable("unauthorized", status=401)] if is_held else []
    busy = TemporaryFailure("rate_limited", status=429, retry_after_seconds=3600.0, slows_provider=True)
    script = ScriptedProvider([*held, busy])
    config = one_provider(tmp_path, 1, hold=(0.05, 0.1))
    async with House(config, {"main": script}) as house:
        await house.drop("call.wav")
        await house.until(lambda: len(house.listener.attempts) == len(held) + 1)
        await house.rest()
        assert (await stats_of(house.engine)).pauses
        house.engine.holds.probe_now(Scope(ScopeKind.PROVIDER, "main"))
        await house.until(lambda: house.listener.files, 30.0)
        assert (await stats_of(house.engine)).pauses == {}

    assert len(script.calls) == len(held) + 2


async def test_a_run_that_ends_by_itself_waits_for_no_writer(tmp_path):
    """A program opens a file again while it is transcribed: it is filed once that has closed it."""
    script = ScriptedProvider(gate=asyncio.Event())
    async with House(make_config(tmp_path), {"main": script}) as house:
        call = await house.drop("call.wav")
        await house.until(lambda: script.in_flight)
        with call.open("r+b"):
            script.gate.set()

            async def is_over():
                return not await house.engine.can_go_on(60.0)

            await house.until(is_over)
            assert not house.listener.files
        await house.until(lambda: house.listener.files)


async def test_a_run_that_ends_by_itself_waits_for_no_long_pause(tmp_path):
    """The files behind a paused provider are due, but cannot start; a short pause and an attempt count."""
    refusal = TemporaryFailure("rate_limited", status=429, retry_after_seconds=3600.0, slows_provider=True)
    script = ScriptedProvider([refusal], gate=asyncio.Event())
    async with House(one_provider(tmp_path, 1), {"main": script}) as house:
        for number in range(3):
            await house.drop(f"{number}.wav", b"RIFF %d" % number)
        await house.until(lambda: script.in_flight)
        assert await house.engine.can_go_on(60.0)
        script.gate.set()
        await house.until(lambda: house.listener.attempts)
        await house.rest()
        assert not await house.engine.can_go_on(60.0)
        assert await house.engine.can_go_on(LONGEST_PAUSE_SECONDS)

    assert len(script.calls) == 1


async def test_a_run_that_ends_by_itself_waits_for_no_slow_rate_limit(tmp_path):
    """One request in ten minutes: the second file is left; with one in a minute it is waited for."""
    config = one_provider(tmp_path, 2)
    config.providers["main"] = replace(config.providers["main"], requests_per_minute=0.1)
    async with House(config) as house:
        for number in range(2):
            await house.drop(f"{number}.wav", b"RIFF %d" % number)
        await house.until(lambda: house.listener.files)
        await house.rest()
        assert not await house.engine.can_go_on(60.0)
        assert await house.engine.can_go_on(601.0)
        assert (await house.stats()).queued == 1


async def test_a_job_whose_provider_a_reload_removed_goes_to_the_rules_own(tmp_path, queue_kind):
    """Neither an attempt that ends ambiguous after the reload nor a file behind it waits for ever."""
    providers = {name: ProviderConfig(name=name, type="openai", concurrency=1) for name in ("old", "main")}
    config = make_config(tmp_path, providers=providers)
    before, after = (
        replace(config, folders={"calls": replace(config.folders["calls"], providers=(name,))})
        for name in ("old", "main")
    )
    script = ScriptedProvider([AmbiguousFailure("no_answer", "silence")], gate=asyncio.Event())
    async with House(before, {"old": script, "main": script}) as house:
        await house.drop("call.wav")
        await house.until(lambda: script.in_flight)
        await house.drop("next.wav", b"RIFF other audio")
        house.handler.runtime = build_runtime(after, house.providers, house.engine)
        house.engine.replan(build_plan(after))
        await house.engine.clear_stale_assignments()
        script.gate.set()
        await house.until(lambda: len(house.listener.files) == 2, 30.0)

    assert [report.provider for report in house.listener.attempts] == ["old", "main", "main"]
    assert tree(tmp_path / "done") == {
        f"{stem}.{end}" for stem in ("call", "next") for end in ("wav", "json", "txt")
    }


async def test_an_upload_ends_with_the_engine_and_is_handed_back(tmp_path):
    """An engine that is cancelled leaves no upload running, and no process that cannot end."""
    config, script = one_provider(tmp_path, 1), ScriptedProvider(gate=asyncio.Event())
    async with House(config, {"main": script}) as house:
        await house.drop("call.wav")
        await house.until(lambda: script.in_flight)

    assert script.in_flight == 0
    script.gate.set()
    async with House(config, {"main": script}) as house:
        assert (await house.stats()).maybe_paid_twice == 1
        await house.until(lambda: house.listener.files, 30.0)
    assert tree(tmp_path / "done") == {"call.wav", "call.json", "call.txt"}


async def test_text_that_is_no_utf8_is_stored(tmp_path):
    """A Latin-1 name in a reason is no reason to fail."""
    refusal = AmbiguousFailure("no_answer", "like caf\udce9.wav\0")
    async with House(make_config(tmp_path), {"main": ScriptedProvider([refusal])}) as house:
        await house.drop(b"caf\xe9.wav".decode("utf-8", "surrogateescape"))
        await house.until(lambda: house.listener.files)

    assert len(house.listener.files) == 1


async def test_a_stored_result_is_never_withdrawn_by_a_listing(tmp_path):
    """What was paid for is published, whatever a listing saw between the move and its row."""

    def block(_):
        (tmp_path / "done").rmdir()
        (tmp_path / "done").write_bytes(b"in the way")

    (tmp_path / "done").mkdir()
    async with House(make_config(tmp_path), {"main": ScriptedProvider([block])}) as house:
        await house.drop("call.wav")

        async def is_stored():
            return (await house.stats()).publishing == 1

        await house.until(is_stored)
        places = [(b"", b"call.wav")]
        ended = await house.store.do(lambda db: intake_queries.withdraw(db, "calls", places, "missing"))
        assert ended == []
        (tmp_path / "done").unlink()
        await house.until(lambda: house.listener.files, 30.0)

    assert tree(tmp_path / "done") == {"call.wav", "call.json", "call.txt"}


async def test_ended_jobs_are_deleted_in_small_batches_and_counts_stay(tmp_path, monkeypatch):
    """History does not grow for ever; what was done is still counted."""
    monkeypatch.setattr("dropscribe.queue.sql.history.PRUNE_BATCH", 2)
    async with House(make_config(tmp_path)) as house:
        for number in range(4):
            await house.drop(f"{number}.wav", b"RIFF %d" % number)
        await house.until(lambda: len(house.listener.files) == 4)
        assert await house.engine.prune(3600.0, 3600.0) is False
        await house.store.do(lambda db: db.execute("UPDATE jobs SET ended_at = 1.0"))
        assert await house.engine.prune(3600.0, 3600.0) is True
        assert await house.engine.prune(3600.0, 3600.0) is False
        (left,) = await house.store.do(lambda db: db.execute("SELECT count(*) FROM jobs").fetchone())
        assert left == 1
        assert (await house.stats()).done == 4


async def test_doubtful_transcripts_are_counted(tmp_path):
    """An empty transcript is counted once its file is done; one of a recording without sound is in order."""
    silent = replace(transcript_of(""), warnings=("no_speech",))
    script = ScriptedProvider([lambda _: transcript_of(""), lambda _: silent, lambda _: transcript_of("x")])
    async with House(one_provider(tmp_path, 1), {"main": script}) as house:
        for number in range(3):
            await house.drop(f"{number}.wav", b"RIFF %d" % number)
        await house.until(lambda: len(house.listener.files) == 3)
        await house.rest()
        assert (await house.stats()).suspect == 1


def test_the_limit_of_a_removed_provider_wakes_nobody(tmp_path):
    """A provider whose minute was full when a reload removed it costs no empty turns."""
    plan = build_plan(make_config(tmp_path))
    rates = ProviderRates(RetryingDatabase(SimpleNamespace(now=time.time)))
    rates.replan([replace(plan.providers["main"], requests_per_minute=1.0)])
    rates.started("main")
    assert len(rates.waits()) == 1

    rates.replan([])

    assert rates.waits() == []


def test_a_rate_limit_holds_where_the_provider_counts(tmp_path, monkeypatch):
    """The first request may have been on its way for longer than the one a minute later."""
    plan, now = build_plan(make_config(tmp_path)), 1000.0
    monkeypatch.setattr(holds, "time", SimpleNamespace(monotonic=lambda: now))
    rates = ProviderRates(RetryingDatabase(SimpleNamespace(now=time.time)))
    rates.replan([replace(plan.providers["main"], requests_per_minute=2.0)])
    rates.started("main")
    rates.started("main")
    now += 60.5
    assert rates.allowance("main", 0) == 0
    now += 1.0
    assert rates.allowance("main", 0) == 2


async def test_a_rename_moves_the_job_of_that_file_alone(tmp_path, queue_kind):
    """A file was renamed in flight, and another was written under its old name: each keeps its own path."""
    if queue_kind == "postgres":
        pytest.skip("a cluster knows files by path, because inodes differ between nodes")
    script = ScriptedProvider(gate=asyncio.Event())
    async with House(one_provider(tmp_path, 1), {"main": script}) as house:
        first = await house.drop("call.wav", b"RIFF first")
        await house.until(lambda: script.in_flight)
        first.rename(tmp_path / "inbox/renamed.wav")
        await house.drop("call.wav", b"RIFF second, longer")
        await house.relocate("renamed.wav")
        script.gate.set()
        script.gate.clear()  # the first is answered, and filed before the second is
        await house.until(lambda: len(house.listener.files) == 1, 30.0)
        script.gate.set()
        await house.until(lambda: len(house.listener.files) == 2, 30.0)

    assert len(script.calls) == 2
    ends = ("wav", "json", "txt")
    assert tree(tmp_path / "done") == {f"{stem}.{end}" for stem in ("call", "renamed") for end in ends}


async def test_few_failed_files_are_looked_at_for_each_new_one_of_a_recorder_with_one_name(tmp_path):
    """Of the same size too: all of them may be originals of its copy."""
    refused = AudioRejected("bad_audio", "no sound")
    async with House(make_config(tmp_path), {"main": ScriptedProvider([refused] * 12)}) as house:
        for count in range(1, 13):
            await house.drop("call.wav")
            await house.until(lambda count=count: len(house.listener.files) == count, 30.0)
        (tmp_path / "inbox/call.wav").write_bytes(b"RIFF some audio")
        new = house.new_job("call.wav")
        found = await house.store.do(lambda db: intake_queries.read_failed_of(db, new))

    newest = {os.fsencode(tmp_path / f"failed/call-{number}.wav") for number in range(3, 13)}
    assert {filed for _, filed in found} == newest


async def test_a_run_that_ends_by_itself_tries_a_provider_whose_hold_is_due(tmp_path, queue_kind):
    """Runs of a timer would else leave its files for ever: each finds the hold of the one before."""
    script = ScriptedProvider([ProviderUnusable("unauthorized", status=401)], gate=asyncio.Event())
    script.gate.set()
    async with House(one_provider(tmp_path, 1, hold=(3600.0, 3600.0)), {"main": script}) as house:
        await house.drop("call.wav")
        await house.until(lambda: house.listener.attempts)
        await house.rest()
        assert not await house.engine.can_go_on(60.0)
        script.gate.clear()  # the probe, once it is begun, stays under way
        (hold,) = (await stats_of(house.engine)).holds
        await house.store.do(lambda db: db.execute("UPDATE holds SET next_probe_at = 1.0"))
        if queue_kind == "embedded":  # a node's look reads the rows
            house.engine.holds.replace_holds([replace(hold, next_probe_at=1.0)])
        await house.until(lambda: house.engine.holds.get(hold.scope).next_probe_at == 1.0)
        assert await house.engine.can_go_on(60.0)
        script.gate.set()
