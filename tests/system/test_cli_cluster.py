"""``status``, ``why``, ``retry``, ``plan``, ``release`` and ``forget`` from any node of a cluster."""

from __future__ import annotations

import contextlib
import json
import os
import time
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from dropscribe.cli.main import main
from dropscribe.core.errors import StoreUnusable
from dropscribe.core.model import AttemptEnd, FileSnapshot, NewJob
from dropscribe.core.routing import BACKLOG
from dropscribe.queue.cluster import nodes, ticket_rows
from dropscribe.queue.cluster.postgres import MountMap
from dropscribe.queue.cluster.store import ClusterStore
from dropscribe.queue.model import NodeStats, Pause, ProviderLimits
from dropscribe.queue.sql import hold_rows, rows
from support.scene import json_of, wav_bytes

pytestmark = pytest.mark.slow

SECRET = "canary-f81c2"
PROVIDER = {"type": "openai", "url": "http://127.0.0.1:9/v1", "api_key": "k"}


class Node:
    """A node's config in a folder of its own, on *share*, which each has where it likes."""

    def __init__(self, folder, name, dsn, share, *, role="all", roots=None):
        self.folder, self.name, self.share, self.dsn = folder, name, share, dsn
        folder.mkdir()
        self.config = folder / "dropscribe.yaml"
        rule = {part: f"{share}/{part}" for part in ("inbox", "done", "failed")}
        self.roots = roots or {"share": str(share)}
        queue = {"type": "postgres", "dsn": dsn, "node": name, "role": role, "roots": self.roots}
        config = {
            "state_dir": str(folder / "state"),
            "providers": {"main": PROVIDER},
            "folders": {"calls": {**rule, "provider": "main", "backlog": "ask"}},
            "queue": queue,
        }
        self.config.write_text(json.dumps(config))
        self.config.chmod(0o600)

    def run(self, command, *arguments):
        """One command on this node, in this process."""
        return main([command, "-c", str(self.config), *map(str, arguments)])

    def place(self, path):
        """A file of the share as this node has it; its name stays as it is."""
        return f"{self.share}/{path}"

    @contextlib.contextmanager
    def store(self):
        """The rows, as this node's daemon has them."""
        store = ClusterStore(self.dsn, MountMap(self.roots), self.name)
        try:
            yield store
        finally:
            store.close()


@pytest.fixture
def share(tmp_path):
    """What the nodes share."""
    share = tmp_path / "share"
    for part in ("inbox", "done", "failed"):
        (share / part).mkdir(parents=True)
    return share


@pytest.fixture
def one(tmp_path, postgres_dsn, share):
    """A node that has the share where it is, and has begun the queue."""
    node = Node(tmp_path / "one", "one", postgres_dsn, share)
    with node.store():
        pass
    return node


@pytest.fixture
def two(tmp_path, postgres_dsn, share):
    """A node that has the same share elsewhere: another way to the same folders."""
    return Node(tmp_path / "two", "two", postgres_dsn, f"/proc/self/root{share}")


def beat(node, *, ago_seconds=0.0, in_flight=0, role="all"):
    """The node was heard of so long ago."""
    with node.store() as store:
        at = time.time() - ago_seconds
        told = NodeStats(node.name, "host-of-" + node.name, role, "1.2.3", at, at, in_flight)
        store.call(lambda db: nodes.beat(db, told)).result()


def add_job(asked, name, /, **columns):
    """A queued job, then *columns* of its row; returns its id."""
    path = asked.place(f"inbox/{name}")
    seen = os.stat(path) if os.path.exists(path) else None
    snapshot = FileSnapshot(1, 1, seen.st_size if seen else 10, seen.st_mtime_ns if seen else 10)
    job = NewJob("calls", name.encode(), snapshot, time.time() - 60, stable_inodes=False)
    values = {
        "folder": "calls",
        "directory": b"",
        "name": job.path,
        "identity": job.identity,
        "stable_inodes": False,
        "device": 1,
        "inode": 1,
        "size_bytes": snapshot.size_bytes,
        "mtime_ns": snapshot.mtime_ns,
        "state": "queued",
        "received_at": job.received_at,
        "due_at": job.received_at,
        **columns,
    }
    sql = f"INSERT INTO jobs ({', '.join(values)}) VALUES ({', '.join('?' * len(values))}) RETURNING id"
    with asked.store() as store:
        return store.call(lambda db: db.execute(sql, tuple(values.values())).fetchone()[0]).result()


def add_attempt(node, job_id, ended=None):
    """One attempt of a job that began a minute ago; it runs where *ended* is None."""
    with node.store() as store:

        def write(db):
            db.execute(
                "INSERT INTO attempts (job_id, at, provider) VALUES (?, ?, 'main')",
                (job_id, time.time() - 60),
            )
            if ended:
                rows.end_attempt(db, rows.read_jobs(db, "id = ?", (job_id,))[0], ended)

        store.call(write).result()


