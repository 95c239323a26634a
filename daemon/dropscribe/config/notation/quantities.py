"""Durations, sizes and other notations of the config → numbers; they are refused as in ``field_types.py``."""

from __future__ import annotations

import math
import re

_SECONDS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}
_BYTES: dict[str, int] = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12} | {
    "kib": 2**10,
    "mib": 2**20,
    "gib": 2**30,
    "tib": 2**40,
}
HOURS_PATTERN = r"^([01]?[0-9]|2[0-3]):([0-5][0-9]) ?- ?([01]?[0-9]|2[0-3]):([0-5][0-9])$"
LONGEST_SECONDS = 10 * 366 * 86400

_NUMBER = r"(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)"
_DURATION_PART = re.compile(rf"({_NUMBER})(ms|s|m|h|d)", re.ASCII)
DURATION_PATTERN = rf"^(?:{_NUMBER}|(?:{_NUMBER}(?:ms|s|m|h|d))+)$"
SIZE_PATTERN = rf"^{_NUMBER} ?(?:(?:[KkMmGgTt][Ii]?)?[Bb])?$"

DECIBELS_PATTERN = rf"^-{_NUMBER} ?(?:[dD][bB](?:[fF][sS])?)?$"
QUIETEST_DBFS = -120.0

BOOLEANS = {"true": True, "false": False, "yes": True, "no": False, "on": True, "off": False}


def parse_number(value: object) -> float:
    """A finite number ≥ 0, also when it stands in a string (an environment variable's value)."""
    if isinstance(value, str) and re.fullmatch(_NUMBER, value.strip(), re.ASCII):
        value = float(value)
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < math.inf:
        return float(value)
    raise ValueError("is not a number from 0 up", "write a number such as 20")


def parse_count(value: object) -> int:
    """A whole number ≥ 0."""
    number = parse_number(value)
    if number != int(number):
        raise ValueError("is not a whole number", "")
    return int(number)


def parse_duration(value: object) -> float:
    """Seconds from a number of seconds or ``500ms``, ``30s``, ``5m``, ``2h``, ``3d``, ``1h30m``."""
    text = value.strip() if isinstance(value, str) else ""
    if _DURATION_PART.search(text) and re.fullmatch(DURATION_PATTERN, text, re.ASCII):
        seconds = sum(float(number) * _SECONDS[unit] for number, unit in _DURATION_PART.findall(text))
    else:
        try:
            seconds = parse_number(value)
        except ValueError:
            hint = "write 500ms, 30s, 5m, 1h30m, 3d or a number of seconds"
            raise ValueError("is not a duration", hint) from None
    if seconds > LONGEST_SECONDS:
        raise ValueError("is longer than ten years", "")
    return seconds


def parse_size(value: object) -> int:
    """Bytes from a number of bytes or ``25MB`` (10⁶), ``25MiB`` (2²⁰), ``KB``, ``KiB``, ``GB``, ``GiB``."""
    text = value.strip() if isinstance(value, str) else ""
    found = re.fullmatch(rf"({_NUMBER}) ?([A-Za-z]*)", text, re.ASCII)
    try:
        return round(float(found[1]) * _BYTES[found[2].lower()] if found else parse_number(value))
    except (KeyError, OverflowError, ValueError):
        raise ValueError("is not a size", "write 25MB, 25MiB or a number of bytes") from None


def parse_decibels(value: object) -> float:
    """Decibels below full scale from ``-50``, ``-50dB`` or ``-50dBFS``; 0 is the loudest there is."""
    level = value
    if isinstance(value, str) and re.fullmatch(DECIBELS_PATTERN, value.strip(), re.ASCII):
        level = float(value.strip().rstrip("dDbBfFsS "))
    if isinstance(level, int | float) and not isinstance(level, bool) and QUIETEST_DBFS <= level < 0:
        return float(level)
    raise ValueError("is not a level below 0 and not below -120", "write -50dBFS")


def parse_boolean(value: object) -> bool:
    """True or False; yes, no, on and off count only here, where a boolean is expected."""
    found = BOOLEANS.get(value.strip().lower()) if isinstance(value, str) else value
    if not isinstance(found, bool):
        raise ValueError("is neither true nor false", "write true or false")  # noqa: TRY004 - one kind of refusal
    return found


def parse_hours(value: object) -> tuple[int, int]:
    """(begin, end) in minutes of the day from ``22:00-07:00``."""
    found = re.fullmatch(HOURS_PATTERN, str(value), re.ASCII)
    if not found:
        raise ValueError("is not a range of times", 'write "22:00-07:00"')
    begin, end = (int(found[part]) * 60 + int(found[part + 1]) for part in (1, 3))
    if begin == end:
        raise ValueError("is an empty range", "begin and end are the same time")
    return begin, end


def parse_listen(value: object) -> tuple[str, int, str | None]:
    """(host, port, socket) from ``127.0.0.1:8790``, ``[::1]:8790``, ``localhost:8790`` or ``unix:/path``."""
    if isinstance(value, str) and re.fullmatch(r"unix:[^\x00-\x1f]+", value):
        return "", 0, value.removeprefix("unix:")
    found = re.fullmatch(r"(\[[0-9A-Fa-f:.%]+\]|[^\[\]:\s]+):(\d{1,5})", str(value), re.ASCII)
    if not found or int(found[2]) > 65535:
        raise ValueError(
            "is not an address to listen on", "write HOST:PORT, such as 127.0.0.1:8790, or unix:/PATH"
        )
    return found[1].strip("[]"), int(found[2]), None
