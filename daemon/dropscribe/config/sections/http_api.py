"""The keys of `type: http`: where an API that is described in the config has what in its answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from dropscribe.config.keys import key
from dropscribe.config.notation import field_types as t

_LONGEST_EXPRESSION = 2_000


def _expression(value: object) -> str:
    """*value*, if it is a JMESPath expression: a mistake in it is found before a file is paid for."""
    text = t.parse_text(value)
    if len(text) > _LONGEST_EXPRESSION:
        raise ValueError(f"is longer than {_LONGEST_EXPRESSION} characters", "")
    import jmespath  # noqa: PLC0415 - only configs that describe an API load it
    from jmespath import exceptions  # noqa: PLC0415

    try:
        jmespath.compile(text).search({})
    except exceptions.JMESPathTypeError:
        pass  # a function got null, which the empty answer has everywhere
    except (exceptions.JMESPathError, RecursionError) as error:
        position = getattr(error, "lex_position", None)
        where = "" if position is None else f" (at character {position + 1})"
        raise ValueError(
            f"is not a JMESPath expression{where}", "https://jmespath.org has examples"
        ) from None
    return text


def _header(value: object) -> str:
    text = t.parse_text(value)
    name, colon, rest = text.partition(":")
    if not (colon and name.strip() and name.isascii() and " " not in name.strip() and "{key}" in rest):
        raise ValueError("is not a header with a key", 'write such as "Authorization: Token {key}"')
    return f"{name.strip()}: {rest.strip()}"


def _marks(value: object) -> tuple[int | str, ...]:
    items = value if isinstance(value, list) else [value]
    texts = [str(item) for item in items if isinstance(item, int | str) and not isinstance(item, bool)]
    if len(texts) < len(items):
        raise ValueError("is not a list of statuses and codes", "write such as [402, insufficient_credits]")
    return tuple(int(text) if text.isdecimal() else text for text in texts)


EXPRESSION: t.FieldType[str] = t.FieldType(_expression, {"type": "string", "minLength": 1}, "JMESPath")
KEY_HEADER: t.FieldType[str] = t.FieldType(_header, {"type": "string", "pattern": r"\{key\}"}, "text")
_MARK: dict[str, Any] = {"type": ["integer", "string"]}
MARKS: t.FieldType[tuple[int | str, ...]] = t.FieldType(
    _marks, {"anyOf": [_MARK, {"type": "array", "items": _MARK}]}, "list"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerKeys:
    """Where an answer has what; a value that is not there, or of another type, is unknown."""

    text: str = key(EXPRESSION, "The whole text.", example="text")
    words: str | None = key(
        EXPRESSION,
        "A list of objects with `word`, `start`, `end` (or `duration`), `confidence`, `speaker`.",
        default=None,
        example='"words[].{word: word, start: start, end: end}"',
    )
    segments: str | None = key(
        EXPRESSION,
        "The same with `text` for `word`; without it segments are built from the words.",
        default=None,
        example='"segments[].{text: text, start: start, end: end}"',
    )
    language: str | None = key(EXPRESSION, "The language.", default=None, example="language")
    duration: str | None = key(EXPRESSION, "The recording's length.", default=None, example="duration")
    request_id: str | None = key(EXPRESSION, "The id of the request.", default=None, example="id")
    error: str | None = key(
        EXPRESSION, "In a success: what makes it a failure, if it is not null.", default=None, example="error"
    )
    unit: Literal["s", "ms"] = key(t.one_of("s", "ms"), "The unit of all times.", default="s")
    times: Literal["start_end", "start_duration"] = key(
        t.one_of("start_end", "start_duration"), "How a span of time is given.", default="start_end"
    )
    confidence: Literal["probability", "logprob"] = key(
        t.one_of("probability", "logprob"), "What a confidence is.", default="probability"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorKeys:
    """Statuses and codes of errors that mean something else than usual."""

    account: tuple[int | str, ...] = key(
        MARKS, "Key, credit or model: the provider is held.", default=(), example="[402, no_credit]"
    )
    file: tuple[int | str, ...] = key(MARKS, "This file alone is refused.", default=(), example="[415]")
    rule: tuple[int | str, ...] = key(
        MARKS, "The parameters are wrong: the rule is held.", default=(), example="[422]"
    )
    later: tuple[int | str, ...] = key(MARKS, "The file is tried again.", default=(), example="[409]")


ANSWER: t.FieldType[Any] = t.section(AnswerKeys)
ERRORS: t.FieldType[Any] = t.section(ErrorKeys)