def test_before_any_node_has_run_all_is_zero(tmp_path, postgres_dsn, share, capsys):
    """No tables yet: zeros, no nodes, and none are made by asking."""
    node = Node(tmp_path / "one", "one", postgres_dsn, share)
    document = json_of(node, capsys, "status")
    assert (document["running"], document["nodes"]) == (False, [])
    assert document["folders"]["calls"]["queued"] == 0
    assert node.run("release", "--folder", "calls") == 74
    assert not (node.folder / "state").exists()


def test_status_is_the_same_from_both_nodes(one, two, capsys):
    """Rows, nodes and what is in flight at a provider are all nodes', not the one's that is asked."""
    beat(one, in_flight=1)
    beat(two)
    add_job(one, "a.wav")
    add_job(one, "b.wav", state="transcribing", provider="main", node="one")
    from_one, from_two = json_of(one, capsys, "status"), json_of(two, capsys, "status")
    assert [node["name"] for node in from_one["nodes"]] == ["one", "two"]
    assert from_one["nodes"] == from_two["nodes"]
    for document in (from_one, from_two):
        assert document["running"] is True
        assert document["providers"]["main"]["in_flight"] == 1
        calls = document["folders"]["calls"]
        assert (calls["queued"], calls["transcribing"]) == (1, 1)
        assert 59 <= calls["oldest_waiting"] <= 90


def test_a_node_that_is_silent_is_told(one, two, capsys):
    """One that has not been heard of for long; while none beats, nobody runs."""
    beat(one, ago_seconds=120)
    document = json_of(two, capsys, "status")
    assert (document["running"], document["nodes"][0]["silent"]) == (False, True)
    two.run("status")
    printed = capsys.readouterr().out
    assert "no node is running" in printed
    assert "node one is silent" in printed
    assert "NODE" in printed
    assert "host-of-one" in printed


def test_an_inbox_that_other_nodes_have_is_not_unavailable(tmp_path, one, capsys):
    """A node whose roots lack the rule's folders says to whom it is left, and looks for nothing there."""
    (tmp_path / "memos").mkdir()
    roots = {"share": str(tmp_path / "memos")}
    other = Node(tmp_path / "three", "three", one.dsn, tmp_path / "not-here", roots=roots)
    text = other.config.read_text()
    config = json.loads(text)
    memos = {part: f"{tmp_path}/memos/{part}" for part in ("inbox", "done", "failed")}
    config["folders"]["memos"] = {**memos, "provider": "main"}
    other.config.write_text(json.dumps(config))
    document = json_of(other, capsys, "status")
    calls = document["folders"]["calls"]
    assert (calls["available"], calls["watch"]) == (True, "others")
    other.run("status")
    assert "left to other nodes" in capsys.readouterr().out
    plan = json_of(other, capsys, "plan")["folders"]["calls"]
    assert (plan["available"], plan["files"]) == (True, [])
    assert "left to other nodes" in plan["reason"]
    add_job(one, "a.wav")
    why = json_of(other, capsys, "why", other.place("inbox/a.wav"))
    assert why["state"] == "queued"
    assert any("left to other nodes" in words for words in why["words"])
    assert other.run("retry", "--folder", "calls") == 74
    assert "left to other nodes" in capsys.readouterr().err


def test_a_node_that_only_works_leaves_inboxes_to_others(tmp_path, one, share, capsys):
    """Role work watches nothing: no files settle there, and none is called missing."""
    (share / "inbox" / "new.wav").write_bytes(wav_bytes())
    worker = Node(tmp_path / "three", "three", one.dsn, share, role="work")
    calls = json_of(worker, capsys, "status")["folders"]["calls"]
    assert (calls["available"], calls["watch"], calls["settling"]) == (True, "others", 0)
    assert json_of(one, capsys, "status")["folders"]["calls"]["settling"] == 1


@pytest.mark.parametrize("role", ["work", "watch"])
def test_why_says_that_no_node_of_the_other_role_runs(tmp_path, one, share, capsys, role):
    """A new file that nobody looks for, and one in the queue that nobody sends."""
    (share / "inbox" / "a.wav").write_bytes(wav_bytes())
    beat(one, role=role)
    if role == "watch":
        add_job(one, "a.wav")
    (words, *_) = json_of(one, capsys, "why", one.place("inbox/a.wav"))["words"]
    assert words.endswith(f"runs: all have the role {role}")


