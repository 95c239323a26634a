"""Nodes of a cluster that are killed, for good or for a while, and one that freezes and thaws."""

from __future__ import annotations

import os
import random
import time

import pytest

from support.billing import Weather, billing_emulator
from support.cluster import QUICK_SECONDS, Cluster
from support.cluster_trial import run_cluster_trial
from support.kill_trial import Trial

SEED = int(os.environ.get("KILL_SEED", "0")) or random.SystemRandom().randrange(1, 1_000_000)


@pytest.fixture
def vendor():
    """An emulator that takes a while, and its till."""
    emulator, till = billing_emulator()
    with emulator:
        yield emulator, till


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
def test_what_a_dead_node_had_goes_on_elsewhere(tmp_path, postgres_dsn, vendor, quick, record_property):
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
        record_property("taken_over_seconds", time.monotonic() - killed_at)
        assert len(second.logged("attempt.interrupted")) == in_flight
        assert 1 <= till.paid_again() <= in_flight
        assert sum(till.paid.values()) == 20 + till.paid_again()
        assert cluster.stop() == [0]


@TIMES
def test_a_node_that_froze_and_thaws_does_no_harm(tmp_path, postgres_dsn, vendor, quick):
    """Its files go on elsewhere, its slots too; its late answers change nothing; it works again at once."""
    emulator, till = vendor
    slow_weather(emulator, 1.0)
    concurrency = 4
    with Cluster(
        tmp_path,
        postgres_dsn,
        emulator.url,
        size=2,
        provider={"concurrency": concurrency},
        quick=quick,
    ) as cluster:
        frozen, other = cluster.nodes
        frozen.start()
        frozen.until_ready()
        cluster.drop_many(12)
        cluster.until(lambda: emulator.at_once == concurrency, "every slot to be taken")
        frozen.freeze()
        in_flight = cluster.count("state = 'transcribing'")
        assert in_flight == concurrency
        other.start()
        other.until_ready()
        cluster.until_filed(12, 60)
        before = sorted(path.name for path in cluster.done.iterdir())
        frozen.thaw()
        cluster.until(lambda: len(frozen.logged("job.late")) == in_flight, "its late answers")
        assert till.paid_again() <= in_flight
        assert sorted(path.name for path in cluster.done.iterdir()) == before
        other.kill()
        cluster.drop_many(4, first=12)
        cluster.until_filed(16, 30)
        assert cluster.count("state = 'done'") == 16
        assert till.paid_again() <= in_flight
        assert cluster.stop() == [0]
