"""Configures structlog, at the start and at each reload: destination, format, redaction.

Guarantees: a reload changes level and form of every module's logger; a closed or broken stream never raises
into the code that logs; every line passes the redactor, those of libraries as well. After it no value holds a
secret that was given to it, nor its escaped forms, also inside exception text; URLs carry no query and no
password.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import math
import os
import re
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TextIO

import structlog

from dropscribe.core.links import without_query
from dropscribe.core.text.redaction import MASK, SecretMask
from dropscribe.service.log_lines import JournalWriter, is_journal, render_console, render_json, render_logfmt

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, MutableMapping

    from dropscribe.service.log_lines import Fields, Plain

LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40, "critical": 50}

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
    _REDACTOR.learn(secrets)
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


class Redactor(SecretMask):
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


def _clean(_logger: object, _method: str, fields: MutableMapping[str, Any]) -> tuple[tuple[Fields], Fields]:
    return (_REDACTOR.clean_fields(fields),), {}


_REDACTOR = Redactor()
# Never replaced: structlog.testing.capture_logs swaps its items.
_PROCESSORS: list[Any] = [
    structlog.processors.add_log_level,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
    structlog.processors.format_exc_info,
    _clean,
]
