"""Metrics for Prometheus and for node_exporter's textfile collector.

Imported only where metrics are enabled: with its library it takes 3 MiB.

Guarantees: a registry of its own, so that nothing else of the process leaks in; labels are names from the
config or short codes, never paths, and their number is bounded; :meth:`Metrics.render` never raises for a
name or code that is odd.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import re
import tempfile
from collections.abc import Awaitable, Callable, Iterable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import structlog
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Info,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from dropscribe.core.errors import StoreError
from dropscribe.service.status import WAITING_STATES, WATCHED_ELSEWHERE

log = structlog.get_logger()

QUEUE_STATES = (*WAITING_STATES, "transcribing", "at_provider")
"""The states of queue_files, as in ``status --json``."""

MOST_REASONS = 100  # reasons are codes, some of them a provider's own; beyond this many, new ones are "other"
WRITE_SECONDS = 15.0
REQUEST_BUCKETS_SECONDS = (0.5, 1, 2, 5, 10, 20, 60, 120, 300, 600, 1800)

_CODE = re.compile(r"[A-Za-z0-9_.:-]{1,64}")


class Metrics:
    """Counts events, and renders them with a snapshot of the queue."""

    def __init__(self, version: str) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # the library left it bare
        self._registry = CollectorRegistry()
        self._snapshot = _Snapshot()
        self._reasons: set[str] = set()
        self._registry.register(self._snapshot)
        ProcessCollector(registry=self._registry)
        Info("dropscribe_build", "The running version.", registry=self._registry).info({"version": version})
        self._files = self._counter("files", "Files that ended, by result.", "folder", "result")
        self._audio = self._counter(
            "audio_seconds", "Audio transcribed, in seconds of its own length.", "folder", "provider"
        )
        self._uploaded = self._counter("upload_bytes", "Sizes of the recordings of all attempts.", "provider")
        self._requests = Histogram(
            "dropscribe_request_seconds",
            "How long attempts took, whatever came of them.",
            ("provider",),
            buckets=REQUEST_BUCKETS_SECONDS,
            registry=self._registry,
        )
        self._retries = self._counter("retries", "Attempts that failed, by code.", "provider", "reason")
        self._success = self._gauge(
            "last_success_timestamp_seconds", "When a file last ended in done.", "folder"
        )
        self._reload_ok = self._gauge("config_reload_ok", "1 if the last config read was taken.")
        self._reload_at = self._gauge("config_reload_timestamp_seconds", "When a config was last taken.")

    def introduce(self, folders: Iterable[str], providers: Iterable[str]) -> None:
        """Let the series of these names exist at zero, so that a first increase is seen as one."""
        for folder in folders:
            for result in ("done", "failed"):
                self._files.labels(folder, result)
        for provider in providers:
            self._uploaded.labels(provider)
            self._requests.labels(provider)

    def observe_attempt(self, provider: str, seconds: float, upload_bytes: int = 0) -> None:
        """An attempt ended, well or not, after *seconds*; all of its recording counts as sent."""
        self._requests.labels(provider).observe(seconds)
        self._uploaded.labels(provider).inc(upload_bytes)

    def observe_retry(self, provider: str, reason: str) -> None:
        """Count a failed attempt; *reason* is its error's code."""
        self._retries.labels(provider, self._bounded(reason)).inc()

    def observe_filed(
        self, folder: str, result: str, at: float, provider: str = "", audio_seconds: float | None = None
    ) -> None:
        """Count a file that ended in done or failed, at *at* (Unix seconds)."""
        self._files.labels(folder, result).inc()
        if result == "done":
            self._success.labels(folder).set(at)
            self._audio.labels(folder, provider).inc(audio_seconds or 0.0)

    def observe_config(self, *, is_taken: bool, at: float) -> None:
        """A config was read, at the start or on a reload, at *at* (Unix seconds), and taken or refused."""
        self._reload_ok.set(int(is_taken))
        if is_taken:
            self._reload_at.set(at)

    def render(self, status: Mapping[str, Any]) -> bytes:
        """All series in the text format, those of the queue from *status*."""
        self._snapshot.status = status
        return generate_latest(self._registry)

    def _bounded(self, reason: str) -> str:
        if reason not in self._reasons:
            if not _CODE.fullmatch(reason) or len(self._reasons) >= MOST_REASONS:
                return "other"
            self._reasons.add(reason)
        return reason

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"dropscribe_{name}", text, labels, registry=self._registry)

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(f"dropscribe_{name}", text, labels, registry=self._registry)


_COUNTS = (
    ("found_without_hint", "Files that only a listing found."),
    ("hint_overflows", "Times that hints were lost."),
    ("suspect", "Finished files whose transcripts have a warning that speaks against their text."),
    ("maybe_paid_twice", "Attempts that may have been paid for and gave no answer."),
)
"""Series, which is the key in the status' folders, and description."""


