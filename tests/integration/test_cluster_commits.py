"""A commit whose confirmation is lost: the rows stand, and the node does not know it."""

import contextlib

import pytest

from dropscribe.app import daemon
from dropscribe.core.errors import StoreAway
from dropscribe.queue import retrying_database
from dropscribe.queue.cluster import dispatcher
from dropscribe.queue.cluster.nodes import session_name
from dropscribe.queue.cluster.store import ClusterStore
from support.house import CLUSTER_DSN, House, make_config, tree
from support.inboxes import wav
from support.whole import Whole


@pytest.fixture
def cluster_dsn(queue_dsn):
    CLUSTER_DSN.append(queue_dsn)
    yield queue_dsn
    CLUSTER_DSN.clear()


@pytest.fixture
def lost(monkeypatch, cluster_dsn):
    """Lose the confirmation of the commits from *first* on, *count* of them; the list of what was lost."""
    monkeypatch.setattr(retrying_database, "RETRY_SECONDS", 0.01)
    monkeypatch.setattr(dispatcher, "LOOK_SECONDS", 60.0)  # what is lost is the file's own, not a look's
    commit, made, gone = ClusterStore._commit, [], []

    def lose(first, count):
        def committed(store, batch):
            results = commit(store, batch)
            made.append(len(batch))
            if first <= len(made) < first + count:
                gone.append([call.work.__qualname__ for call in batch])
                raise StoreAway("here", "the connection was lost in mid-commit")
            return results

        monkeypatch.setattr(ClusterStore, "_commit", committed)
        return gone

    return lose


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("first", range(1, 9))
async def test_a_commit_that_stands_unknown_is_paid_for_once_and_ends_under_its_own_name(
    tmp_path, lost, first, count
):
    """Whichever it is, from the node's first one to the file's end."""
    async with House(make_config(tmp_path)) as house:
        gone = lost(first, count)
        await house.drop("call.wav")
        await house.until(lambda: (tmp_path / "done/call.wav").exists() or house.listener.files)
        stats = await _settled(house)

    assert house.providers["main"].calls == [b"call.wav"], gone
    assert tree(tmp_path / "done") == {"call.wav", "call.json", "call.txt"}, gone
    assert (stats.done, stats.failed, stats.transcribing, stats.publishing) == (1, 0, 0, 0), gone


async def _settled(house):
    seen = []

    async def ended():
        with contextlib.suppress(StoreAway):
            seen.append(await house.stats())
        return bool(seen) and seen[-1].done == 1

    await house.until(ended)
    return seen[-1]


async def test_a_node_whose_session_ends_during_its_start_waits_and_starts(
    tmp_path, monkeypatch, postgres, cluster_dsn
):
    """Another node ends the sessions of one that was silent; one that was started again has the same name."""
    begin, tries = daemon.begin_folders, []

    async def begin_without_session(engine, config):
        tries.append(1)
        if len(tries) == 1:
            postgres.execute(
                "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity"
                f" WHERE datname = current_database() AND application_name = '{session_name('one')}'",
                cluster_dsn,
            )
        await begin(engine, config)

    monkeypatch.setattr(daemon, "begin_folders", begin_without_session)
    monkeypatch.setattr(daemon, "_QUEUE_AWAY_SECONDS", 0.01)
    async with Whole(monkeypatch, make_config(tmp_path)) as house:
        (tmp_path / "inbox/call.wav").write_bytes(wav())
        await house.until((tmp_path / "done/call.wav").exists)
    assert len(tries) == 2
