"""The config's JSON Schema, for editors and for ``dropscribe schema``."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from dropscribe.config.keys import REQUIRED, Key, keys_of
from dropscribe.config.model import Config
from dropscribe.config.sections.provider import ProviderConfig, keys_of_type
from dropscribe.config.sections.provider_types import PROVIDER_TYPES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dropscribe.config.notation.field_types import FieldType

_NOTHING: tuple[object, ...] = ((), "")
_ABSENT: tuple[object, ...] = (None, (), {})
"""Defaults of keys that may be null in the file."""

_TEXT = {"type": "string", "minLength": 1}


def json_schema() -> dict[str, Any]:
    """The schema (draft 2020-12) of the file, made from the definitions of its keys.

    It covers each section alone: only ``dropscribe check`` knows the rules that span several sections.
    """
    definitions: dict[str, Any] = {}
    whole = _object(keys_of(Config), definitions)
    for name, schema in whole["properties"].items():
        whole["properties"][name] = _or_null(schema)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "dropscribe's config",
        "description": "Unknown keys are errors; what holds between sections only `dropscribe check` knows.",
        **whole,
        "patternProperties": {"^x-": {"description": "Ignored; a place for anchors."}},
        "$defs": definitions,
    }


def _object(
    keys: Mapping[str, Key], definitions: dict[str, Any], defaults: Mapping[str, Any] = MappingProxyType({})
) -> dict[str, Any]:
    """The schema of a section; *defaults* are those that differ from the keys' own, by attribute."""
    properties = {}
    for name, about in keys.items():
        schema = _schema_of(about.type, definitions)
        if about.type.section is not None or about.default in _ABSENT:
            schema = _or_null(schema)
        properties[name] = {**schema, "description": about.description}
        default = defaults.get(about.attribute, about.default)
        if isinstance(default, bool | int | float | str | tuple) and default not in _NOTHING:
            properties[name]["default"] = list(default) if isinstance(default, tuple) else default
        for ending, words in about.also.items():
            properties[name + ending] = {**_or_null(_TEXT), "description": words}
    required = [name for name, about in keys.items() if about.default is REQUIRED]
    found = {"type": "object", "properties": properties, "additionalProperties": False}
    return found | ({"required": required} if required else {})


def _or_null(schema: Mapping[str, Any]) -> dict[str, Any]:
    """*schema*, or null: such a key counts as absent."""
    if {"type": "null"} in schema.get("anyOf", ()):
        return dict(schema)
    about = {name: value for name, value in schema.items() if name in {"description", "default"}}
    return {
        "anyOf": [{name: value for name, value in schema.items() if name not in about}, {"type": "null"}]
    } | about


def _schema_of(kind: FieldType, definitions: dict[str, Any]) -> dict[str, Any]:
    if kind.section is ProviderConfig:
        for name in PROVIDER_TYPES:
            definitions[name] = _provider(name, definitions)
        return {"oneOf": [{"$ref": f"#/$defs/{name}"} for name in PROVIDER_TYPES]}
    if kind.section is not None:
        name = kind.section.__name__
        definitions.setdefault(name, _object(keys_of(kind.section), definitions))
        return {"$ref": f"#/$defs/{name}"}
    if kind.name is not None and kind.item is not None:
        return {"type": ["object", "null"], "additionalProperties": _schema_of(kind.item, definitions)}
    return dict(kind.schema)


def _provider(kind: str, definitions: dict[str, Any]) -> dict[str, Any]:
    facts = PROVIDER_TYPES[kind]
    found = _object(keys_of_type(kind), definitions, facts.defaults)
    found["properties"]["type"] = {"const": kind, "description": facts.words}
    return found
