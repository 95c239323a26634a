"""The server that the cluster's tests stand on does what they take for granted."""

from __future__ import annotations

import pytest

psycopg = pytest.importorskip("psycopg", reason="psycopg is not installed (extra `cluster`)")


def test_each_test_gets_an_empty_database_of_its_own(postgres, postgres_dsn):
    """Two databases share no table."""
    other = postgres.new_database()
    postgres.execute("CREATE TABLE kept (n int)", postgres_dsn)
    with pytest.raises(psycopg.errors.UndefinedTable):
        postgres.execute("SELECT * FROM kept", other)
    postgres.drop_database(other)


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
