"""The database goes away under a cluster's load, and comes back."""

from __future__ import annotations

import os
import random
import signal
import threading
import time

import pytest

from support.billing import Weather, billing_emulator
from support.cluster import QUICK_SECONDS, Cluster
from support.daemon_process import wait_until

pytestmark = pytest.mark.slow

FILES = 60
SECONDS_AWAY = 50.0 if os.environ.get("DROPSCRIBE_LONG_TESTS") else 8.0
"""50 s is longer than every time-out on the way; set DROPSCRIBE_LONG_TESTS for it."""


@pytest.fixture
def vendor():
    """An emulator whose answers take up to 0.3 s, and its till."""
    emulator, till = billing_emulator()
    emulator.script = Weather(random.Random(1), share_503=0.0, delay_seconds=(0.1, 0.3))
    with emulator:
        yield emulator, till


@pytest.fixture
def cluster(tmp_path, postgres_dsn, vendor):
    quick = {} if os.environ.get("DROPSCRIBE_LONG_TESTS") else QUICK_SECONDS
    with Cluster(tmp_path, postgres_dsn, vendor[0].url, size=2, quick=quick) as made:
        yield made


def assert_each_once(cluster, till, files=FILES):
    assert cluster.count("state = 'done'") == files
    assert cluster.count("state NOT IN ('done', 'withdrawn')") == 0
    assert sorted(till.paid.values()) == [1] * files
    assert list(cluster.inbox.iterdir()) == []
    assert cluster.logged("inbox.failed") == cluster.logged("job.bug") == []
    processes = [process for node in cluster.nodes for process in node.processes]
    assert not any("Traceback" in process.log_path.read_text() for process in processes)


@pytest.mark.parametrize("how", ["stop", "crash"])
def test_a_restart_of_the_database_in_mid_load_costs_nothing(cluster, vendor, postgres, how):
    """No node ends, nothing is lost, nothing is paid for twice."""
    cluster.start()
    dropping = threading.Thread(target=cluster.drop_many, args=(FILES,))
    dropping.start()
    cluster.until(lambda: cluster.filed() >= 10, "some to be done")
    getattr(postgres, how)()
    postgres.restart()
    dropping.join()
    cluster.until_filed(FILES)
    assert cluster.stop() == [0, 0]
    assert_each_once(cluster, vendor[1])


def test_an_outage_is_waited_out(cluster, vendor, postgres):
    """What was in flight is kept when the database is back; what was dropped meanwhile is taken then."""
    cluster.start()
    cluster.drop_many(FILES // 2)
    cluster.until(lambda: cluster.filed() >= 5, "some to be done")
    postgres.stop()
    cluster.drop_many(FILES // 2, first=FILES // 2)
    time.sleep(SECONDS_AWAY)
    assert all(node.process.is_running for node in cluster.nodes)
    began = vendor[0].count
    assert began <= FILES // 2
    postgres.restart()
    back_at = time.monotonic()
    cluster.until_filed(FILES)
    print(f"done_after_seconds: {time.monotonic() - back_at:.1f}")  # noqa: T201  # a figure for -rP
    assert cluster.stop() == [0, 0]
    assert_each_once(cluster, vendor[1])


def test_a_start_waits_for_the_database(cluster, vendor, postgres):
    """It says so once, takes SIGTERM meanwhile, and works when the database comes."""
    first, second = cluster.nodes
    postgres.stop()
    first.start()
    second.start()
    for node in cluster.nodes:
        (line,) = node.process.until_logged("queue.away")
        assert line["server"].startswith("postgresql://127.0.0.1")
    assert second.process.stop() == 0
    cluster.drop_many(5)
    postgres.restart()
    cluster.until_filed(5)
    assert len(first.logged("queue.away")) == 1
    assert cluster.stop() == [0]
    assert_each_once(cluster, vendor[1], 5)


def test_a_stop_while_the_database_is_away_ends_in_time(cluster, vendor, postgres):
    """Without a traceback; what was in flight is done after the next start."""
    cluster.extra = {"shutdown_grace": "1s"}
    vendor[0].script = Weather(random.Random(1), share_503=0.0, delay_seconds=(1.0, 1.0))
    cluster.start()
    cluster.drop_many(8)
    cluster.until(lambda: cluster.count("state = 'transcribing'") == 4, "attempts under way")
    postgres.stop()
    cluster.drop("8.wav", b"while the database is away")
    time.sleep(1.0)  # it settles, and waits to be taken
    began = time.monotonic()
    for node in cluster.nodes:
        node.process.send(signal.SIGTERM)
    codes = [node.process.wait(30) for node in cluster.nodes]
    print(f"stopped_seconds: {time.monotonic() - began:.1f}")  # noqa: T201  # a figure for -rP
    assert time.monotonic() - began < 25
    assert codes == [0, 0]
    postgres.restart()
    cluster.start()
    cluster.until_filed(9)
    assert cluster.stop() == [0, 0]
    assert cluster.count("state = 'done'") == 9
    assert vendor[1].paid_again() <= 4


def test_a_run_once_outlives_a_restart_of_the_database(cluster, vendor, postgres):
    """Its uploads go on, their answers are stored afterwards, and nothing is paid for twice."""
    vendor[0].script = Weather(random.Random(1), share_503=0.0, delay_seconds=(2.0, 2.0))
    cluster.drop_many(4)
    node = cluster.nodes[0]
    process = node.start("--once")
    wait_until(lambda: vendor[0].count == 4, "uploads under way")
    postgres.restart()
    assert process.wait(60) == 0
    assert_each_once(cluster, vendor[1], 4)


def test_a_run_once_ends_where_the_database_stays_away(cluster, postgres):
    """74 after a minute, here a second; from cron, the next run would wait beside it for ever."""
    cluster.quick = {**QUICK_SECONDS, "once": 1.0}
    postgres.stop()
    process = cluster.nodes[0].start("--once")
    assert process.wait(30) == 74
    assert len(process.logged("queue.away")) == 1
    postgres.restart()
