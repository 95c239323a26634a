"""Definition of a config key: a dataclass field with its notation, description and default.

Each key is defined once, with :func:`key`; checks, JSON Schema, reference and example come from that.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dropscribe.config.notation.field_types import FieldType
    from dropscribe.config.reading import Reader, SectionRead
    from dropscribe.config.yaml.document import Path

T = TypeVar("T")

_KEYS: dict[type[Any], dict[str, Key]] = {}
_UNITS = ("_seconds", "_bytes", "_dbfs")
REQUIRED: Any = dataclasses.MISSING


@dataclass(frozen=True, slots=True)
class Key:
    """One key of the file.

    Attributes:
        name: As the file has it.
        attribute: The field's name, with its unit.
        description: Full sentences; the example has the first one only.
        default: REQUIRED where the file must have the key.
        also: Keys that give the same value in another way, by the ending of their name ("_file"), with
            their description.
        example: The value in the example; None for the default.
    """

    name: str
    attribute: str
    type: FieldType[Any]
    description: str
    default: Any
    also: Mapping[str, str]
    example: str | None

    @property
    def names(self) -> list[str]:
        """The names of the key and of its variants in `also`."""
        return [self.name, *(self.name + ending for ending in self.also)]


def key(  # noqa: PLR0913 - the facts of a key
    type_: FieldType[T],
    description: str,
    *,
    default: T = REQUIRED,
    name: str = "",
    also: Mapping[str, str] | None = None,
    example: str | None = None,
    is_shown: bool = True,
) -> T:
    """A dataclass field that is a key of the file.

    Args:
        name: Default: the field's name without its unit.
        is_shown: False keeps the value out of the section's ``repr``.
    """
    about = Key(name, "", type_, description, default, also or {}, example)
    made: Any
    if isinstance(default, dict):
        made = dataclasses.field(default_factory=lambda: default, repr=is_shown, metadata={"key": about})
    else:
        made = dataclasses.field(default=default, repr=is_shown, metadata={"key": about})
    found: T = made
    return found


def keys_of(section: type[Any]) -> dict[str, Key]:
    """The keys of *section* by their name in the file."""
    if section in _KEYS:
        return _KEYS[section]
    found = _KEYS[section] = {}
    for field in dataclasses.fields(section):
        about: Key | None = field.metadata.get("key")
        if about is not None:
            name = about.name or key_name(field.name)
            found[name] = dataclasses.replace(about, name=name, attribute=field.name)
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
