"""Formats tables, times and amounts for people; depends only on the time zone and the terminal."""

from __future__ import annotations

import re
import shutil
import sys
import time
import unicodedata
from datetime import datetime
from typing import TYPE_CHECKING, Any

from dropscribe.core.retry import REUSED
from dropscribe.core.text.printing import clock_text, duration_words, escape_text, path_text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from dropscribe.core.model import Attempt
    from dropscribe.queue.sql.history import ListedFile

_GAP = "  "
SHORT_WAIT_SECONDS = 2.0  # a shorter wait for a provider's rate limit is not told
_NARROWEST = 20
_ODD_BYTE = re.compile("[\udc80-\udcff]")  # as os.fsdecode writes a byte that is not UTF-8


def terminal_width() -> int:
    """Width in columns of the terminal on standard output; without a terminal no text is too wide."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else sys.maxsize


def wrap(text: str, width: int, indent: str = "") -> str:
    """*text* broken between words to *width* columns; further lines are indented."""
    if len(indent) + _NARROWEST > width or display_width(text) <= width:
        return text
    first, *words = text.split(" ")
    lines = [first]
    for word in words:
        is_first = len(lines) == 1
        longer = f"{lines[-1]} {word}" if lines[-1] or is_first else word
        if lines[-1].strip() and display_width(longer) > width - (0 if is_first else len(indent)):
            lines.append(word)
        else:
            lines[-1] = longer
    return f"\n{indent}".join(lines)


def render_table(head: Sequence[str], rows: Sequence[Sequence[str]], *, numbers: Sequence[str] = ()) -> str:
    """A table with *numbers* set to the right; on a terminal the last column is wrapped between words."""
    width = terminal_width()
    cells = [[printable_line(cell) for cell in row] for row in (head, *rows)]
    widths = [max(map(display_width, column)) for column in zip(*cells, strict=True)]
    to_right = [name in numbers for name in head]

    def line_of(row: Sequence[str]) -> str:
        return _GAP.join(map(_padded, row, widths, to_right)).rstrip()

    lines = [line_of(row) for row in cells]
    margin = sum(widths[:-1]) + len(_GAP) * (len(widths) - 1)
    if max(map(display_width, lines)) <= width:
        return "\n".join(lines)
    for number, (*others, last) in enumerate(cells):
        if margin + _NARROWEST > width:  # the last cell goes on lines of its own, below the others
            lines[number] = f"{line_of(others)}\n{_GAP}{wrap(last, width - len(_GAP), _GAP)}".rstrip()
        else:
            wrapped = wrap(last, width - margin).replace("\n", "\n" + " " * margin)
            lines[number] = line_of([*others, wrapped])
    return "\n".join(lines)


def _padded(cell: str, width: int, to_right: bool = False) -> str:
    space = " " * (width - display_width(cell))
    return space + cell if to_right else cell + space


def render_facts(facts: Sequence[tuple[str, str]]) -> str:
    """Name and words, the words in one column; further lines of one entry are indented to it."""
    width = max((display_width(name) for name, _ in facts), default=0)
    indent = " " * (width + len(_GAP))
    room = max(terminal_width() - len(indent), _NARROWEST)
    lines = []
    for name, words in facts:
        text = "\n".join(wrap(printable_line(line), room) for line in words.split("\n"))
        lines.append(f"{_padded(name, width)}{_GAP}{text}".replace("\n", "\n" + indent).rstrip())
    return "\n".join(lines)


def printable_line(text: str) -> str:
    """*text* on one line, with everything escaped that a terminal would obey."""
    return printable(text, keep="")


def display_width(text: str) -> int:
    """Columns of a terminal that *text* takes: two for wide letters, none for combining marks."""
    return len(text) if text.isascii() else sum(map(_letter_width, text))


def _letter_width(letter: str) -> int:
    if unicodedata.combining(letter) or unicodedata.category(letter) in {"Mn", "Me", "Cf"}:
        return 0
    return 2 if unicodedata.east_asian_width(letter) in {"W", "F"} else 1


def printable(text: str, keep: str = "\n\t") -> str:
    """*text* with everything escaped that a terminal would obey or cannot encode, except *keep*."""
    if text.isprintable():
        return text  # nearly every cell of a table of 100,000 files
    return escape_text(_ODD_BYTE.sub(lambda found: f"\\x{ord(found[0]) - 0xDC00:02x}", text), keep)


def show_path(path: bytes) -> str:
    """A path for people, on one line."""
    return printable_line(path_text(path))


def clock_words(seconds: float) -> str:
    """A recording's length as ``0:05`` or ``1:02:03``."""
    return clock_text(round(seconds))


def bytes_words(number: float) -> str:
    """``512 B``, ``1.4 MB``: decimal, as in the config."""
    for unit in ("B", "kB", "MB", "GB"):
        if number < 1000:
            return f"{number:.0f} {unit}" if unit == "B" or number >= 100 else f"{number:.1f} {unit}"
        number /= 1000
    return f"{number:.1f} TB"


def time_words(unix_seconds: float, now: float) -> str:
    """Local time, with the date unless it is today, and how far away: ``14:02:05 (3 min ago)``."""
    local, today = time.localtime(unix_seconds), time.localtime(now)
    form = "%H:%M:%S" if local[:3] == today[:3] else "%Y-%m-%d %H:%M:%S"
    away = "now"
    if abs(unix_seconds - now) >= 0.5:
        distance = duration_words(abs(unix_seconds - now))
        away = f"in {distance}" if unix_seconds > now else f"{distance} ago"
    return f"{time.strftime(form, local)} ({away})"


def unix_time(text: str) -> float:
    """The Unix seconds of a time in the document of ``status --json``."""
    return datetime.fromisoformat(text).timestamp()


def moment_words(unix_seconds: float) -> str:
    """Local date and time."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(unix_seconds))


def provider_word(provider: Mapping[str, Any]) -> str:
    """``held``, ``paused`` or ``ready``, of a provider in the document of ``status --json``."""
    is_paused = provider["state"] == "ready" and provider["paused_until"]
    return "paused" if is_paused else str(provider["state"])


def next_request_at(provider: Mapping[str, Any], now: float) -> float | None:
    """Unix seconds until which the rate limit of a provider stops its next request; None for a short wait."""
    next_at = unix_time(provider["next_request"]) if provider["next_request"] else 0.0
    return next_at if next_at - now >= SHORT_WAIT_SECONDS else None


def reason_words(job: ListedFile, reason: str) -> str:
    """*reason*, and since when *job* waits at the provider, where it does."""
    if job.at_provider_since is None:
        return reason
    since = f"waiting at the provider since {moment_words(job.at_provider_since)}"
    return f"{since} ({reason})" if reason else since


def outcome_words(attempt: Attempt) -> str:
    """The end of an attempt: an answer, a failure with its code and reason, or nothing that was sent."""
    if attempt.code == "interrupted":
        return "interrupted: the daemon ended; it may have been paid for (not counted)"
    if attempt.code == REUSED:
        return f"its answer was known: {attempt.reason} (nothing was sent)"
    if not attempt.code and attempt.seconds is None:
        return "under way"
    if not attempt.code:
        return "answered" if attempt.counted else "nothing was sent"
    words = attempt.code if attempt.reason in {"", attempt.code} else f"{attempt.code}: {attempt.reason}"
    return words if attempt.counted else f"{words} (not counted)"
