"""Composes messages to people: many events in one message, many failures as counts.

Guarantees: pure; a message holds names, codes and reasons only.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from dropscribe.core.text.printing import escape_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

MOST_FAILURES = 10
"""So many failures of one message are told each by itself; of more only how many there are of a kind."""

MOST_LINES = 60


def compose(events: Sequence[Mapping[str, Any]], host: str) -> tuple[str, str]:
    """(title, text) about *events*, oldest first."""
    failures = [event for event in events if event["event"] == "failed"]
    lines = [_line(event) for event in events if event["event"] != "failed"]
    lines += map(_line, failures) if len(failures) <= MOST_FAILURES else _summary(failures)
    if len(lines) > MOST_LINES:
        lines = [*lines[:MOST_LINES], f"… and {len(lines) - MOST_LINES} more lines"]
    return f"dropscribe on {host}: {_headline(events, len(failures))}", "\n".join(lines)


def _headline(events: Sequence[Mapping[str, Any]], failed: int) -> str:
    parts = [f"{failed} {'file' if failed == 1 else 'files'} failed"] if failed else []
    parts += dict.fromkeys(_what(event) for event in events if event["event"] != "failed")
    return "; ".join(parts[:3]) + ("; …" if len(parts) > 3 else "")


def _what(event: Mapping[str, Any]) -> str:
    """The event in a few words."""
    match event["event"]:
        case "failed":
            return f"{event['folder']}: {escape_text(event['path'])} failed"
        case "held":
            return f"{_scope(event)} is held"
        case "released":
            return f"{_scope(event)} goes on"
        case "budget":
            return f"the budget of {_scope(event)}"
        case other:
            return f"{other}"


def _line(event: Mapping[str, Any]) -> str:
    said = [_what(event), *(str(event[key]) for key in ("code", "reason") if event.get(key))]
    line = ": ".join(dict.fromkeys(said))
    return f"{event['at']}  {line}"


def _summary(failures: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    kinds = Counter((event["folder"], event["code"]) for event in failures)
    for (folder, code), count in kinds.most_common():
        example = next(event for event in failures if (event["folder"], event["code"]) == (folder, code))
        yield f"{folder}: {count} failed with {code}, such as {escape_text(example['path'])}"


def _scope(event: Mapping[str, Any]) -> str:
    kind = "provider" if "provider" in event else "folder"
    return f"{kind} {event.get(kind, '?')}"
