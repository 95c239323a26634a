"""Notations of config values: the check of each and its JSON Schema.

Guarantees: pure. A refused value raises ValueError with the words that follow the value in the message
("is not a duration") and, as a second argument, the correct notation.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any, Literal, Union, get_args, get_origin
from urllib.parse import urlsplit

from dropscribe.config.notation import quantities as q
from dropscribe.config.notation.secret import Secret
from dropscribe.core.budget import Limit
from dropscribe.core.hosts import is_address, is_exact_host, parse_host_pattern
from dropscribe.core.requests.languages import is_language, language_tag
from dropscribe.core.text.printing import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Callable
    from zoneinfo import ZoneInfo

    from dropscribe.config.keys import Section

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_BROKEN = re.compile("[\ud800-\udfff]")  # so os.environ has the bytes that are not UTF-8
_LANGUAGE = r"[A-Za-z]{2,20}(?:[-_][A-Za-z0-9]{1,8})*"
_LARGEST_BUDGET = 10**12
_LIKE_AN_ADDRESS = re.compile(r"\[|^\d+(?:\.\d+){3}(?::|$)", re.ASCII)
"""Of a url's host: it is an address, or the url is none (``192.168.1.300``)."""
_VARIABLE = r"\$\{"


@dataclass(frozen=True, slots=True)
class FieldType:
    """One way to write a value."""

    schema: Mapping[str, Any]  # its JSON Schema
    word: str  # the type's name in the reference: "duration"
    # Converts a YAML value or raises ValueError(words, hint); unused for lists, mappings and sections.
    parse: Callable[[object], Any] = lambda value: value
    none_word: str = ""  # the word that stands for None, as null does
    is_path: bool = False  # whether the text is a path, which begins at the config's folder
    item: FieldType | None = None  # for lists and mappings: the type of each value in it
    name: FieldType | None = None  # for mappings: the type of each name in it
    section: type[Section] | None = None  # for sections: the dataclass with its keys
    least: int = 0  # for lists: how many values there must be
    is_argv: bool = False  # for lists: a command's arguments, which are always a list and may repeat


def parse_text(value: object) -> str:
    """A string of characters that is not empty and has no control characters."""
    text = _system_text(value)
    if _BROKEN.search(text):
        raise ValueError("is not UTF-8", "look at the environment variable in it")
    return text


def _system_text(value: object) -> str:
    """As :func:`parse_text`, for a path or an argument, which may hold any bytes."""
    if not isinstance(value, str):
        raise ValueError("is not a string", "put it in quotes" if isinstance(value, int | float) else "")  # noqa: TRY004 - one kind of refusal
    if not value:
        raise ValueError("must not be empty", "")
    if _CONTROL.search(value):
        raise ValueError("has a control character in it", "")
    return value


def parse_secret(value: object, origin: str = "config") -> Secret:
    """A key that an HTTP header can carry; the refusal never shows it."""
    if not isinstance(value, str):
        raise ValueError("is not a string", "put it in quotes")  # noqa: TRY004 - one kind of refusal
    if not value:
        raise ValueError("is empty", "")
    if "\n" in value or "\r" in value:
        raise ValueError("has a line break in it", "a key is one line")
    if not value.isascii() or _CONTROL.search(value) or value != value.strip():
        raise ValueError("has a space at an end, or a character that no key has", "copy the key again")
    return Secret(value, origin)


def _secret_url(value: object) -> Secret:
    url = parse_secret(value)
    if not re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", url.reveal()):
        raise ValueError("is not a url", "write such as mailto://user:password@example.com, best as ${NAME}")
    return url


def full_match(pattern: str, said: str, hint: str) -> Callable[[object], str]:
    """The parser of a text that *pattern* matches."""

    def parse(value: object) -> str:
        if not isinstance(value, str) or not re.fullmatch(pattern, value):
            raise ValueError(said, hint)
        return value

    return parse


