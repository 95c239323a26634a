"""The config's JSON Schema and commented example, made from the definitions of the keys.

``packaging/config_reference.py`` makes its reference of them.
"""

from __future__ import annotations

import dataclasses
import re
import textwrap
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

from dropscribe.config.keys import REQUIRED, Key, keys_of
from dropscribe.config.model import Config, FolderRule
from dropscribe.config.notation.field_types import TEXT, FieldType
from dropscribe.config.sections.provider import ProviderConfig, keys_of_type
from dropscribe.config.sections.provider_types import PROVIDER_TYPES, SPECIAL_KEYS

_EXAMPLE_HEAD = """\
# dropscribe's config. Valid as it stands: the embedded engine transcribes what is dropped into inbox/.
# Every key is here: '##' explains the next line; behind '#' stand the defaults, or examples if there is none.
# Relative paths begin at this file's folder. Durations: 500ms 30s 5m 2h 3d, or seconds. Sizes: 25MB 25MiB.
# ${NAME} is an environment variable, ${NAME:-default} gives a default. 'dropscribe check' names mistakes.
"""
_HEAD_WITHOUT_ENGINE = (
    "Valid as it stands: the embedded engine transcribes what is dropped into inbox/.",
    "It needs the provider's key; then what is dropped into inbox/ is transcribed.",
)
_UNITS = {
    "duration": ((86400, "d"), (3600, "h"), (60, "m"), (1, "s")),
    "size": ((2**30, "GiB"), (10**6, "MB")),
}
_WIDTH = 110
_COMMENT_COLUMN = 34
_EXAMPLES: Mapping[str, Mapping[str, str]] = {
    "openai": {"url": "http://127.0.0.1:8000/v1", "params": "{model: whisper-1}"},
    "whisper-asr": {"url": "http://127.0.0.1:9000"},
    "http": {"url": "http://127.0.0.1:9000"},
}
"""Examples that suit one type of provider better than those of the keys."""
_NEEDED = {("queue", "dsn"), ("queue", "roots"), ("webhook", "secret")}
"""Keys without which their section is refused, though its dataclass has a default for them."""


def json_schema() -> dict[str, Any]:
    """The schema (draft 2020-12) of the file, made from the definitions of its keys.

    It covers each section alone: only ``dropscribe check`` knows the rules that span several sections.
    """
    definitions: dict[str, Any] = {}
    whole = _object(keys_of(Config), definitions)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "dropscribe's config",
        "description": "Unknown keys are errors; `dropscribe check` also compares keys with each other.",
        **whole,
        "required": ["providers"],
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
        can_be_null = keys is keys_of(Config) or about.type.section or about.default in (None, (), {})
        properties[name] = {**(_or_null(schema) if can_be_null else schema), "description": about.description}
        default = defaults.get(about.attribute, about.default)
        if isinstance(default, bool | int | float | str | tuple) and default not in ((), ""):
            properties[name]["default"] = list(default) if isinstance(default, tuple) else default
        for ending, words in about.also.items():
            properties[name + ending] = {**_or_null(TEXT.schema), "description": words}
    required = [name for name, about in keys.items() if about.default is REQUIRED]
    found = {"type": "object", "properties": properties, "additionalProperties": False}
    return found | ({"required": required} if required else {})


def _or_null(schema: Mapping[str, Any]) -> dict[str, Any]:
    """*schema*, or null: such a key counts as absent."""
    return {"anyOf": [schema, {"type": "null"}]}


def _schema_of(kind: FieldType, definitions: dict[str, Any]) -> dict[str, Any]:
    if kind.section is ProviderConfig:
        for name, facts in PROVIDER_TYPES.items():
            definitions[name] = _object(keys_of_type(name), definitions, facts.defaults)
            definitions[name]["properties"]["type"] = {"const": name, "description": facts.words}
            if facts.needs:
                groups = [[{"required": [each]} for each in group] for group in facts.needs]
                definitions[name]["allOf"] = [{"anyOf": group} for group in groups]
        return {"oneOf": [{"$ref": f"#/$defs/{name}"} for name in PROVIDER_TYPES]}
    if kind.section is not None:
        name = kind.section.__name__
        definitions.setdefault(name, _object(keys_of(kind.section), definitions))
        return {"$ref": f"#/$defs/{name}"}
    if kind.name is not None and kind.item is not None:
        return {"type": ["object", "null"], "additionalProperties": _schema_of(kind.item, definitions)}
    return dict(kind.schema)


def example_text(provider: str = "local") -> str:
    """The whole text; only the provider of type *provider* is not commented out."""
    return "\n".join(_lines(provider)) + "\n"


