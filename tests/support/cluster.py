"""Several nodes as processes over one folder: started, killed, frozen, thawed, stopped.

Each node has a ``state_dir``, a config and a log of its own; the share, the database and the vendor are
common to all. Nodes may be given shorter times, another clock, or a network of their own.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

import psycopg

from support.daemon_process import PULSE_PATH, Process, environment_of, wait_until
from support.vendors import KEY

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

QUICK_SECONDS = {"beat": 0.5, "silent": 4.0, "look": 0.5, "young": 3.0}
"""Times for tests that wait for a node to be given up; the usual ones are the code's."""

LIVE = "state IN ('queued', 'transcribing', 'transcribed', 'rejected')"
_TOLD = "id, state, provider, ticket, lane, node, fence, crashes, due_at - extract(epoch FROM now()), code"

_PROGRAM = """
import json, os, sys, time
ahead_seconds = float(os.environ.get("TEST_CLOCK_AHEAD", "0"))
if ahead_seconds:
    true_time, true_time_ns = time.time, time.time_ns
    time.time = lambda: true_time() + ahead_seconds
    time.time_ns = lambda: true_time_ns() + int(ahead_seconds * 1e9)
quick = json.loads(os.environ.get("TEST_QUICK", "{}"))
if once := quick.pop("once", 0.0):
    from dropscribe.app import daemon
    daemon.ONCE_HORIZON_SECONDS = once
if quick:
    from dropscribe.queue import model
    from dropscribe.queue.cluster import nodes
    from dropscribe.queue.sql import intake_queries
    for module, name, short in (
        (nodes, "BEAT_SECONDS", "beat"),
        (model, "SILENT_SECONDS", "silent"),
        (nodes, "LOOK_SECONDS", "look"),
        (intake_queries, "YOUNG_SECONDS", "young"),
    ):
        assert hasattr(module, name), name
        setattr(module, name, quick[short])
from dropscribe.cli.main import main
sys.exit(main())
"""


@dataclass
class Node:
    """One node; its process comes and goes.

    Attributes:
        url, dsn: As this node reaches the vendor and the database.
        queue: Keys laid over the config's ``queue``.
        prefix: A command that the node is started by: ``ip netns exec NAME``.
        ahead_seconds: The error of its clock.
    """

    cluster: Cluster
    name: str
    url: str
    dsn: str
    queue: dict[str, Any] = field(default_factory=dict)
    prefix: Sequence[str] = ()
    ahead_seconds: float = 0.0
    starts: int = 0
    processes: list[Process] = field(default_factory=list)

    @property
    def folder(self) -> Path:
        return self.cluster.root / self.name

    @property
    def config_path(self) -> Path:
        return self.folder / "dropscribe.yaml"

    @property
    def process(self) -> Process:
        """The last one that was started."""
        return self.processes[-1]

    def write_config(self) -> None:
        """As :meth:`Cluster.config` has it for this node."""
        self.folder.mkdir(exist_ok=True)
        self.config_path.write_text(json.dumps(self.cluster.config(self), indent=2), "utf-8")
        self.config_path.chmod(0o600)

    def start(self, *options: str) -> Process:
        """``dropscribe run OPTIONS`` as this node."""
        self.write_config()
        quick = {"TEST_QUICK": json.dumps(self.cluster.quick)} if self.cluster.quick else {}
        skew = {"TEST_CLOCK_AHEAD": str(self.ahead_seconds)} if self.ahead_seconds else {}
        process = Process(
            [*self.prefix, sys.executable, "-c", _PROGRAM, "run", *options, "-c", str(self.config_path)],
            {**environment_of(), **quick, **skew},
            self.folder / f"run-{len(self.processes)}.log",
        )
        self.processes.append(process)
        return process

    def until_ready(self) -> None:
        """Until its last process watches or works."""
        self.process.until_logged("daemon.ready")

    def kill(self) -> int:
        """SIGKILL, and wait until the server has noticed; returns how many attempts it had under way."""
        self.process.kill()
        return self.in_flight_when_gone()

    def in_flight_when_gone(self) -> int:
        """Attempts of this node's that the rows tell of, once the server has done what it had asked."""
        wait_until(lambda: not self.is_connected(), f"the server to notice that {self.name} is gone")
        return self.cluster.count(f"state = 'transcribing' AND node = '{self.name}'")

    def is_connected(self) -> bool:
        """Whether the server has a session of its."""
        return self.cluster.count(f"application_name = 'dropscribe {self.name}'", "pg_stat_activity") > 0

    def freeze(self) -> None:
        """SIGSTOP: it beats no more, and its connections stand."""
        self.process.send(signal.SIGSTOP)

    def thaw(self) -> None:
        self.process.send(signal.SIGCONT)

    def logged(self, event: str) -> list[dict[str, Any]]:
        """Lines of one event in all its logs."""
        return [line for process in self.processes for line in process.logged(event)]


