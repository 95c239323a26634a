"""Files at a provider with jobs: what polls, failures and deletions come to, on a real server."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time

import pytest

from dropscribe.app.housekeeping import MOST_TRIES, delete_due
from dropscribe.config.model import ProviderConfig
from dropscribe.config.notation.secret import Secret
from dropscribe.core.budget import Budget, Limit
from dropscribe.core.model import Scope, ScopeKind
from dropscribe.core.text.printing import utc_text
from dropscribe.pipeline import publisher
from dropscribe.providers import jobs
from dropscribe.providers.build import build_provider
from dropscribe.queue.sql.history import FileFilter, read_files
from dropscribe.reports.wording import moment_words
from dropscribe.service.metrics import Metrics
from support.emulator import Emulator, Fault
from support.house import House, digest, make_config, read_json, tree
from support.pages import serving
from support.scene import Scene, add_job
from support.vendors import KEY

AGED = "UPDATE jobs SET remote_at = remote_at - 90000, due_at = 1.0"
"""The job has been at the provider for more than a day."""


@pytest.fixture
def emulator():
    with Emulator() as running:
        yield running


@pytest.fixture
def desk(emulator):
    return emulator.vendors.desk


@pytest.fixture(autouse=True)
def quick_polls(monkeypatch):
    monkeypatch.setattr(jobs, "FIRST_POLL_SECONDS", 0.01)


@contextlib.asynccontextmanager
async def house_at(emulator, tmp_path, *, concurrency=2, of_provider=None, **keys):
    """A house whose one provider is AssemblyAI's emulator."""
    account = ProviderConfig(
        name="main",
        type="assemblyai",
        url=emulator.url,
        api_key=Secret(KEY, "test"),
        timeout_seconds=5.0,
        concurrency=concurrency,
        budget=of_provider,
    )
    config = make_config(tmp_path, providers={"main": account}, **keys)
    provider = build_provider(account)
    try:
        async with House(config, {"main": provider}) as house:
            yield house
    finally:
        await provider.close()


async def delete_all(house):
    await delete_due(house.engine, house.providers)


async def deletions(house):
    return await house.store.do(lambda db: db.execute("SELECT tries FROM remote_deletions").fetchall())


async def test_a_result_is_filed_and_its_job_deleted(tmp_path, emulator, desk):
    """Audio and text do not stay at the vendor."""
    async with house_at(emulator, tmp_path) as house:
        await house.drop("call.wav")
        await house.until(lambda: house.listener.files)
        await delete_all(house)
        assert await deletions(house) == []
    assert tree(tmp_path / "done") == {"call.wav", "call.json", "call.txt"}
    assert (len(desk.created), desk.jobs) == (1, {})
    assert house.listener.files[0].job.attempts == 1


PUT_OFF, DUE = "UPDATE jobs SET due_at = 9e9", "UPDATE jobs SET due_at = 1.0"


async def _finish(house, emulator, desk):
    """Poll the job some times more, then let the vendor finish it."""
    polls = len(emulator.requests)
    await house.store.do(lambda db: db.execute(DUE))
    house.engine.signals.wake.set()
    await house.until(lambda: len(emulator.requests) > polls + 3)
    for job in desk.jobs.values():
        job.polls_left = 0
    await house.until(lambda: house.listener.files)


async def test_a_clock_that_is_set_forward_ends_no_job(tmp_path, emulator, desk, monkeypatch):
    """By two days: a job that is not finished after one is given up, and its file sent again."""
    desk.polls, time_by_clock = 10**6, time.time
    async with house_at(emulator, tmp_path) as house:
        await house.drop("call.wav")
        await house.until(lambda: house.engine.in_flight.at_provider and not house.engine.in_flight)

        async def is_put_off():
            """A poll that was under way may have made it due again."""
            await house.store.do(lambda db: db.execute(PUT_OFF))
            await asyncio.sleep(0.05)
            (due_at,) = await house.store.do(lambda db: db.execute("SELECT due_at FROM jobs").fetchone())
            return due_at == 9e9 and not house.engine.in_flight

        await house.until(is_put_off)
        monkeypatch.setattr(time, "time", lambda: time_by_clock() + 2 * 86400.0)
        house.engine.signals.wake.set()

        async def is_set_forward():
            (found,) = await house.store.do(lambda db: db.execute("SELECT remote_at FROM jobs").fetchone())
            return found > time_by_clock() + 86400.0

        await house.until(is_set_forward)
        await _finish(house, emulator, desk)
    assert len(desk.created) == 1


