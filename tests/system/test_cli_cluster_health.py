"""What a running node tells of itself and of its cluster: /readyz, /status, /metrics, live.json."""

from __future__ import annotations

import http.client
import json
import socket
import time

import pytest

from support.billing import billing_emulator
from support.cluster import Cluster

pytestmark = pytest.mark.slow


@pytest.fixture
def port():
    """A port of the loopback that was free a moment ago."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


@pytest.fixture
def cluster(tmp_path, postgres_dsn, port):
    emulator, _ = billing_emulator()
    extra = {"http": {"listen": f"127.0.0.1:{port}"}}
    with emulator, Cluster(tmp_path, postgres_dsn, emulator.url, size=1, extra=extra) as made:
        yield made


@pytest.fixture
def get(port):
    """GET of a path: (code, body)."""

    def ask(path):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=15)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()

    return ask


def test_a_database_that_goes_away_and_comes_back(cluster, postgres, get):
    """Ready, then 503 in words, then ready; meanwhile what was known last is shown, with the trouble."""
    cluster.start()
    cluster.ask(
        "INSERT INTO nodes VALUES ('gone', 'other-host', 'work', '1.2.3', 0,"
        f" {time.time() - 3600}, 0) ON CONFLICT DO NOTHING"
    )
    cluster.until(lambda: cluster.count("TRUE", "nodes") == 2, "both nodes' rows")
    assert get("/readyz") == (200, "ok\n")
    status = json.loads(get("/status")[1])
    assert [(node["name"], node["silent"]) for node in status["nodes"]] == [("gone", True), ("n0", False)]
    assert status["trouble"] is None
    metrics = get("/metrics")[1]
    assert "dropscribe_queue_database_up 1.0" in metrics
    assert 'dropscribe_nodes{state="beating"} 1.0' in metrics
    assert 'dropscribe_nodes{state="silent"} 1.0' in metrics
    assert 'dropscribe_node_in_flight{node="n0"} 0.0' in metrics

    postgres.stop()
    cluster.until(lambda: get("/readyz")[0] == 503, "readyz to notice")
    assert f"127.0.0.1:{postgres.port}" in get("/readyz")[1]
    assert get("/healthz")[0] == 200
    status = json.loads(get("/status")[1])
    assert "127.0.0.1" in status["trouble"]
    assert [node["name"] for node in status["nodes"]] == ["gone", "n0"]
    assert "dropscribe_queue_database_up 0.0" in get("/metrics")[1]
    code, page = get("/")
    assert (code, "The queue cannot be read now" in page) == (503, True)
    assert cluster.logged("http.failed") == []
    live = cluster.nodes[0].folder / "state" / "live.json"
    cluster.until(lambda: json.loads(live.read_text())["trouble"], "live.json to tell")

    postgres.restart()
    cluster.until(lambda: get("/readyz")[0] == 200, "readyz to be well again")
    assert json.loads(get("/status")[1])["trouble"] is None
    assert cluster.stop() == [0]


def test_a_node_that_only_works_is_ready_without_inboxes(cluster, get):
    """It watches nothing, and that is no reason not to be ready; nor does it tell of inboxes in metrics."""
    cluster.nodes[0].queue = {"role": "work"}
    cluster.start()
    assert get("/readyz") == (200, "ok\n")
    assert json.loads(get("/status")[1])["folders"]["calls"]["watch"] == "others"
    assert "dropscribe_watch_ok{" not in get("/metrics")[1]
