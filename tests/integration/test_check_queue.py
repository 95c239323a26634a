"""``check`` of a config whose queue is in PostgreSQL: a real server, roots that are there and not."""

from __future__ import annotations

import json

import pytest

from dropscribe.cli.main import main

psycopg = pytest.importorskip("psycopg", reason="psycopg is not installed (extra `cluster`)")

CANARY = "canary_7f3a9"


@pytest.fixture
def check(tmp_path, capfd):
    """Runs check on a config with this dsn; (exit code, the object, what went to standard error)."""
    (tmp_path / "share" / "in").mkdir(parents=True)

    def run(dsn, *options):
        config = {
            "state_dir": "state",
            "providers": {},
            "folders": {
                "mine": {"inbox": "share/in", "provider": "l"},
                "theirs": {"inbox": "/nonexistent/in", "provider": "l"},
            },
            "queue": {
                "type": "postgres",
                "dsn": dsn,
                "roots": {"share": "share", "gone": "gone"},
                "node": "n1",
            },
        }
        config["providers"]["l"] = {"type": "openai", "url": "http://127.0.0.1:9/v1"}
        path = tmp_path / "c.yaml"
        path.write_text(json.dumps(config))
        path.chmod(0o600)
        code = main(["check", "-c", str(path), *options])
        shown = capfd.readouterr()
        assert CANARY not in shown.out + shown.err
        return code, json.loads(shown.out) if "--json" in options else shown.out, shown.err

    return run


def test_check_tells_of_the_queue_and_its_roots(check, tmp_path):
    """Role, node, roots and whose folders are not this node's; of those nothing else is said."""
    code, document, _ = check("dbname=x", "--json")
    assert code == 0
    assert document["queue"] == {
        "type": "postgres",
        "role": "all",
        "node": "n1",
        "dsn_from": "config",
        "roots": {
            "share": {"path": str(tmp_path / "share"), "exists": True},
            "gone": {"path": str(tmp_path / "gone"), "exists": False},
        },
        "left_to_others": ["theirs"],
        "online": None,
        "answer": None,
    }
    assert list(document["folders"]) == ["mine"]
    assert [line for line in document["warnings"] if "queue" in line or "nonexistent" in line] == [
        f"queue: the root gone, {tmp_path}/gone, is not there; mount it: until then its files wait"
    ]


def test_check_asks_the_server(check, postgres, postgres_dsn):
    """Online, the server's version is told where this user may make tables."""
    _, table, _ = check(postgres_dsn, "--online")
    version = postgres.execute("SHOW server_version", postgres_dsn)[0][0]
    assert f"role all, node n1; answers: PostgreSQL {version}" in table


def test_check_says_what_libpq_says(check, postgres_dsn):
    """A refused connection is an error that names the place and no password."""
    dsn = postgres_dsn.replace("dropscribe@", f"nobody_known:{CANARY}@")
    code, document, _ = check(dsn, "--online", "--json")
    assert code == 74
    assert document["queue"]["online"] is False
    assert any("nobody_known" in error for error in document["errors"])


def test_a_user_who_may_create_nothing_is_told(check, postgres, postgres_dsn):
    """The first start makes tables; a user who cannot is found by check, until somebody else made them."""
    postgres.execute("CREATE ROLE plain LOGIN", postgres_dsn)
    try:
        dsn = postgres_dsn.replace("dropscribe@", "plain@")
        code, document, _ = check(dsn, "--online", "--json")
        made = "CREATE SCHEMA dropscribe; CREATE TABLE dropscribe.procrastinate_jobs (id int);"
        postgres.execute(made + " GRANT USAGE ON SCHEMA dropscribe TO plain", postgres_dsn)
        _, after, _ = check(dsn, "--online", "--json")
    finally:
        postgres.execute("DROP OWNED BY plain; DROP ROLE plain", postgres_dsn)
    assert code == 74
    assert "may create no tables" in document["queue"]["answer"]
    assert after["queue"]["online"] is True
