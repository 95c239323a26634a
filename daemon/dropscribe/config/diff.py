"""Changes of a reload, for the log: names of rules, providers and keys, never their values."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any

from dropscribe.config.keys import key_name, keys_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dropscribe.config.model import Config

_KEYS_OF_ATTRIBUTES = {
    "providers": "provider",
    "settle_ignores_writers": "settle",
    "host": "listen",
    "port": "listen",
    "socket": "listen",
}


def diff_configs(old: Config, new: Config) -> list[str]:
    """All that differs from *old* to *new*, in the order of the file: "providers.p changed: api_key"."""
    return list(_changes(old, new))


def _changes(old: Config, new: Config) -> Iterator[str]:
    for name, key in keys_of(type(old)).items():
        before, after = getattr(old, key.attribute), getattr(new, key.attribute)
        if name in {"providers", "folders"}:
            for each in dict.fromkeys([*before, *after]):
                yield from _change_of(f"{name}.{each}", before.get(each), after.get(each))
        elif key.type.section is not None:
            yield from _change_of(name, before, after)
        elif before != after:
            yield f"{name} changed"


def _change_of(section: str, old: Any, new: Any) -> Iterator[str]:
    if old is None and new is not None:
        yield f"{section} added"
    elif new is None and old is not None:
        yield f"{section} removed"
    elif old != new:
        changed = dict.fromkeys(
            _KEYS_OF_ATTRIBUTES.get(field.name, key_name(field.name))
            for field in fields(old)
            if field.compare and getattr(old, field.name) != getattr(new, field.name)
        )
        yield f"{section} changed: {', '.join(changed)}"
