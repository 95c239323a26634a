"""``dropscribe plan``: a dry run. Nothing is sent, nothing is changed, no queue is made."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

from dropscribe.cli import exit_codes
from dropscribe.cli.options import read_config
from dropscribe.cli.planning import Line, Planned, Prober, plan_folder
from dropscribe.reports.queue_reader import view_queue
from dropscribe.reports.wording import bytes_words, clock_words, one_line, plural, render_table
from dropscribe.transcripts.document import path_text

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator, Sequence

PLAN_SCHEMA = "dropscribe.plan/1"


def execute(options: argparse.Namespace) -> int:
    """Print for each inbox the effect of a run."""
    config = read_config(options)
    prober = Prober()
    with view_queue(config) as view:
        plans = [plan_folder(config, rule, view, prober) for rule in config.folders.values()]
    if options.json:
        sys.stdout.write(json.dumps(plan_document(plans, prober)) + "\n")
    else:
        for part in render_plan(plans, prober):
            sys.stdout.write(part + "\n")
    return exit_codes.OK


def plan_document(plans: Sequence[Planned], prober: Prober) -> dict[str, Any]:
    """The object of ``plan --json``; every key is always there, unknown values are null."""
    return {
        "schema": PLAN_SCHEMA,
        "opened": prober.opened,
        "folders": {planned.rule.name: _folder_object(planned) for planned in plans},
    }


def _folder_object(planned: Planned) -> dict[str, Any]:
    totals = planned.totals
    return {
        "available": planned.reason is None or planned.is_not_mounted,
        "reason": planned.reason,
        "files": [_line_object(line) for line in planned.lines],
        "totals": {
            **totals,
            "seconds": round(totals["seconds"], 3),
            "cost": None if totals["cost"] is None else round(totals["cost"], 6),
        },
    }


def _line_object(line: Line) -> dict[str, Any]:
    return {
        "path": path_text(line.path),
        "taken": line.is_taken,
        "state": line.state,
        "reason": line.reason or None,
        "provider": line.provider or None,
        "bytes": line.size_bytes,
        "seconds": None if line.seconds is None else round(line.seconds, 3),
    }


def render_plan(plans: Sequence[Planned], prober: Prober) -> Iterator[str]:
    """Print the plan for people: one table for each folder, then the totals."""
    for planned in plans:
        yield f"{planned.rule.name}: {planned.rule.inbox}"
        if planned.reason:
            yield f"  {'' if planned.is_not_mounted else 'unavailable: '}{one_line(planned.reason)}\n"
        elif not planned.lines:
            yield "  the inbox is empty\n"
        else:
            yield _lines_table(planned.lines) + "\n"
    if plans:
        yield _totals_table(plans)
    yield from _notes(plans, prober)


def _lines_table(lines: Sequence[Line]) -> str:
    rows = [
        [
            path_text(line.path),
            line.provider or "-",
            "-" if line.size_bytes is None else bytes_words(line.size_bytes),
            "-" if line.seconds is None else clock_words(line.seconds),
            line.words,
        ]
        for line in lines
    ]
    return render_table(
        ["FILE", "PROVIDER", "SIZE", "LENGTH", "WHAT HAPPENS"], rows, numbers=["SIZE", "LENGTH"]
    )


def _totals_table(plans: Sequence[Planned]) -> str:
    rows = [
        [
            planned.rule.name,
            str(planned.totals["files"]),
            bytes_words(planned.totals["bytes"]),
            _hours_words(planned.totals),
            _cost_words(planned.totals),
            str(planned.totals["not_taken"]),
        ]
        for planned in plans
    ]
    head = ["FOLDER", "TO SEND", "SIZE", "HOURS", "COST", "LEFT ALONE"]
    return render_table(head, rows, numbers=head[1:])


def _hours_words(totals: dict[str, Any]) -> str:
    return _at_least(f"{totals['seconds'] / 3600:.2f}", totals)


def _cost_words(totals: dict[str, Any]) -> str:
    return "-" if totals["cost"] is None else _at_least(f"{totals['cost']:.2f}", totals)


def _at_least(amount: str, totals: dict[str, Any]) -> str:
    """*amount*, which grows with the files of unknown length."""
    unknown = totals["files_of_unknown_length"]
    if not unknown:
        return amount
    return "not known" if unknown == totals["files"] else f"at least {amount}"


def _notes(plans: Sequence[Planned], prober: Prober) -> Iterator[str]:
    unknown = sum(planned.totals["files_of_unknown_length"] for planned in plans)
    if unknown:
        yield f"\nThe length of {plural(unknown, 'file')} is not known."
    if prober.skipped:
        yield f"{plural(prober.opened, 'file')} were opened, {prober.skipped:,} judged by name alone."
