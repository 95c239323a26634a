"""docs/config.md, made from ``keys.py``: ``python -m dropscribe.config.reference > docs/config.md``."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

from dropscribe.config.keys import PROVIDER_TYPES
from dropscribe.config.schema import json_schema

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from dropscribe.core.params import ParamValue

_HEAD = """\
# The config, key by key

<!-- Made by `python -m dropscribe.config.reference > docs/config.md`; a test compares. Edit keys.py. -->

YAML 1.2: `no` is a text, `22:30` is no number; where true or false is asked, `yes`, `no`, `on` and `off`
will do. Unknown and duplicate keys are errors; top-level keys that begin with `x-` are ignored and a place
for anchors. Relative paths begin at the config's folder, `~` at the home. `dropscribe check` names every
mistake with its line.

- **duration**: seconds, or `500ms`, `30s`, `5m`, `2h`, `3d`, `1h30m`
- **size**: bytes, or `25MB` (10⁶), `25MiB` (2²⁰), with K, M, G, T
- `${NAME}` in a value is the environment variable, and an unset one is an error; `${NAME:-default}` is the
  default where it is unset or empty; `$${` is a plain `${`. Inside `{…}` and `[…]` write it in quotes.
- a **key** (`api_key`) comes from the one of `api_key`, `api_key_file`, `api_key_credential` that is given;
  without them from the systemd credential `key_NAME` of the provider called NAME, and at the vendor's own
  url from `SMALLEST_API_KEY`, `RESON8_API_KEY` or `OPENAI_API_KEY`. It is never shown.
- the queue's **dsn** comes from the one of `dsn`, `dsn_file`, `dsn_credential` that is given, and is never
  shown either. libpq alone reads it: `sslmode`, `sslrootcert`, `target_session_attrs`, … are its own words.
"""
_UNITS = {"duration": ((86400, "d"), (3600, "h"), (60, "m"), (1, "s")), "size": ((10**6, "MB"),)}


def reference_text() -> str:
    """The whole page."""
    return "\n".join([_HEAD, *_pages()]) + "\n"


def _pages() -> Iterator[str]:
    schema = json_schema()
    definitions = schema["$defs"]
    yield from ("## Top level\n", *_table(schema), "\n## providers.NAME")
    for kind, keys in PROVIDER_TYPES.items():
        yield f"\n### type: {kind}\n"
        if keys.default_params:
            yield f"Its own parameters: `{_plain(keys.default_params)}`.\n"
        yield from _table(definitions[keys.__name__])
    yield from ("\n## folders.NAME\n", *_table(definitions["FolderKeys"]))
    for name, section in schema["properties"].items():
        definition = definitions.get(f"{name.capitalize()}Keys")
        if definition is not None:
            yield from (f"\n## {name}\n\n{section['description']}\n", *_table(definition))
            yield from _inner_pages(name, definition, definitions)


def _inner_pages(
    name: str, definition: Mapping[str, Any], definitions: Mapping[str, dict[str, Any]]
) -> Iterator[str]:
    for inner, section in definition["properties"].items():
        keys = definitions.get(f"{inner.capitalize()}Keys")
        if keys is not None:
            yield from (f"\n### {name}.{inner}\n\n{section['description']}\n", *_table(keys))


def _plain(params: Mapping[str, ParamValue]) -> str:
    return ", ".join(f"{name}: {str(value).lower()}" for name, value in params.items())


def _table(definition: dict[str, Any]) -> Iterator[str]:
    yield "| key | value | default | |\n|---|---|---|---|"
    required = definition.get("required", ())
    for name, key in definition["properties"].items():
        default = "**required**" if name in required else _default(key)
        yield f"| `{name}` | {_kind(key)} | {default} | {key['description']} |"


def _kind(key: dict[str, Any]) -> str:
    """What may stand there, in a word or two."""
    if "$comment" in key:
        return str(key["$comment"])
    if "const" in key:
        return f"`{key['const']}`"
    if "enum" in key:
        return ", ".join(f"`{value}`" for value in key["enum"] if value is not None)
    if "anyOf" in key:
        kinds = [_kind(choice) for choice in key["anyOf"] if choice.get("type") != "null"]
        return " or ".join(dict.fromkeys(kind for kind in kinds if kind))
    if key.get("type") == "array":
        return f"list of {_kind(key['items'])}"
    names = {"string": "text", "integer": "whole number", "object": "mapping", "boolean": "true or false"}
    kind = key.get("type", "object")
    return names.get(kind[0] if isinstance(kind, list) else kind, "")


def _default(key: dict[str, Any]) -> str:
    value = key.get("default")
    if value is None or len(str(value)) > 60:
        return ""
    if isinstance(value, float) and value == int(value):
        value = int(value)
    comments = [choice.get("$comment") for choice in (key, *key.get("anyOf", ()))]
    for kind, units in _UNITS.items():
        if kind in comments and isinstance(value, int | float):
            return f"`{_in_units(value, units)}`"
    return f"`{value}`" if isinstance(value, str) else f"`{json.dumps(value)}`"


def _in_units(value: float, units: tuple[tuple[int, str], ...]) -> str:
    return next((f"{value / size:g}{unit}" for size, unit in units if value % size == 0), f"{value:g}")


if __name__ == "__main__":
    sys.stdout.write(reference_text())