def _language(value: object) -> str:
    text = full_match(_LANGUAGE, "is not a language", "write such as en or pt-BR")(value)
    if len(re.split("[-_]", text)[0]) > len("eng") and not is_language(text):
        raise ValueError("is not a known language", "write its code, such as en or pt-BR")
    return language_tag(text) or "auto"


def parse_url(value: object) -> str:
    """An http or https url without a password in it."""
    text = parse_text(value)
    try:
        parts = urlsplit(text)
        host = parts.hostname or ""
        is_url = parts.scheme in {"http", "https"} and parts.port != 0 and " " not in text
        is_url = is_url and all(0 < len(label) <= 63 for label in host.removesuffix(".").split("."))
        is_url = is_url and (is_address(host) or not _LIKE_AN_ADDRESS.search(parts.netloc))
        is_url = is_url and is_exact_host(parts.netloc.rpartition("@")[2], host)
    except ValueError:
        is_url = False
    if not is_url:
        raise ValueError("is not an http or https url", "write https://HOST/PATH")
    if parts.username is not None or parts.password is not None:
        raise ValueError("has a user or password in it", "a key belongs in api_key")
    return text


def _path(value: object) -> str:
    text = _system_text(value)
    if re.match(r"[A-Za-z]:[\\/]|\\\\", text):
        raise ValueError("is a Windows path", "write a path of this system, such as /srv/recordings")
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", text):
        raise ValueError("is a url, not a path", "mount the share and write its mount point")
    return text


def _limit(value: object) -> Limit:
    minutes = re.fullmatch(r"([0-9.]+) ?min", value.strip(), re.ASCII) if isinstance(value, str) else None
    try:
        amount = q.parse_number(minutes[1] if minutes else value)
    except ValueError:
        amount = 0.0
    if not 0 < amount <= _LARGEST_BUDGET:
        raise ValueError("is not a budget", "write 5.00 for money, or 600min for minutes of audio")
    return Limit(amount, is_money=minutes is None)


def _time_zone(value: object) -> ZoneInfo:
    from zoneinfo import ZoneInfo, ZoneInfoNotFoundError  # noqa: PLC0415 - few configs name a zone

    try:
        return ZoneInfo(parse_text(value))
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError("is not a time zone of this system", "write such as Europe/Berlin or UTC") from None


def _param(value: object) -> Any:
    """A request parameter, which is text, a number, a boolean or a list of them; or None."""
    items = value if isinstance(value, list) else [] if value is None else [value]
    if any(not isinstance(item, str | int | float) or _BROKEN.search(str(item)) for item in items):
        raise ValueError(
            "cannot be sent", "a parameter is a string, a number, true, false or a list of these"
        )
    return value


def _time_pattern(value: object) -> str:
    text = parse_text(value)
    hint = "write such as %Y%m%d-%H%M%S"
    sample = datetime(2001, 2, 3, 4, 5, 6, tzinfo=UTC)  # no part of its date is strptime's default
    try:
        has_year = sample.strftime(text) != sample.replace(year=2002).strftime(text)
        # Python 3.13 warns of a day without a year.
        found = datetime.strptime(sample.strftime(text), text) if has_year else None  # noqa: DTZ007 - only tried
    except (ValueError, re.error):  # re.error: a directive is there twice
        raise ValueError("is not a pattern of date and time", hint) from None
    if found is None or found.date() != sample.date():
        raise ValueError("does not give year, month and day", hint)
    return text


def _companion(value: object) -> str:
    pattern = parse_text(value)
    text = re.sub(r"\{(stem|name)\}", "", pattern, count=1)
    if text in {"", pattern} or re.search(r"[/*?\[\]{}]", text) or text.lower().endswith(".error.json"):
        raise ValueError("does not name a companion", "write {stem}.json or {name}.json")
    return pattern


def _listen(value: object) -> str:
    q.parse_listen(value)
    return str(value)


def _own_host(value: object) -> str:
    """A host as in `link_hosts`, or with the port that browsers use."""
    text = parse_text(value)
    found = re.fullmatch(r"(\[.*\]|[^:]*)(:[0-9]{1,5})", text)
    if found is None:
        return parse_host_pattern(text)
    q.parse_listen(text)
    host = parse_host_pattern(found[1])
    return (f"[{host}]" if ":" in host else host) + found[2]


