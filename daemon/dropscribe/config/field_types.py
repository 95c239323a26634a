"""The types of the config's keys: how each is checked, and how the JSON Schema says it.

Plain validators instead of unions, because pydantic reports a union's failure once a member and names
the member in the error's place. A refusal is a ValueError with the words behind the value and a hint.
"""

from __future__ import annotations

import re
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, Literal
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import BeforeValidator, PlainValidator, WithJsonSchema

from dropscribe.config import quantities
from dropscribe.config.secret import Secret
from dropscribe.core import limits
from dropscribe.core.links import parse_host_pattern

if TYPE_CHECKING:
    from collections.abc import Callable

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_MINUTES = re.compile(r"([0-9.]+) ?min", re.ASCII)
_NAME = re.compile(r"[^\W_][\w.-]{0,63}")
_ROOT_NAME = re.compile(r"[a-z0-9_-]{1,64}")
_LANGUAGE = re.compile(r"[A-Za-z]{2,20}(?:[-_][A-Za-z0-9]{1,8})*")
_ROOT_PATH = re.compile(r"(?:/[A-Za-z0-9._~-]+)+")
_VARIABLE = r"\$\{"


def parse_text(value: object) -> str:
    """A text that is not empty and holds no control characters."""
    if not isinstance(value, str):
        raise ValueError("is not a text", "put it in quotes" if isinstance(value, int | float) else "")  # noqa: TRY004 - pydantic takes ValueError alone
    if not value:
        raise ValueError("must not be empty", "")
    if _CONTROL.search(value):
        raise ValueError("holds a control character", "")
    return value


def parse_name(value: object) -> str:
    """A name of the user's own; it becomes a metric's label and part of a file's name."""
    if not isinstance(value, str) or not _NAME.fullmatch(value):
        raise ValueError(
            "is no name", "use letters, digits, '_', '-' and '.', at most 64, a letter or digit first"
        )
    return value


def parse_root_name(value: object) -> str:
    """A root's name; it stands before a path in every row of the queue."""
    if not isinstance(value, str) or not _ROOT_NAME.fullmatch(value):
        raise ValueError("is no name of a root", "use a-z, 0-9, '_' and '-', at most 64")
    return value


def parse_secret(value: object) -> Secret:
    """A key that an HTTP header can carry; the refusal never shows it."""
    if not isinstance(value, str):
        raise ValueError("is not a text", "put it in quotes")  # noqa: TRY004 - pydantic takes ValueError alone
    if not value:
        raise ValueError("is empty", "")
    if "\n" in value or "\r" in value:
        raise ValueError("holds a line break", "a key is one line")
    if not value.isascii() or _CONTROL.search(value) or value != value.strip():
        raise ValueError("holds a space at an end, or a character that no key has", "copy the key again")
    return Secret(value, "config")


