"""Log events as text (logfmt, console, JSON) and as entries of the systemd journal.

Guarantees: one event is one line (in a console and the journal a traceback follows, indented); no value, such
as a file's name with a newline or a terminal's escape sequence in it, can forge or repaint a line. Lines that
cannot be sent to the journal by its native protocol are written to the fallback stream.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import functools
import json
import os
import re
import socket
import struct
from typing import TYPE_CHECKING, TextIO

from dropscribe.core.text.printing import escape_text

if TYPE_CHECKING:
    from collections.abc import Mapping

Plain = None | bool | int | float | str | list["Plain"] | dict[str, "Plain"]
Fields = dict[str, Plain]

HEAD = ("timestamp", "level", "event")
TRACEBACK = "exception"  # the field that holds a traceback's text
JOURNAL_SOCKET = "/run/systemd/journal/socket"
PRIORITIES = {"debug": 7, "info": 6, "warning": 4, "error": 3, "critical": 2}  # syslog(3) levels
_ESCAPES = {"\n": "\\n", "\r": "\\r", "\t": "\\t", "\\": "\\\\", '"': '\\"'}
_AMBIGUOUS = re.compile(r'[ ="\\]')
_PLAIN_TEXT = frozenset({str, int, float})  # the same as json's, and several times faster
_COLOURS = {"debug": "2", "done": "32", "warning": "33", "error": "31", "critical": "1;31"}
_LONGEST_FIELD_NAME = 64  # journald drops a field whose name is longer


def render_logfmt(fields: Fields) -> str:
    """``timestamp=… level=… event=… key=value …``, the traceback last."""
    return " ".join(f"{_bare_key(key)}={_value(value)}" for key, value in _head_first(fields).items())


def render_json(fields: Fields) -> str:
    r"""One JSON object, ASCII; bytes of a name that are not UTF-8 appear as ``\udcXX``."""
    return json.dumps(_head_first(fields))


def render_console(fields: Fields, *, has_colour: bool) -> str:
    """``12:00:01 info     job.queued  key=value``: for a person at a terminal, in local time."""
    level, words, pairs = str(fields.get("level", "")), str(fields.get("event", "")), _pairs(fields)
    if words == "file.done" and "filed" in fields:
        level, words, pairs = "done", _done_words(fields), ""
    local_time = dt.datetime.fromisoformat(str(fields["timestamp"])).astimezone()
    head = f"{local_time:%H:%M:%S} {level:<8} {escape_text(words)}"
    if has_colour and level in _COLOURS:
        head = f"\x1b[{_COLOURS[level]}m{head}\x1b[0m"
    return "  ".join(filter(None, (head, pairs))) + _traceback(fields)


def _head_first(fields: Fields) -> Fields:
    return {key: fields[key] for key in HEAD if key in fields} | fields


def _done_words(fields: Fields) -> str:
    length = fields.get("audio_seconds")
    heard = f"{length:.0f} s of audio, " if isinstance(length, int | float) else ""
    return f"{fields.get('path')} -> {fields['filed']}  ({heard}{fields.get('provider')})"


def _pairs(fields: Fields) -> str:
    rest = [(key, value) for key, value in fields.items() if key not in HEAD and key != TRACEBACK]
    return " ".join(f"{_bare_key(key)}={_value(value)}" for key, value in rest)


def _value(value: Plain) -> str:
    """One value of logfmt: bare where that is unambiguous, else in double quotes."""
    text = str(value) if type(value) in _PLAIN_TEXT else json.dumps(value)
    if text and text.isprintable() and not _AMBIGUOUS.search(text):
        return text
    return '"' + "".join(_ESCAPES.get(c) or escape_text(c) for c in text) + '"'


@functools.lru_cache(maxsize=512)  # the code's own words: a few dozen in all
def _bare_key(key: str) -> str:
    return "".join(c if c.isprintable() and c not in ' ="' else "_" for c in key) or "_"


def _traceback(fields: Fields) -> str:
    """The traceback as indented lines that follow the event's own, or ""."""
    lines = str(fields.get(TRACEBACK) or "").split("\n")
    return "".join("\n    " + escape_text(line) for line in lines if line)


def is_journal(stream: TextIO, environment: Mapping[str, str] = os.environ) -> bool:
    """Whether *stream* goes to the journal: JOURNAL_STREAM is its device:inode (systemd.exec(5))."""
    try:
        status = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return environment.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


class JournalWriter:
    """Sends entries to journald, from any thread; never raises."""

    def __init__(self, fallback: TextIO, path: str = JOURNAL_SOCKET) -> None:
        self._fallback = fallback
        self._path = path

    def write(self, fields: Fields) -> None:
        """Log *fields*; on the fallback stream with the priority that journald reads off a line's start."""
        message = " ".join(filter(None, (escape_text(str(fields.get("event", ""))), _pairs(fields))))
        message += _traceback(fields)
        priority = PRIORITIES.get(str(fields.get("level")), 6)
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as datagrams:
                datagrams.connect(self._path)
                datagrams.send(_journal_entry(message, priority, fields))
        except OSError:  # no journald, or an entry that no datagram holds
            with contextlib.suppress(OSError, ValueError):
                self._fallback.write("".join(f"<{priority}>{line}\n" for line in message.split("\n")))
                self._fallback.flush()


def _journal_entry(message: str, priority: int, fields: Fields) -> bytes:
    """One entry of the native protocol. Texts are escaped as in logfmt, so that all of them print."""
    entry = {"MESSAGE": message, "PRIORITY": str(priority), "SYSLOG_IDENTIFIER": "dropscribe"}
    for key, value in fields.items():
        if key not in {"timestamp", "level", TRACEBACK}:
            name = "DROPSCRIBE_" + re.sub(r"[^A-Z0-9]", "_", key.upper())
            text = value if isinstance(value, str) else json.dumps(value)
            entry[name[:_LONGEST_FIELD_NAME]] = escape_text(text)
    parts = ((name.encode(), text.encode("utf-8", "backslashreplace")) for name, text in entry.items())
    return b"".join(b"%s\n%s%s\n" % (name, struct.pack("<Q", len(text)), text) for name, text in parts)
