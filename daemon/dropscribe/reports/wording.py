"""Formats tables, times and amounts for people; depends only on the time zone and the terminal."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
import time
import unicodedata
from typing import TYPE_CHECKING, Any

from dropscribe.core.text.printing import duration_words, escape_text, path_text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from dropscribe.queue.sql.file_list import ListedFile

_GAP = "  "
_NARROWEST = 20


def terminal_width() -> int | None:
    """Width in columns of the terminal on standard output; None if it is no terminal: nothing is wrapped."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def wrap(text: str, width: int | None, indent: str = "") -> str:
    """*text* broken between words to *width* columns; further lines are indented. None leaves it whole."""
    if width is None or len(indent) + _NARROWEST > width:
        return text
    lines: list[str] = []
    line = ""
    for word in text.split(" "):
        longer = f"{line} {word}" if line else word
        if line and display_width(longer) > width - (len(indent) if lines else 0):
            lines.append(line)
            line = word
        else:
            line = longer
    return f"\n{indent}".join([*lines, line])


def render_table(head: Sequence[str], rows: Sequence[Sequence[str]], *, numbers: Sequence[str] = ()) -> str:
    """Columns as wide as their widest cell; on a terminal the last one is wrapped between words.

    Args:
        numbers: Heads of the columns that are set to the right.
    """
    width = terminal_width()
    cells = [[one_line(cell) for cell in row] for row in (head, *rows)]
    widths = [max(map(display_width, column)) for column in zip(*cells, strict=True)]
    to_right = [name in numbers for name in head]
    lines = [_render_row(row, widths, to_right) for row in cells]
    if width is None or max(map(display_width, lines)) <= width:
        return "\n".join(lines)
    margin = sum(widths[:-1]) + len(_GAP) * (len(widths) - 1)
    if margin + _NARROWEST > width:
        return "\n".join(_render_narrow(row, widths, to_right, width) for row in cells)
    last = [wrap(row[-1], width - margin).replace("\n", "\n" + " " * margin) for row in cells]
    wrapped = [[*row[:-1], cell] for row, cell in zip(cells, last, strict=True)]
    return "\n".join(_render_row(row, widths, to_right) for row in wrapped)


def _render_narrow(row: Sequence[str], widths: Sequence[int], to_right: Sequence[bool], width: int) -> str:
    """The last cell on lines of its own, below the others."""
    first = _render_row(row[:-1], widths[:-1], to_right[:-1])
    below = wrap(row[-1], width - len(_GAP), _GAP)
    return f"{first}\n{_GAP}{below}" if row[-1] else first


def _render_row(row: Sequence[str], widths: Sequence[int], to_right: Sequence[bool]) -> str:
    return _GAP.join(map(_padded, row, widths, to_right)).rstrip()


def _padded(cell: str, width: int, to_right: bool = False) -> str:
    space = " " * (width - display_width(cell))
    return space + cell if to_right else cell + space


def render_facts(facts: Sequence[tuple[str, str]]) -> str:
    """Name and words, the words in one column; further lines of one entry are indented to it."""
    width = max((display_width(name) for name, _ in facts), default=0)
    indent = " " * (width + len(_GAP))
    columns = terminal_width()
    room = None if columns is None else max(columns - len(indent), _NARROWEST)
    lines = []
    for name, words in facts:
        text = "\n".join(wrap(one_line(line), room) for line in words.split("\n"))
        lines.append(f"{_padded(name, width)}{_GAP}{text}".replace("\n", "\n" + indent).rstrip())
    return "\n".join(lines)


def one_line(text: str) -> str:
    """*text* without anything that a terminal would obey, on one line."""
    if text.isascii() and text.isprintable():
        return text  # nearly every cell of a table of 100,000 files
    return printable(text).replace("\n", "\\n").replace("\t", "\\t")


def display_width(text: str) -> int:
    """Columns of a terminal that *text* takes: two for wide letters, none for combining marks."""
    return len(text) if text.isascii() else sum(map(_letter_width, text))


def _letter_width(letter: str) -> int:
    if unicodedata.combining(letter) or unicodedata.category(letter) in {"Mn", "Me", "Cf"}:
        return 0
    return 2 if unicodedata.east_asian_width(letter) in {"W", "F"} else 1


def printable(text: str) -> str:
    """*text* with nothing in it that a terminal would obey or that cannot be encoded."""
    escaped = text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return escape_text(escaped, keep="\n\t")


def show_path(path: bytes) -> str:
    """A path for people, on one line."""
    return one_line(path_text(path))


def shell_path(path: bytes) -> str:
    """A path as a word of a shell's command line, on one line; odd bytes as bash's ``$'…'`` has them."""
    text = os.fsdecode(path)
    if text.isprintable():
        return shlex.quote(text)
    return f"$'{''.join(map(_shell_letter, text))}'"


def _shell_letter(letter: str) -> str:
    if letter in {"'", "\\"}:
        return f"\\{letter}"
    return letter if letter.isprintable() else "".join(f"\\x{byte:02x}" for byte in os.fsencode(letter))


def plural(number: int, word: str) -> str:
    """``1 file``, ``2 files``."""
    return f"{number:,} {word}" if number == 1 else f"{number:,} {word}s"


def clock_words(seconds: float) -> str:
    """A recording's length as ``0:05`` or ``1:02:03``."""
    minutes, second = divmod(round(seconds), 60)
    hour, minute = divmod(minutes, 60)
    return f"{hour}:{minute:02d}:{second:02d}" if hour else f"{minute}:{second:02d}"


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
    return f"{time.strftime(form, local)} ({distance_words(unix_seconds - now)})"


def moment_words(unix_seconds: float) -> str:
    """Local date and time."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(unix_seconds))


def provider_word(provider: Mapping[str, Any]) -> str:
    """``held``, ``paused`` or ``ready``, of a provider in the document of ``status --json``."""
    is_paused = provider["state"] == "ready" and provider["paused_until"]
    return "paused" if is_paused else str(provider["state"])


def reason_words(job: ListedFile, reason: str) -> str:
    """*reason*, and since when *job* waits at the provider, where it does."""
    if job.at_provider_since is None:
        return reason
    since = f"waiting at the provider since {moment_words(job.at_provider_since)}"
    return f"{since} ({reason})" if reason else since


def distance_words(seconds: float) -> str:
    """``in 3 min``, ``3 min ago`` or ``now``."""
    if abs(seconds) < 0.5:
        return "now"
    return f"in {duration_words(seconds)}" if seconds > 0 else f"{duration_words(-seconds)} ago"
