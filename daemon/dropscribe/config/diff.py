"""What a reload changes, for the log: names of rules, providers and keys, never their values."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from dropscribe.config.model import Config

_SECTIONS = ("queue", "retry", "hold", "log", "http", "metrics", "heartbeat", "hooks", "notify")
_KEYS = {"providers": "provider", "settle_ignores_writers": "settle"}
_UNITS = ("_seconds", "_bytes", "_dbfs")


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
    if old.state_dir != new.state_dir:
        yield Change("state_dir", "", "changed")
    yield from _changes_of_named("providers", old.providers, new.providers)
    yield from _changes_of_named("folders", old.folders, new.folders)
    for attribute in (
        "time_zone",
        "ledger_keep_seconds",
        "history_keep_seconds",
        "search",
        "shutdown_grace_seconds",
    ):
        if getattr(old, attribute) != getattr(new, attribute):
            yield Change(_key_of(attribute), "", "changed")
    for section in _SECTIONS:
        yield from _change_of(section, "", getattr(old, section), getattr(new, section))


def _changes_of_named(section: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[Change]:
    for name in dict.fromkeys([*old, *new]):
        yield from _change_of(section, name, old.get(name), new.get(name))


def _change_of(section: str, name: str, old: Any, new: Any) -> Iterator[Change]:
    if old is None and new is not None:
        yield Change(section, name, "added")
    elif new is None and old is not None:
        yield Change(section, name, "removed")
    elif old != new:
        yield Change(section, name, "changed", tuple(_changed_keys(old, new)))


def _changed_keys(old: Any, new: Any) -> Iterator[str]:
    for field in fields(old):
        if field.compare and getattr(old, field.name) != getattr(new, field.name):
            yield _key_of(field.name)


def _key_of(attribute: str) -> str:
    for unit in _UNITS:
        attribute = attribute.removesuffix(unit)
    return _KEYS.get(attribute, attribute)