async def test_the_age_of_a_job_is_by_the_queues_clock(tmp_path, emulator, desk, monkeypatch):
    """A node whose own clock is two days ahead gives up no job."""
    desk.polls, time_by_clock = 10**6, time.time
    async with house_at(emulator, tmp_path) as house:
        monkeypatch.setattr(house.store, "now", lambda: time_by_clock() - 2 * 86400.0)
        await house.drop("call.wav")
        await house.until(lambda: house.engine.in_flight.at_provider)
        await _finish(house, emulator, desk)
    assert len(desk.created) == 1


async def test_a_node_without_the_provider_leaves_a_deletion_to_others(tmp_path, emulator, desk):
    """Its tries are limited, and this node's would all fail."""
    async with house_at(emulator, tmp_path) as house:
        await house.drop("call.wav")
        await house.until(lambda: house.listener.files)
        due_at = house.engine.now()
        await house.store.do(lambda db: db.execute("UPDATE remote_deletions SET due_at = ?", (due_at,)))
        await delete_due(house.engine, {})
        assert await deletions(house) == [(0,)]
        await delete_all(house)
        assert await deletions(house) == []
    assert desk.jobs == {}


async def test_a_deletion_that_fails_is_tried_again_and_given_up_at_last(tmp_path, emulator, desk):
    """It is bounded, and no file waits for it."""
    async with house_at(emulator, tmp_path) as house:
        await house.drop("call.wav")
        await house.until(lambda: house.listener.files)
        emulator.fail(Fault(status=500, body="no"))
        await delete_all(house)
        assert await deletions(house) == [(1,)]
        await delete_all(house)  # not due yet
        assert await deletions(house) == [(1,)]
        last = MOST_TRIES - 1
        await house.store.do(
            lambda db: db.execute("UPDATE remote_deletions SET due_at = 0, tries = ?", (last,))
        )
        emulator.fail(Fault(status=500, body="no"))
        await delete_all(house)
        assert await deletions(house) == []
    assert len(desk.jobs) == 1


def _touch(call):
    os.utime(call)


def _replace(call):
    copy = call.with_suffix(".new")
    copy.write_bytes(call.read_bytes())
    copy.rename(call)


def _hide(call):
    call.rename(call.with_suffix(".away"))


@pytest.mark.parametrize("change", [_touch, _replace, _hide])
@pytest.mark.parametrize("restarts", [False, True])
async def test_what_happens_to_a_recording_at_the_provider_costs_no_second_upload(
    tmp_path, monkeypatch, emulator, desk, change, restarts
):
    """Another time, the same bytes under another inode, an inbox that is away while the answer comes."""
    monkeypatch.setattr(publisher, "MISSING_WAIT_SECONDS", 0.05)
    desk.polls = 10**9
    call = tmp_path / "inbox/call.wav"
    async with contextlib.AsyncExitStack() as stack:
        house = await stack.enter_async_context(house_at(emulator, tmp_path))
        await house.drop("call.wav")

        async def is_at_provider():
            return (await house.stats()).at_provider == 1

        await house.until(is_at_provider)
        if restarts:
            await stack.aclose()
        change(call)
        for job in desk.jobs.values():
            job.polls_left = 0
        if restarts:
            house = await stack.enter_async_context(house_at(emulator, tmp_path))
        await house.until(lambda: house.listener.attempts)
        if change is _hide:
            call.with_suffix(".away").rename(call)
        await house.until(lambda: house.listener.files)
    assert len(desk.created) == 1
    assert tree(tmp_path / "done") == {"call.wav", "call.json", "call.txt"}
    assert read_json(tmp_path / "done/call.json")["source"]["sha256"] == digest(b"RIFF some audio")


async def test_a_recording_that_is_edited_at_the_provider_is_not_filed_under_its_transcript(
    tmp_path, emulator, desk
):
    """Its size and its time are the same: what was sent is known by its digest."""
    desk.polls = 10**9
    async with house_at(emulator, tmp_path) as house:
        call = await house.drop("call.wav")

        async def is_at_provider():
            return (await house.stats()).at_provider == 1

        await house.until(is_at_provider)
        times = call.stat()
        call.write_bytes(b"RIFF else audio")
        os.utime(call, ns=(times.st_atime_ns, times.st_mtime_ns))
        for job in desk.jobs.values():
            job.polls_left = 0
        await house.until(lambda: house.lookout.late_changes)
        await house.rest()
    assert tree(tmp_path / "done") == set()


