"""``backlog: ask``: what is there on the first start waits until it is released; what comes later flows."""

from __future__ import annotations

import time

import pytest

from dropscribe.config.model import ProviderConfig
from dropscribe.core.routing import BACKLOG
from dropscribe.queue.sql import backlog
from support.house import House, make_config, tree


async def begin(house, asks=True):
    """A start of the daemon, as far as the backlog is concerned."""
    await house.store.do(lambda db: backlog.begin(db, {"calls": asks}, time.time()))


def lay(root, *names):
    """Files that are in the inbox before anybody looks."""
    (root / "inbox").mkdir(parents=True, exist_ok=True)
    for name in names:
        (root / "inbox" / name).write_bytes(name.encode())
    time.sleep(0.02)  # the kernel stamps files by its tick, a few milliseconds behind the clock


async def submit(house, *names):
    """Files that have settled."""
    for name in names:
        await house.submit(name)
    await house.rest()


async def release(house):
    """As the command does it; the engine looks again."""
    count = await house.store.do(lambda db: backlog.release(db, "calls"))
    house.engine.signals.wake.set()
    await house.rest()
    return count


async def test_what_was_there_waits_and_what_comes_later_flows(tmp_path):
    """The old files are held, the new one is done; the release lets the old ones go."""
    lay(tmp_path, "old-1.wav", "old-2.wav")
    async with House(make_config(tmp_path)) as house:
        await begin(house)
        await submit(house, "old-1.wav", "old-2.wav")
        await house.drop("new.wav", b"new")
        await house.rest()
        stats = await house.stats()
        assert (stats.done, stats.held, stats.backlog) == (1, 2, 2)
        assert house.providers["main"].calls == [b"new.wav"]
        assert not await house.engine.can_go_on(60.0)  # run --once does not wait for it
        assert await release(house) == 2

    assert tree(tmp_path / "inbox") == set()


async def test_the_backlog_survives_restarts(tmp_path):
    """Also files that had not settled at the first start are old at the second."""
    lay(tmp_path, "old-1.wav", "old-2.wav")
    config = make_config(tmp_path)
    async with House(config) as house:
        await begin(house)
        await submit(house, "old-1.wav")
    async with House(config) as house:
        await begin(house)
        await submit(house, "old-2.wav")
        assert (await house.stats()).backlog == 2


async def test_a_release_counts_also_for_what_had_not_settled(tmp_path):
    """Released is released, over restarts."""
    lay(tmp_path, "old-1.wav", "old-2.wav")
    config = make_config(tmp_path)
    async with House(config) as house:
        await begin(house)
        await submit(house, "old-1.wav")
        assert await release(house) == 1
    async with House(config) as house:
        await begin(house)
        await submit(house, "old-2.wav")

    assert tree(tmp_path / "inbox") == set()


@pytest.mark.parametrize("asks", [True, False])
async def test_a_rule_that_has_run_before_has_no_first_start(tmp_path, asks):
    """Ask comes too late where files have flowed already, and take is as ever."""
    lay(tmp_path, "old.wav")
    async with House(make_config(tmp_path)) as house:
        await house.drop("before.wav", b"before")
        await house.rest()
        await begin(house, asks)
        await submit(house, "old.wav")

    assert tree(tmp_path / "inbox") == set()


async def test_a_rule_that_asks_no_more_lets_all_go(tmp_path):
    """Back to take, and the files that waited flow."""
    lay(tmp_path, "old.wav")
    config = make_config(tmp_path)
    async with House(config) as house:
        await begin(house)
        await submit(house, "old.wav")
    async with House(config) as house:
        await begin(house, asks=False)
        house.engine.signals.wake.set()
        await house.until(lambda: house.listener.files)


async def test_a_start_does_not_free_a_backlog_as_it_frees_other_pins(tmp_path):
    """A provider that left the list frees its jobs; the backlog stays."""
    lay(tmp_path, "old.wav")
    async with House(make_config(tmp_path)) as house:
        await begin(house)
        await submit(house, "old.wav")
    providers = {"other": ProviderConfig(name="other", type="openai")}
    async with House(make_config(tmp_path, providers=providers)) as house:
        await house.rest()
        pins = await house.store.do(lambda db: db.execute("SELECT pin FROM jobs").fetchall())

    assert pins == [(BACKLOG,)]
