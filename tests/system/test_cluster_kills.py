"""Nodes of a cluster that are killed, for good or for a while, and one that freezes and thaws."""

from __future__ import annotations

import os
import random
import time

import pytest

from support.billing import Weather
from support.cluster import QUICK_SECONDS, Cluster
from support.cluster_trial import run_cluster_trial
from support.emulator import Fault
from support.kill_trial import Trial

pytestmark = pytest.mark.slow

SEED = int(os.environ.get("KILL_SEED", "0")) or random.SystemRandom().randrange(1, 1_000_000)


def slow_weather(emulator, seconds):
    emulator.script = Weather(random.Random(1), share_503=0.0, delay_seconds=(seconds, seconds))


def test_random_kills_lose_nothing(tmp_path, postgres_dsn):
    """Every input is in done or failed once, whole, with its own sidecars; nothing else is anywhere.

    What was paid again was in flight at a kill, is counted and has its interrupted attempt.
    """
    print(f"KILL_SEED={SEED}")  # noqa: T201  # repeats the run
    trial = Trial(SEED, files=150, kills=6, large_bytes=1_000_000, renames_alone=True)
    report = run_cluster_trial(trial, tmp_path, postgres_dsn, quick=QUICK_SECONDS)
    assert report.breaches() == {}
    assert report.done + report.failed == trial.files
    assert report.starts == 9


IS_LONG = bool(os.environ.get("DROPSCRIBE_LONG_TESTS"))
TIMES = pytest.mark.parametrize(
    "quick",
    [
        QUICK_SECONDS,
        pytest.param({}, marks=pytest.mark.skipif(not IS_LONG, reason="set DROPSCRIBE_LONG_TESTS")),
    ],
    ids=["quick", "at the usual times"],
)


@TIMES
def test_what_a_dead_node_had_goes_on_elsewhere(tmp_path, postgres_dsn, vendor, quick):
    """Within 60 s of the kill at the usual times; only what was in flight is paid for again."""
    emulator, till = vendor
    slow_weather(emulator, 1.5)
    with Cluster(tmp_path, postgres_dsn, emulator.url, size=2, quick=quick) as cluster:
        cluster.start()
        cluster.drop_many(20)
        first, second = cluster.nodes
        cluster.until(
            lambda: (
                all(cluster.count(f"state = 'transcribing' AND node = '{name}'") for name in ("n0", "n1"))
                and emulator.at_once == 4
            ),
            "both to have attempts under way",
        )
        killed_at = time.monotonic()
        in_flight = first.kill()
        assert in_flight
        cluster.until_filed(20, 60 - (time.monotonic() - killed_at))
        print(f"taken_over_seconds: {time.monotonic() - killed_at:.1f}")  # noqa: T201  # a figure for -rP
        assert len(second.logged("attempt.interrupted")) == in_flight
        assert 1 <= till.paid_again() <= in_flight
        assert sum(till.paid.values()) == 20 + till.paid_again()
        assert cluster.stop() == [0]


@TIMES
def test_a_node_that_froze_and_thaws_does_no_harm(tmp_path, postgres_dsn, vendor, quick):
    """Its files go on elsewhere, its slots too; its answers come too late and change nothing; it works again.

    It thaws while the other node transcribes the same files: theirs are the answers that count.
    """
    emulator, till = vendor
    emulator.script = Delays(first=(0.5,) * 4, then=6.0)
    with Cluster(tmp_path, postgres_dsn, emulator.url, size=2, quick=quick) as cluster:
        frozen, other = cluster.nodes
        frozen.start()
        frozen.until_ready()
        cluster.drop_many(4)
        cluster.until(lambda: emulator.at_once == 4, "every slot to be taken")
        frozen.freeze()
        assert cluster.count("state = 'transcribing' AND node = 'n0'") == 4
        other.start()
        other.until_ready()
        began = time.monotonic()
        cluster.until(lambda: emulator.count == 8, "the other node to send them", 60)
        assert quick or time.monotonic() - began > 20
        frozen.thaw()
        cluster.until(lambda: len(frozen.logged("job.late")) == 4, "its late answers")
        cluster.until_filed(4)
        assert other.logged("job.late") == []
        assert len(other.logged("file.done")) == 4
        assert frozen.logged("file.done") == []
        assert len(list(cluster.done.iterdir())) == 12
        assert list(till.paid.values()) == [2] * 4
        assert cluster.count("code = 'interrupted'", "attempts") == 4
        emulator.script = Delays((), 0.1)
        other.kill()
        cluster.drop_many(4, first=4)
        cluster.until_filed(8)
        assert len(frozen.logged("file.done")) == 4
        assert till.paid_again() == 4
        assert cluster.stop() == [0]


class Delays(Weather):
    """Answers that take their time: the first ones so long each, all others alike."""

    def __init__(self, first, then):
        super().__init__(random.Random(1), share_503=0.0, delay_seconds=(then, then))
        self._first = list(first)

    def popleft(self):
        return Fault(delay_seconds=self._first.pop(0)) if self._first else super().popleft()