async def test_polls_that_fail_never_send_the_file_again(tmp_path, emulator, desk):
    """No connection, 5xx, a page of a proxy: the job is at the vendor, and is asked for again."""
    desk.polls = 0
    async with house_at(emulator, tmp_path) as house:
        emulator.fail(
            None, None, Fault(status=500), Fault(close=True), Fault(status=504), Fault(body="<html>")
        )
        await house.drop("call.wav")
        await house.until(lambda: house.listener.files)
        assert (await house.stats()).maybe_paid_twice == 0
    assert len(desk.created) == 1


async def test_a_refused_key_while_polling_holds_the_provider_and_keeps_the_job(
    tmp_path, emulator, desk, monkeypatch
):
    """With the next key the job is polled on; nothing is sent again."""
    monkeypatch.setattr("dropscribe.pipeline.attempts.LONGEST_POLL_SECONDS", 0.01)
    desk.polls = 0
    async with house_at(emulator, tmp_path) as house:
        emulator.fail(None, None, Fault(status=401, body={"error": "no"}))
        await house.drop("call.wav")
        await house.until(lambda: house.listener.files)
        await house.until(lambda: house.listener.releases)
        assert len(house.listener.holds) == 1
    assert len(desk.created) == 1


@pytest.mark.parametrize("of", ["provider", "folder"])
async def test_a_budget_is_exceeded_by_no_more_files_than_there_are_slots(tmp_path, emulator, desk, of):
    """The cost of a file is known with its answer: others wait for it, though an upload's slot is free."""
    budget = Budget(per_day=Limit(0.001, is_money=False))
    keys = {"budget": budget} if of == "folder" else {"of_provider": budget}
    async with house_at(emulator, tmp_path, concurrency=2, **keys) as house:
        for number in range(6):
            await house.drop(f"{number}.wav", b"RIFF %d" % number)
        await house.until(lambda: house.listener.holds and len(house.listener.files) == 2)
        await house.rest()
        assert (await house.stats()).held == 4
    assert len(desk.created) == 2


async def test_a_held_provider_that_is_tried_now_is_asked_for_its_jobs(tmp_path, emulator, desk):
    """By a reload with a new key, or the page's button; where no other file waits, nothing was tried."""
    desk.polls = 0
    async with house_at(emulator, tmp_path) as house:
        emulator.fail(None, None, Fault(status=401, body={"error": "no"}))
        await house.drop("call.wav")
        await house.until(lambda: house.listener.holds)

        async def is_put_off():
            return await house.store.do(
                lambda db: db.execute("SELECT 1 FROM jobs WHERE code <> ''").fetchall()
            )

        await house.until(is_put_off)
        house.engine.holds.probe_now(Scope(ScopeKind.PROVIDER, "main"))
        await house.until(lambda: house.listener.files)
    assert len(desk.created) == 1


async def test_a_poll_that_was_refused_is_tried_at_once_after_a_restart(tmp_path, emulator, desk):
    """The restart may follow a new key; a run that ends by itself would not wait for the next poll."""
    desk.polls = 0
    async with house_at(emulator, tmp_path) as house:
        emulator.fail(None, None, Fault(status=401, body={"error": "no"}))
        await house.drop("call.wav")
        await house.until(lambda: house.listener.holds)
        await house.rest()
    async with house_at(emulator, tmp_path) as house:
        await house.rest()
        assert house.listener.files


async def test_a_job_that_is_never_finished_counts_as_sent_without_an_answer(tmp_path, emulator, desk):
    """After a day each, and `max_ambiguous` times, the file is in failed.

    A list shows no reason meanwhile: that of the first attempt is not one of the second.
    """
    desk.polls = 10**9
    async with house_at(
        emulator, tmp_path, retry={"max_ambiguous": 2, "give_up_after_seconds": 1e7}
    ) as house:
        await house.drop("call.wav")
        for count in (1, 2):
            await house.until(lambda count=count: len(desk.created) == count)

            async def is_at_provider():
                return (await house.stats()).at_provider == 1

            await house.until(is_at_provider)
            (listed,) = await house.store.do(lambda db: read_files(db, FileFilter(), 9))
            assert (listed.code, listed.reason) == ("", "")
            await house.store.do(lambda db: db.execute(AGED))
            house.engine.signals.wake.set()
        await house.until(lambda: house.listener.files)
    assert read_json(tmp_path / "failed/call.error.json")["code"] == "job_unfinished"
    assert len(desk.created) == 2