def test_why_says_which_node_has_it(one, two, share, capsys):
    """And where it goes when that node is silent or gone."""
    (share / "inbox" / "a.wav").write_bytes(wav_bytes())
    beat(one)
    job_id = add_job(one, "a.wav", state="transcribing", provider="main", node="one")
    add_attempt(one, job_id)
    document = json_of(two, capsys, "why", two.place("inbox/a.wav"))
    assert document["node"] == "one"
    assert document["words"][0].endswith("on node one")
    beat(one, ago_seconds=100)
    beat(two)
    document = json_of(two, capsys, "why", two.place("inbox/a.wav"))
    assert "another node takes it over" in document["words"][0]


def test_why_says_that_a_ticket_waits_for_its_turn(one, share, capsys):
    """A job that was fed waits for a slot, no longer for the files before it."""
    (share / "inbox" / "a.wav").write_bytes(wav_bytes())
    beat(one)
    add_job(one, "a.wav", ticket=7, lane="main")
    words = json_of(one, capsys, "why", one.place("inbox/a.wav"))["words"]
    assert "its turn has come: provider main gets it as soon as a slot is free" in words[0]


def test_why_says_what_stops_a_provider_of_all_nodes(one, share, capsys):
    """A ticket waits for the rate limit, or for the end of a pause."""
    (share / "inbox" / "a.wav").write_bytes(wav_bytes())
    beat(one)
    add_job(one, "a.wav", ticket=7, lane="main")
    limits = ProviderLimits("main", 1, requests_per_minute=1.0)
    with one.store() as store:
        store.call(lambda db: ticket_rows.reserve_start(db, limits, time.time())).result()
        limited = json_of(one, capsys, "why", one.place("inbox/a.wav"))["words"]
        pause = Pause("main", time.time(), time.time() + 600)
        store.call(lambda db: hold_rows.write_pause(db, pause)).result()
        paused = json_of(one, capsys, "why", one.place("inbox/a.wav"))["words"]
    assert "the rate limit of provider main (requests_per_minute) allows its next request" in limited[0]
    assert "provider main is paused" in paused[0]
    assert limited[1] == paused[1]
    assert "its turn has come" in limited[1]


@pytest.mark.parametrize("name", ["a.wav", "a.json", "a.srt", "a.wav.txt"])
def test_why_finds_what_was_filed_by_another_path(one, two, share, capsys, name):
    """What node one filed is found on node two by its own path: the audio, and its sidecars."""
    for each in ("a.wav", name):
        (share / "done" / each).write_bytes(b"x")
    beat(one)
    filed = os.fsencode(one.place("done/a.wav"))
    add_job(one, "a.wav", state="done", provider="main", node="one", ended_at=time.time(), filed=filed)
    document = json_of(two, capsys, "why", two.place(f"done/{name}"))
    assert (document["state"], document["node"]) == ("done", "one")
    assert document["filed"] == two.place("done/a.wav")
    assert not any("not there any more" in words for words in document["words"])


def test_retry_from_the_other_node(one, two, share, capsys):
    """The remedy names the path of the node that is asked, and works there."""
    (share / "failed" / "a.wav").write_bytes(wav_bytes())
    filed = os.fsencode(one.place("failed/a.wav"))
    job_id = add_job(one, "a.wav", state="failed", provider="main", filed=filed, ended_at=time.time())
    add_attempt(one, job_id, AttemptEnd(1.0, 400, "invalid_audio", "no audio"))
    beat(one)
    assert two.place("failed/a.wav") in json_of(two, capsys, "why", two.place("failed/a.wav"))["remedy"]
    assert two.run("retry", two.place("failed/a.wav")) == 0
    assert "not running" not in capsys.readouterr().out
    assert (share / "inbox" / "a.wav").exists()


def test_release_from_any_node(one, two, capsys):
    """What waits for a release goes on, whoever asks."""
    beat(one)
    add_job(one, "a.wav", pin=BACKLOG)
    assert json_of(one, capsys, "status")["folders"]["calls"]["backlog"] == 1
    assert two.run("release", "--folder", "calls") == 0
    assert "1 file goes on\n" in capsys.readouterr().out
    assert json_of(one, capsys, "status")["folders"]["calls"]["backlog"] == 0


def test_forget_from_any_node(one, two, capsys):
    """The cluster's ledger is the one that is forgotten from."""
    digest = "ab" * 32
    entry = (digest, "s", 10, time.time(), "calls", 1, b"x")
    sql = (
        "INSERT INTO ledger (sha256, settings, size_bytes, kept_at, folder, job_id, document)"
        " VALUES (?, ?, ?, ?, ?, ?, ?)"
    )
    with one.store() as store:
        store.call(lambda db: db.execute(sql, entry)).result()
    assert two.run("forget", digest) == 0
    assert two.run("forget", digest) == 74
    assert "1 answer forgotten" in capsys.readouterr().out


