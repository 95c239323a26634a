"""Tables of the expressions of `type: http`, and of the values that they found in an answer."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from dropscribe.reports.wording import plural, render_table

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dropscribe.config.sections.http_api import AnswerKeys

_LONGEST_VALUE = 100


def found_table(keys: AnswerKeys, answer: Mapping[str, Any]) -> str:
    """Table of the value that each expression of *keys* found in *answer*."""
    from dropscribe.providers.described.answer import mapped  # noqa: PLC0415 - only configs that describe an API

    rows = [[each.field, _found_words(each.value), each.expression] for each in mapped(keys, answer)]
    return render_table(["FIELD", "FOUND", "BY"], rows)


def expressions_table(expressions: Mapping[str, Mapping[str, str]]) -> str:
    """The expressions, by provider and field."""
    rows = [
        [name if number == 0 else "", field, text]
        for name, fields in expressions.items()
        for number, (field, text) in enumerate(fields.items())
    ]
    return render_table(["PROVIDER", "FIELD", "EXPRESSION"], rows)


def _found_words(value: Any) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, str):
        return f"{plural(len(value), 'character')}: {_shortened(value)}"
    if isinstance(value, list):
        return f"{plural(len(value), 'item')}" + (f", the first: {_shortened(value[0])}" if value else "")
    return _shortened(value)


def _shortened(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _LONGEST_VALUE else text[: _LONGEST_VALUE - 1] + "…"
