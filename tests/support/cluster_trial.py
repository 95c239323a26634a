"""Kills at random among several nodes, and what must be true of the end.

As :mod:`support.kill_trial`, but the others go on while one, two or all of them are dead.
"""

from __future__ import annotations

import random
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from support.billing import Weather, billing_emulator
from support.cluster import LIVE, Cluster
from support.dropped_files import Dropper
from support.kill_trial import Report, Trial, look_at_the_end, look_for_names, paid_again, told

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from support.postgres import Postgres

CONCURRENCY = 8


@dataclass
class ClusterReport(Report):
    """Figures of a cluster's trial.

    Attributes:
        most_at_once: Of the requests that the vendor had under way.
        outages: The number of times that the database was away.
    """

    nodes: int = 0
    most_at_once: int = 0
    outages: int = 0

    def breaches(self) -> dict[str, Any]:
        found = super().breaches()
        if self.most_at_once > CONCURRENCY:
            found["most_at_once"] = self.most_at_once
        return found


def run_cluster_trial(
    trial: Trial,
    root: Path,
    dsn: str,
    *,
    nodes: int = 3,
    restarts: Postgres | None = None,
    quick: Mapping[str, float] | None = None,
) -> ClusterReport:
    """Do it below *root*, which is empty.

    Args:
        restarts: The server, to be crashed and started again once in ten kills; None leaves it alone.
        quick: See :class:`Cluster`.
    """
    began = time.monotonic()
    emulator, till = billing_emulator()
    weather = random.Random(f"{trial.seed} weather")
    emulator.script = Weather(weather, share_503=trial.share_503, delay_seconds=trial.delay_seconds)
    report = ClusterReport(files=trial.files, nodes=nodes)
    provider = {"concurrency": CONCURRENCY}
    with (
        emulator,
        Cluster(root, dsn, emulator.url, nodes, provider=provider, quick=quick or {}) as cluster,
    ):
        dropper = Dropper(trial, cluster, till)
        cluster.start()
        _kill_again_and_again(trial, cluster, dropper, report, restarts)
        dropper.drop_rest()
        # A row of a file that another node had just filed is withdrawn after dispatch.YOUNG_SECONDS.
        cluster.until(lambda: _is_over(cluster), "the end", 240 + trial.files / 5)
        for node in cluster.nodes:
            node.until_ready()  # one that has just started may not catch the signal yet
        report.exit_code = max(map(abs, cluster.stop()))
        report.starts = cluster.starts
        report.paid_again = paid_again(dropper.dropped, till)
        report.interrupted = told(cluster, "status")["folders"]["calls"]["maybe_paid_twice"]
        report.most_at_once = emulator.most_at_once
        look_at_the_end(cluster, dropper.dropped, report)
        look_for_names(cluster, dropper.dropped, till, report)
    report.seconds = round(time.monotonic() - began, 1)
    return report


def _is_over(cluster: Cluster) -> bool:
    left = any(path.is_file() for path in cluster.inbox.rglob("*"))
    return not left and cluster.count(LIVE) == 0


def _kill_again_and_again(
    trial: Trial, cluster: Cluster, dropper: Dropper, report: ClusterReport, restarts: Postgres | None
) -> None:
    rng = random.Random(f"{trial.seed} kills")
    share = -(-trial.files // trial.kills)
    while report.kills < trial.kills:
        dropping = threading.Thread(target=dropper.drop, args=(share,))
        dropping.start()
        time.sleep(rng.uniform(0.0, trial.most_alive_seconds))
        (count,) = rng.choices((1, 2, len(cluster.nodes)), (8, 2, 1))
        victims = rng.sample(cluster.nodes, min(count, trial.kills - report.kills, len(cluster.nodes)))
        for victim in victims:
            victim.process.kill()
        report.kills += len(victims)
        report.in_flight_at_kills += sum(victim.in_flight_when_gone() for victim in victims)
        if restarts and report.kills // 10 > report.outages:
            restarts.crash()
            restarts.restart()
            report.outages += 1
        for victim in victims:
            victim.start()
        if rng.random() > 1 / 6:
            for victim in victims:
                victim.until_ready()
        dropping.join()
