"""The reference of the config's keys, from their definitions: ``python packaging/config_reference.py``.

It is docs/config.md and, as a man page, dropscribe.yaml.5. With the argument ``example`` it prints
config.example.yaml instead.
"""

# ruff: noqa: INP001  # a script, no package
from __future__ import annotations

import json
import sys
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "daemon"))

from dropscribe.config.describe import example_text, written_value  # found through the path above
from dropscribe.config.keys import REQUIRED, Key, keys_of
from dropscribe.config.model import Config, FolderRule
from dropscribe.config.sections.provider import ProviderConfig, keys_of_type
from dropscribe.config.sections.provider_types import PROVIDER_TYPES, SPECIAL_KEYS
from dropscribe.core.requests.params import FIXED_PARAMS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_REFERENCE_HEAD = """\
# The config, key by key

<!-- Made by `python packaging/config_reference.py > docs/config.md`; a test compares. -->

The format is YAML 1.2: `no` is a string; `22:30` is not a number. Where true or false is expected, `yes`,
`no`, `on` and `off` work too. Unknown and duplicate keys are errors; top-level keys that begin with `x-` are
ignored, so they can hold anchors. Relative paths begin at the config's folder, `~` is the home folder.
`dropscribe check` names every mistake with its line.

- **which file**: `-c`, else `$DROPSCRIBE_CONFIG`, else `./dropscribe.yaml` (only if it and its folder belong
  to you or to root and nobody else may write there), else `$XDG_CONFIG_HOME/dropscribe/config.yaml`
  (`~/.config/…`), else `/etc/dropscribe/config.yaml`
- **duration**: seconds, or `500ms`, `30s`, `5m`, `2h`, `3d`, `1h30m`
- **size**: bytes, or `25MB` (10⁶), `25MiB` (2²⁰), with K, M, G, T
- `${NAME}` in a value is the environment variable, and an unset one is an error; `${NAME:-default}` is the
  default if it is unset or empty; `$${` is a plain `${`. Inside `{…}` and `[…]` write it in quotes.
- a **key** (`api_key`) comes from the one of `api_key`, `api_key_file`, `api_key_credential` that is given;
  without them from the systemd credential `key_NAME` of the provider called NAME, and at the vendor's own
  url from the vendor's environment variable, which [providers.md](providers.md) names. It is never shown.
- the queue's **dsn** comes from the one of `dsn`, `dsn_file`, `dsn_credential` that is given, and is never
  shown either. libpq reads it: `sslmode`, `sslrootcert`, `target_session_attrs`, … are its own words.
"""
_NONE: Mapping[str, Any] = MappingProxyType({})
_VARYING = ("concurrency", "requests_per_minute", "timeout", "max_upload")
"""The keys of every type whose defaults differ between types."""
_BY_TYPE = object()


def reference_text() -> str:
    """The whole page."""
    return "\n".join([_REFERENCE_HEAD, *_pages()]) + "\n"


def _pages() -> Iterator[str]:
    yield from ("## Top level\n", *_table(keys_of(Config)), "\n## providers.NAME")
    special = {name: about for name, about in keys_of(ProviderConfig).items() if name in SPECIAL_KEYS}
    shared = keys_of_type("pulse")  # a type with no key of its own
    yield "\n### every type\n\n`local` has neither `url` nor a key.\n"
    yield from _table(shared, {shared[name].attribute: _BY_TYPE for name in _VARYING})
    for kind, facts in PROVIDER_TYPES.items():
        yield f"\n### type: {kind}\n\n{facts.words}\n"
        if facts.needs:
            choices = [" or ".join(f"`{name}`" for name in names) for names in facts.needs]
            yield f"Required: {', '.join(choices)}.\n"
        yield f"Defaults: {', '.join(_varying_defaults(shared, facts.defaults))}."
        if sent := FIXED_PARAMS.get(kind):
            yield f"\nSent unless `params` says otherwise: `{written_value(sent)}`."
        if own := {name: about for name, about in keys_of_type(kind).items() if name not in shared}:
            yield from ("", *_table(own, facts.defaults))
    yield from _section_pages("###", "providers.NAME.", special)
    yield from ("\n## folders.NAME\n", *_table(keys_of(FolderRule)))
    yield from _section_pages("##", "", keys_of(Config))


def _varying_defaults(keys: Mapping[str, Key], defaults: Mapping[str, Any]) -> Iterator[str]:
    for name in _VARYING:
        about = keys[name]
        default = _default(about, defaults.get(about.attribute, about.default))
        yield f"`{name}: {default[1:-1]}`"


def _section_pages(mark: str, above: str, keys: Mapping[str, Key]) -> Iterator[str]:
    """The pages of those *keys* that are sections, and of the sections in them."""
    for name, about in keys.items():
        if about.type.section is not None:
            inner = keys_of(about.type.section)
            yield from (f"\n{mark} {above}{name}\n\n{about.description}\n", *_table(inner))
            yield from _section_pages("###", f"{above}{name}.", inner)


def _table(keys: Mapping[str, Key], defaults: Mapping[str, Any] = _NONE) -> Iterator[str]:
    yield "| key | value | default | |\n|---|---|---|---|"
    for name, about in keys.items():
        default = defaults.get(about.attribute, about.default)
        word = "mapping" if about.type.section else about.type.word
        shown = "**required**" if default is REQUIRED else _default(about, default)
        yield f"| `{name}` | {word} | {shown} | {about.description} |"
        for ending, description in about.also.items():
            yield f"| `{name}{ending}` | text |  | {description} |"


def _default(about: Key, default: Any) -> str:
    if default is _BY_TYPE:
        return "by type"
    if about.type.section is not None or about.type.is_path:
        return ""
    if default is None:
        return f"`{about.type.none_word}`" if about.type.none_word else ""
    shown = json.dumps(default) if isinstance(default, tuple) else written_value(default, about.type.word)
    return f"`{shown}`" if default not in ((), {}, "") and len(shown) <= 60 else ""


if __name__ == "__main__":
    sys.stdout.write(example_text() if sys.argv[1:] == ["example"] else reference_text())