def _string(parse: Callable[[object], Any], word: str = "text", pattern: str = "") -> FieldType:
    schema = {"type": "string", "minLength": 1}
    return FieldType(schema | ({"pattern": f"{pattern}|{_VARIABLE}"} if pattern else {}), word, parse)


_FROM_ZERO, _POSITIVE = {"minimum": 0}, {"exclusiveMinimum": 0}


def _number(
    parse: Callable[[object], float], word: str, pattern: str, largest: float, lowest: Mapping[str, float]
) -> FieldType:
    is_positive = lowest is _POSITIVE

    def parse_limited(value: object) -> float:
        number = parse(value)
        if number > largest:
            raise ValueError(f"is more than {largest}", "")
        if is_positive and number <= 0:
            raise ValueError("must be more than 0", "")
        return number

    written = f"^(?=.*[1-9])(?:{pattern})" if is_positive else pattern
    kind = "integer" if parse is q.parse_count else "number"
    schema = {"type": ["string", kind], "pattern": f"{written}|{_VARIABLE}", "maximum": largest, **lowest}
    return FieldType(schema, word, parse_limited)


def _or(of: FieldType, words: Mapping[str, float | None]) -> FieldType:
    """*of* or one of *words*, which stand for their values; the first one is None, as null is."""

    def parse_word_or(value: object) -> Any:
        if value is None:
            return None
        return words[value] if isinstance(value, str) and value in words else of.parse(value)

    shown = ", ".join(f"`{word}`" for word in words)
    schema = {"anyOf": [{"enum": [*words, None]}, of.schema]}
    return FieldType(schema, f"{shown} or {of.word}", parse_word_or, none_word=next(iter(words)))


def one_of(*choices: str) -> FieldType:
    """One of these words."""

    def parse(value: object) -> Any:
        if value not in choices:
            hint = did_you_mean(str(value), choices)
            raise ValueError(f"is not one of {', '.join(choices)}", hint if hint.startswith("did") else "")
        return value

    schema = {"anyOf": [{"enum": list(choices)}, {"type": "string", "pattern": _VARIABLE}]}
    return FieldType(schema, ", ".join(f"`{choice}`" for choice in choices), parse)


def list_of(item: FieldType, *, least: int = 0) -> FieldType:
    """A list, or one value alone; each value counts once."""
    schema = {"type": "array", "items": item.schema} | ({"minItems": least} if least else {})
    return FieldType({"anyOf": [item.schema, schema]}, f"{item.word} or a list", item=item, least=least)


def map_of(item: FieldType, name: FieldType) -> FieldType:
    """A mapping with names that the user chooses."""
    schema = {"type": ["object", "null"], "additionalProperties": item.schema}
    return FieldType(schema, "mapping", item=item, name=name)


def section(keys: type[Section]) -> FieldType:
    """A mapping with the keys of the dataclass *keys*."""
    return FieldType({}, "section", section=keys)


def type_of(annotation: Any) -> FieldType:
    """The type that *annotation* stands for, with or without ``| None``: words, a section or a plain type."""
    if get_origin(annotation) in (Union, UnionType):
        (annotation,) = (part for part in get_args(annotation) if part is not NoneType)
    if get_origin(annotation) is Literal:
        return one_of(*get_args(annotation))
    if get_origin(annotation) is Mapping:
        return map_of(type_of(get_args(annotation)[1]), NAME)
    return _PLAIN_TYPES.get(annotation) or section(annotation)


_WORDS_OF_BOOLEAN = "|".join("".join(f"[{a.upper()}{a}]" for a in word) for word in q.BOOLEANS)
_WORD_OF_BOOLEAN = {"type": "string", "pattern": f"^({_WORDS_OF_BOOLEAN})$|{_VARIABLE}"}
_VALUE = {"type": ["string", "number", "boolean", "null", "array"]}

