"""Reads the transcript in an answer by the JMESPath expressions of a config."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jmespath
from jmespath.exceptions import JMESPathError

from dropscribe.providers import values
from dropscribe.providers.turns import segments_of
from dropscribe.transcripts.model import Segment, Transcript, Word

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dropscribe.config.sections.http_api import AnswerKeys

MOST_ITEMS = 1_000_000
"""Of words and of segments: an expression can give more than the answer holds."""

MOST_NAMES = 10
"""Of an answer's own names, in a message."""

_SCALES = {"s": 1.0, "ms": 0.001}


@dataclass(frozen=True, slots=True)
class Mapped:
    """Value that one expression of a config found in an answer.

    Attributes:
        field: The key of `answer`.
        expression: As written.
        value: The value found; None for nothing.
    """

    field: str
    expression: str
    value: Any


def mapped(keys: AnswerKeys, parsed: Mapping[str, Any]) -> list[Mapped]:
    """Values that the expressions of *keys* find in the answer *parsed*."""
    return [
        Mapped(field, text, found(jmespath.compile(text), parsed))
        for field, text in keys.expressions().items()
    ]


def found(expression: Any, parsed: Mapping[str, Any]) -> Any:
    """The value of a compiled expression; None where it does not fit the answer."""
    try:
        return expression.search(parsed)
    except (JMESPathError, ArithmeticError, RecursionError, TypeError, ValueError):
        return None


def names_in(parsed: Mapping[str, Any]) -> str:
    """A clause with the names that an answer has."""
    return f"it has {', '.join([*map(str, parsed)][:MOST_NAMES]) or 'nothing'}"


class AnswerReader:
    """Compiled expressions with the units of their values."""

    def __init__(self, keys: AnswerKeys) -> None:
        self._keys = keys
        self._compiled = {field: jmespath.compile(text) for field, text in keys.expressions().items()}
        self._scale = _SCALES[keys.unit]
        self._duration_scale = _SCALES[keys.duration_unit or keys.unit]
        is_log = keys.confidence == "logprob"
        self._confidence = values.probability_of_log if is_log else values.probability

    def transcript(
        self, parsed: dict[str, Any], *, language: Any, model: Any, request_id: str | None
    ) -> Transcript | None:
        """The transcript in an answer; None where there is no text.

        Args:
            language, model: Of the request, where the answer tells none.
        """
        words = tuple(map(self._word, self._items("words", parsed)))
        segments = tuple(map(self._segment, self._items("segments", parsed))) or segments_of(words)
        text = values.told_text(self._found("text", parsed), parts=segments)
        if text is None:
            return None
        return Transcript(
            text=text,
            language=values.language(values.text_of(self._found("language", parsed)), language),
            duration=values.duration(self._found("duration", parsed), self._duration_scale),
            segments=segments,
            words=words,
            model=values.word_or_none(self._found("model", parsed) or model),
            request_id=values.word_or_none(self._found("request_id", parsed)) or request_id,
            raw=parsed,
        )

    def text(self, parsed: Mapping[str, Any]) -> str | None:
        """The string that the expression for the text finds, if any."""
        text = self._found("text", parsed)
        return text if isinstance(text, str) else None

    def error(self, parsed: Mapping[str, Any]) -> str | None:
        """Reason why an answer with a success status is a failure, if it is one."""
        problem = self._found("error", parsed)
        return None if problem is None or problem is False or problem in ("", []) else str(problem)

    def no_text(self, parsed: Mapping[str, Any]) -> str:
        """Message for a success without a text: the expression, and the names that the answer has."""
        return f"a success without a text at '{self._keys.text}'; {names_in(parsed)}"

    def _found(self, field: str, parsed: Mapping[str, Any]) -> Any:
        return found(self._compiled[field], parsed) if field in self._compiled else None

    def _items(self, field: str, parsed: Mapping[str, Any]) -> list[Mapping[str, Any]]:
        return values.objects(self._found(field, parsed))[:MOST_ITEMS]

    def _word(self, item: Mapping[str, Any]) -> Word:
        return Word(_text(item.get("word")), *self._span(item), *self._rest(item))

    def _segment(self, item: Mapping[str, Any]) -> Segment:
        confidence, speaker = self._rest(item)
        return Segment(_text(item.get("text")), *self._span(item), speaker, confidence)

    def _span(self, item: Mapping[str, Any]) -> tuple[float | None, float | None]:
        if self._keys.times == "start_duration":
            return values.span_of_length(item.get("start"), item.get("duration"), self._scale)
        return values.span(item.get("start"), item.get("end"), self._scale)

    def _rest(self, item: Mapping[str, Any]) -> tuple[float | None, str | None]:
        return self._confidence(item.get("confidence")), values.speaker_label(item.get("speaker"))


def _text(value: Any) -> str:
    """A string, stripped, or a number as the JSON has it; "" for anything else."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return json.dumps(value) if is_number else values.text_of(value).strip()
