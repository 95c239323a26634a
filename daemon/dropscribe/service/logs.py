"""The daemon's log: structlog's configuration, redaction, and the forms of a line.

Guarantees: a reload changes level and form of every module's logger; a closed or broken stream never raises
into the code that logs; every line passes the cleaner, those of libraries as well. After it no value holds a
secret that was given to it, nor its escaped forms, also inside exception text; URLs carry no query and no
password. One event is one line (in a console and the journal a traceback follows, indented); no value, such
as a file's name with a newline or a terminal's escape sequence in it, can forge or repaint a line. Lines that
cannot be sent to the journal by its native protocol are written to the fallback stream.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import functools
import json
import logging
import math
import os
import re
import socket
import struct
import sys
from collections.abc import Callable, Iterable, Mapping, MutableMapping
from typing import Any, TextIO

import structlog

from dropscribe.core.links import without_query
from dropscribe.core.text.printing import escape_text
from dropscribe.core.text.redaction import MASK, SecretMask

Plain = None | bool | int | float | str | list["Plain"] | dict[str, "Plain"]
Fields = dict[str, Plain]

HEAD = ("timestamp", "level", "event")
TRACEBACK = "exception"  # the field that holds a traceback's text
JOURNAL_SOCKET = "/run/systemd/journal/socket"
LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40, "critical": 50}
PRIORITIES = {"debug": 7, "info": 6, "warning": 4, "error": 3, "critical": 2}  # syslog(3) levels
_ESCAPES = {"\n": "\\n", "\r": "\\r", "\t": "\\t", "\\": "\\\\", '"': '\\"'}
_AMBIGUOUS = re.compile(r'[ ="\\]')
_PLAIN_TEXT = frozenset({str, int, float})  # the same as json's, and several times faster
_COLOURS = {"debug": "2", "done": "32", "warning": "33", "error": "31", "critical": "1;31"}
_LONGEST_FIELD_NAME = 64  # journald drops a field whose name is longer

_SECRET_KEY = re.compile(r"(?:^|[^a-z])(api[_-]?key|authorization|token|password|secret)$", re.IGNORECASE)
_URL_PASSWORD = re.compile(r"([a-z][a-z0-9+.-]{0,20}://)[^/\s@\"'<>]*@", re.IGNORECASE)


def configure_logging(
    level: str = "info",
    format: str = "auto",  # noqa: A002  # the config's own word
    stream: TextIO | None = None,
    secrets: Iterable[str] = (),
) -> None:
    """Send all log lines from *level* up to *stream* (default: standard error), without *secrets*.

    Safe to call again at any time, from any thread. Secrets given earlier stay secret.

    Args:
        format: ``console``, ``logfmt``, ``json`` or ``journal``; or ``auto``: console on a terminal, native
            fields where *stream* is the journal, else logfmt.
    """
    _CLEANER.learn(secrets)
    sink = _Sink(_writer(format, stream or sys.stderr))
    structlog.configure(
        processors=_PROCESSORS,
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[level]),
        logger_factory=lambda *_: sink,
        cache_logger_on_first_use=False,  # so that a reload reaches every logger
    )
    root = logging.getLogger()
    if not any(isinstance(handler, _LibraryBridge) for handler in root.handlers):
        root.addHandler(_LibraryBridge(logging.WARNING))
    root.setLevel(logging.WARNING)


class LogCleaner(SecretMask):
    """Reduces log fields to printable values and masks secrets."""

    def learn(self, secrets: Iterable[str]) -> None:
        """As :meth:`SecretMask.learn`."""
        super().learn(secrets)
        self._key = functools.lru_cache(maxsize=512)(self._clean_key)  # anew: threads may fill the old one

    def _clean_key(self, key: str) -> tuple[str, bool]:
        """The clean name of a field, and whether it marks the value as secret."""
        return self.clean_text(key), _SECRET_KEY.search(key) is not None

    def clean_text(self, text: str) -> str:
        """*text* without secrets, and with its URLs cut before the query."""
        text = self.mask(text)
        if "://" in text:
            text = without_query(_URL_PASSWORD.sub(rf"\1{MASK}@", text))
        return text

    def clean_fields(self, fields: Mapping[Any, Any]) -> dict[str, Plain]:
        """*fields* as plain values; those whose key says that they are secret are masked."""
        plain: dict[str, Plain] = {}
        for key, value in fields.items():
            name, is_secret = self._key(str(key))
            plain[name] = MASK if is_secret and value is not None else self.clean(value)
        return plain

    def clean(self, value: object) -> Plain:
        """*value* as JSON values. Bytes are paths: bytes that are not UTF-8 become lone surrogates."""
        if isinstance(value, str | bytes):  # first: most logged values
            return self.clean_text(os.fsdecode(value) if isinstance(value, bytes) else str(value))
        if value is None or isinstance(value, int):
            return value
        if isinstance(value, float):
            return value if math.isfinite(value) else str(value)
        if isinstance(value, Mapping):
            return dict(self.clean_fields(value))
        if isinstance(value, list | tuple | set | frozenset):
            return [self.clean(item) for item in value]
        is_error = isinstance(value, BaseException)
        return self.clean_text(f"{type(value).__name__}: {value}" if is_error else str(value))


class _Sink:
    """The logger that structlog wraps: it has a method for each level, all of which write the line."""

    def __init__(self, write: Callable[[Fields], None]) -> None:
        self.debug = self.info = self.warning = self.error = self.critical = write


def _writer(form: str, stream: TextIO) -> Callable[[Fields], None]:
    if form == "journal" or (form == "auto" and is_journal(stream)):
        return JournalWriter(stream).write
    render: Callable[[Fields], str] = render_logfmt
    if form == "json":
        render = render_json
    elif form == "console" or (form == "auto" and stream.isatty()):
        has_colour = stream.isatty() and not os.environ.get("NO_COLOR")
        render = functools.partial(render_console, has_colour=has_colour)

    def write(fields: Fields) -> None:
        with contextlib.suppress(OSError, ValueError):  # the stream went away (a closed pipe)
            stream.write(render(fields) + "\n")
            stream.flush()

    return write


class _LibraryBridge(logging.Handler):
    """Turns warnings of libraries (httpx, watchdog, asyncio) into log events."""

    def emit(self, record: logging.LogRecord) -> None:
        name = next(name for name, level in reversed(LEVELS.items()) if record.levelno >= level)
        try:
            text = record.getMessage()
        except Exception:  # noqa: BLE001 - logging gives each mistake in a message or its arguments to us
            text = str(record.msg)
        emit = getattr(structlog.get_logger(), name)
        emit("library.logged", library=record.name, text=text, exc_info=record.exc_info)


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


def _clean(_logger: object, _method: str, fields: MutableMapping[str, Any]) -> tuple[tuple[Fields], Fields]:
    return (_CLEANER.clean_fields(fields),), {}


_CLEANER = LogCleaner()
# Never replaced: structlog.testing.capture_logs swaps its items.
_PROCESSORS: list[Any] = [
    structlog.processors.add_log_level,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
    structlog.processors.format_exc_info,
    _clean,
]