class _Snapshot(Collector):
    """Collects the queue's series from a status at each scrape; an inbox's counts restart with its thread."""

    def __init__(self) -> None:
        self.status: Mapping[str, Any] = {}

    def collect(self) -> Iterable[Metric]:
        folders = self.status.get("folders", {})
        for key, text in _COUNTS:
            count = CounterMetricFamily(f"dropscribe_{key}", text, labels=("folder",))
            for name, folder in folders.items():
                count.add_metric((name,), folder.get(key, 0))
            yield count
        yield from self._queues(folders)
        held = _family("provider_held", "1 while the provider is held.", "provider")
        in_flight = _family("provider_in_flight", "Requests in flight.", "provider")
        for name, provider in self.status.get("providers", {}).items():
            held.add_metric((name,), int(provider.get("state") == "held"))
            in_flight.add_metric((name,), provider.get("in_flight", 0))
        yield from (held, in_flight, *self._nodes())

    def _queues(self, folders: Mapping[str, Mapping[str, Any]]) -> Iterable[Metric]:
        queue = _family("queue_files", "Waiting files, by state.", "folder", "state")
        oldest = _family("oldest_waiting_seconds", "Age of the oldest waiting file, or 0.", "folder")
        at_provider = _family(
            "at_provider_since_timestamp_seconds",
            "Since when the oldest file that a provider works on is there.",
            "folder",
        )
        watch = _family("watch_ok", "1 while the inbox is available.", "folder")
        folder_held = _family("folder_held", "1 while the folder's rule is held.", "folder")
        for name, folder in folders.items():
            for state in QUEUE_STATES:
                queue.add_metric((name, state), folder.get(state, 0))
            oldest.add_metric((name,), folder.get("oldest_waiting") or 0)
            if since := folder.get("at_provider_since"):
                at_provider.add_metric((name,), datetime.fromisoformat(since).timestamp())
            if folder.get("watch") != WATCHED_ELSEWHERE:
                watch.add_metric((name,), int(bool(folder.get("available"))))
            folder_held.add_metric((name,), int(folder.get("hold") is not None))
        return (queue, oldest, at_provider, watch, folder_held)

    def _nodes(self) -> Iterable[Metric]:
        """Of a cluster: the database as this node sees it, and every node as the database has it."""
        nodes = self.status.get("nodes")
        if nodes is None:
            return ()
        is_up = _family("queue_database_up", "1 while this node reaches the queue's database.")
        is_up.add_metric((), int(not self.status.get("trouble")))
        seen = _family("nodes", "Nodes of the cluster, by whether they beat.", "state")
        silent = sum(node["silent"] for node in nodes)
        seen.add_metric(("beating",), len(nodes) - silent)
        seen.add_metric(("silent",), silent)
        beat = _family("node_last_beat_timestamp_seconds", "Time of a node's last heartbeat.", "node")
        in_flight = _family("node_in_flight", "Files that a node has right now.", "node")
        for node in nodes:
            beat.add_metric((node["name"],), datetime.fromisoformat(node["last_beat"]).timestamp())
            in_flight.add_metric((node["name"],), node["in_flight"])
        return (is_up, seen, beat, in_flight)


def _family(name: str, text: str, *labels: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"dropscribe_{name}", text, labels=labels)


class MetricsFile:
    """Writes the metrics to a file at intervals, for node_exporter's textfile collector.

    A file that cannot be written never ends the daemon, nor does a queue that cannot be read for it.
    """

    def __init__(self, path: Path, render: Callable[[], Awaitable[bytes]]) -> None:
        self._path = path
        self._render = render
        self._trouble = ""

    async def run(self) -> None:
        """Write until cancelled."""
        while True:
            await self.write()
            await asyncio.sleep(WRITE_SECONDS)

    async def write(self) -> None:
        """Write once; a new reason why that fails is logged."""
        trouble = ""
        try:
            content = await self._render()
            await asyncio.to_thread(write_metrics_file, self._path, content)
        except StoreError as error:
            trouble = f"{error.path}: {error.reason}"
        except OSError as error:
            trouble = error.strerror or str(error)
        if trouble and trouble != self._trouble:
            log.warning("metrics.unwritten", reason=trouble)
        self._trouble = trouble


def write_metrics_file(path: Path, content: bytes) -> None:
    """Put *content* at *path* in one step, readable by all; OSError leaves the old file unchanged.

    The temporary name does not end in ``.prom``, so that the collector never reads half a file. A device,
    such as /dev/null, is not replaced.
    """
    if os.path.exists(path) and not os.path.isfile(path):
        raise FileExistsError(errno.EEXIST, "it is there and is not a file", str(path))
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(descriptor, 0o644)
            file.write(content)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