ODD_POLLS = {
    "state": Fault(body={"id": "job-1", "status": "on_hold"}),
    "page": Fault(body="<html>log in</html>"),
    "500": Fault(status=500, body="no"),
}


@pytest.mark.parametrize("odd", ODD_POLLS)
async def test_a_job_whose_polls_say_nothing_is_given_up_too(tmp_path, emulator, desk, odd):
    """In no documented state, or with a page in place of an answer: not polled for ever."""
    desk.polls = 10**9
    async with house_at(emulator, tmp_path, retry={"max_ambiguous": 1}) as house:
        await house.drop("call.wav")
        await house.until(lambda: desk.created)

        async def is_at_provider():
            return (await house.stats()).at_provider == 1

        await house.until(is_at_provider)
        await house.store.do(lambda db: db.execute(AGED))
        emulator.fail(*[ODD_POLLS[odd]] * 20)
        house.engine.signals.wake.set()
        await house.until(lambda: house.listener.files)
    assert read_json(tmp_path / "failed/call.error.json")["code"] == "job_unfinished"
    assert len(desk.created) == 1


async def test_a_job_is_not_given_up_while_its_provider_cannot_be_reached(tmp_path, emulator, desk):
    """After a day without a network the result is fetched, not paid for again."""
    desk.polls = 0
    async with house_at(emulator, tmp_path) as house:
        emulator.fail(None, None, *[Fault(close=True)] * 10)
        await house.drop("call.wav")
        await house.until(lambda: desk.created)
        await house.store.do(lambda db: db.execute(AGED))

        async def is_filed():
            await house.store.do(lambda db: db.execute("UPDATE jobs SET due_at = 1.0"))
            house.engine.signals.wake.set()
            return house.listener.files

        await house.until(is_filed)
    assert tree(tmp_path / "done") == {"call.wav", "call.json", "call.txt"}
    assert len(desk.created) == 1


async def test_a_job_that_fails_ends_the_file(tmp_path, emulator, desk):
    """The vendor's words are in the error file."""
    desk.failure = "File does not appear to contain audio"
    async with house_at(emulator, tmp_path) as house:
        await house.drop("call.wav")
        await house.until(lambda: house.listener.files)
    assert "contain audio" in read_json(tmp_path / "failed/call.error.json")["reason"]
    assert len(desk.created) == 1


@pytest.mark.parametrize(("failure", "told"), [("", ""), ("HTTP 500", " (HTTP 500)")])
async def test_everything_says_since_when_a_file_waits_at_the_provider(tmp_path, capsys, failure, told):
    """`status`, `list`, `why`, the page and the metrics; also where the last poll has failed."""
    scene = Scene(tmp_path)
    since = time.time() - 3600
    remote = {"state": "transcribing", "provider": "main", "remote_id": "v-1", "remote_at": since}
    path = scene.drop("call.wav")
    with scene.queue() as store:
        job_id = add_job(store, scene, "call.wav", reason=failure, due_at=since + 9000, **remote)
        for command in (("status",), ("list",), ("why", path)):
            scene.run(*command)
            shown = " ".join(capsys.readouterr().out.split())
            assert "at the provider" in shown
            assert moment_words(since)[-5:] in shown
        async with serving(scene) as site:
            document = await site.status()
            async with site.client() as client:
                page = (await client.get("/", headers={"Accept": "text/html"})).text
                record = (await client.get(f"/files/{job_id}", headers={"Accept": "text/html"})).text
    assert document["folders"]["calls"]["at_provider"] == 1
    assert document["folders"]["calls"]["at_provider_since"] == utc_text(since)
    assert "1 file in flight" in page
    assert f"waiting at the provider since {moment_words(since)}{told}" in page
    assert "It waits at the provider main since" in record
    metrics = Metrics("1")
    rendered = metrics.render(document).decode()
    (line,) = [each for each in rendered.splitlines() if each.startswith("dropscribe_at_provider_since")]
    assert float(line.rpartition(" ")[2]) == pytest.approx(since, abs=1)
