"""Configures structlog, at the start and at each reload: destination, format, redaction.

Guarantees: loggers bound before a reload follow it (their level and form change too); a closed or broken
stream never raises into the code that logs; every line passes the redactor, those of libraries as well.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import sys
from typing import TYPE_CHECKING, Any, Protocol, TextIO

import structlog

from dropscribe.service.log import journal, logtext
from dropscribe.service.log.redaction import Redactor

if TYPE_CHECKING:
    from collections.abc import Iterable, MutableMapping

    from dropscribe.service.log.logtext import Fields, Renderer

LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40, "critical": 50}


def configure_logging(
    level: str = "info",
    format: str = "auto",  # noqa: A002  # the config's own word
    stream: TextIO | None = None,
    secrets: Iterable[str] = (),
) -> None:
    """Send all log lines from *level* up to *stream* (default: standard error).

    Safe to call again at any time, from any thread. Secrets given earlier stay secret.

    Args:
        level: One of LEVELS.
        format: ``console``, ``logfmt``, ``json`` or ``journal``; or ``auto``: console on a terminal, native
            fields where *stream* is the journal, else logfmt.
        stream: Where text goes.
        secrets: Every key that was loaded; taken out of every value of every line.
    """
    _REDACTOR.learn(secrets)
    _TARGET.redirect(LEVELS[level], _writer(format, stream or sys.stderr))
    structlog.configure(
        processors=_PROCESSORS,
        # The level may change under loggers that are cached, so the target holds it and not this class.
        wrapper_class=structlog.make_filtering_bound_logger(logging.DEBUG),
        logger_factory=lambda *_: _TARGET,
        cache_logger_on_first_use=True,
    )
    _bridge_libraries()


class _Writer(Protocol):
    def write(self, fields: Fields, /) -> None: ...

    def close(self) -> None: ...


class _StreamWriter:
    """Text lines on a stream; one that went away (a closed pipe) swallows them."""

    def __init__(self, stream: TextIO, render: Renderer) -> None:
        self._stream = stream
        self._render = render

    def write(self, fields: Fields) -> None:
        with contextlib.suppress(OSError, ValueError):
            self._stream.write(self._render(fields) + "\n")
            self._stream.flush()

    def close(self) -> None:
        """The stream belongs to the caller."""


class _Target:
    """The sink of every bound logger, cached ones included; a reload replaces its target."""

    def __init__(self) -> None:
        self._level = LEVELS["info"]
        self._writer: _Writer = _StreamWriter(sys.stderr, logtext.render_logfmt)

    def redirect(self, level: int, writer: _Writer) -> None:
        before, self._level, self._writer = self._writer, level, writer
        before.close()

    def drop_below(
        self, _logger: object, method: str, fields: MutableMapping[str, Any]
    ) -> MutableMapping[str, Any]:
        name = "error" if method == "exception" else method
        if LEVELS.get(name, LEVELS["critical"]) < self._level:
            raise structlog.DropEvent
        return fields

    def msg(self, fields: Fields) -> None:
        self._writer.write(fields)

    debug = info = warning = error = critical = exception = msg


def _clean(_logger: object, _method: str, fields: MutableMapping[str, Any]) -> tuple[tuple[Fields], Fields]:
    return (_REDACTOR.clean_fields(fields),), {}


def _writer(form: str, stream: TextIO) -> _Writer:
    if form == "journal" or (form == "auto" and journal.is_journal(stream)):
        return journal.JournalWriter(stream)
    if form == "auto":
        form = "console" if stream.isatty() else "logfmt"
    if form == "console":
        has_colour = stream.isatty() and not os.environ.get("NO_COLOR")
        return _StreamWriter(stream, functools.partial(logtext.render_console, has_colour=has_colour))
    return _StreamWriter(stream, logtext.render_json if form == "json" else logtext.render_logfmt)


class _LibraryBridge(logging.Handler):
    """Turns warnings of libraries (httpx, watchdog, asyncio) into log events."""

    def emit(self, record: logging.LogRecord) -> None:
        name = next(name for name, level in reversed(LEVELS.items()) if record.levelno >= level)
        try:
            text = record.getMessage()
        except (TypeError, ValueError):
            text = str(record.msg)
        emit = getattr(structlog.get_logger(), name)
        emit("library.logged", library=record.name, text=text, exc_info=record.exc_info)


def _bridge_libraries() -> None:
    root = logging.getLogger()
    if not any(isinstance(handler, _LibraryBridge) for handler in root.handlers):
        root.addHandler(_LibraryBridge(logging.WARNING))
    root.setLevel(logging.WARNING)


_REDACTOR = Redactor()
_TARGET = _Target()
# Never replaced: cached loggers keep this list, and structlog.testing.capture_logs swaps its items.
_PROCESSORS: list[Any] = [
    _TARGET.drop_below,
    structlog.processors.add_log_level,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
    structlog.processors.format_exc_info,
    _clean,
]
