"""A node that is cut off: it has a network of its own, and its cable is pulled.

The node runs in a network namespace; a pair of virtual interfaces is its cable. Nothing is sent to anybody
when it goes: no end of a connection, no refusal.
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import tempfile
import time
import uuid
from pathlib import Path

import pytest

from support.billing import Weather, billing_emulator
from support.cluster import QUICK_SECONDS, Cluster
from support.postgres import Postgres, why_no_postgres

pytestmark = pytest.mark.slow


class Cable:
    """A namespace that a veth pair joins to this one, with addresses out of those that are for trials."""

    def __init__(self) -> None:
        mark = uuid.uuid4().hex[:8]
        self.namespace, self._here, self._there = f"ds-{mark}", f"dsh{mark}", f"dst{mark}"
        net = f"198.18.{random.SystemRandom().randrange(1, 255)}"
        self.here, self.there = f"{net}.1", f"{net}.2"

    def lay(self) -> None:
        self._ip("netns", "add", self.namespace)
        self._ip("link", "add", self._here, "type", "veth", "peer", "name", self._there)
        self._ip("link", "set", self._there, "netns", self.namespace)
        self._ip("addr", "add", f"{self.here}/30", "dev", self._here)
        self._ip("link", "set", self._here, "up")
        self._ip("-n", self.namespace, "addr", "add", f"{self.there}/30", "dev", self._there)
        self._ip("-n", self.namespace, "link", "set", self._there, "up")
        self._ip("-n", self.namespace, "link", "set", "lo", "up")

    def pull(self) -> None:
        """Nothing comes through, and nobody is told."""
        self._ip("link", "set", self._here, "down")

    def plug(self) -> None:
        self._ip("link", "set", self._here, "up")

    def remove(self) -> None:
        for arguments in (("link", "del", self._here), ("netns", "del", self.namespace)):
            subprocess.run(["ip", *arguments], check=False, capture_output=True, timeout=10)

    @staticmethod
    def _ip(*arguments: str) -> None:
        subprocess.run(["ip", *arguments], check=True, capture_output=True, timeout=10)


@pytest.fixture
def cable():
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("no root, or no ip: no node can be given a network of its own")
    made = Cable()
    try:
        made.lay()
        yield made
    except subprocess.CalledProcessError as error:
        pytest.skip(f"no network of its own may be made here: {error.stderr.decode().strip()}")
    finally:
        made.remove()


@pytest.fixture
def server(cable):
    """A server that listens to the cable too."""
    if (reason := why_no_postgres()) is not None:
        pytest.skip(reason)
    directory = Path(tempfile.mkdtemp(prefix="dropscribe-pg-"))
    made = Postgres(listens_to=cable.here, trusts=f"{cable.there}/32")
    try:
        made.start(directory)
        yield made
    finally:
        made.stop()
        shutil.rmtree(directory)


def test_a_node_that_is_cut_off_does_no_harm(tmp_path, cable, server):
    """Its files go on elsewhere and are done; back again it changes nothing, and works on."""
    emulator, till = billing_emulator("0.0.0.0")
    emulator.script = Weather(random.Random(1), share_503=0.0, delay_seconds=(1.0, 1.5))
    dsn = server.new_database()
    quick = {} if os.environ.get("DROPSCRIBE_LONG_TESTS") else QUICK_SECONDS
    with emulator, Cluster(tmp_path, dsn, emulator.url, size=2, quick=quick) as cluster:
        cut, other = cluster.nodes
        cut.prefix = ("ip", "netns", "exec", cable.namespace)
        cut.dsn = dsn.replace("127.0.0.1", cable.here)
        cut.url = emulator.url.replace("127.0.0.1", cable.here)
        cut.start()
        cut.until_ready()
        cluster.drop_many(12)
        cluster.until(lambda: emulator.at_once == 4, "every slot to be taken")
        cable.pull()
        pulled_at = time.monotonic()
        in_flight = cluster.count("state = 'transcribing' AND node = 'n0'")
        assert in_flight == 4
        other.start()
        other.until_ready()
        cluster.until_filed(12, 60)
        print(f"taken_over_seconds: {time.monotonic() - pulled_at:.1f}")  # noqa: T201  # a figure for -rP
        before = {path.name: path.stat().st_mtime_ns for path in cluster.done.iterdir()}
        assert cut.process.is_running
        cable.plug()
        cluster.until(
            lambda: cluster.count("name = 'n0' AND beat_at > extract(epoch FROM now()) - 2", "nodes"),
            "it to be back",
            60,
        )
        assert {path.name: path.stat().st_mtime_ns for path in cluster.done.iterdir()} == before
        other.kill()
        cluster.drop_many(4, first=12)
        cluster.until_filed(16, 60)
        assert cluster.stop() == [0]
        assert cluster.count("state = 'done'") == 16
        assert cluster.count("state NOT IN ('done', 'withdrawn')") == 0
        assert till.paid_again() <= in_flight
        assert all("Traceback" not in node.process.log_path.read_text() for node in cluster.nodes)
