"""The config's JSON Schema, for editors and for ``dropscribe schema``."""

from __future__ import annotations

from typing import Any

from dropscribe.config.keys import FileKeys

_NOTHING: tuple[object, ...] = (None, {}, [])


def json_schema() -> dict[str, Any]:
    """The schema (draft 2020-12) of what may be written, made from ``keys.py``.

    It is as strict as a schema can be: what holds between sections only ``dropscribe check`` knows.
    """
    schema = FileKeys.model_json_schema()
    _tidy(schema)
    schema["patternProperties"] = {"^x-": {"description": "Ignored; a place for anchors."}}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **schema,
        "title": "dropscribe's config",
        "description": "Unknown keys are errors; what holds between sections only `dropscribe check` knows.",
    }


def _tidy(node: Any) -> None:
    """Drop pydantic's titles, and its defaults where they only say "absent"."""
    if isinstance(node, list):
        for item in node:
            _tidy(item)
    if not isinstance(node, dict):
        return
    for value in node.values():
        _tidy(value)
    if isinstance(node.get("title"), str):
        del node["title"]
    if "default" in node and node["default"] in _NOTHING:
        word = _word_for_none(node)
        if word is None:
            del node["default"]
        else:
            node["default"] = word


def _word_for_none(node: dict[str, Any]) -> str | None:
    """The word for "absent" ("auto", "none") that the key knows, if any."""
    for choice in node.get("anyOf", ()):
        if None in choice.get("enum", ()):
            word: str = choice["enum"][0]
            return word
    return None