@dataclass
class Cluster:
    """Nodes ``n0`` … over one share, one database and one vendor; a context manager that ends them all.

    Attributes:
        provider, rule, extra: Keys laid over the config's parts, on every node.
        quick: Shorter times (:data:`QUICK_SECONDS`), or none.
    """

    root: Path
    dsn: str
    url: str
    size: int = 3
    provider: dict[str, Any] = field(default_factory=dict)
    rule: dict[str, Any] = field(default_factory=dict)
    extra: dict[str, Any] = field(default_factory=dict)
    quick: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for folder in (self.inbox, self.done, self.failed):
            folder.mkdir(parents=True)
        self.nodes = [Node(self, f"n{number}", self.url, self.dsn) for number in range(self.size)]
        for node in self.nodes:
            node.write_config()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for node in self.nodes:
            for process in node.processes:
                if process.is_running:
                    process.kill()

    @property
    def share(self) -> Path:
        return self.root / "share"

    @property
    def inbox(self) -> Path:
        return self.share / "inbox"

    @property
    def done(self) -> Path:
        return self.share / "done"

    @property
    def failed(self) -> Path:
        return self.share / "failed"

    @property
    def config_path(self) -> Path:
        """Any node's: commands say the same on each."""
        return self.nodes[0].config_path

    @property
    def starts(self) -> int:
        return sum(len(node.processes) for node in self.nodes)

    def config(self, node: Node) -> dict[str, Any]:
        """One node's config as its file will hold it."""
        provider = {
            "type": "pulse",
            "url": node.url + PULSE_PATH,
            "api_key": KEY,
            "concurrency": 4,
            "requests_per_minute": 60_000,
        }
        rule = {
            "inbox": str(self.inbox),
            "done": str(self.done),
            "failed": str(self.failed),
            "provider": "pulse",
            "settle": "0s",
            "rescan": "1s",
        }
        queue = {"type": "postgres", "dsn": node.dsn, "node": node.name, "roots": {"share": str(self.share)}}
        return {
            "state_dir": "state",
            "providers": {"pulse": provider | self.provider},
            "folders": {"calls": rule | self.rule},
            "retry": {"first": "100ms", "max": "500ms"},
            "hold": {"first": "100ms", "max": "500ms"},
            "queue": queue | node.queue,
            "log": {"format": "json", "level": "debug"},
        } | self.extra

    def start(self) -> None:
        """All nodes, and wait until they are ready."""
        for node in self.nodes:
            node.start()
        for node in self.nodes:
            node.until_ready()

    def stop(self) -> list[int]:
        """SIGTERM to all that run; their exit codes."""
        running = [node.process for node in self.nodes if node.processes and node.process.is_running]
        for process in running:
            process.send(signal.SIGTERM)
        return [process.wait() for process in running]

    def drop(self, name: str, content: bytes) -> Path:
        """A file into the inbox, whole from its first instant."""
        path = self.inbox / name
        path.parent.mkdir(parents=True, exist_ok=True)
        temp = self.share / f"dropping-{path.name}"
        temp.write_bytes(content)
        temp.rename(path)
        return path

    def drop_many(self, count: int, first: int = 0) -> None:
        """Files ``N.wav`` with a content of their own each."""
        for number in range(first, first + count):
            self.drop(f"{number}.wav", b"audio %d " % number + os.urandom(200))

    def filed(self) -> int:
        """Audio in done and failed."""
        found = (names for folder in (self.done, self.failed) for _, _, names in os.walk(folder))
        return sum(name.endswith(".wav") for names in found for name in names)

    def until_filed(self, count: int, seconds: float = 60.0) -> None:
        """Until so many audio files are in done or failed, and no row is live."""
        self.until(lambda: self.filed() >= count, f"{count} files", seconds)
        self.until(lambda: self.count(LIVE) == 0, "their rows", seconds)

    def until(self, condition: Callable[[], Any], what: str, seconds: float = 30.0) -> Any:
        """As :func:`wait_until`, with all logs' ends in the error."""
        try:
            return wait_until(condition, what, seconds)
        except TimeoutError as error:
            raise TimeoutError(f"{error}\n{self._tails()}") from None

    def ask(self, statement: str) -> list[tuple[Any, ...]]:
        """The rows of one statement."""
        with psycopg.connect(
            self.dsn, autocommit=True, connect_timeout=5, options="-csearch_path=dropscribe"
        ) as connection:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    def count(self, which: str, table: str = "jobs") -> int:
        """Rows of which *which* is true."""
        ((found,),) = self.ask(f"SELECT count(*) FROM {table} WHERE {which}")
        return int(found)

    def logged(self, event: str) -> list[dict[str, Any]]:
        """Lines of one event in all logs of all nodes."""
        return [line for node in self.nodes for line in node.logged(event)]

    def _tails(self) -> str:
        """The live rows, their tickets and the ends of the logs, for a trial that makes no progress."""
        ends: list[str] = []
        with contextlib.suppress(psycopg.Error):
            ends += map(str, self.ask(f"SELECT {_TOLD} FROM jobs WHERE {LIVE} ORDER BY id LIMIT 20"))
            ends += map(
                str, self.ask("SELECT id, status, queue_name, worker_id FROM procrastinate_jobs LIMIT 20")
            )
            ends += map(str, self.ask("SELECT id, now() - last_heartbeat FROM procrastinate_workers"))
            ends += map(str, self.ask("SELECT classid, objid, pid FROM pg_locks WHERE locktype = 'advisory'"))
        for node in self.nodes:
            if node.processes:
                lines = node.process.log_path.read_text("utf-8", "replace").splitlines()[-15:]
                ends.append(f"--- {node.name}\n" + "\n".join(lines))
        return "\n".join(ends)