BOOLEAN = FieldType({"anyOf": [{"type": "boolean"}, _WORD_OF_BOOLEAN]}, "true or false", q.parse_boolean)
_number_of = partial(_number, q.parse_number, "number", r"^[0-9.]+$", 1_000_000)
_count = partial(_number, q.parse_count, "whole number", r"^[0-9]+(?:\.0*)?$", 10_000)
_duration = partial(_number, q.parse_duration, "duration", q.DURATION_PATTERN, q.LONGEST_SECONDS)
_NONE, _AUTO = {"none": None}, {"auto": None}

NUMBER = _number_of(_FROM_ZERO)
RATE = _or(_number_of(_POSITIVE), _NONE)
COUNT, POSITIVE_COUNT = _count(_FROM_ZERO), _count(_POSITIVE)
DURATION_OR_ZERO, DURATION = _duration(_FROM_ZERO), _duration(_POSITIVE)
DURATION_OR_NONE = _or(DURATION, _NONE)
DURATION_OR_AUTO = _or(DURATION_OR_ZERO, _AUTO)
RESCAN = _or(DURATION, _AUTO)
SETTLE = _or(DURATION_OR_ZERO, {"auto": None, "ignore_writers": math.inf})
SIZE_OR_NONE = _or(_number(q.parse_size, "size", q.SIZE_PATTERN, 10**15, _POSITIVE), _NONE)
DECIBELS = _number(q.parse_decibels, "decibels", q.DECIBELS_PATTERN, 0, {"minimum": q.QUIETEST_DBFS})
_AMOUNT = {"type": ["string", "number"], "pattern": rf"^(?=.*[1-9])[0-9.]+( ?min)?$|{_VARIABLE}"}
LIMIT = FieldType({**_AMOUNT, "exclusiveMinimum": 0, "maximum": _LARGEST_BUDGET}, "money or minutes", _limit)
HOURS = _string(q.parse_hours, "hours", q.HOURS_PATTERN)
TIME_ZONE = _string(_time_zone)
TIME_PATTERN = _string(_time_pattern, "text", "%")
TEXT = _string(parse_text)
_ANY_NAME = "use letters, digits, '_', '-' and '.', at most 64, a letter or digit first"
NAME = _string(full_match(r"[^\W_][\w.-]{0,63}", "is not a name", _ANY_NAME))
ROOT_NAME = _string(
    full_match(r"[a-z0-9_-]{1,64}", "is not a name of a root", "use a-z, 0-9, '_' and '-', at most 64")
)
LANGUAGE = _string(_language, "language", f"^{_LANGUAGE}$")
URL_PATH = _string(
    full_match(r"(?:/[A-Za-z0-9._~-]+)+", "is not the path of a url", "write such as /dropscribe")
)
PATH = FieldType(TEXT.schema, "path", _path, is_path=True)
URL = _string(parse_url, "url", "^https?://")
LISTEN = _string(_listen, "address", ":[0-9]+$|^unix:.")
SECRET = _string(parse_secret)
NAMES = list_of(TEXT, least=1)
HOSTS = list_of(_string(lambda value: parse_host_pattern(parse_text(value))))
OWN_HOSTS = list_of(_string(_own_host))
SECRET_URLS = list_of(_string(_secret_url))
COMPANIONS = list_of(_string(_companion))
_ARGUMENT = _string(_system_text)
COMMAND = FieldType({"type": "array", "items": TEXT.schema}, "list of text", item=_ARGUMENT, is_argv=True)
PARAMS = map_of(FieldType(_VALUE, "", _param), TEXT)
RULE_PARAMS = map_of(FieldType({"anyOf": [_VALUE, {"type": "object"}]}, ""), TEXT)

_PLAIN_TYPES = {
    bool: BOOLEAN,
    int: POSITIVE_COUNT,
    float: DURATION,
    str: TEXT,
    tuple[str, ...]: list_of(TEXT),
    Path: PATH,
    Secret: SECRET,
}
