"""The server that the cluster's tests stand on does what they take for granted."""

from __future__ import annotations

import contextlib

import pytest

pytest.importorskip("psycopg", reason="psycopg is not installed (extra `cluster`)")

import psycopg

from dropscribe.queue.cluster.postgres import MountMap
from dropscribe.queue.cluster.store import ClusterStore


def test_each_test_gets_an_empty_database_of_its_own(postgres, postgres_dsn):
    """Two databases share no table."""
    other = postgres.new_database()
    postgres.execute("CREATE TABLE kept (n int)", postgres_dsn)
    with pytest.raises(psycopg.errors.UndefinedTable):
        postgres.execute("SELECT * FROM kept", other)
    postgres.drop_database(other)


def test_a_queue_is_empty_again_for_the_next_test(postgres, queue_dsn, tmp_path):
    """Rows, counters and what was set for the database are gone, and nobody is connected any more."""
    used, fresh = MountMap({"here": tmp_path}), postgres.new_database()
    left = ClusterStore(queue_dsn, used, "n0")
    left.call(lambda db: db.execute("INSERT INTO holds VALUES ('provider', 'p', 'c', 'r', 0, 0, 0)")).result()
    left.call(lambda db: db.execute("UPDATE ledger_total SET bytes = 7")).result()
    database = queue_dsn.rpartition("/")[2]
    postgres.execute(f"ALTER DATABASE {database} SET default_transaction_read_only = on")
    assert postgres.queue_database() == queue_dsn
    with contextlib.closing(ClusterStore(fresh, used, "n0")):
        pass
    with contextlib.closing(ClusterStore(queue_dsn, used, "n0")):  # the name is free
        pass
    left.close()
    assert _content(postgres, queue_dsn) == _content(postgres, fresh)
    postgres.drop_database(fresh)


def _content(postgres, dsn):
    """The rows of each table, and the numbers that come next."""
    tables = postgres.execute(
        "SELECT tablename FROM pg_tables WHERE schemaname = 'dropscribe' ORDER BY tablename", dsn
    )
    rows = {name: postgres.execute(f"SELECT * FROM dropscribe.{name}", dsn) for (name,) in tables}
    rows["facts"] = [key for key, *_ in rows["facts"]]  # each database has a token of its own
    return rows, postgres.execute("SELECT sequencename, last_value FROM pg_sequences ORDER BY 1", dsn)


def test_what_was_committed_is_there_after_a_crash(postgres, postgres_dsn):
    """A crash keeps the committed rows and the address; what was open is gone."""
    postgres.execute("CREATE TABLE kept (n int)", postgres_dsn)
    postgres.execute("INSERT INTO kept VALUES (7)", postgres_dsn)
    with psycopg.connect(postgres_dsn) as open_connection:
        open_connection.execute("INSERT INTO kept VALUES (8)")
        postgres.crash()
        with pytest.raises(psycopg.OperationalError):
            psycopg.connect(postgres_dsn)
        postgres.restart()
        with pytest.raises(psycopg.OperationalError):
            open_connection.execute("SELECT 1")
    assert postgres.execute("SELECT n FROM kept", postgres_dsn) == [(7,)]


def test_a_restart_cuts_connections_and_keeps_the_address(postgres, postgres_dsn):
    """An orderly restart ends what was connected; the same dsn works again."""
    with psycopg.connect(postgres_dsn, autocommit=True) as before:
        postgres.restart()
        with pytest.raises(psycopg.OperationalError):
            before.execute("SELECT 1")
    assert postgres.execute("SELECT 1", postgres_dsn) == [(1,)]


def test_a_database_is_dropped_under_who_uses_it(postgres):
    """A test that leaves a connection open leaves no database."""
    dsn = postgres.new_database()
    with psycopg.connect(dsn):
        postgres.drop_database(dsn)
        with pytest.raises(psycopg.OperationalError):
            psycopg.connect(dsn)


def test_it_is_synced_and_out_of_reach_of_other_machines(postgres):
    """The server's own settings: fsync on, the loopback alone."""
    shown = {name: postgres.execute(f"SHOW {name}")[0][0] for name in ("fsync", "listen_addresses")}
    assert shown == {"fsync": "on", "listen_addresses": "127.0.0.1"}
