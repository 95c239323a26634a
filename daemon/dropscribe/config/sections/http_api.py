"""The keys of `type: http`: expressions for the answer and jobs of an API that the config describes."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from dropscribe.config.keys import REQUIRED, Section, SectionRead, key, keys_of
from dropscribe.config.notation import field_types as t
from dropscribe.core.text.printing import did_you_mean

_LONGEST_EXPRESSION = 2_000
_HEADER = re.compile(r"\s*([\w!#$%&'*+.^`|~-]+)\s*:\s*([ -~]*\{key\}[ -~]*?)\s*", re.ASCII)  # RFC 9110, 5.5


def _expression(value: object) -> str:
    """*value*, if it is a JMESPath expression, so that a mistake in it is found before a file is paid for."""
    text = t.parse_text(value)
    if len(text) > _LONGEST_EXPRESSION:
        raise ValueError(f"is longer than {_LONGEST_EXPRESSION} characters", "")
    import jmespath  # noqa: PLC0415 - only configs that describe an API load it
    from jmespath import exceptions  # noqa: PLC0415

    try:
        jmespath.compile(text).search({})
    except exceptions.JMESPathTypeError:
        pass  # the trial runs on an empty answer, so that functions get null
    except (exceptions.JMESPathError, RecursionError) as error:
        position = getattr(error, "lex_position", None)
        said = "is not a JMESPath expression" + (
            "" if position is None else f" (at character {position + 1})"
        )
        raise ValueError(said, "https://jmespath.org has examples") from None
    return text


def _items(text_name: str) -> Callable[[object], str]:
    """Parser of an expression for a list of objects; objects that it builds must have known names only."""
    known = {text_name, "start", "end", "duration", "confidence", "speaker"}

    def parse(value: object) -> str:
        text = _expression(value)
        names = _names_made_by(text)
        for name in names:
            if name not in known:
                raise ValueError(f"makes objects with '{name}', which is not read", did_you_mean(name, known))
        if names and text_name not in names:
            raise ValueError(f"makes objects without '{text_name}'", f"write {{{text_name}: …}}")
        return text

    return parse


def _names_made_by(expression: str) -> list[str]:
    import jmespath  # noqa: PLC0415 - see above

    return _made_names(jmespath.compile(expression).parsed)


def _made_names(node: Mapping[str, Any]) -> list[str]:
    """The names in the objects that a parsed expression builds; none if it selects objects of the answer."""
    kind, children = node["type"], node["children"]
    if kind == "multi_select_dict":
        return [child["value"] for child in children]
    if kind == "function_expression" or not children:
        return []
    return _made_names(children[1 if kind == "filter_projection" else -1])


def _header(value: object) -> str:
    found = _HEADER.fullmatch(t.parse_text(value))
    if found is None:
        raise ValueError("is not a header with a key", 'write such as "Authorization: Token {key}"')
    return f"{found[1]}: {found[2]}"


def _marks(value: object) -> tuple[int | str, ...]:
    items: list[Any] = value if isinstance(value, list) else [value]
    if not all(type(item) in {int, str} for item in items):
        raise ValueError("is not a list of statuses and codes", "write such as [402, insufficient_credits]")
    marks = tuple(int(item) if str(item).isdecimal() else item for item in items)
    if odd := [mark for mark in marks if isinstance(mark, int) and not 300 <= mark < 600]:
        raise ValueError(f"has {odd[0]}, which is no status of an error", "they are 300 to 599")
    return marks


def _url_or_path(value: object) -> str:
    text = t.parse_text(value)
    t.parse_url(f"https://host{text}" if text.startswith("/") else text)
    return text


def _job_url(value: object) -> str:
    text = _url_or_path(value)
    if "{id}" not in text:
        raise ValueError("has no place for the job's id", "write such as /v1/jobs/{id}")
    return text


EXPRESSION = t.FieldType(t.TEXT.schema, "JMESPath", _expression)
WORDS = t.FieldType(t.TEXT.schema, "JMESPath", _items("word"))
SEGMENTS = t.FieldType(t.TEXT.schema, "JMESPath", _items("text"))
_media_type = t.full_match(
    r"(?a)[\w.+-]+/[\w.+-]+(; ?[\w.+=-]+)*", "is not a media type", "write such as application/octet-stream"
)
MEDIA_TYPE = t.FieldType({"type": "string", "pattern": "/"}, "text", _media_type)
KEY_HEADER = t.FieldType({"type": "string", "pattern": r"\{key\}"}, "text", _header)
_PLACE = {"type": "string", "pattern": r"^(https?://|/)|\$\{"}
JOB_URL = t.FieldType(_PLACE, "url or path", _job_url)
URL_OR_PATH = t.FieldType(_PLACE, "url or path", _url_or_path)
_MARK = {"type": ["integer", "string"]}
MARKS = t.FieldType({"anyOf": [_MARK, {"type": "array", "items": _MARK}]}, "list", _marks)


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerKeys(Section):
    """Expressions that find a transcript in an answer; a missing or ill-typed value is unknown."""

    text: str = key("The whole text.", EXPRESSION, default=REQUIRED, example="text")
    words: str | None = key(
        "A list of objects with `word`, `start`, `end` (or `duration`), `confidence`, `speaker`.",
        WORDS,
        example='"words[].{word: word, start: start, end: end}"',
    )
    segments: str | None = key(
        "The same with `text` for `word`; without it segments are built from the words.",
        SEGMENTS,
        example='"segments[].{text: text, start: start, end: end}"',
    )
    language: str | None = key("The language.", EXPRESSION, example="language")
    duration: str | None = key("The recording's length.", EXPRESSION, example="duration")
    model: str | None = key("The model; without it the parameter `model`.", EXPRESSION, example="model")
    request_id: str | None = key("The id of the request.", EXPRESSION, example="id")
    error: str | None = key(
        "The error in an answer with a success status; null, false, 0 and an empty value are none.",
        EXPRESSION,
        example="error",
    )
    unit: Literal["s", "ms"] = key("The unit of all times.", default="s")
    duration_unit: Literal["s", "ms"] | None = key("The unit of `duration`, if it is another.", example="s")
    times: Literal["start_end", "start_duration"] = key("How a span of time is given.", default="start_end")
    confidence: Literal["probability", "logprob"] = key("The scale of confidences.", default="probability")

    @classmethod
    def build(cls, read: SectionRead) -> AnswerKeys:
        """The keys; reports objects whose ends are not those that `times` says."""
        times = read.values.get("times", "start_end")
        wanted, other = ("end", "duration") if times == "start_end" else ("duration", "end")
        for name in ("words", "segments"):
            made = _names_made_by(read.values.get(name) or "@")
            if other in made and wanted not in made:
                message = f"makes objects with '{other}', which is not read with times: {times}"
                read.report(name, message, f"write {wanted}: …, or another `times`")
        return cls(**read.values)

    def expressions(self) -> dict[str, str]:
        """The expressions that are given, by key."""
        names = [name for name, about in keys_of(AnswerKeys).items() if about.type.word == EXPRESSION.word]
        return {name: text for name in names if (text := getattr(self, name))}


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorKeys(Section):
    """Statuses and codes of errors that mean something else than usual."""

    account: tuple[int | str, ...] = key(
        "Key, credit or model: the provider is held. Several words are looked for in the error's message.",
        MARKS,
        default=(),
        example="[402, no_credit]",
    )
    file: tuple[int | str, ...] = key("This file alone is refused.", MARKS, default=(), example="[415]")
    rule: tuple[int | str, ...] = key(
        "The parameters are wrong: the rule is held.", MARKS, default=(), example="[422]"
    )
    later: tuple[int | str, ...] = key("The file is tried again.", MARKS, default=(), example="[409]")


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateKeys(Section):
    """The request that makes a job of an upload: JSON, with the `params`."""

    url: str = key(
        "The url that creates the job; a path is at the host of `url`.",
        URL_OR_PATH,
        default=REQUIRED,
        example="/v1/jobs",
    )
    audio: str = key(
        "The audio's id or url, in the answer to the upload.",
        EXPRESSION,
        default=REQUIRED,
        example="upload_url",
    )
    field: str = key(
        "The name of the audio's id or url in the job's request.", default=REQUIRED, example="audio_url"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class PollKeys(Section):
    """A job at the provider; `{id}` in a url stands for its id."""

    id: str = key("The id, in the answer that created the job.", EXPRESSION, default="id")
    create: CreateKeys | None = key(
        "The request that creates the job, if the upload does not.",
        example="{url: /v1/jobs, audio: upload_url, field: audio_url}",
    )
    url: str = key(
        "The url of the job's state; a path is at the host of the provider's `url`.",
        JOB_URL,
        default=REQUIRED,
        example="/v1/jobs/{id}",
    )
    state: str = key("The job's state.", EXPRESSION, default="status")
    done: tuple[str, ...] = key(
        "States of a job that has its result, in any case.", t.NAMES, default=REQUIRED, example="[completed]"
    )
    failed: tuple[str, ...] = key(
        "States of a job that failed, beside `failed`, `failure` and `error`; `answer.error` has the reason. "
        "In all other states it is running.",
        default=(),
        example="[error]",
    )
    every_seconds: float = key(
        "The shortest time between two polls; a long job is polled less often.", default=2.0
    )
    result: str | None = key(
        "The url of the result, if the job's own answer does not hold it.",
        JOB_URL,
        example="/v1/jobs/{id}/transcript",
    )
    delete: str | None = key(
        "The url to delete (`DELETE`) once the result is stored.", JOB_URL, example="/v1/jobs/{id}"
    )