def _secret_urls(value: object) -> tuple[Secret, ...]:
    urls = tuple(map(parse_secret, value if isinstance(value, list) else [value]))
    if not all(re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", url.reveal()) for url in urls):
        raise ValueError("is no url", "write such as mailto://user:password@example.com, best as ${NAME}")
    return urls


def parse_url(value: object) -> str:
    """An http or https url without a password in it."""
    text = parse_text(value)
    hint = "write https://HOST/PATH"
    try:
        parts = urlsplit(text)
        bad = parts.scheme not in {"http", "https"} or not parts.hostname or parts.port == 0 or " " in text
    except ValueError:
        bad = True
    if bad:
        raise ValueError("is not an http or https url", hint)
    if parts.username is not None or parts.password is not None:
        raise ValueError("holds a user or password", "a key belongs into api_key")
    return text


def parse_limit(value: object) -> limits.Limit:
    """An amount of money, or minutes of audio as ``600min``."""
    found = _MINUTES.fullmatch(value.strip()) if isinstance(value, str) else None
    try:
        amount = quantities.parse_number(found[1] if found else value)
    except ValueError:
        amount = 0.0
    if not amount:
        raise ValueError("is no budget", "write 5.00 for money, or 600min for minutes of audio")
    return limits.Limit(amount, is_money=found is None)


def parse_time_zone(value: object) -> ZoneInfo:
    """A name of the IANA data base that this system knows."""
    try:
        return ZoneInfo(parse_text(value))
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError("is no time zone that is known here", "write such as Europe/Berlin or UTC") from None


def parse_params(value: object) -> dict[str, Any]:
    """Names with texts, numbers, booleans, lists of these, or null; deeper shapes are kept for later."""
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ValueError("is not a mapping of names to values", "write {language: en}")  # noqa: TRY004 - as above
    return value


def _texts(value: object) -> tuple[str, ...]:
    items = value if isinstance(value, list) else [value]
    if not items:
        raise ValueError("must not be empty", "")
    return tuple(dict.fromkeys(parse_text(item) for item in items))


def _hosts(value: object) -> tuple[str, ...]:
    return tuple(map(parse_host_pattern, _patterns(value)))


def _patterns(value: object) -> tuple[str, ...]:
    return () if value == [] else _texts(value)


def _command(value: object) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise ValueError("is not a list of arguments", "write [/usr/bin/program, argument]; no shell is used")  # noqa: TRY004 - as above
    return tuple(parse_text(item) for item in value)


def _listed(value: object) -> object:
    return list(dict.fromkeys(map(str, value))) if isinstance(value, list) else [value]


def _listen(value: object) -> str:
    quantities.parse_listen(value)
    return str(value)


def parse_language(value: object) -> str:
    """A BCP 47 tag, or a language's name as people write it; each provider maps it to its own form."""
    if not isinstance(value, str) or not _LANGUAGE.fullmatch(value):
        raise ValueError("is not a language", "write such as en or pt-BR")
    return value


def parse_time_pattern(value: object) -> str:
    """A strptime pattern that gives a date."""
    text = parse_text(value)
    try:
        datetime.strptime(datetime(2001, 2, 3, 4, 5, 6).strftime(text), text)  # noqa: DTZ001, DTZ007 - a trial
    except ValueError:
        raise ValueError("is not a pattern of date and time", "write such as %Y%m%d-%H%M%S") from None
    if "%" not in text:
        raise ValueError("holds no part of a date", "write such as %Y%m%d-%H%M%S")
    return text


def _companions(value: object) -> tuple[str, ...]:
    patterns = _patterns(value)
    for pattern in patterns:
        if "/" in pattern or not ("{stem}" in pattern or "{name}" in pattern):
            raise ValueError("does not name a companion", "write {stem}.json or {name}.json")
    return patterns


def _text_of_text(value: object) -> dict[str, str]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ValueError("is not a mapping of names to names", "write {speaker_0: Agent}")  # noqa: TRY004 - as above
    return {parse_text(label): parse_text(name) for label, name in value.items()}


def _root_path(value: object) -> str:
    if value == "" or (isinstance(value, str) and _ROOT_PATH.fullmatch(value)):
        return value
    raise ValueError("is not the path of a url", "write such as /dropscribe")


def _settle(value: object) -> float | Literal["ignore_writers"] | None:
    if value is None or value == "auto":
        return None
    return "ignore_writers" if value == "ignore_writers" else quantities.parse_duration(value)


def _positive(parse: Callable[[object], Any]) -> Callable[[object], Any]:
    def parse_positive(value: object) -> Any:
        number = parse(value)
        if number <= 0:
            raise ValueError("must be more than 0", "")
        return number

    return parse_positive


def _or(word: str, parse: Callable[[object], Any]) -> Callable[[object], Any]:
    """None for *word* and for null; else what *parse* makes of it."""

    def parse_or_none(value: object) -> Any:
        return None if value is None or value == word else parse(value)

    return parse_or_none


def _pattern(kind: str, pattern: str) -> dict[str, Any]:
    return {"type": ["string", "number"], "pattern": f"{pattern}|{_VARIABLE}", "minimum": 0, "$comment": kind}


def _or_word(word: str, schema: dict[str, Any]) -> WithJsonSchema:
    return WithJsonSchema({"anyOf": [{"enum": [word, None]}, schema]})


_DURATION = _pattern("duration", quantities.DURATION_PATTERN)
_SIZE = _pattern("size", quantities.SIZE_PATTERN)
_NUMBER = _pattern("number", r"^[0-9.]+$")
_DECIBELS = {
    "type": ["string", "number"],
    "pattern": f"{quantities.DECIBELS_PATTERN}|{_VARIABLE}",
    "minimum": quantities.QUIETEST_DBFS,
    "maximum": 0,
    "$comment": "decibels",
}
_COUNT = {"type": ["integer", "string"], "pattern": rf"^[0-9]+$|{_VARIABLE}", "minimum": 0}
_TEXT = {"type": "string", "minLength": 1}
_TEXTS = {"type": "array", "items": _TEXT}
_ONE_OR_MORE = {"anyOf": [_TEXT, {**_TEXTS, "minItems": 1, "uniqueItems": True}]}
_WORD_OF_BOOLEAN = {
    "type": "string",
    "pattern": rf"^([Tt]rue|[Ff]alse|[Yy]es|[Nn]o|[Oo]n|[Oo]ff)$|{_VARIABLE}",
}
_VALUE = {"type": ["string", "number", "boolean", "null", "array"]}

Boolean = Annotated[
    bool,
    PlainValidator(quantities.parse_boolean),
    WithJsonSchema({"anyOf": [{"type": "boolean"}, _WORD_OF_BOOLEAN]}),
]
Number = Annotated[float, PlainValidator(quantities.parse_number), WithJsonSchema(_NUMBER)]
NumberOrNone = Annotated[
    float | None, PlainValidator(_or("none", _positive(quantities.parse_number))), _or_word("none", _NUMBER)
]
Count = Annotated[int, PlainValidator(quantities.parse_count), WithJsonSchema(_COUNT)]
PositiveCount = Annotated[
    int, PlainValidator(_positive(quantities.parse_count)), WithJsonSchema({**_COUNT, "minimum": 1})
]
Duration = Annotated[float, PlainValidator(_positive(quantities.parse_duration)), WithJsonSchema(_DURATION)]
DurationOrZero = Annotated[float, PlainValidator(quantities.parse_duration), WithJsonSchema(_DURATION)]
DurationOrNone = Annotated[
    float | None,
    PlainValidator(_or("none", _positive(quantities.parse_duration))),
    _or_word("none", _DURATION),
]
DurationOrAuto = Annotated[
    float | None, PlainValidator(_or("auto", quantities.parse_duration)), _or_word("auto", _DURATION)
]
RescanOrAuto = Annotated[
    float | None,
    PlainValidator(_or("auto", _positive(quantities.parse_duration))),
    _or_word("auto", _DURATION),
]
Settle = Annotated[
    float | Literal["ignore_writers"] | None,
    PlainValidator(_settle),
    WithJsonSchema({"anyOf": [{"enum": ["auto", "ignore_writers", None]}, _DURATION]}),
]
Language = Annotated[
    str,
    PlainValidator(parse_language),
    WithJsonSchema({"type": "string", "pattern": rf"^{_LANGUAGE.pattern}$|{_VARIABLE}"}),
]
Vocabulary = Annotated[tuple[str, ...], PlainValidator(_patterns), WithJsonSchema({"anyOf": [_TEXT, _TEXTS]})]
TimePattern = Annotated[
    str, PlainValidator(parse_time_pattern), WithJsonSchema({"type": "string", "pattern": rf"%|{_VARIABLE}"})
]
Companions = Annotated[
    tuple[str, ...], PlainValidator(_companions), WithJsonSchema({"anyOf": [_TEXT, _TEXTS]})
]
TextOfText = Annotated[
    dict[str, str],
    PlainValidator(_text_of_text),
    WithJsonSchema({"type": ["object", "null"], "additionalProperties": _TEXT}),
]
RootPath = Annotated[str, PlainValidator(_root_path), WithJsonSchema({"type": "string"})]
Limit = Annotated[
    limits.Limit,
    PlainValidator(parse_limit),
    WithJsonSchema(
        {
            "type": ["number", "string"],
            "pattern": rf"^[0-9.]+( ?min)?$|{_VARIABLE}",
            "minimum": 0,
            "$comment": "money or minutes",
        }
    ),
]
TimeZone = Annotated[ZoneInfo, PlainValidator(parse_time_zone), WithJsonSchema({"type": "string"})]
SizeOrNone = Annotated[
    int | None, PlainValidator(_or("none", _positive(quantities.parse_size))), _or_word("none", _SIZE)
]
Decibels = Annotated[float, PlainValidator(quantities.parse_decibels), WithJsonSchema(_DECIBELS)]
Text = Annotated[str, PlainValidator(parse_text), WithJsonSchema(_TEXT)]
Name = Annotated[str, PlainValidator(parse_name), WithJsonSchema({"type": "string"})]
RootName = Annotated[str, PlainValidator(parse_root_name), WithJsonSchema({"type": "string"})]
Names = Annotated[tuple[str, ...], PlainValidator(_texts), WithJsonSchema(_ONE_OR_MORE)]
Include = Annotated[tuple[str, ...], PlainValidator(_texts), WithJsonSchema(_ONE_OR_MORE)]
Exclude = Annotated[tuple[str, ...], PlainValidator(_patterns), WithJsonSchema({"anyOf": [_TEXT, _TEXTS]})]
Hosts = Annotated[tuple[str, ...], PlainValidator(_hosts), WithJsonSchema({"anyOf": [_TEXT, _TEXTS]})]
Command = Annotated[tuple[str, ...], PlainValidator(_command), WithJsonSchema(_TEXTS)]
Url = Annotated[
    str, PlainValidator(parse_url), WithJsonSchema({"type": "string", "pattern": rf"^https?://|{_VARIABLE}"})
]
SecretText = Annotated[
    Secret, PlainValidator(parse_secret), WithJsonSchema({"type": "string", "minLength": 1})
]
Listen = Annotated[
    str,
    PlainValidator(_listen),
    WithJsonSchema({"type": "string", "pattern": rf":[0-9]+$|^unix:.|{_VARIABLE}"}),
]
SecretUrls = Annotated[
    tuple[Secret, ...],
    PlainValidator(_secret_urls),
    WithJsonSchema({"anyOf": [_TEXT, _TEXTS]}),
]
Hours = Annotated[
    tuple[int, int],
    PlainValidator(quantities.parse_hours),
    WithJsonSchema({"type": "string", "pattern": rf"{quantities.HOURS_PATTERN}|{_VARIABLE}"}),
]
Params = Annotated[
    dict[str, Any],
    PlainValidator(parse_params),
    WithJsonSchema({"type": ["object", "null"], "additionalProperties": _VALUE}),
]
RuleParams = Annotated[
    dict[str, Any],
    PlainValidator(parse_params),
    WithJsonSchema(
        {"type": ["object", "null"], "additionalProperties": {"anyOf": [_VALUE, {"type": "object"}]}}
    ),
]
Output = Literal["json", "txt", "srt", "vtt", "md"]
Outputs = Annotated[list[Output], BeforeValidator(_listed)]
