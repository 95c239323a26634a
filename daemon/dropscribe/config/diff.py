"""Changes of a reload, for the log: names of rules, providers and keys, never their values."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Literal

from dropscribe.config.keys import key_name, keys_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dropscribe.config.model import Config


@dataclass(frozen=True, slots=True)
class Change:
    """One difference between two configs.

    Attributes:
        section: "providers", "folders", or a section or key of the top level.
        name: The provider's or rule's name, else "".
        keys: For "changed": the keys as the file calls them.
    """

    section: str
    name: str
    what: Literal["added", "removed", "changed"]
    keys: tuple[str, ...] = ()

    def __str__(self) -> str:
        where = f"{self.section}.{self.name}" if self.name else self.section
        return f"{where} {self.what}: {', '.join(self.keys)}" if self.keys else f"{where} {self.what}"


def diff_configs(old: Config, new: Config) -> tuple[Change, ...]:
    """All that differs from *old* to *new*, in the order of the file; () where nothing does."""
    return tuple(_changes(old, new))


def _changes(old: Config, new: Config) -> Iterator[Change]:
    for name, key in keys_of(type(old)).items():
        before, after = getattr(old, key.attribute), getattr(new, key.attribute)
        if name in {"providers", "folders"}:
            for each in dict.fromkeys([*before, *after]):
                yield from _change_of(name, each, before.get(each), after.get(each))
        elif key.type.section is not None:
            yield from _change_of(name, "", before, after)
        elif before != after:
            yield Change(name, "", "changed")


def _change_of(section: str, name: str, old: Any, new: Any) -> Iterator[Change]:
    if old is None and new is not None:
        yield Change(section, name, "added")
    elif new is None and old is not None:
        yield Change(section, name, "removed")
    elif old != new:
        changed = {
            _KEYS_OF_ATTRIBUTES.get(field.name, key_name(field.name)): None
            for field in fields(old)
            if field.compare and getattr(old, field.name) != getattr(new, field.name)
        }
        yield Change(section, name, "changed", tuple(changed))


_KEYS_OF_ATTRIBUTES = {
    "providers": "provider",
    "settle_ignores_writers": "settle",
    "host": "listen",
    "port": "listen",
    "socket": "listen",
}
