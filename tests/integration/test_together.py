"""What waits at the same time goes to its disk thread together."""

from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from dropscribe.files import batching
from dropscribe.files.batching import BatchExecutor
from support.waiting import until


class Desk:
    """The work at the other end: remembers who came together, and may be held up."""

    def __init__(self):
        self.visits = []
        self.doors = [threading.Event()]

    def __call__(self, items):
        number = len(self.visits)
        self.visits.append(list(items))
        if number < len(self.doors):
            self.doors[number].wait(10)
        return [ValueError(item) if item.startswith("bad") else item.upper() for item in items]


@pytest.fixture
def threads():
    """A small pool."""
    with ThreadPoolExecutor(4) as pool:
        yield pool


@pytest.fixture
def desk(threads):
    """A desk whose first visit lasts until its door opens.

    Its doors open before the pool is waited for.
    """
    found = Desk()
    yield found
    for door in found.doors:
        door.set()


async def _arrive(pending, desk, *names):
    tasks = [pending.submit(desk, name) for name in names]
    await asyncio.sleep(0)
    return tasks


async def test_nobody_waits_for_company_and_what_comes_meanwhile_goes_together(desk, threads, monkeypatch):
    """The first goes alone and at once; the others share the next visit, each with its own result."""
    monkeypatch.setattr(batching, "SLOW_SECONDS", 60.0)
    pending = BatchExecutor(threads)
    first = await _arrive(pending, desk, "first")
    rest = await _arrive(pending, desk, "a", "bad b", "c")
    desk.doors[0].set()

    found = await asyncio.gather(*first, *rest, return_exceptions=True)

    assert desk.visits == [["first"], ["a", "bad b", "c"]]
    assert (found[0], found[1], found[3]) == ("FIRST", "A", "C")
    assert isinstance(found[2], ValueError)


async def test_a_slow_visit_does_not_hold_up_those_behind_it(desk, threads, monkeypatch):
    """After a moment another thread takes what waits."""
    monkeypatch.setattr(batching, "SLOW_SECONDS", 0.001)
    pending = BatchExecutor(threads)
    slow = await _arrive(pending, desk, "slow")
    behind = await _arrive(pending, desk, "a", "b")

    assert await asyncio.wait_for(asyncio.gather(*behind), 10) == ["A", "B"]
    assert not slow[0].done()


async def test_each_slow_visit_lets_another_go(desk, threads, monkeypatch):
    """Who waits behind two slow visits is served by a third, though nobody new has come."""
    monkeypatch.setattr(batching, "SLOW_SECONDS", 0.001)
    monkeypatch.setattr(batching, "MOST_TOGETHER", 2)
    desk.doors.append(threading.Event())
    pending = BatchExecutor(threads)
    slow = await _arrive(pending, desk, "slow", "slower", "slowest")
    behind = await _arrive(pending, desk, "a", "b")

    assert await asyncio.wait_for(asyncio.gather(*behind), 10) == ["A", "B"]
    assert not any(task.done() for task in slow)


async def test_who_has_gone_before_his_turn_is_not_served(desk, threads, monkeypatch):
    """A cancelled caller's item is left out, those beside it are not."""
    monkeypatch.setattr(batching, "SLOW_SECONDS", 60.0)
    pending = BatchExecutor(threads)
    first = await _arrive(pending, desk, "first")
    gone, there = await _arrive(pending, desk, "gone", "there")
    gone.cancel()
    await asyncio.sleep(0)
    desk.doors[0].set()

    assert await there == "THERE"
    assert await first[0] == "FIRST"
    assert desk.visits == [["first"], ["there"]]


async def test_a_crowd_that_has_gone_holds_up_nobody_behind_it(desk, threads, monkeypatch):
    """Who stands behind a whole visit of cancelled callers is served, though nobody new comes."""
    monkeypatch.setattr(batching, "SLOW_SECONDS", 60.0)
    monkeypatch.setattr(batching, "MOST_TOGETHER", 2)
    pending = BatchExecutor(threads)
    first = await _arrive(pending, desk, "first")
    *gone, there = await _arrive(pending, desk, "gone", "gone too", "there")
    for task in gone:
        task.cancel()
    await asyncio.sleep(0)
    desk.doors[0].set()

    assert await asyncio.wait_for(there, 10) == "THERE"
    assert await first[0] == "FIRST"
    assert desk.visits == [["first"], ["there"]]


async def test_no_visit_takes_more_than_its_share(desk, threads, monkeypatch):
    """A crowd is served in several visits, in order."""
    monkeypatch.setattr(batching, "SLOW_SECONDS", 60.0)
    monkeypatch.setattr(batching, "MOST_TOGETHER", 2)
    pending = BatchExecutor(threads)
    crowd = await _arrive(pending, desk, *"abcde")
    desk.doors[0].set()

    assert await asyncio.gather(*crowd) == list("ABCDE")
    assert desk.visits == [["a"], ["b", "c"], ["d", "e"]]


async def test_work_that_breaks_is_told_to_all_who_came(threads):
    """Nobody is left waiting."""

    def broken(_items):
        raise RuntimeError("the desk is on fire")

    with pytest.raises(RuntimeError, match="on fire"):
        await BatchExecutor(threads).submit(broken, "a")


async def test_two_kinds_of_work_take_turns(desk, threads, monkeypatch):
    """A short call waits for one visit of the other kind at most, however many of that kind came first."""
    monkeypatch.setattr(batching, "SLOW_SECONDS", 60.0)
    monkeypatch.setattr(batching, "MOST_TOGETHER", 2)
    visits = []

    def short(items):
        visits.append(("short", len(desk.visits)))
        return items

    pending = BatchExecutor(threads)
    crowd = await _arrive(pending, desk, *"abcdef")
    await asyncio.sleep(0)
    call = pending.submit(short, "call")
    desk.doors[0].set()

    assert await asyncio.gather(call, *crowd) == ["call", *"ABCDEF"]
    assert visits == [("short", 1)]


async def test_work_that_nobody_waits_for_goes_with_the_next_visit(desk, threads, monkeypatch):
    """It starts no visit of its own while others go, and is done soon where nobody comes."""
    monkeypatch.setattr(batching, "SLOW_SECONDS", 0.05)
    desk.doors.clear()
    pending = BatchExecutor(threads)
    pending.post(lambda: desk(["posted"]))
    assert await pending.submit(desk, "awaited") == "AWAITED"
    assert desk.visits == [["posted"], ["awaited"]]

    pending.post(lambda: desk(["posted"]))
    await until(lambda: len(desk.visits) > 2)
    assert desk.visits[2] == ["posted"]


async def test_a_queue_that_moves_needs_no_second_thread(threads, monkeypatch):
    """A visit counts as slow by its own time, not by how long somebody has waited behind several."""
    monkeypatch.setattr(batching, "SLOW_SECONDS", 0.2)
    monkeypatch.setattr(batching, "MOST_TOGETHER", 1)
    under_way, most = [], []

    def work(items):
        under_way.append(items)
        most.append(len(under_way))
        time.sleep(0.05)
        under_way.remove(items)
        return items

    pending = BatchExecutor(threads)
    await asyncio.gather(*(pending.submit(work, number) for number in range(12)))
    assert max(most) == 1
