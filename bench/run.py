"""Run every benchmark in turn and write what was found into README.md beside this file.

    python bench/run.py [--scale 1.0] [--only throughput,idle]

With another scale, or with some only, nothing is written: the table holds whole runs alone.
"""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "daemon"))

import backlog
import big_files
import cluster
import growth
import hints
import idle
import latency
import page
import throughput
from results import Curve, Row

README = Path(__file__).parent / "README.md"
BEGIN, END = "<!-- figures: written by run.py -->", "<!-- end of figures -->"


def _without_curves(
    measure: Callable[[float], list[Row]],
) -> Callable[[float], tuple[list[Row], list[Curve]]]:
    return lambda scale: (measure(scale), [])


PROGRAMS: dict[str, Callable[[float], tuple[list[Row], list[Curve]]]] = {
    "throughput": _without_curves(throughput.measure),
    "latency": _without_curves(latency.measure),
    "backlog": _without_curves(backlog.measure),
    "idle": _without_curves(idle.measure),
    "big_files": _without_curves(big_files.measure),
    "growth": growth.measure,
    "cluster": _without_curves(cluster.measure),
    "hints": _without_curves(hints.measure),
    "page": _without_curves(page.measure),
}


def main() -> int:
    parser = argparse.ArgumentParser(description="dropscribe's benchmarks")
    parser.add_argument("--scale", type=float, default=1.0, help="of all sizes; the table's figures are at 1")
    parser.add_argument("--only", help=f"some of {', '.join(PROGRAMS)}")
    options = parser.parse_args()
    names = options.only.split(",") if options.only else list(PROGRAMS)
    began = time.monotonic()
    rows: list[Row] = []
    curves: list[Curve] = []
    for name in names:
        found, drawn = PROGRAMS[name](options.scale)
        rows += found
        curves += drawn
        print("\n".join(_line(row) for row in found), flush=True)
    minutes = (time.monotonic() - began) / 60
    if options.scale == 1.0 and not options.only:
        _write(rows, minutes)
        _draw(curves)
    return 0 if all(row.is_met is not False for row in rows) else 1


def _line(row: Row) -> str:
    return f"| {row.benchmark} | {row.beside} | {row.must} | {row.aim} | {row.found} | {_verdict(row)} |"


def _verdict(row: Row) -> str:
    if row.is_met is None:
        return ""
    if not row.is_met:
        return "**missed**"
    return "must" if row.is_aim_met is False else "aim" if row.is_aim_met else "met"


def _write(rows: list[Row], minutes: float) -> None:
    text = README.read_text("utf-8")
    head, _, rest = text.partition(BEGIN)
    tail = rest.partition(END)[2]
    figures = [
        BEGIN,
        f"`make bench`, {datetime.datetime.now(datetime.UTC):%Y-%m-%d}, {minutes:.0f} minutes, on {_machine()}.",
        "",
        "| benchmark | beside | must | aim | found | holds |",
        "|---|---|---|---|---|---|",
        *map(_line, rows),
        END,
    ]
    README.write_text(head + "\n".join(figures) + tail, "utf-8")


def _machine() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "an unknown CPU"
    )
    return f"{os.cpu_count()} × {model}, Linux {platform.release()}, Python {platform.python_version()}"


def _draw(curves: list[Curve]) -> None:
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4))
    for curve in curves:
        sizes, milliseconds = zip(*curve.points, strict=True)
        axes.plot(sizes, milliseconds, marker="o", label=curve.unit)
    axes.set(xscale="log", xlabel="files", ylabel="ms a file", ylim=(0, None))
    axes.set_title("A file's rows (submit, claim, keep, end) as others wait or are done")
    axes.legend()
    figure.savefig(README.parent / "growth.svg", metadata={"Date": None})


if __name__ == "__main__":
    sys.exit(main())
