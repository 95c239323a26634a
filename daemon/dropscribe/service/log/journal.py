"""Log events as native fields of the systemd journal, over its datagram socket.

Guarantees: never raises; a field of any size and content arrives whole (big ones by a sealed memfd, as
the journal's native protocol describes); lines that cannot be sent are written to the fallback stream.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import re
import socket
import struct
from typing import TYPE_CHECKING, TextIO

from dropscribe.core.text.printing import escape_text
from dropscribe.service.log.logtext import TRACEBACK, render_pairs, render_traceback

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dropscribe.service.log.logtext import Fields

JOURNAL_SOCKET = "/run/systemd/journal/socket"
PREFIX = "DROPSCRIBE_"

PRIORITIES = {"debug": 7, "info": 6, "warning": 4, "error": 3, "critical": 2}
"""syslog(3) levels."""

_LONGEST_FIELD_NAME = 64  # journald drops a field whose name is longer
_TOO_BIG = frozenset({errno.EMSGSIZE, errno.ENOBUFS})


def is_journal(stream: TextIO, environment: Mapping[str, str] = os.environ) -> bool:
    """Whether *stream* goes to the journal: JOURNAL_STREAM is its device:inode (systemd.exec(5))."""
    try:
        status = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return environment.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


def render_message(fields: Fields) -> str:
    """MESSAGE as ``journalctl`` shows it: the event, its fields, and a traceback's lines."""
    line = " ".join(filter(None, (escape_text(str(fields.get("event", ""))), render_pairs(fields))))
    return line + render_traceback(fields)


def render_entry(fields: Fields) -> bytes:
    """One entry of the native protocol. Texts are escaped as in logfmt, so that all of them print."""
    entry = {
        "MESSAGE": render_message(fields),
        "PRIORITY": str(PRIORITIES.get(str(fields.get("level")), 6)),
        "SYSLOG_IDENTIFIER": "dropscribe",
    }
    for key, value in fields.items():
        if key not in {"timestamp", "level", TRACEBACK}:
            entry[_field_name(key)] = escape_text(value if isinstance(value, str) else json.dumps(value))
    return b"".join(_field(name, value.encode("utf-8", "backslashreplace")) for name, value in entry.items())


class JournalWriter:
    """Sends entries to journald, from any thread."""

    def __init__(self, fallback: TextIO, path: str = JOURNAL_SOCKET) -> None:
        self._fallback = fallback
        self._path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)

    def write(self, fields: Fields) -> None:
        """Log *fields*; on the fallback stream with the priority that journald reads off a line's start."""
        entry = render_entry(fields)
        try:
            self._send(entry)
        except OSError:
            priority = PRIORITIES.get(str(fields.get("level")), 6)
            lines = render_message(fields).split("\n")
            with contextlib.suppress(OSError, ValueError):
                self._fallback.write("".join(f"<{priority}>{line}\n" for line in lines))
                self._fallback.flush()

    def close(self) -> None:
        """Close the socket; safe to call twice."""
        self._socket.close()

    def _send(self, entry: bytes) -> None:
        try:
            self._socket.sendto(entry, self._path)
        except OSError as error:
            if error.errno not in _TOO_BIG:
                raise
            self._send_big(entry)

    def _send_big(self, entry: bytes) -> None:
        descriptor = os.memfd_create("dropscribe-journal", os.MFD_ALLOW_SEALING | os.MFD_CLOEXEC)
        with os.fdopen(descriptor, "wb", buffering=0) as memory:
            _write_all(memory.fileno(), entry)
            # journald takes a memfd only when nobody can change it any more.
            seals = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
            fcntl.fcntl(memory.fileno(), fcntl.F_ADD_SEALS, seals)
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack("i", memory.fileno()))]
            self._socket.sendmsg([], rights, 0, self._path)


def _write_all(descriptor: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def _field(name: str, value: bytes) -> bytes:
    if b"\n" not in value:
        return b"%s=%s\n" % (name.encode(), value)
    return b"%s\n%s%s\n" % (name.encode(), struct.pack("<Q", len(value)), value)


def _field_name(key: str) -> str:
    return (PREFIX + re.sub(r"[^A-Z0-9]", "_", key.upper()))[:_LONGEST_FIELD_NAME]
