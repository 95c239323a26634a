"""compose.yaml and its config: what they promise about secrets, ports and what nodes share."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

import dropscribe.config.build as build_module
from dropscribe.config.load import parse_config

ROOT = Path(__file__).parents[2]
COMPOSE = yaml.safe_load((ROOT / "compose.yaml").read_text("utf-8"))
NODES = [service for name, service in COMPOSE["services"].items() if name.startswith("node-")]
POSTGRES = COMPOSE["services"]["postgres"]


def test_the_config_of_the_nodes_is_valid_and_served(monkeypatch, tmp_path):
    """As the nodes read it, with its dsn in a file; every folder lies beneath the shared root."""
    pytest.importorskip("psycopg", reason="psycopg is not installed (extra `cluster`)")
    monkeypatch.setattr(build_module, "has_local_engine", lambda: True)
    made = re.search(r'echo "(postgresql://.*)" > cluster/dsn', (ROOT / "compose.yaml").read_text("utf-8"))[1]
    dsn = made.replace("$(cat cluster/postgres_password)", "A-b_9")
    (tmp_path / "dsn").write_text(f"{dsn}\n")
    (tmp_path / "dsn").chmod(0o600)
    text = (ROOT / "examples/cluster.yaml").read_text("utf-8").replace("/run/secrets/dsn", f"{tmp_path}/dsn")
    config, warnings = parse_config(text, folder=Path("/etc/dropscribe"), environ={})
    assert all(config.queue.serves(rule) for rule in config.folders.values())
    assert [warning.path for warning in warnings] == ["queue.dsn_file"]  # no TLS inside one machine
    assert config.queue.password.reveal() == "A-b_9"
    assert "@postgres/" in config.queue.dsn.reveal()
    shared = {config.queue.roots["share"]}
    assert all(shared <= {Path(volume.split(":")[1]) for volume in node["volumes"]} for node in NODES)
    assert config.http.port == 8790
    assert all(str(config.http.port) in node["healthcheck"]["test"][-1] for node in NODES)


def test_nodes_share_the_recordings_and_nothing_else_that_is_written():
    """One volume is the same on both; state and name are each node's own."""
    first, second = ({volume for volume in node["volumes"] if not volume.endswith(":ro")} for node in NODES)
    assert first & second == {"./cluster/recordings:/recordings"}
    assert len(first) == len(second) == 2
    assert len({node["hostname"] for node in NODES}) == len(NODES) == 2


def test_no_secret_stands_in_it_and_no_port_is_published():
    """Secrets are files; the database is on a network without a way out."""
    assert all(set(secret) == {"file"} for secret in COMPOSE["secrets"].values())
    assert all(not name.endswith("PASSWORD") for name in POSTGRES["environment"])
    assert POSTGRES["environment"]["POSTGRES_HOST_AUTH_METHOD"] == "scram-sha-256"
    assert not any("ports" in service for service in COMPOSE["services"].values())
    assert [COMPOSE["networks"][name]["internal"] for name in POSTGRES["networks"]] == [True]
    ignored = (ROOT / ".gitignore").read_text("utf-8").split()
    assert all(secret["file"].startswith("./cluster/") for secret in COMPOSE["secrets"].values())
    assert "/cluster/" in ignored


def test_nodes_wait_for_a_database_that_is_ready():
    """Every service has a health check; nodes start after the database's says well."""
    assert all("healthcheck" in service for service in COMPOSE["services"].values())
    assert all(node["depends_on"]["postgres"]["condition"] == "service_healthy" for node in NODES)
