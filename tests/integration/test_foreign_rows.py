"""A cluster's database that somebody else writes to, or that is not made for file names."""

from __future__ import annotations

import asyncio
import os
import uuid
from datetime import UTC, datetime

import pytest

pytest.importorskip("psycopg", reason="psycopg is not installed (extra `cluster`)")

from dropscribe.core.errors import StoreUnusable
from dropscribe.core.model import Retry
from dropscribe.pipeline.publisher import Publisher
from dropscribe.queue.cluster import store as store_module
from dropscribe.queue.cluster.postgres import MountMap
from dropscribe.queue.cluster.store import ClusterStore
from dropscribe.queue.sql.history import FileFilter, read_files
from dropscribe.reports.queue_reader import view_queue
from dropscribe.search.finding import search
from dropscribe.search.indexer import catch_up
from support import house
from support.house import House, make_config, tree


@pytest.fixture
def cluster_dsn(queue_dsn):
    house.CLUSTER_DSN.append(queue_dsn)
    return queue_dsn


async def test_rows_cannot_lead_a_node_outside_the_rules_folders(
    tmp_path, postgres, cluster_dsn, monkeypatch
):
    """Whatever folder or name a row is given: its files go to the rule's own `done`, its neighbours' too."""
    outside = tmp_path / "outside"
    outside.mkdir()
    changes = {
        "root.wav": ("root", b"//here/outside"),
        "unknown.wav": ("root", b"/" + bytes(outside)),
        "absolute.wav": ("root", bytes(outside)),
        "above.wav": ("root", b"//here/done/../outside"),
        "folder.wav": ("directory", b"../outside"),
        "name.wav": ("audio", b"../outside/name.wav"),
        "absolute-name.wav": ("audio", bytes(outside) + b"/name.wav"),
        "dots.wav": ("sidecars", b"json\0.."),
        "untouched.wav": ("audio", b"untouched.wav"),
    }
    (tmp_path / "done").mkdir()

    async def later(*_):
        return Retry(3600.0, "test", "the files are not written yet")

    with monkeypatch.context() as held:
        held.setattr(Publisher, "publish", later)
        async with House(make_config(tmp_path)) as first:
            for name in changes:
                await first.drop(name, name.encode())
            await first.until(lambda: _count(postgres, cluster_dsn, "transcribed") == len(changes))
            await first.until(
                lambda: _count(postgres, cluster_dsn, "transcribed", "due_at > 1") == len(changes)
            )
    for name, (column, value) in changes.items():
        postgres.execute(
            f"UPDATE dropscribe.answers SET {column} = '\\x{value.hex()}' WHERE job_id ="
            f" (SELECT id FROM dropscribe.jobs WHERE name = '\\x{name.encode().hex()}')",
            cluster_dsn,
        )
    postgres.execute("UPDATE dropscribe.jobs SET due_at = 0", cluster_dsn)

    async with House(make_config(tmp_path)) as second:
        await second.until(lambda: _count(postgres, cluster_dsn, "done") == len(changes))

    names = {os.path.splitext(name)[0] for name in changes}
    assert tree(outside) == set()
    assert tree(tmp_path / "done") == {
        f"{name}.{suffix}" for name in names for suffix in ("wav", "json", "txt")
    }


def _count(postgres, dsn, state, which="TRUE"):
    found = postgres.execute(f"SELECT count(*) FROM dropscribe.jobs WHERE state = '{state}' AND {which}", dsn)
    return found[0][0]


async def test_times_and_passages_that_mean_nothing_cost_their_file_alone(tmp_path, postgres, cluster_dsn):
    """Calendars can name each time that is read, and a search finds the other files."""
    async with House(make_config(tmp_path)) as node:
        for name in ("odd.wav", "good.wav"):
            await node.drop(name, name.encode())
        await node.rest()
        assert await asyncio.to_thread(catch_up, node.config, 30)
        odd = f"WHERE name = '\\x{b'odd.wav'.hex()}'"
        postgres.execute(
            "UPDATE dropscribe.indexed_transcripts SET passages = 'no zlib'"
            f" WHERE job_id = (SELECT id FROM dropscribe.jobs {odd})",
            cluster_dsn,
        )
        found = await asyncio.to_thread(search, node.config, "heard")
        times = "received_at = 'Infinity', due_at = 'NaN', ended_at = 'Infinity'"
        postgres.execute(f"UPDATE dropscribe.jobs SET {times} {odd}", cluster_dsn)
        with view_queue(node.config) as view:
            listed = {file.path: file for file in read_files(view.db, FileFilter(), 9)}
        assert await asyncio.to_thread(catch_up, node.config, 30)

    assert [file.job.path for file in found.files] == [b"good.wav"]
    assert datetime.fromtimestamp(listed[b"odd.wav"].received_at, UTC).year == 5138
    assert listed[b"odd.wav"].due_at == 0.0


async def test_an_index_of_an_earlier_version_is_made_anew(tmp_path, postgres, postgres_dsn, monkeypatch):
    """A cluster of version 3 is upgraded by its first new node: its words have another form."""
    with monkeypatch.context() as before:
        before.setattr(store_module, "MIGRATIONS", store_module.MIGRATIONS[:3])
        ClusterStore(postgres_dsn, MountMap({"share": tmp_path}), "old").close()
    postgres.execute(
        "INSERT INTO dropscribe.search_transcripts VALUES (1, 1, '', array_to_tsvector('{heard}'));"
        " INSERT INTO dropscribe.search_progress VALUES ('here', 1e12, 0, 1e12)",
        postgres_dsn,
    )
    house.CLUSTER_DSN.append(postgres_dsn)
    async with House(make_config(tmp_path)) as node:
        await node.drop("call.wav")
        await node.rest()
        assert await asyncio.to_thread(catch_up, node.config, 30)
        found = await asyncio.to_thread(search, node.config, "heard")

    assert [file.job.path for file in found.files] == [b"call.wav"]
    versions = postgres.execute("SELECT version, readable_by FROM dropscribe.schema_version", postgres_dsn)
    assert versions == [(6, 5)]


def test_a_database_without_utf8_is_refused_at_the_start(tmp_path, postgres):
    """SQL_ASCII would mix up names of files: the node says what to make instead, and changes nothing."""
    name = f"test_{uuid.uuid4().hex[:12]}"
    postgres.execute(f"CREATE DATABASE {name} ENCODING 'SQL_ASCII' TEMPLATE template0")
    dsn = postgres.dsn.rpartition("/")[0] + "/" + name
    try:
        with pytest.raises(StoreUnusable, match="SQL_ASCII") as refused:
            ClusterStore(dsn, MountMap({"share": tmp_path}), "n0")
        assert "ENCODING 'UTF8'" in refused.value.remedy
        assert postgres.execute("SELECT to_regnamespace('dropscribe')", dsn) == [(None,)]
    finally:
        postgres.drop_database(dsn)
