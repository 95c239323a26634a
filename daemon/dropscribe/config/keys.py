"""Definition of config keys, and the reading of sections by it.

Each key is defined once, as a field of a dataclass (:func:`key`) with its description, notation and default;
checks, JSON Schema, reference and example come from that.

Guarantees: one mistake hides no other: a refused value is reported and left out, and reading goes on.
"""

from __future__ import annotations

import dataclasses
import re
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, get_type_hints

from dropscribe.config.credentials import find_named
from dropscribe.config.disk_reads import read_small_text
from dropscribe.config.document import SectionPlace
from dropscribe.config.notation.field_types import PATH, SECRET, FieldType, type_of
from dropscribe.core.text.printing import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dropscribe.config.document import Document, KeyPath
    from dropscribe.config.sections.provider import ProviderConfig

REQUIRED: Any = dataclasses.MISSING  # the default of a key that the file must have
MISSING: Any = object()  # in place of a value that is missing, or that was refused and reported
_COMMON_PARAMS = ("language", "model", "diarize", "prompt", "temperature", "word_timestamps")
"""Request parameters that people look for one level too high."""

_LONGEST_VOCABULARY_BYTES = 100_000
_MOST_HINTS = 100  # limit of guesses: each takes a millisecond, and a file may have thousands of unknown keys
_KEYS: dict[type[Any], dict[str, Key]] = {}


@dataclasses.dataclass(frozen=True, slots=True)
class Key:
    """One key of the file."""

    description: str  # full sentences; the example has the first one only
    type: Any  # its FieldType; by default the one that the field's annotation stands for (:func:`type_of`)
    default: Any
    # Keys that give the same value in another way, by the ending of their name ("_file"), with their
    # description.
    also: Mapping[str, str]
    example: str | None  # the value in the example; None for the default
    name: str  # as the file has it; by default the field's name without its unit
    attribute: str = ""  # the field's name

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
    about = Key(description, type_, default, also, example, name)
    given: dict[str, Any] = (
        {"default_factory": lambda: default} if isinstance(default, dict) else {"default": default}
    )
    return dataclasses.field(**given, repr=is_shown, metadata={"key": about})


def keys_of(section: type[Any]) -> dict[str, Key]:
    """The keys of *section* by their name in the file."""
    if section not in _KEYS:
        annotations = get_type_hints(section)
        found = _KEYS[section] = {}
        for field in dataclasses.fields(section):
            about: Key | None = field.metadata.get("key")
            if about is not None:
                name = about.name or re.sub(r"_(seconds|bytes|dbfs)$", "", field.name)
                kind = about.type or type_of(annotations[field.name])
                found[name] = dataclasses.replace(about, name=name, attribute=field.name, type=kind)
    return _KEYS[section]


class Section:
    """Base class of the sections: dataclasses with one field per key."""

    __slots__ = ()

    @classmethod
    def keys_for(cls, path: KeyPath, data: object, reader: Reader) -> Mapping[str, Key]:  # noqa: ARG003
        """The keys that are valid for the *data* at *path*."""
        return keys_of(cls)

    @classmethod
    def build(cls, read: SectionRead) -> Any:
        """The value of the section, or MISSING if it is refused, and reported."""
        return cls(**read.values)


@dataclasses.dataclass(frozen=True, slots=True)
class SectionRead(SectionPlace):
    """A section after its keys have been read."""

    data: Any  # the section's raw value in the file
    values: dict[str, Any]  # the values of its keys that are present and valid, by attribute
    reader: Reader  # the reader of the document


