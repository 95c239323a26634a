"""Log lines as text: logfmt, console, JSON. Pure.

Guarantees: one event is one line (on the console a traceback follows, indented); no value, such as a
file's name with a newline or a terminal's escape sequence in it, can forge or repaint a line.
"""

from __future__ import annotations

import datetime as dt
import functools
import json
import re
from typing import TYPE_CHECKING

from dropscribe.core.text.printing import escape_text

if TYPE_CHECKING:
    from collections.abc import Callable

    from dropscribe.service.log.redaction import Plain

    Fields = dict[str, Plain]
    Renderer = Callable[[Fields], str]

HEAD = ("timestamp", "level", "event")
TRACEBACK = "exception"
"""The field that holds a traceback's text."""

_ESCAPES = {"\n": "\\n", "\r": "\\r", "\t": "\\t", "\\": "\\\\", '"': '\\"'}
_AMBIGUOUS = re.compile(r'[ ="\\]')
_PLAIN_TEXT = frozenset({str, int, float})  # the same as json's, and several times faster
_DONE = "file.done"
_COLOURS = {"debug": "2", "done": "32", "warning": "33", "error": "31", "critical": "1;31"}


def render_value(value: Plain) -> str:
    """One value of logfmt: bare where that is unambiguous, else in double quotes."""
    text = str(value) if type(value) in _PLAIN_TEXT else json.dumps(value)
    if text and text.isprintable() and not _AMBIGUOUS.search(text):
        return text
    return '"' + "".join(_ESCAPES.get(c) or escape_text(c) for c in text) + '"'


def render_pairs(fields: Fields) -> str:
    """``key=value`` of *fields*, in their order, without the head and the traceback."""
    rest = [(key, value) for key, value in fields.items() if key not in HEAD and key != TRACEBACK]
    return " ".join(f"{_bare_key(key)}={render_value(value)}" for key, value in rest)


def render_logfmt(fields: Fields) -> str:
    """``timestamp=… level=… event=… key=value …``, the traceback last."""
    ordered = {key: fields[key] for key in HEAD if key in fields} | fields
    return " ".join(f"{_bare_key(key)}={render_value(value)}" for key, value in ordered.items())


def render_json(fields: Fields) -> str:
    r"""One JSON object, ASCII; bytes of a name that are not UTF-8 appear as ``\udcXX``."""
    return json.dumps({key: fields[key] for key in HEAD if key in fields} | fields)


def render_console(fields: Fields, *, has_colour: bool = False) -> str:
    """``12:00:01 info     job.queued  key=value``: for a person at a terminal, in local time."""
    level = str(fields.get("level", ""))
    event = str(fields.get("event", ""))
    if event == _DONE and "filed" in fields:
        level, words, pairs = "done", _done_words(fields), ""
    else:
        words, pairs = event, render_pairs(fields)
    head = f"{_local_time(fields)} {level:<8} {escape_text(words)}"
    if has_colour and level in _COLOURS:
        head = f"\x1b[{_COLOURS[level]}m{head}\x1b[0m"
    return "  ".join(filter(None, (head, pairs))) + render_traceback(fields)


def _done_words(fields: Fields) -> str:
    """A finished file in one short line."""
    length = fields.get("audio_seconds")
    heard = f"{length:.0f} s of audio, " if isinstance(length, int | float) else ""
    return f"{fields.get('path')} -> {fields['filed']}  ({heard}{fields.get('provider')})"


def render_traceback(fields: Fields) -> str:
    """The traceback as indented lines that follow the event's own, or ""."""
    lines = str(fields.get(TRACEBACK) or "").split("\n")
    return "".join("\n    " + escape_text(line) for line in lines if line)


def _local_time(fields: Fields) -> str:
    moment = dt.datetime.fromisoformat(str(fields["timestamp"]))
    return moment.astimezone().strftime("%H:%M:%S")


@functools.lru_cache(maxsize=512)  # the code's own words: a few dozen in all
def _bare_key(key: str) -> str:
    return "".join(c if c.isprintable() and c not in ' ="' else "_" for c in key) or "_"
