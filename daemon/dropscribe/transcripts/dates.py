"""The date of a recording, and the source of that date. Pure."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_YEARS = range(1971, 2200)
"""Dates outside are those of clocks that were never set."""

_DIRECTIVES = {
    "Y": r"\d{4}",
    "m": r"\d{1,2}",
    "d": r"\d{1,2}",
    "H": r"\d{1,2}",
    "I": r"\d{1,2}",
    "M": r"\d{1,2}",
    "S": r"\d{1,2}",
    "y": r"\d{2}",
    "j": r"\d{1,3}",
    "f": r"\d{1,6}",
    "p": r"[^\W\d_]+",
    "b": r"[^\W\d_]+\.?",
    "B": r"[^\W\d_]+",
    "a": r"[^\W\d_]+\.?",
    "A": r"[^\W\d_]+",
    "z": r"(?:Z|[+-]\d{2}:?\d{2})",
    "%": "%",
}
_FIXED_WIDTHS = {"m": 2, "d": 2, "H": 2, "I": 2, "M": 2, "S": 2, "j": 3}
"""Fixed widths of directives beside other digits: `20260102` is not the 20th of month 10."""

_COMPANION_KEYS = (
    "recorded_at",
    "start_time",
    "start",
    "started_at",
    "timestamp",
    "date",
    "datetime",
    "time",
)
"""Keys under which recorders and phone systems write the time of a call, by precedence."""


def recording_date(
    *,
    container: object,
    companion: object,
    name: str,
    pattern: str | None,
    modified_at: str | None,
) -> tuple[str | None, str | None]:
    """(ISO 8601 or None, "container", "companion", "name", "mtime" or None) of the first source with a date.

    A time has a zone only where its source gives one; an mtime is UTC.

    Args:
        container: The date in the audio file's own metadata, from the decoder.
        companion: The content of the JSON files that belong to the recording.
        name: The audio's file name.
        pattern: For ``datetime.strptime``, looked for anywhere in the name.
        modified_at: The file's mtime, ISO 8601 in UTC.
    """
    if isinstance(container, str) and container:
        return container, "container"
    if told := _companion_date(companion):
        return told, "companion"
    if pattern and (told := name_date(name, pattern)):
        return told, "name"
    if told := _told_date(modified_at):
        return told, "mtime"
    return None, None


def name_date(name: str, pattern: str) -> str | None:
    """The date that *pattern* finds anywhere in *name*, as ISO 8601."""
    for expression in (_expression(pattern, is_fixed=True), _expression(pattern, is_fixed=False)):
        for found in re.finditer(f"(?<!\\d){expression}(?!\\d)", name):
            try:
                moment = datetime.strptime(found.group(), pattern)  # noqa: DTZ007 - as the name says it
            except (ValueError, OverflowError, re.error):
                continue
            if moment.year in _YEARS:
                return _iso(moment)
    return None


def _expression(pattern: str, *, is_fixed: bool) -> str:
    return "".join(_parts(pattern, is_fixed=is_fixed))


def _parts(pattern: str, *, is_fixed: bool) -> Iterator[str]:
    letters = iter(pattern)
    for letter in letters:
        if letter != "%":
            yield re.escape(letter)
            continue
        directive = next(letters, "%")
        width = _FIXED_WIDTHS.get(directive) if is_fixed else None
        yield rf"\d{{{width}}}" if width else _DIRECTIVES.get(directive, r"\S+?")


def _companion_date(companion: object) -> str | None:
    """The date in the first of *companion*'s objects that has one."""
    if not isinstance(companion, dict):
        return None
    for content in [companion, *companion.values()]:
        if isinstance(content, dict):
            dates = (_told_date(content.get(key)) for key in _COMPANION_KEYS)
            if found := next(filter(None, dates), None):
                return found
    return None


def _told_date(value: object) -> str | None:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return _unix_date(value if value < 1e11 else value // 1000)
    if not isinstance(value, str):
        return None
    try:
        moment = datetime.fromisoformat(value.strip())
    except ValueError:
        return None
    return _iso(moment) if moment.year in _YEARS else None


def _unix_date(seconds: float) -> str | None:
    try:
        moment = _EPOCH + timedelta(seconds=int(seconds))
    except (OverflowError, ValueError):
        return None
    return _iso(moment) if moment.year in _YEARS else None


def _iso(moment: datetime) -> str:
    if moment.tzinfo is None:
        return moment.isoformat(timespec="seconds")
    try:
        moment = moment.astimezone(UTC)
    except OverflowError:
        return moment.isoformat(timespec="seconds")
    return moment.isoformat(timespec="seconds").replace("+00:00", "Z")
