"""Notations of config values: the check of each and its JSON Schema.

Guarantees: pure. A refused value raises ValueError with the words that follow the value in the message
("is not a duration") and, as a second argument, the correct notation.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Generic, TypeVar
from urllib.parse import urlsplit

from dropscribe.config.errors import did_you_mean
from dropscribe.config.notation import quantities as q
from dropscribe.config.notation.secret import Secret
from dropscribe.core.budget import Limit
from dropscribe.core.links import parse_host_pattern
from dropscribe.core.requests.languages import is_language, language_tag

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path
    from zoneinfo import ZoneInfo

    from dropscribe.config.keys import Section

T_co = TypeVar("T_co", covariant=True)

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_MINUTES = re.compile(r"([0-9.]+) ?min", re.ASCII)
_NAME = re.compile(r"[^\W_][\w.-]{0,63}")
_ROOT_NAME = re.compile(r"[a-z0-9_-]{1,64}")
_LANGUAGE = re.compile(r"[A-Za-z]{2,20}(?:[-_][A-Za-z0-9]{1,8})*")
_URL_PATH = re.compile(r"(?:/[A-Za-z0-9._~-]+)+")
_LARGEST_COUNT = 10_000
_LARGEST_NUMBER = 1_000_000
_LARGEST_BUDGET = 10**12
_LARGEST_SIZE = 10**15
_LONGEST_LABEL = 63  # of a host name in DNS
_VARIABLE = r"\$\{"


@dataclass(frozen=True, slots=True)
class FieldType(Generic[T_co]):
    """One way to write a value.

    Attributes:
        parse: Converts the parsed YAML value; raises ValueError(words, hint).
        schema: Its JSON Schema.
        word: The type's name in the reference: "duration".
        none_word: The word that stands for None, as null does.
        is_path: Whether the text is a path, which begins at the config's folder.
        item: For lists and mappings: the type of each value in it; *parse* is not used then.
        name: For mappings: the type of each name in it.
        section: For sections: the dataclass with its keys; *parse* is not used then.
        least: For lists: how many values there must be.
        is_argv: For lists: a command's arguments, which are always a list and may repeat.
    """

    parse: Callable[[object], T_co]
    schema: Mapping[str, Any] = field(default_factory=dict)
    word: str = ""
    none_word: str = ""
    is_path: bool = False
    item: FieldType[Any] | None = None
    name: FieldType[str] | None = None
    section: type[Section] | None = None
    least: int = 0
    is_argv: bool = False


def parse_text(value: object) -> str:
    """A string that is not empty and has no control characters."""
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


def _language(value: object) -> str:
    text = _full_match(_LANGUAGE, "is not a language", "write such as en or pt-BR")(value)
    if len(text.replace("_", "-").partition("-")[0]) > len("eng") and not is_language(text):
        raise ValueError("is not a known language", "write its code, such as en or pt-BR")
    return language_tag(text) or "auto"


def parse_url(value: object) -> str:
    """An http or https url without a password in it."""
    text = parse_text(value)
    try:
        parts = urlsplit(text)
        labels = (parts.hostname or "").removesuffix(".").split(".")
        bad = parts.scheme not in {"http", "https"} or parts.port == 0 or " " in text
        bad = bad or not all(0 < len(label) <= _LONGEST_LABEL for label in labels)
    except ValueError:
        bad = True
    if bad:
        raise ValueError("is not an http or https url", "write https://HOST/PATH")
    if parts.username is not None or parts.password is not None:
        raise ValueError("has a user or password in it", "a key belongs in api_key")
    return text


def _path(value: object) -> str:
    text = parse_text(value)
    if re.match(r"[A-Za-z]:[\\/]|\\\\", text):
        raise ValueError("is a Windows path", "write a path of this system, such as /srv/recordings")
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", text):
        raise ValueError("is a url, not a path", "mount the share and write its mount point")
    return text


def _limit(value: object) -> Limit:
    found = _MINUTES.fullmatch(value.strip()) if isinstance(value, str) else None
    try:
        amount = q.parse_number(found[1] if found else value)
    except ValueError:
        amount = 0.0
    if not 0 < amount <= _LARGEST_BUDGET:
        raise ValueError("is not a budget", "write 5.00 for money, or 600min for minutes of audio")
    return Limit(amount, is_money=found is None)


def _time_zone(value: object) -> ZoneInfo:
    from zoneinfo import ZoneInfo, ZoneInfoNotFoundError  # noqa: PLC0415 - few configs name a zone

    try:
        return ZoneInfo(parse_text(value))
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError("is not a time zone of this system", "write such as Europe/Berlin or UTC") from None


def _params(value: object) -> dict[str, Any]:
    """The names and values as written; ``params.py`` checks that they can be sent."""
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ValueError("is not a mapping of names to values", "write {language: en}")  # noqa: TRY004 - as above
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


def _host(value: object) -> str:
    return parse_host_pattern(parse_text(value))


def _own_host(value: object) -> str:
    """A host as in `link_hosts`, or with the port that browsers use."""
    text = parse_text(value)
    name, port = text, ""
    if found := re.fullmatch(r"(\[.*\]|[^:]*)(:[0-9]{1,5})", text):
        q.parse_listen(text)
        name, port = found[1], found[2]
    host = parse_host_pattern(name)
    return f"[{host}]{port}" if port and ":" in host else host + port


def _settle(value: object) -> float | None:
    """Seconds; None is ``auto``, infinity is ``ignore_writers``, which the rule translates."""
    if value is None or value == "auto":
        return None
    return float("inf") if value == "ignore_writers" else q.parse_duration(value)


def _full_match(pattern: re.Pattern[str], said: str, hint: str) -> Callable[[object], str]:
    def parse(value: object) -> str:
        if not isinstance(value, str) or not pattern.fullmatch(value):
            raise ValueError(said, hint)
        return value

    return parse


def _positive(of: FieldType[Any]) -> FieldType[Any]:
    """*of* without 0; whole numbers begin at 1."""

    def parse_positive(value: object) -> Any:
        number = of.parse(value)
        if number <= 0:
            raise ValueError("must be more than 0", "")
        return number

    schema = {name: value for name, value in of.schema.items() if name != "minimum"}
    written = schema["pattern"].removesuffix(f"|{_VARIABLE}")
    schema |= {"pattern": f"^(?=.*[1-9])(?:{written})|{_VARIABLE}", "exclusiveMinimum": 0}
    return FieldType(parse_positive, schema, of.word)


def _or(word: str, of: FieldType[Any]) -> FieldType[Any]:
    """A type that is None for *word* and for null; other values are read as *of*."""

    def parse_or_none(value: object) -> Any:
        return None if value is None or value == word else of.parse(value)

    schema = {"anyOf": [{"enum": [word, None]}, of.schema]}
    return FieldType(parse_or_none, schema, f"`{word}` or {of.word}", none_word=word)


def _number(
    parse: Callable[[object], Any],
    word: str,
    pattern: str,
    largest: float,
    smallest: float = 0,
    kind: str = "number",
) -> FieldType[Any]:
    def parse_limited(value: object) -> Any:
        number = parse(value)
        if number > largest:
            raise ValueError(f"is more than {largest}", "")
        return number

    schema = {
        "type": ["string", kind],
        "pattern": f"{pattern}|{_VARIABLE}",
        "minimum": smallest,
        "maximum": largest,
    }
    return FieldType(parse_limited, schema, word)


def _string(parse: Callable[[object], Any], word: str = "text", pattern: str = "") -> FieldType[Any]:
    schema = {"type": "string", "minLength": 1}
    return FieldType(parse, schema | ({"pattern": f"{pattern}|{_VARIABLE}"} if pattern else {}), word)


def _never(value: object) -> Any:
    raise AssertionError(value)


def one_of(*choices: str) -> FieldType[Any]:
    """One of these words."""

    def parse(value: object) -> Any:
        if value in choices:
            return value
        hint = did_you_mean(str(value), choices)
        raise ValueError(f"is not one of {', '.join(choices)}", hint if hint.startswith("did") else "")

    schema = {"anyOf": [{"enum": list(choices)}, {"type": "string", "pattern": _VARIABLE}]}
    return FieldType(parse, schema, ", ".join(f"`{choice}`" for choice in choices))


def list_of(item: FieldType[Any], *, least: int = 0) -> FieldType[tuple[Any, ...]]:
    """A list, or one value alone; each value counts once."""
    schema = {"type": "array", "items": item.schema} | ({"minItems": least} if least else {})
    return FieldType(
        _never, {"anyOf": [item.schema, schema]}, f"{item.word} or a list", item=item, least=least
    )


def map_of(item: FieldType[Any], name: FieldType[str]) -> FieldType[Mapping[str, Any]]:
    """A mapping with names that the user chooses."""
    schema = {"type": ["object", "null"], "additionalProperties": item.schema}
    return FieldType(_never, schema, "mapping", item=item, name=name)


def section(keys: type[Section]) -> FieldType[Any]:
    """A mapping with the keys of the dataclass *keys*."""
    return FieldType(_never, {}, "section", section=keys)


_WORDS_OF_BOOLEAN = "|".join(
    "".join(f"[{letter.upper()}{letter}]" for letter in word)
    for word in ("true", "false", "yes", "no", "on", "off")
)
_WORD_OF_BOOLEAN = {"type": "string", "pattern": f"^({_WORDS_OF_BOOLEAN})$|{_VARIABLE}"}
_VALUE = {"type": ["string", "number", "boolean", "null", "array"]}
_AMOUNT = r"^[0-9.]+$"

BOOLEAN: FieldType[bool] = FieldType(
    q.parse_boolean, {"anyOf": [{"type": "boolean"}, _WORD_OF_BOOLEAN]}, "true or false"
)
NUMBER: FieldType[float] = _number(q.parse_number, "number", _AMOUNT, _LARGEST_NUMBER)
RATE: FieldType[float | None] = _or("none", _positive(NUMBER))
COUNT: FieldType[int] = _number(
    q.parse_count, "whole number", r"^[0-9]+(?:\.0*)?$", _LARGEST_COUNT, kind="integer"
)
POSITIVE_COUNT: FieldType[int] = _positive(COUNT)
DURATION_OR_ZERO: FieldType[float] = _number(
    q.parse_duration, "duration", q.DURATION_PATTERN, q.LONGEST_SECONDS
)
DURATION: FieldType[float] = _positive(DURATION_OR_ZERO)
DURATION_OR_NONE: FieldType[float | None] = _or("none", DURATION)
DURATION_OR_AUTO: FieldType[float | None] = _or("auto", DURATION_OR_ZERO)
RESCAN: FieldType[float | None] = _or("auto", DURATION)
SETTLE: FieldType[float | None] = FieldType(
    _settle,
    {"anyOf": [{"enum": ["auto", "ignore_writers", None]}, DURATION_OR_ZERO.schema]},
    "`auto`, `ignore_writers` or duration",
    none_word="auto",
)
SIZE_OR_NONE: FieldType[int | None] = _or(
    "none", _positive(_number(q.parse_size, "size", q.SIZE_PATTERN, _LARGEST_SIZE))
)
DECIBELS: FieldType[float] = _number(
    q.parse_decibels, "decibels", q.DECIBELS_PATTERN, largest=0, smallest=q.QUIETEST_DBFS
)
LIMIT: FieldType[Limit] = FieldType(
    _limit,
    {
        "type": ["string", "number"],
        "pattern": rf"^(?=.*[1-9])[0-9.]+( ?min)?$|{_VARIABLE}",
        "exclusiveMinimum": 0,
        "maximum": _LARGEST_BUDGET,
    },
    "money or minutes",
)
HOURS: FieldType[tuple[int, int]] = _string(q.parse_hours, "hours", q.HOURS_PATTERN)
TIME_ZONE: FieldType[ZoneInfo] = _string(_time_zone)
TIME_PATTERN: FieldType[str] = _string(_time_pattern, "text", "%")
TEXT: FieldType[str] = _string(parse_text)
NAME: FieldType[str] = _string(
    _full_match(
        _NAME, "is not a name", "use letters, digits, '_', '-' and '.', at most 64, a letter or digit first"
    )
)
ROOT_NAME: FieldType[str] = _string(
    _full_match(_ROOT_NAME, "is not a name of a root", "use a-z, 0-9, '_' and '-', at most 64")
)
LANGUAGE: FieldType[str] = _string(_language, "language", f"^{_LANGUAGE.pattern}$")
URL_PATH: FieldType[str] = _string(
    _full_match(_URL_PATH, "is not the path of a url", "write such as /dropscribe")
)
PATH: FieldType[Path] = FieldType(_path, TEXT.schema, "path", is_path=True)  # type: ignore[arg-type] # made a Path by the reader
URL: FieldType[str] = _string(parse_url, "url", "^https?://")
LISTEN: FieldType[str] = _string(_listen, "address", ":[0-9]+$|^unix:.")
SECRET: FieldType[Secret] = _string(parse_secret)
TEXTS: FieldType[tuple[str, ...]] = list_of(TEXT)
NAMES: FieldType[tuple[str, ...]] = list_of(TEXT, least=1)
HOSTS: FieldType[tuple[str, ...]] = list_of(_string(_host))
OWN_HOSTS: FieldType[tuple[str, ...]] = list_of(_string(_own_host))
SECRET_URLS: FieldType[tuple[Secret, ...]] = list_of(_string(_secret_url))
COMPANIONS: FieldType[tuple[str, ...]] = list_of(_string(_companion))
COMMAND: FieldType[tuple[str, ...]] = FieldType(
    _never, {"type": "array", "items": TEXT.schema}, "list of text", item=TEXT, is_argv=True
)
SPEAKER_NAMES: FieldType[Mapping[str, str]] = map_of(TEXT, TEXT)
PARAMS: FieldType[Mapping[str, Any]] = FieldType(
    _params, {"type": ["object", "null"], "additionalProperties": _VALUE}, "mapping"
)
RULE_PARAMS: FieldType[Mapping[str, Any]] = FieldType(
    _params,
    {"type": ["object", "null"], "additionalProperties": {"anyOf": [_VALUE, {"type": "object"}]}},
    "mapping",
)
