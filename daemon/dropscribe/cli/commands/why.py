"""``dropscribe why FILE``: explains one file in plain words."""

from __future__ import annotations

import argparse
import json
import os
import sys
from typing import Any

from dropscribe.cli import exit_codes
from dropscribe.cli.options import read_reporting_config
from dropscribe.core.text.printing import path_text, utc_text
from dropscribe.reports.explain import explain
from dropscribe.reports.job_explanation import Explanation
from dropscribe.reports.locations import Place
from dropscribe.reports.queue_reader import view_queue
from dropscribe.reports.timed_calls import is_there
from dropscribe.reports.wording import (
    moment_words,
    outcome_words,
    printable_line,
    render_facts,
    render_table,
    show_path,
)


def execute(options: argparse.Namespace) -> int:
    """Print the explanation; 74 only if the path does not exist and no rule knows it."""
    config = read_reporting_config(options)
    file = os.fsencode(options.file)
    with view_queue(config) as view:
        place, explanation = explain(config, file, view)
    if options.json:
        sys.stdout.write(json.dumps(why_document(file, place, explanation), indent=2) + "\n")
    else:
        sys.stdout.write(render_why(file, place, explanation))
    return exit_codes.IO_ERROR if explanation.state == "unknown" and not is_there(file) else exit_codes.OK


def why_document(file: bytes, place: Place | None, explanation: Explanation) -> dict[str, Any]:
    """The object of ``why --json``; every key is always there."""
    record = explanation.record
    keys = ("provider", "seconds", "status", "code", "reason", "counted")
    return {
        "schema": "dropscribe.why/1",
        "file": path_text(os.path.abspath(file)),
        "folder": place.rule.name if place else record and record.folder,
        "in": place.part if place else None,
        "state": explanation.state,
        "words": explanation.words,
        "remedy": explanation.remedy or None,
        "received_at": utc_text(record.received_at) if record else None,
        "due_at": utc_text(record.due_at) if record and record.state.is_live and record.due_at else None,
        "ended_at": utc_text(record.ended_at) if record and record.ended_at else None,
        "filed": path_text(record.filed) if record and record.filed else None,
        "node": (record.node or None) if record else None,
        "attempts": [
            {"at": utc_text(attempt.at), **{key: getattr(attempt, key) for key in keys}}
            for attempt in (record.tries if record else ())
        ],
    }


def render_why(file: bytes, place: Place | None, explanation: Explanation) -> str:
    """The explanation as text for people."""
    record = explanation.record
    sentences = map(printable_line, explanation.words)  # names of files are in them
    facts = [
        ("rule", place and f"{place.rule.name} ({place.part} {place.rule.paths[place.part]})"),
        ("state", "\n".join([explanation.state.replace("_", " "), *sentences])),
        ("received", record and moment_words(record.received_at)),
        ("node", record and record.node),
        ("to do", explanation.remedy),
    ]
    told = render_facts([(name, words) for name, words in facts if words])
    text = f"{show_path(os.path.abspath(file))}\n{told}\n"
    rows = [
        [
            moment_words(attempt.at),
            attempt.provider,
            "-" if attempt.seconds is None else f"{attempt.seconds:.1f} s",
            str(attempt.status or "-"),
            outcome_words(attempt),
        ]
        for attempt in (record.tries if record else ())
    ]
    head = ["ATTEMPT", "PROVIDER", "TOOK", "STATUS", "OUTCOME"]
    return text + (f"\n{render_table(head, rows, numbers=['TOOK'])}\n" if rows else "")
