"""The same daemon on PostgreSQL: three nodes over one folder, beside the embedded engine in one run.

The server is a real one, started as the tests start it: fsync on, on the loopback.
"""

from __future__ import annotations

import contextlib
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from arrivals import Arrivals
from latency import drop_at_pace, move_in
from place import REPOSITORY, Scene, Watched, folder, make_files, provider, until
from results import MIB, Row, at_least, at_most, in_turn, percentile

sys.path.insert(0, str(REPOSITORY / "tests"))

from support.postgres import Postgres, why_no_postgres

NODES = 3
FILES = 600
ROUNDS = 3
WAITING = 100_000
IDLE_SECONDS = 20.0


@dataclass
class NodeScene(Scene):
    """One node: a state directory of its own, the folders of the share."""

    share: Path = Path()
    dsn: str = ""
    name: str = "one"
    held_url: str = ""

    @property
    def inbox(self) -> Path:
        return self.share / "inbox"

    @property
    def done(self) -> Path:
        return self.share / "done"

    def config(self) -> dict[str, Any]:
        config = super().config()
        names = ("inbox", "done", "failed")
        config["folders"]["calls"].update({name: str(self.share / name) for name in names})
        if self.held_url:
            config["providers"]["h"] = {**config["providers"]["p"], "url": self.held_url}
            places = {name: str(self.share / f"held-{name}") for name in names}
            config["folders"]["held"] = {**places, "provider": "h"}
            (self.share / "held-inbox").mkdir(exist_ok=True)
        config["queue"] = {
            "type": "postgres",
            "dsn": self.dsn,
            "node": self.name,
            "roots": {"share": str(self.share)},
        }
        return config


def measure(scale: float) -> list[Row]:
    if (reason := why_no_postgres()) is not None:
        return [Row("three nodes on PostgreSQL", "", "", "", f"not measured: {reason}", None, None)]
    with _server() as server:
        return [
            *_throughput(server, max(50, int(FILES * scale))),
            _latency(server, max(10, int(60 * scale))),
            _held(server, max(50, int(FILES * scale)), int(WAITING * scale)),
            *_idle(server, IDLE_SECONDS * min(1.0, scale)),
        ]


@contextlib.contextmanager
def _server() -> Iterator[Postgres]:
    server = Postgres()
    with tempfile.TemporaryDirectory(prefix="dropscribe-pg-") as place:
        server.start(Path(place))
        try:
            yield server
        finally:
            server.stop()


@contextlib.contextmanager
def _nodes(root: Path, url: str, dsn: str, count: int = NODES, held_url: str = "") -> Iterator[list[Watched]]:
    share = root / "share"
    share.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        scenes = []
        for number in range(count):
            place = root / f"node-{number}"
            place.mkdir(parents=True)
            scenes.append(NodeScene(place, url, share=share, dsn=dsn, name=f"n{number}", held_url=held_url))
        yield [stack.enter_context(scene.daemon()) for scene in scenes]


def _throughput(server: Postgres, count: int) -> list[Row]:
    with folder() as root, provider() as url:
        make_files(root / "source", count)
        rounds = iter(range(1_000))

        def cluster() -> float:
            place = root / f"cluster-{next(rounds)}"
            with _nodes(place, url, server.new_database()):
                return count / _files_through(root / "source", place / "share")

        def embedded() -> float:
            scene = Scene(root / f"embedded-{next(rounds)}", url)
            with scene.daemon():
                return count / _files_through(root / "source", scene.root)

        ours, beside = in_turn(ROUNDS, cluster, embedded)
    rate, other = statistics.median(ours), statistics.median(beside)
    note = f"{rate:.0f}/s (embedded engine: {other:.0f}/s)"
    return [at_least("three nodes on PostgreSQL: files a second", "embedded engine", rate, 100, 150, note)]


def _files_through(source: Path, place: Path) -> float:
    """Link every recording into the inbox at once; how long until all are done."""
    names = os.listdir(source)
    done = place / "done"
    began = time.monotonic()
    for name in names:
        os.link(source / name, place / "inbox" / name)
    until(lambda: sum(name.endswith(".wav") for name in os.listdir(done)) >= len(names), 120, 0.02)
    return time.monotonic() - began


def _latency(server: Postgres, count: int) -> Row:
    with (
        folder() as root,
        Arrivals() as arrivals,
        _nodes(root, arrivals.url, server.new_database()),
    ):
        time.sleep(2)
        found = drop_at_pace(root / "share" / "inbox", arrivals, move_in, 9_000, count, 5)
    p50, p95 = percentile(found, 50), percentile(found, 95)
    note = f"p50 {p50:.0f} ms, p95 {p95:.0f} ms"
    return at_most("three nodes: arrival → request (ms)", "", p50, 150, 50, note)


def _held(server: Postgres, count: int, waiting: int) -> Row:
    """Another provider's rate while *waiting* files wait for a held one, beside none waiting."""
    with folder() as root, provider() as url, provider(key="another") as refusing:
        make_files(root / "source", count)
        rounds = iter(range(1_000))

        def rate(backlog: int) -> float:
            place, dsn = root / f"held-{next(rounds)}", server.new_database()
            held_url = refusing + "/waves/v1/pulse/get_text"
            with _nodes(place, url, dsn, held_url=held_url):
                if backlog:
                    server.execute(_many_waiting(backlog), dsn)
                    time.sleep(3)  # the nodes look at the holds every second
                return count / _files_through(root / "source", place / "share")

        with_them, without = in_turn(ROUNDS, lambda: rate(waiting), lambda: rate(0))
    slower = statistics.median(b / a for a, b in zip(with_them, without, strict=True))
    rates = f"{statistics.median(with_them):.0f}/s beside {statistics.median(without):.0f}/s"
    name = f"{waiting:,} files wait for a held provider: another's rate"
    return at_most(name, "none waiting", slower, 1.2, 1.05, f"{slower:.2f} ({rates})")


def _many_waiting(count: int) -> str:
    """A hold, and rows as the inboxes would make them; without files, so none of them is to be tried."""
    return (
        "INSERT INTO dropscribe.holds VALUES ('provider', 'h', 'unauthorized', 'refused',"
        " extract(epoch FROM now()), extract(epoch FROM now()) + 3600, 3600);"
        " INSERT INTO dropscribe.jobs (folder, directory, name, identity, stable_inodes, device, inode,"
        " size_bytes, mtime_ns, state, received_at, due_at)"
        " SELECT 'held', ''::bytea, convert_to(n || '.wav', 'UTF8'), convert_to('p' || n, 'UTF8'), false, 0, n,"
        " 8000, n, 'queued', extract(epoch FROM now()), extract(epoch FROM now())"
        f" FROM generate_series(1, {count}) AS n"
    )


def _idle(server: Postgres, seconds: float) -> list[Row]:
    with folder() as root, provider() as url, _nodes(root, url, server.new_database(), count=1) as (node,):
        time.sleep(5)
        percent = node.idle_percent(seconds)
        memory_mib = node.memory_bytes() / MIB
    return [
        at_most("a node, idle: memory (MiB)", "", memory_mib, 80, 60, f"{memory_mib:.1f}"),
        at_most("a node, idle: CPU (%)", "one core", percent, 1, 0.5, f"{percent:.2f}"),
    ]
