"""Problems in the document of ``status --json`` as sentences that the command and the page share."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from dropscribe.core.budget import BUDGET_CODE
from dropscribe.core.model import Scope, ScopeKind
from dropscribe.core.text.printing import plural
from dropscribe.reports.wording import printable_line, time_words, unix_time

_FILE_TROUBLES = (
    ("blocked", "file", "may not be read", "'list --waiting' names them, 'why FILE' tells the remedy"),
    ("backlog", "file", "from before the first start", "'dropscribe release --folder NAME' starts them"),
    (
        "failed",
        "file",
        "failed",
        "'list --failed' names them, 'why FILE' tells the reason, 'retry' takes them back",
    ),
    ("maybe_paid_twice", "upload", "may have been paid for twice: an answer was lost on the way", ""),
)


class Trouble(NamedTuple):
    """One problem, and the object of the action against it that the page offers; times in Unix seconds."""

    words: str  # A sentence that begins with a small letter and has no full stop
    commands: str = ""  # What helps on a terminal
    since: float | None = None
    next_words: str = ""  # What happens next, by itself
    next_at: float | None = None
    held: Scope | None = None  # Can be tried now
    folder: str = ""  # The name of the folder that has the files
    files: str = ""  # Which of its files: a count's name in the document, or ""


def troubles_of(document: Mapping[str, Any], now: float) -> Iterator[Trouble]:
    """Everything that is wrong, the most important first; *now*: Unix seconds."""
    if document["trouble"]:
        by = "" if document["nodes"] is None else " by this node"
        yield Trouble(f"{printable_line(document['trouble'])}: nothing is sent{by} meanwhile")
    for node in document["nodes"] or ():
        if node["silent"]:
            beat = time_words(unix_time(node["last_beat"]), now)
            yield Trouble(
                f"node {node['name']} is silent: its last heartbeat was {beat};"
                " its files are processed by other nodes"
            )
    for name, provider in document["providers"].items():
        scope = Scope(ScopeKind.PROVIDER, name)
        if provider["state"] == "held":
            yield _held(scope, provider, now)
        elif provider["paused_until"]:
            words = f"provider {name} is paused: it asked for fewer requests"
            until = unix_time(provider["paused_until"])
            yield Trouble(words, next_words="the next one goes", next_at=until, held=scope)
    for name, folder in document["folders"].items():
        yield from _folder_troubles(name, folder, now)
    for name, count in document["removed_folders"].items():
        waiting = plural(count, "file")
        words = f"folder {name} is not in the config any more, and {waiting} of it cannot go on; add it again"
        yield Trouble(words)


def _folder_troubles(name: str, folder: Mapping[str, Any], now: float) -> Iterator[Trouble]:
    if not folder["available"]:
        reason = printable_line(folder["reason"] or "it is not there")
        yield Trouble(f"folder {name}: its inbox is unavailable: {reason}")
    elif folder["reason"]:
        yield Trouble(f"folder {name} takes nothing new: {printable_line(folder['reason'])}")
    if folder["hold"]:
        yield _held(Scope(ScopeKind.FOLDER, name), folder["hold"], now)
    for path in folder["idle_writers"]:
        words = f"folder {name}: {printable_line(path)} stays open for writing and is not written to"
        yield Trouble(words, "'why FILE' tells more", folder=name, files="settling")
    if folder["stuck"]:
        one = "one of them" if folder["stuck"] > 1 else "because"
        files, reason = plural(folder["stuck"], "file"), printable_line(folder["stuck_reason"] or "")
        yield Trouble(f"folder {name}: {files} cannot be moved; {one}: {reason}")
    if (later := folder["deferred"] - folder["stuck"]) > 0:
        words = f"folder {name}: {plural(later, 'file')} to be tried again after a failure"
        yield Trouble(words, "'list --waiting' gives the reasons", folder=name, files="deferred")
    for key, noun, words, commands in _FILE_TROUBLES:
        if folder[key]:
            yield Trouble(
                f"folder {name}: {plural(folder[key], noun)} {words}", commands, folder=name, files=key
            )


def _held(scope: Scope, hold: Mapping[str, Any], now: float) -> Trouble:
    who, reason = f"{scope.kind} {scope.name} is held", printable_line(hold["reason"])
    if hold["code"] == BUDGET_CODE:  # which no try ends
        return Trouble(f"{who}: {reason}")
    words, since, next_at = f"{who}: {reason}", unix_time(hold["since"]), unix_time(hold["next_probe"])
    if next_at > now:
        return Trouble(words, "", since, "tried again", next_at, scope)
    return Trouble(words, "", since, "tried again with the next file", held=scope)