class Reader:
    """Reads the sections of one document."""

    def __init__(self, document: Document) -> None:
        self.document = document
        # Rules come after providers: sections are read in the order of the fields of Config.
        self.providers: dict[str, ProviderConfig] = {}

    def section(self, path: KeyPath, data: object, keys: Mapping[str, Key]) -> dict[str, Any] | None:
        """The values of *keys* in *data*, the value at *path*, that are given and right, by attribute.

        None where it is no mapping, or a key that it must have is missing or refused.
        """
        if not isinstance(data, dict):
            self.document.refuse(path, data, "must be a mapping", "write its keys below it, indented")
            return None
        names = {name for each in keys.values() for name in each.names}
        for name in data:
            if name not in names:
                hint = "" if len(self.document.problems) > _MOST_HINTS else _unknown_key_hint(name, names)
                self.document.report((*path, name), f"unknown key '{name}'", hint, on_key=True)
        found = {each.attribute: self._key(path, data, each) for each in keys.values()}
        if any(found[each.attribute] is MISSING for each in keys.values() if each.default is REQUIRED):
            return None
        return {name: value for name, value in found.items() if value is not MISSING}

    def value(self, kind: FieldType, path: KeyPath, value: object) -> Any:
        """*value* as *kind* reads it, or MISSING where it was refused."""
        if kind.section is not None:
            keys = kind.section.keys_for(path, value, self)
            if (found := self.section(path, value, keys)) is None:
                return MISSING
            return kind.section.build(SectionRead(self.document, path, value, found, self))
        if kind.item is not None and kind.name is not None:
            return self._mapping(kind.name, kind.item, path, value)
        if kind.item is not None:
            return self._list(kind, kind.item, path, value)
        try:
            parsed = kind.parse(value)
        except ValueError as error:
            self.document.refuse(path, value, *error.args)
            return MISSING
        return self.document.absolute(parsed) if kind.is_path else parsed

    def _key(self, path: KeyPath, data: Mapping[str, Any], about: Key) -> Any:
        if about.type is SECRET:
            given = {name: data[name] for name in about.names if data.get(name) is not None}
            secret = find_named(given, about.name, path, self.document)
            return MISSING if secret is None else secret
        if about.also:
            return self._words_and_file(path, data, about)
        here = (*path, about.name)
        if about.name not in data:
            if about.default is REQUIRED and not self.document.has_problem_below(here):
                message = f"the key '{about.name}' is missing"
                self.document.report(path, message, about.description, on_key=True)
            return MISSING
        value = data[about.name]
        if value is None and about.default in (None, (), {}) and not about.type.none_word:
            return MISSING
        return self.value(about.type, here, value)

    def _words_and_file(self, path: KeyPath, data: Mapping[str, Any], about: Key) -> Any:
        """The written words and those in a file, one on each line."""
        of_words, of_file = about.names
        words, file = data.get(of_words), data.get(of_file)
        found = () if words is None else self.value(about.type, (*path, of_words), words)
        if found is MISSING or (words is None and file is None):
            return MISSING
        where = MISSING if file is None else self.value(PATH, (*path, of_file), file)
        if where is MISSING:
            return found
        try:
            text = read_small_text(where, _LONGEST_VOCABULARY_BYTES)
        except OSError as error:
            self.document.report((*path, of_file), f"{where} cannot be read: {error.strerror}")
            return found
        lines = (line.strip() for line in text.splitlines())
        return tuple(dict.fromkeys([*found, *(line for line in lines if line and not line.startswith("#"))]))

    def _list(self, kind: FieldType, of: FieldType, path: KeyPath, value: object) -> Any:
        if kind.is_argv and not isinstance(value, list):
            hint = "write [/usr/bin/program, argument]; no shell is used"
            self.document.refuse(path, value, "is not a list of arguments", hint)
            return MISSING
        items = value if isinstance(value, list) else [value]
        if len(items) < kind.least:
            self.document.report(path, f"{self.document.shown(path, value)} must not be empty")
            return MISSING
        found = [self.value(of, (*path, n) if items is value else path, item) for n, item in enumerate(items)]
        if any(item is MISSING for item in found):
            return MISSING
        return tuple(found if kind.is_argv else dict.fromkeys(found))

    def _mapping(self, names: FieldType, of: FieldType, path: KeyPath, value: object) -> Any:
        if not isinstance(value, dict):
            hint = "write names with their values below it, indented"
            self.document.refuse(path, value, "must be a mapping", hint)
            return MISSING
        found = {}
        for name, item in value.items():
            here = (*path, name)
            read = self.value(of, here, {} if item is None and of.section else item)
            try:
                names.parse(name)
            except ValueError as error:
                self.document.report(here, f"'{name}' {error.args[0]}", error.args[1], on_key=True)
                continue
            if read is not MISSING:
                found[name] = read
        return found


def _unknown_key_hint(name: str, known: set[str]) -> str:
    hint = did_you_mean(name, known)
    if "params" in known and name in _COMMON_PARAMS:
        return f"that goes into params: {{{name}: …}}"
    parameter = did_you_mean(name, _COMMON_PARAMS) if "params" in known else ""
    if parameter.startswith("did") and not hint.startswith("did"):
        return f"{parameter} That goes into params"
    return hint
