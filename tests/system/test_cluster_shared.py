"""What the nodes of a cluster have in common: limits, watchers, holds, roles, roots, schema, clocks."""

from __future__ import annotations

import json
import random
import time
from collections import Counter
from itertools import pairwise

import pytest

from support.billing import Weather
from support.cluster import QUICK_SECONDS, Cluster
from support.emulator import Fault

pytestmark = pytest.mark.slow


@pytest.fixture
def cluster(tmp_path, postgres_dsn, vendor):
    with Cluster(tmp_path, postgres_dsn, vendor[0].url, quick=QUICK_SECONDS) as made:
        yield made


def weather(emulator, least_seconds, most_seconds):
    emulator.script = Weather(random.Random(1), share_503=0.0, delay_seconds=(least_seconds, most_seconds))


class Always:
    """Every request fails alike, until it is taken away."""

    def __init__(self, fault):
        self.fault = fault

    def __bool__(self):
        return True

    def popleft(self):
        return self.fault


def test_limits_hold_over_all_nodes_also_while_they_are_killed(cluster, vendor):
    """Of requests whose client is still there, never more than the slots; starts are evenly spaced.

    By the rows, on the server's clock, no two attempts begin closer together than the pace allows; at the
    vendor, who sees them a little later, no more in a time than pace and slots allow.
    """
    emulator, till = vendor
    weather(emulator, 0.1, 0.5)
    cluster.provider = {"concurrency": 4, "requests_per_minute": 900}
    cluster.start()
    cluster.drop_many(90)
    killed = 0
    for number, node in enumerate(cluster.nodes):
        cluster.until(lambda wanted=15 * (number + 1): cluster.filed() >= wanted, "some more to be done")
        killed += node.kill()
        node.start()
    cluster.until_filed(90)
    assert cluster.stop() == [0, 0, 0]
    assert emulator.most_at_once == 4
    gap_seconds = 60 / 900
    begun = [at for (at,) in cluster.ask("SELECT at FROM attempts ORDER BY at")]
    assert min(later - at for at, later in pairwise(begun)) >= gap_seconds - 0.001
    taken_seconds = emulator.began_at[-1] - emulator.began_at[0]
    assert len(emulator.began_at) <= taken_seconds / gap_seconds + 1 + 4
    assert till.paid_again() <= killed


def test_any_number_of_watchers_make_one_job_a_file(cluster, vendor):
    """500 files, seen by three nodes at once: 500 uploads, 500 rows that are done.

    A row that a node made of a file which another had just filed is withdrawn, and nothing was sent for it.
    """
    emulator, till = vendor
    cluster.provider = {"concurrency": 16}
    cluster.start()
    cluster.drop_many(500)
    cluster.until_filed(500, 90)
    assert cluster.stop() == [0, 0, 0]
    assert cluster.count("state = 'done'") == 500
    assert cluster.count("state <> 'done' AND NOT (state = 'withdrawn' AND attempts = 0)") == 0
    assert emulator.count == 500
    assert list(till.paid.values()) == [1] * 500
    shares = Counter(line["path"] for line in cluster.logged("file.done"))
    assert set(shares.values()) == {1}
    assert all(node.logged("file.done") for node in cluster.nodes)


def test_a_held_provider_is_held_on_every_node(cluster, vendor):
    """A key refused once stops them all; nothing is fed meanwhile; all go on when a probe succeeds."""
    emulator, till = vendor
    emulator.script = Always(Fault(status=401, body={"message": "Unauthorized"}))
    cluster.extra = {"hold": {"first": "3s", "max": "3s"}}
    cluster.start()
    cluster.drop_many(120)
    cluster.until(lambda: cluster.logged("provider.held"), "the hold")
    cluster.until(lambda: cluster.count("state = 'transcribing'") == 0, "attempts to end")
    refused = emulator.count
    assert refused <= 8  # the slots, and those that were on their way
    cluster.until(lambda: cluster.count("queue_name = 'pulse/calls'", "procrastinate_jobs") <= 1, "the queue")
    held_until = time.monotonic() + 1.5
    while time.monotonic() < held_until:
        assert cluster.count("queue_name = 'pulse/calls'", "procrastinate_jobs") <= 1
        time.sleep(0.1)
    assert emulator.count <= refused + 1
    assert cluster.count("state = 'queued'") >= 119
    weather(emulator, 0.0, 0.1)
    cluster.until_filed(120)
    assert cluster.stop() == [0, 0, 0]
    assert list(till.paid.values()) == [1] * 120
    assert cluster.count("TRUE", "holds") == 0


def test_watching_and_working_may_be_split(cluster, vendor):
    """A node that only watches sends nothing; those that only work watch nothing."""
    watcher, *workers = cluster.nodes
    watcher.queue = {"role": "watch"}
    for node in workers:
        node.queue = {"role": "work"}
    cluster.start()
    cluster.drop_many(30)
    cluster.until_filed(30)
    assert cluster.stop() == [0, 0, 0]
    assert len(watcher.logged("job.queued")) == 30
    assert watcher.logged("file.done") == []
    for node in workers:
        assert node.logged("job.queued") == []
        assert node.logged("inbox.available") == []
    assert list(vendor[1].paid.values()) == [1] * 30


