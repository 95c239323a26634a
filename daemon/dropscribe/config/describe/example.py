"""The commented example that ``init`` writes, also config.example.yaml; generated from the keys."""

from __future__ import annotations

import dataclasses
import re
import textwrap
from collections.abc import Iterator, Mapping
from typing import Any

from dropscribe.config.keys import REQUIRED, Key, keys_of
from dropscribe.config.model import Config, FolderRule
from dropscribe.config.sections.provider import keys_of_type
from dropscribe.config.sections.provider_types import PROVIDER_TYPES, SPECIAL_KEYS

_HEAD = """\
# dropscribe's config. Valid as it stands: the embedded engine transcribes what is dropped into inbox/.
# Every key is here: '##' explains the next line; behind '#' stand the defaults, or examples if there is none.
# Relative paths begin at this file's folder. Durations: 500ms 30s 5m 2h 3d, or seconds. Sizes: 25MB 25MiB.
# ${NAME} is an environment variable, ${NAME:-default} gives a default. 'dropscribe check' names mistakes.
"""
_HEAD_WITHOUT_ENGINE = (
    "Valid as it stands: the embedded engine transcribes what is dropped into inbox/.",
    "It needs the provider's key; then what is dropped into inbox/ is transcribed.",
)
_UNITS = {"duration": ((86400, "d"), (3600, "h"), (60, "m"), (1, "s")), "size": ((10**6, "MB"),)}
_WIDTH = 110
_COMMENT_COLUMN = 34


def example_text(provider: str = "local") -> str:
    """The whole text; only the provider of type *provider* is not commented out."""
    head = _HEAD if provider == "local" else _HEAD.replace(*_HEAD_WITHOUT_ENGINE)
    return "\n".join([head, *_lines(provider)]) + "\n"


def written_value(value: Any, word: str = "") -> str:
    """*value* as the file has it, a duration or size with its unit; *word* is its type's."""
    for kind, units in _UNITS.items():
        if word.endswith(kind) and isinstance(value, int | float) and not isinstance(value, bool):
            whole = (f"{value / size:g}{unit}" for size, unit in units if value and value % size == 0)
            return next(whole, f"{value:g}")
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mapping):
        return ", ".join(f"{name}: {written_value(item)}" for name, item in value.items())
    if isinstance(value, tuple):
        return f"[{', '.join(map(str, value))}]"
    unit = "dBFS" if word == "decibels" else ""
    return f"{value:g}{unit}" if isinstance(value, float) else str(value)


def _lines(provider: str) -> Iterator[str]:
    top = keys_of(Config)
    yield _line("", "state_dir: state", top["state_dir"].description)
    yield from ("", "providers:")
    for number, kind in enumerate([provider, *(kind for kind in PROVIDER_TYPES if kind != provider)]):
        yield from _provider(kind, is_first=number == 0)
    yield from ("", "folders:", _line("  ", "recordings:", "A folder rule, with a name of your own."))
    active = ("inbox", "done", "failed", "provider")
    for name, about in keys_of(FolderRule).items():
        known = dataclasses.replace(about, example=provider) if name == "provider" else about
        yield from _key(name, known, "    " if name in active else "    # ")
    yield ""
    for name, about in top.items():
        if name in {"state_dir", "providers", "folders"}:
            continue
        yield from (
            _section(name, about) if about.default is None and about.type.section else _key(name, about, "# ")
        )


def _provider(kind: str, *, is_first: bool) -> Iterator[str]:
    """One provider; only the first is not commented out, only pulse shows the keys of all online types."""
    mark = "    " if is_first else "  #   "
    yield _line(mark[:-2], f"{kind}:", "A provider, with a name of your own.")
    yield _line(mark, f"type: {kind}", PROVIDER_TYPES[kind].words)
    facts = PROVIDER_TYPES[kind]
    needed = {group[0] for group in facts.needs}
    for name, about in keys_of_type(kind).items():
        if name == "type" or (name == "api_key" and not facts.key_variable):
            continue
        if name == "api_key":
            yield _line(mark, f"api_key: ${{{facts.key_variable}}}", about.description)
            if kind == "pulse":
                yield from _others(name, about, f"{mark}# ")
        elif name in {"url", "params"} and kind == "openai":
            value = {"url": "http://127.0.0.1:8000/v1", "params": "{model: whisper-1}"}[name]
            yield _line(f"{mark}# " if name == "url" else mark, f"{name}: {value}", about.description)
        elif name in SPECIAL_KEYS and about.type.section is not None:
            inside = mark if name in needed else f"{mark}# "
            yield _line(inside, f"{name}:", about.description)
            for inner, key in keys_of(about.type.section).items():
                yield from _key(inner, key, f"{inside}  ")
        elif name in needed:
            value = {"url": "http://127.0.0.1:9000"}.get(name, str(about.example))
            yield _line(mark, f"{name}: {value}", about.description)
        elif (
            kind == "pulse"
            or (name in SPECIAL_KEYS and name != "url")
            or (is_first and name == "concurrency")
        ):
            default = facts.defaults.get(about.attribute, about.default)
            yield from _key(name, dataclasses.replace(about, default=default), f"{mark}# ")


def _section(name: str, about: Key) -> Iterator[str]:
    """A section that is commented out."""
    yield _line("# ", f"{name}:", about.description)
    for inner, key in keys_of(about.type.section or type).items():
        is_needed = key.default is REQUIRED or (name, inner) in {("queue", "dsn"), ("queue", "roots")}
        mark = "#   " if is_needed or key.default is not None else "#   # "
        if key.type.section is not None and key.default is None:
            yield _line("#   ", f"{inner}:", key.description)
            for each, about_inner in keys_of(key.type.section).items():
                yield from _key(each, about_inner, "#     ")
        else:
            yield from _key(inner, key, mark)


def _key(name: str, about: Key, mark: str) -> Iterator[str]:
    if about.example is not None:
        value = about.example
    elif about.type.section is not None and dataclasses.is_dataclass(about.default):
        inner = keys_of(about.type.section).items()
        value = f"{{{', '.join(f'{each}: {written_value(k.default, k.type.word)}' for each, k in inner)}}}"
    elif about.default is None:
        value = about.type.none_word
    else:
        value = written_value(about.default, about.type.word)
    yield _line(mark, f"{name}: {value}", about.description)
    yield from _others(name, about, mark if mark.endswith("# ") else f"{mark}# ")


def _others(name: str, about: Key, mark: str) -> Iterator[str]:
    for ending, description in about.also.items():
        yield _line(mark, f"{name}{ending}: {name}{'.txt' if ending == '_file' else ''}", description)


def _line(mark: str, text: str, description: str) -> str:
    """*mark* and *text* with the first sentence of *description* behind it, or above if that is too long."""
    sentence = re.split(r"(?<=\.)\s", description)[0].rstrip(".").replace("`", "")
    line = f"{(mark + text).ljust(_COMMENT_COLUMN)} # {sentence}"
    if len(line) <= _WIDTH:
        return line
    above = mark.removesuffix("# ") + "## "
    words = textwrap.wrap(sentence, _WIDTH, initial_indent=above, subsequent_indent=above)
    return "\n".join([*words, mark + text])