def with_password(node, user=None, password=SECRET):
    """Its dsn has a password, and maybe another user."""
    parts = urlsplit(node.dsn)
    config = json.loads(node.config.read_text())
    place = f"{parts.hostname}:{parts.port}{parts.path}"
    config["queue"]["dsn"] = f"postgresql://{user or parts.username}:{password}@{place}"
    node.config.write_text(json.dumps(config))


@pytest.mark.parametrize(
    "command",
    [("status",), ("plan",), ("why", "a.wav"), ("release", "--folder", "calls"), ("forget", "ab" * 32)],
    ids=lambda command: command[0],
)
def test_a_database_that_is_away_is_named_without_its_secret(one, postgres, capsys, command):
    """74, the server, and what to do; no traceback, and no password."""
    with_password(one)
    postgres.stop()
    code = one.run(*command)
    errors = capsys.readouterr().err
    assert code == 74
    assert f"postgresql://127.0.0.1:{postgres.port}/" in errors
    assert "the queue's database is unavailable" in errors
    assert "start it" in errors
    assert "Traceback" not in errors
    assert SECRET not in errors


def test_a_server_that_refuses_us_is_told_without_the_password(one, capsys):
    """No such user: said as it is, with where to look."""
    with_password(one, user="nobody-of-that-name")
    code = one.run("status")
    printed = capsys.readouterr()
    assert code == 74
    assert "look at queue.dsn" in printed.err
    assert SECRET not in printed.err + printed.out


def test_a_role_that_may_not_use_the_schema_is_refused_in_words(one, postgres, capsys):
    """A second role for a node that was made without the rights of the first one."""
    with one.store():
        pass
    postgres.execute("CREATE ROLE stranger LOGIN")
    try:
        with_password(one, user="stranger")
        assert one.run("status") == 74
        one.dsn = one.dsn.replace("dropscribe@", "stranger@")
        with pytest.raises(StoreUnusable) as refused, one.store():
            pass
    finally:
        postgres.execute("DROP ROLE stranger")
    for said in (capsys.readouterr().err, f"{refused.value}; {refused.value.remedy}"):
        assert "permission denied for schema dropscribe" in said
        assert "docs/cluster.md" in said


def test_retry_works_while_the_database_is_away(one, postgres, share, capsys):
    """It moves files, and the queue finds them when it is back."""
    (share / "failed" / "a.wav").write_bytes(wav_bytes())
    postgres.stop()
    assert one.run("retry", one.place("failed/a.wav")) == 0
    assert (share / "inbox" / "a.wav").exists()
    assert "1 file is back in the inbox" in capsys.readouterr().out


@pytest.fixture
def locked(postgres):
    """A user of the server who needs a password."""
    ((hba_file,),) = postgres.execute("SHOW hba_file")
    hba = Path(hba_file)
    before = hba.read_text()
    postgres.execute(f"CREATE ROLE locked LOGIN SUPERUSER PASSWORD '{SECRET}'")
    hba.write_text(f"host all locked 127.0.0.1/32 scram-sha-256\n{before}")
    postgres.execute("SELECT pg_reload_conf()")
    yield "locked"
    hba.write_text(before)
    postgres.execute("SELECT pg_reload_conf()")
    postgres.execute("DROP ROLE locked")


@pytest.mark.parametrize("command", [("status",), ("why", "a.wav"), ("release", "--folder", "calls")])
def test_a_wrong_password_is_said_and_never_shown(one, capsys, locked, command):
    """74 and where to look; the right one is let in, and is not shown either."""
    with_password(one, user=locked, password=SECRET + "-not")
    assert one.run(*command) == 74
    printed = capsys.readouterr()
    assert "authentication failed" in printed.err
    assert "look at queue.dsn" in printed.err
    assert SECRET not in printed.err + printed.out
    with_password(one, user=locked)
    assert one.run("status") == 0
    assert SECRET not in "".join(capsys.readouterr())


@pytest.mark.parametrize("behind_seconds", [-300.0, 300.0])
def test_a_wrong_clock_changes_no_times(one, share, capsys, monkeypatch, behind_seconds):
    """Rows are by the server's clock, and so is now: nobody is silent, nothing is late, nothing is early."""
    (share / "inbox" / "a.wav").write_bytes(wav_bytes())
    beat(one)
    add_job(one, "a.wav", due_at=time.time() + 100, code="timeout")
    true_time = time.time
    monkeypatch.setattr(time, "time", lambda: true_time() - behind_seconds)
    document = json_of(one, capsys, "status")
    calls = document["folders"]["calls"]
    assert document["nodes"][0]["silent"] is False
    assert calls["deferred"] == 1
    assert 59 <= calls["oldest_waiting"] <= 90
    words = json_of(one, capsys, "why", one.place("inbox/a.wav"))["words"]
    assert "(in 1 min" in words[0]
