"""Two nodes that have one share in two places, each in a mount namespace of its own."""

from __future__ import annotations

import json
import subprocess

import pytest

from support.billing import billing_emulator
from support.cluster import Cluster
from support.daemon_process import COMMAND, environment_of

pytestmark = pytest.mark.slow

_BIND = 'mount --bind "$0" "$1" && shift && exec "$@"'


def mounted(share, place):
    """A command that runs what stands behind it where *share* is seen at *place* as well."""
    return ("unshare", "--mount", "sh", "-c", _BIND, str(share), str(place))


@pytest.fixture
def cluster(tmp_path, postgres_dsn):
    """``n0`` watches the share where it is; ``n1`` works, and has it mounted elsewhere."""
    emulator, _ = billing_emulator()
    with emulator, Cluster(tmp_path, postgres_dsn, emulator.url, size=2) as made:
        place = tmp_path / "mnt"
        place.mkdir()
        tried = subprocess.run([*mounted(made.share, place), "true"], capture_output=True, check=False)
        if tried.returncode != 0:
            pytest.skip(f"no mounts of one's own here: {tried.stderr.decode().strip()}")
        watcher, worker = made.nodes
        watcher.queue = {"role": "watch"}
        worker.queue = {"role": "work", "roots": {"share": str(place)}}
        worker.prefix = mounted(made.share, place)
        yield made


def config_of(cluster, place):
    """The worker's config, with its folders where it has them."""
    worker = cluster.nodes[1]
    text = json.dumps(cluster.config(worker))
    for part in ("inbox", "done", "failed"):
        text = text.replace(f'"{cluster.share}/{part}"', f'"{place}/{part}"')
    return text


def test_a_file_is_found_at_each_nodes_own_path(cluster, tmp_path, monkeypatch):
    """One finds it, the other files it; why tells both the same story of different paths."""
    place = tmp_path / "mnt"
    worker = cluster.nodes[1]
    text = config_of(cluster, place)
    monkeypatch.setattr(
        type(worker),
        "write_config",
        lambda node: (
            node.folder.mkdir(exist_ok=True),
            node.config_path.write_text(text if node is worker else json.dumps(cluster.config(node))),
            node.config_path.chmod(0o600),
        ),
    )
    cluster.start()
    cluster.drop("call.wav", b"audio " * 100)
    cluster.until_filed(1)

    def why(node, path, prefix=()):
        call = [*prefix, *COMMAND, "why", str(path), "--json", "-c", str(node.config_path)]
        ran = subprocess.run(call, env=environment_of(), capture_output=True, timeout=60, check=True)
        return json.loads(ran.stdout)

    here = why(cluster.nodes[0], cluster.done / "call.wav")
    there = why(worker, place / "done" / "call.json", worker.prefix)
    for told in (here, there):
        assert (told["state"], told["node"], told["folder"]) == ("done", "n1", "calls")
        assert not any("not there any more" in words for words in told["words"])
    assert here["filed"] == str(cluster.done / "call.wav")
    assert there["filed"] == str(place / "done" / "call.wav")
    assert not (place / "done").exists()
    assert cluster.stop() == [0, 0]