def test_a_folder_whose_root_a_node_lacks_is_left_to_the_others(cluster, vendor):
    """It neither watches nor draws what it cannot reach, and works on the rest."""
    elsewhere = cluster.root / "elsewhere"
    there = {part: str(elsewhere / part) for part in ("inbox", "done", "failed")}
    for part in there.values():
        (cluster.root / part).mkdir(parents=True)
    own = cluster.config(cluster.nodes[0])
    second_rule = {**own["folders"]["calls"], **there}
    cluster.extra = {"folders": {"calls": own["folders"]["calls"], "talks": second_rule}}
    lacking, *others = cluster.nodes
    for node in others:
        node.queue = {"roots": {"share": str(cluster.share), "elsewhere": str(elsewhere)}}
    cluster.start()
    for number in range(20):
        temp = elsewhere / "dropping"
        temp.write_bytes(b"talk %d" % number)
        temp.rename(elsewhere / "inbox" / f"{number}.wav")
    cluster.drop_many(20)
    cluster.until(lambda: cluster.count("state = 'done'") == 40, "all files")
    assert cluster.stop() == [0, 0, 0]
    assert {line["folder"] for line in lacking.logged("job.queued")} <= {"calls"}
    assert {line["folder"] for line in lacking.logged("file.done")} == {"calls"}
    assert len(list((elsewhere / "done").glob("*.wav"))) == 20
    stored = cluster.ask("SELECT DISTINCT folder, split_part(convert_from(filed, 'UTF8'), '/', 3) FROM jobs")
    assert sorted(stored) == [("calls", "share"), ("talks", "elsewhere")]


def test_clocks_that_differ_by_minutes_hurry_and_delay_nothing(cluster, vendor):
    """Files flow at once on every node, retries and holds take their time, nobody is thought dead."""
    emulator, till = vendor
    fast, slow, _ = cluster.nodes
    fast.ahead_seconds, slow.ahead_seconds = 600.0, -600.0
    cluster.extra = {"hold": {"first": "2s", "max": "2s"}, "retry": {"first": "1s", "max": "2s"}}
    weather(emulator, 0.05, 0.15)
    cluster.start()
    began = time.monotonic()
    cluster.drop_many(60)
    cluster.until_filed(60, 15)
    assert time.monotonic() - began < 15
    assert all(node.logged("file.done") for node in cluster.nodes)
    # A retry after 1 s, a hold of 2 s: neither at once, nor minutes later, whichever node meets it.
    for code, least_seconds in ((500, 0.5), (401, 1.5)):
        for _ in range(3):
            emulator.script = _Once(Fault(status=code, body={"message": "no"}))
            done, seen = cluster.filed(), len(emulator.began_at)
            cluster.drop_many(1, first=done)
            cluster.until(lambda wanted=done + 1: cluster.filed() >= wanted, "the second try", 12)
            first_at, *_, last_at = emulator.began_at[seen:]
            assert last_at - first_at >= least_seconds
    assert cluster.stop() == [0, 0, 0]
    assert cluster.logged("node.silent") == []
    assert cluster.logged("attempt.interrupted") == []
    assert till.paid_again() == 0


class _Once(Always):
    """The next request fails."""

    def popleft(self):
        fault, self.fault = self.fault, None
        return fault


def test_a_neighbours_newer_schema_is_used_where_it_lets_us(cluster, vendor):
    """A rolling upgrade has two versions side by side; a schema that is too new for a node is refused."""
    first, second, third = cluster.nodes
    first.start()
    first.until_ready()
    cluster.ask("UPDATE schema_version SET version = version + 1, readable_by = version")
    cluster.ask("ALTER TABLE jobs ADD COLUMN newer TEXT NOT NULL DEFAULT ''")
    second.start()
    second.until_ready()
    cluster.drop_many(40)
    cluster.until_filed(40)
    assert first.logged("file.done")
    assert second.logged("file.done")
    cluster.ask("UPDATE schema_version SET readable_by = version")
    assert third.start().wait(20) == 74
    told = third.process.log_path.read_text()
    assert "made by a newer dropscribe" in told
    assert "install that version on this node too" in told
    assert "Traceback" not in told
    assert cluster.stop() == [0, 0]
    assert list(vendor[1].paid.values()) == [1] * 40


def test_a_node_name_belongs_to_one_process(cluster):
    """A second process under it ends with words; the first one goes on."""
    first, second, _ = cluster.nodes
    first.start()
    first.until_ready()
    second.queue = {"node": "n0"}
    assert second.start().wait(20) == 69
    told = second.process.log_path.read_text()
    assert "another dropscribe of this cluster has this node name" in told
    assert "Traceback" not in told
    cluster.drop_many(3)
    cluster.until_filed(3)
    assert first.process.stop() == 0
    assert json.loads(first.config_path.read_text())["queue"]["node"] == "n0"
