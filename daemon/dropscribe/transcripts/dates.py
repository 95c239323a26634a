"""The date of a recording, and the source of that date. Pure."""

from __future__ import annotations

import re
from collections.abc import Container, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_YEARS = range(1971, 2200)  # Dates outside are those of clocks that were never set
ARCHIVE_YEARS = frozenset(range(1857, 2200)) - {1904, 1970}
"""Since sound is recorded, without the zero of two clocks: old tapes that were digitised are dated so."""

_MILLISECONDS = 1e11  # Unix times from here on are in milliseconds

_DIRECTIVES = {
    "Y": r"\d{4}",
    **dict.fromkeys("mdHIMS", r"\d{1,2}"),
    "y": r"\d{2}",
    "j": r"\d{1,3}",
    "f": r"\d{1,6}",
    **dict.fromkeys("pBA", r"[^\W\d_]+"),
    **dict.fromkeys("ba", r"[^\W\d_]+\.?"),
    "z": r"(?:Z|[+-]\d{2}:?\d{2})",
    "%": "%",
}
# Directives beside other digits: `20260102` is not the 20th of month 10.
_FIXED_WIDTHS = dict.fromkeys("mdHIMS", r"\d{2}") | {"j": r"\d{3}"}
# Keys under which recorders and phone systems write the time of a call, by precedence.
_DATE_KEYS = ("recorded_at", "start_time", "start", "started_at", "timestamp", "date", "datetime", "time")


def recording_date(document: Mapping[str, Any], pattern: str | None) -> dict[str, str | None]:
    """``recorded_at`` (ISO 8601) and ``recorded_by`` of a transcript's *document*; the first source counts.

    A time has a zone only where its source gives one; an mtime is UTC. The *pattern*, for
    ``datetime.strptime``, is looked for anywhere in the audio's file name.
    """
    source, container = document["source"], document["attributes"].get("recorded_at")
    told: str | None
    if isinstance(container, str) and container:  # from the audio file's own metadata, by the decoder
        told, origin = container, "container"
    elif told := _companion_date(document.get("companion")):
        origin = "companion"
    elif pattern and (told := name_date(source["file"], pattern)):
        origin = "name"
    else:
        told, origin = told_date(source["modified_at"]), "mtime"
    return {"recorded_at": told, "recorded_by": origin if told else None}


def name_date(name: str, pattern: str) -> str | None:
    """The date that *pattern* finds anywhere in *name*, as ISO 8601."""
    for expressions in (_DIRECTIVES | _FIXED_WIDTHS, _DIRECTIVES):
        for found in re.finditer(rf"(?<!\d){_expression(pattern, expressions)}(?!\d)", name):
            try:
                moment = datetime.strptime(found.group(), pattern)  # noqa: DTZ007 - as the name says it
            except (ValueError, OverflowError, re.error):
                continue
            if date := _iso(moment):
                return date
    return None


def _expression(pattern: str, expressions: Mapping[str, str]) -> str:
    parts = re.findall(r"%?.", pattern, re.DOTALL)
    return "".join(expressions.get(part[1], r"\S+?") if len(part) == 2 else re.escape(part) for part in parts)


def _companion_date(companion: object) -> str | None:
    """The date in the first of *companion*'s objects that has one."""
    contents = [companion, *companion.values()] if isinstance(companion, dict) else []
    objects = (content for content in contents if isinstance(content, dict))
    dates = (told_date(content.get(key)) for content in objects for key in _DATE_KEYS)
    return next(filter(None, dates), None)


def told_date(value: object, years: Container[int] = _YEARS) -> str | None:
    """An ISO 8601 text or Unix time as ISO 8601, in UTC if it has a zone; None if it is no plausible date."""
    try:
        if isinstance(value, str):
            moment = datetime.fromisoformat(value.strip())
        elif isinstance(value, int | float) and not isinstance(value, bool):
            moment = _EPOCH + timedelta(seconds=int(value if value < _MILLISECONDS else value // 1000))
        else:
            return None
    except (OverflowError, ValueError):
        return None
    return _iso(moment, years)


def _iso(moment: datetime, years: Container[int] = _YEARS) -> str | None:
    if moment.year not in years:
        return None
    utc = moment.astimezone(UTC) if moment.tzinfo else moment
    return utc.isoformat(timespec="seconds").replace("+00:00", "Z")
