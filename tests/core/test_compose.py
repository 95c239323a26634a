"""compose files, container recipe and Podman unit: secrets, ports, shared folders, images and extras."""

from __future__ import annotations

import re
import tomllib
import zoneinfo
from pathlib import Path

import pytest
import yaml

from dropscribe.config.extras import IMAGE, LIBRARIES
from dropscribe.config.load import parse_config

ROOT = Path(__file__).parents[2]
COMPOSE = yaml.safe_load((ROOT / "compose.yaml").read_text("utf-8"))
NODES = [service for name, service in COMPOSE["services"].items() if name.startswith("node-")]
POSTGRES = COMPOSE["services"]["postgres"]


def test_the_config_of_the_nodes_is_valid_and_served(monkeypatch, tmp_path):
    """As the nodes read it, with its dsn in a file; every folder lies beneath the shared root."""
    pytest.importorskip("psycopg", reason="psycopg is not installed (extra `cluster`)")
    monkeypatch.setitem(LIBRARIES, "local", ())
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


EXAMPLE = yaml.safe_load((ROOT / "compose.example.yaml").read_text("utf-8"))["services"]["dropscribe"]
RELEASE = yaml.safe_load((ROOT / ".github/workflows/release.yml").read_text("utf-8"))["jobs"]["image"]
IMAGES = RELEASE["strategy"]["matrix"]["include"]
CONTAINERFILE = (ROOT / "Containerfile").read_text("utf-8")


def podman_unit() -> dict[str, dict[str, list[str]]]:
    """Section → key → its values, of the unit for Podman."""
    found: dict[str, dict[str, list[str]]] = {}
    section = ""
    for line in (ROOT / "systemd/dropscribe.container").read_text("utf-8").splitlines():
        if match := re.fullmatch(r"\[(\w+)\]", line):
            section = match[1]
        elif line and not line.startswith("#"):
            key, _, value = line.partition("=")
            found.setdefault(section, {}).setdefault(key, []).append(value)
    return found


def extras_of(text: str) -> list[str]:
    """The extras of a build argument, as the recipe reads them."""
    return text.split(",") if text else []


def test_every_extra_that_an_image_is_built_with_has_a_lock():
    """Release workflow and cluster name extras as a list with commas; each is installed by its lock."""
    written = [image["extras"] for image in IMAGES]
    written += [node["build"]["args"]["EXTRAS"] for node in NODES]
    names = {name for text in written for name in extras_of(text)}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert names <= set(project["optional-dependencies"])
    assert all((ROOT / "locks" / f"{name}.txt").is_file() for name in names)
    assert "local" in names


def test_the_image_is_installed_from_locks_alone():
    """No version floats: requirements come from locks, the program itself brings none along."""
    installs = re.findall(r"\$pip install (.*?);", CONTAINERFILE)
    assert all(
        "$locks" in one or {"--no-deps", "--no-build-isolation"} <= set(one.split()) for one in installs
    )
    assert len(installs) == 2
    ignored = (ROOT / ".dockerignore").read_text("utf-8").split()
    assert "!locks" in ignored


def test_examples_name_images_that_a_release_publishes():
    """compose and Podman take the same image: a published name, a tag that the workflow makes."""
    image = EXAMPLE["image"]
    assert podman_unit()["Container"]["Image"] == [image]
    name, _, tag = image.partition(":")
    assert name == IMAGE == "ghcr.io/OWNER/dropscribe"
    assert tag in {f"latest{one['suffix']}" for one in IMAGES}
    with_engine = {f"latest{one['suffix']}" for one in IMAGES if "local" in extras_of(one["extras"])}
    assert with_engine == {"latest-engine"}


def test_the_compose_example_needs_no_clone_and_knows_its_time_zone():
    """It is copied into a folder of its own, where there is nothing to build from."""
    assert "build" not in EXAMPLE
    assert {"PUID", "PGID", "UMASK", "TZ"} <= set(EXAMPLE["environment"])
    zoneinfo.ZoneInfo(EXAMPLE["environment"]["TZ"])


def test_the_podman_unit_is_as_closed_as_the_compose_example():
    """Read-only, without privileges but for becoming PUID; a stop has time for shutdown_grace."""
    unit = podman_unit()
    container, service = unit["Container"], unit["Service"]
    assert container["ReadOnly"] == container["NoNewPrivileges"] == ["true"]
    assert container["DropCapability"] == ["all"]
    added = container["AddCapability"][0].split()
    assert added == [f"CAP_{name}" for name in EXAMPLE["cap_add"]]
    assert [volume.split(":")[1] for volume in container["Volume"]] == ["/data", "/recordings"]
    assert service["RestartPreventExitStatus"] == ["78 69"]
    stop = int(container["PodmanArgs"][0].removeprefix("--stop-timeout="))
    assert 30 < stop < int(service["TimeoutStopSec"][0])
