"""Problems in the document of ``status --json`` as sentences that the command and the page share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dropscribe.reports.wording import one_line, plural, time_words, unix_time

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


def silent_nodes(document: Mapping[str, Any], now: float) -> Iterator[str]:
    """A sentence for each node of a cluster whose heartbeat is overdue; *now*: Unix seconds."""
    for node in document["nodes"] or ():
        if node["silent"]:
            beat = time_words(unix_time(node["last_beat"]), now)
            yield (
                f"node {node['name']} is silent: its last heartbeat was {beat};"
                " its files are processed by other nodes"
            )


def files_that_stay(name: str, folder: Mapping[str, Any]) -> Iterator[str]:
    """Sentences about the files of a folder that a writer keeps open, or that cannot be moved."""
    for path in folder["idle_writers"]:
        words = "stays open for writing and is not written to; 'why FILE' tells more"
        yield f"folder {name}: {one_line(path)} {words}"
    if folder["stuck"]:
        one = "one of them" if folder["stuck"] > 1 else "because"
        files, reason = plural(folder["stuck"], "file"), one_line(folder["stuck_reason"] or "")
        yield f"folder {name}: {files} cannot be moved; {one}: {reason}"
