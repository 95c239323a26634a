"""Definition of a config key: a dataclass field with its description, notation and default.

Each key is defined once, with :func:`key`; checks, JSON Schema, reference and example come from that.
"""

from __future__ import annotations

import dataclasses
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, get_type_hints

from dropscribe.config.notation.field_types import FieldType, type_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dropscribe.config.document import Path
    from dropscribe.config.reading import Reader, SectionRead

_KEYS: dict[type[Any], dict[str, Key]] = {}
_UNITS = ("_seconds", "_bytes", "_dbfs")
REQUIRED: Any = dataclasses.MISSING


@dataclasses.dataclass(frozen=True, slots=True)
class Key:
    """One key of the file."""

    name: str  # as the file has it; by default the field's name without its unit
    attribute: str  # the field's name
    description: str  # full sentences; the example has the first one only
    type: Any  # its FieldType; by default the one that the field's annotation stands for (:func:`type_of`)
    default: Any  # REQUIRED where the file must have the key
    # Keys that give the same value in another way, by the ending of their name ("_file"), with their
    # description.
    also: Mapping[str, str]
    example: str | None  # the value in the example; None for the default

    @property
    def names(self) -> list[str]:
        """The names of the key and of its variants in `also`."""
        return [self.name, *(self.name + ending for ending in self.also)]


def key(  # noqa: PLR0913 - the facts of a key
    description: str,
    type_: FieldType | None = None,
    *,
    default: Any = None,
    name: str = "",
    also: Mapping[str, str] = MappingProxyType({}),
    example: str | None = None,
    is_shown: bool = True,
) -> Any:
    """A dataclass field that is a key of the file, with the facts of :class:`Key`.

    *is_shown* is False for a value that the section's ``repr`` leaves out.
    """
    about = Key(name, "", description, type_, default, also, example)
    given: dict[str, Any] = (
        {"default_factory": lambda: default} if isinstance(default, dict) else {"default": default}
    )
    return dataclasses.field(**given, repr=is_shown, metadata={"key": about})


def keys_of(section: type[Any]) -> dict[str, Key]:
    """The keys of *section* by their name in the file."""
    if section in _KEYS:
        return _KEYS[section]
    annotations = get_type_hints(section)
    found = _KEYS[section] = {}
    for field in dataclasses.fields(section):
        about: Key | None = field.metadata.get("key")
        if about is not None:
            name = about.name or key_name(field.name)
            kind = about.type or type_of(annotations[field.name])
            found[name] = dataclasses.replace(about, name=name, attribute=field.name, type=kind)
    return found


def key_name(attribute: str) -> str:
    """*attribute* without its unit."""
    for unit in _UNITS:
        attribute = attribute.removesuffix(unit)
    return attribute


class Section:
    """Base class of the sections: dataclasses with one field per key."""

    __slots__ = ()

    @classmethod
    def keys_for(cls, path: Path, data: object, reader: Reader) -> Mapping[str, Key] | None:  # noqa: ARG003
        """The keys that are valid for the *data* at *path*; None if the data is refused, and reported."""
        return keys_of(cls)

    @classmethod
    def build(cls, read: SectionRead) -> Any:
        """The value of the section, or MISSING if it is refused, and reported."""
        return cls(**read.values)