def written_value(value: Any, word: str = "") -> str:
    """*value* as the file has it, a duration or size with its unit; *word* is its type's."""
    if isinstance(value, bool):
        return str(value).lower()
    for kind, units in _UNITS.items():
        if word.endswith(kind) and isinstance(value, int | float):
            whole = (f"{value / size:.15g}{unit}" for size, unit in units if value and value % size == 0)
            return next(whole, f"{value:.15g}")
    if isinstance(value, Mapping):
        return ", ".join(f"{name}: {written_value(item)}" for name, item in value.items())
    if isinstance(value, tuple):
        return f"[{', '.join(map(str, value))}]"
    unit = "dBFS" if word == "decibels" else ""
    return f"{value:g}{unit}" if isinstance(value, float) else str(value)


def _lines(provider: str) -> Iterator[str]:
    top = keys_of(Config)
    yield _EXAMPLE_HEAD if provider == "local" else _EXAMPLE_HEAD.replace(*_HEAD_WITHOUT_ENGINE)
    yield _line("", "state_dir: state", top["state_dir"].description)
    yield from ("", "providers:")
    for number, kind in enumerate([provider, *(kind for kind in PROVIDER_TYPES if kind != provider)]):
        yield from _provider(kind, is_first=number == 0)
    yield from ("", "folders:", _line("  ", "recordings:", "A folder rule, with a name of your own."))
    active = ("inbox", "done", "failed", "provider")
    for about in keys_of(FolderRule).values():
        known = dataclasses.replace(about, example=provider) if about.name == "provider" else about
        yield from _key(known, "    " if about.name in active else "    # ")
    yield ""
    for about in top.values():
        if about.default is None and about.type.section:
            yield from _section(about)
        elif about.name not in {"state_dir", "providers", "folders"}:
            yield from _key(about, "# ")


def _provider(kind: str, *, is_first: bool) -> Iterator[str]:
    """One provider; only the first is not commented out, only pulse shows the keys of all online types."""
    facts = PROVIDER_TYPES[kind]
    mark = "    " if is_first else "  #   "
    yield _line(mark[:-2], f"{kind}:", "A provider, with a name of your own.")
    yield _line(mark, f"type: {kind}", facts.words)
    examples = dict(_EXAMPLES.get(kind, {}))
    if facts.key_variable:
        examples["api_key"] = f"${{{facts.key_variable}}}"
    active = {*({"api_key", "params"} & examples.keys()), *(group[0] for group in facts.needs)}
    shown = {*examples, *active, *(SPECIAL_KEYS - {"url", "api_key"}), *(["concurrency"] if is_first else [])}
    for name, about in keys_of_type(kind).items():
        inside = mark if name in active else f"{mark}# "
        if name in SPECIAL_KEYS and about.type.section is not None:
            yield _line(inside, f"{name}:", about.description)
            for inner in keys_of(about.type.section).values():
                yield from _key(inner, f"{inside}  ")
        elif name != "type" and (name in shown or kind == "pulse"):
            default = facts.defaults.get(about.attribute, about.default)
            example = examples.get(name, about.example)
            also = about.also if kind == "pulse" else {}
            yield from _key(dataclasses.replace(about, default=default, example=example, also=also), inside)


def _section(about: Key, mark: str = "# ") -> Iterator[str]:
    """The lines of a section that is commented out."""
    yield _line(mark, f"{about.name}:", about.description)
    for key in keys_of(about.type.section).values():
        is_needed = (about.name, key.name) in _NEEDED
        if key.type.section is not None and key.default is None:
            yield from _section(key, f"{mark}  ")
        else:
            yield from _key(key, f"{mark}  " if is_needed or key.default is not None else f"{mark}  # ")


def _key(about: Key, mark: str) -> Iterator[str]:
    yield _line(mark, f"{about.name}: {about.example or _written_default(about)}", about.description)
    mark = mark if mark.endswith("# ") else f"{mark}# "
    for ending, description in about.also.items():
        other = f"{about.name}.txt" if ending == "_file" else about.name
        yield _line(mark, f"{about.name}{ending}: {other}", description)


def _written_default(about: Key) -> str:
    if dataclasses.is_dataclass(about.default):
        inner = {each.name: _written_default(each) for each in keys_of(about.type.section).values()}
        return f"{{{written_value(inner)}}}"
    return about.type.none_word if about.default is None else written_value(about.default, about.type.word)


def _line(mark: str, text: str, description: str) -> str:
    """*mark* and *text* with the first sentence of *description* behind it, or above if that is too long."""
    sentence = re.split(r"(?<=\.)\s", description)[0].rstrip(".").replace("`", "")
    line = f"{(mark + text).ljust(_COMMENT_COLUMN)} # {sentence}"
    if len(line) <= _WIDTH:
        return line
    above = mark.removesuffix("# ") + "## "
    words = textwrap.wrap(sentence, _WIDTH, initial_indent=above, subsequent_indent=above)
    return "\n".join([*words, mark + text])
