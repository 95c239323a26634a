"""Plain data → :class:`FileKeys`, with every refusal of pydantic in our words and at its place.

What is refused is taken out and the rest validated again, so that one mistake hides no other: the checks
between the sections (``checks.py``) then run on all that is right.
"""

from __future__ import annotations

import itertools
import re
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from dropscribe.config.errors import did_you_mean
from dropscribe.config.keys import PROVIDER_TYPES, BudgetKeys, FileKeys, FolderKeys
from dropscribe.config.section import Keys

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

    from dropscribe.config.yaml_document import Document, Path

_COMMON_PARAMS = ("language", "model", "diarize", "prompt", "temperature", "word_timestamps")
"""Request parameters that people look for one level too high."""

_ROUNDS = 6
"""More than refusals can follow from one another: a leaf, its section, its parent's section."""


def validate(document: Document) -> FileKeys:
    """The file's keys; what is wrong with them is reported to *document* and left out of the answer."""
    data = _without_empty_sections(document.data)
    for _ in range(_ROUNDS):
        try:
            return FileKeys.model_validate(data)
        except ValidationError as refused:
            errors = refused.errors(include_url=False)
        for error in errors:
            path = _path_of(error["loc"])
            _report(document, path, error)
            _take_out(data, path[:-1] if error["type"] == "missing" else path)
    return FileKeys()


def _without_empty_sections(data: dict[str, Any]) -> dict[str, Any]:
    """A copy that may be pruned; a section with all its keys commented out counts as not there."""
    kept = {name: value for name, value in data.items() if value is not None}
    for section in ("providers", "folders"):
        if isinstance(kept.get(section), dict):
            kept[section] = {name: {} if body is None else body for name, body in kept[section].items()}
    return {name: _copied(value) for name, value in kept.items()}


def _copied(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _copied(item) for name, item in value.items()}
    return [_copied(item) for item in value] if isinstance(value, list) else value


def _path_of(place: tuple[int | str, ...]) -> Path:
    """The place without what pydantic adds to it: a provider's type behind its name, "[key]" behind a key."""
    path = tuple(part for part in place if part != "[key]")
    if path[:1] == ("providers",) and len(path) > 2 and path[2] in PROVIDER_TYPES:
        return path[:2] + path[3:]
    return path


def _take_out(data: dict[str, Any], path: Path) -> None:
    """Remove the value at *path*; of a list all, for its other items would change their numbers."""
    path = tuple(itertools.takewhile(lambda part: isinstance(part, str), path))
    for part in map(str, path[:-1]):
        data = data.get(part, {})
    if path:
        data.pop(str(path[-1]), None)


def _report(document: Document, path: Path, error: ErrorDetails) -> None:
    kind = error["type"]
    if document.has_problem(path):
        return
    if kind == "missing":
        if not document.has_problem_below(path[:-1] if path[-1] == "type" else path):
            document.report(path[:-1], f"the key '{path[-1]}' is missing", _about(path), on_key=True)
    elif kind == "extra_forbidden":
        hint = _unknown_key_hint(str(path[-1]), _keys_at(document, path))
        document.report(path, f"unknown key '{path[-1]}'", hint, on_key=True)
    elif kind == "union_tag_not_found":
        document.report(path, "the key 'type' is missing", f"one of {', '.join(PROVIDER_TYPES)}", on_key=True)
    elif kind == "union_tag_invalid":
        _report_choice(document, (*path, "type"), error["input"].get("type"), list(PROVIDER_TYPES))
    elif kind == "literal_error":
        _report_choice(document, path, error["input"], re.findall(r"'([^']+)'", error["ctx"]["expected"]))
    else:
        said, hint = _words(error)
        document.report(
            path, f"{document.shown(path, error['input'])} {said}", hint, on_key=error["loc"][-1] == "[key]"
        )


def _unknown_key_hint(name: str, known: list[str]) -> str:
    hint = did_you_mean(name, known)
    parameter = did_you_mean(name, _COMMON_PARAMS) if "params" in known else ""
    if parameter.startswith("did") and not hint.startswith("did"):
        return f"{parameter} That goes into params"
    return hint


def _report_choice(document: Document, path: Path, value: object, choices: list[str]) -> None:
    message = f"{document.shown(path, value)} is not one of {', '.join(choices)}"
    hint = did_you_mean(str(value), choices)
    document.report(path, message, hint if hint.startswith("did") else "")


def _words(error: ErrorDetails) -> tuple[str, str]:
    if error["type"] == "value_error":
        said, hint = error["ctx"]["error"].args
        return said, hint
    if error["type"] in {"dict_type", "model_type", "model_attributes_type"}:
        return "must be a mapping", "write its keys below it, indented"
    if error["type"] == "too_short":
        return "must not be empty", ""
    return f"is refused: {error['msg'].lower()}", ""


def _about(path: Path) -> str:
    """What the missing key is for, from its description."""
    field = _section_at(path).model_fields.get(str(path[-1]))
    return field.description or "" if field else ""


def _keys_at(document: Document, path: Path) -> list[str]:
    if path[:1] == ("providers",) and len(path) == 3:
        kind = document.data["providers"][path[1]].get("type")
        return (
            list(PROVIDER_TYPES[kind].model_fields)
            if isinstance(kind, str) and kind in PROVIDER_TYPES
            else []
        )
    return list(_section_at(path).model_fields)


def _section_at(path: Path) -> type[Keys]:
    if path[-2] == "budget" if len(path) > 2 else False:
        return BudgetKeys
    if path[0] == "folders" and len(path) > 1:
        return FolderKeys
    if len(path) == 1:
        return FileKeys
    keys: type[Keys] = FileKeys
    for part in path[:-1]:
        field = keys.model_fields.get(str(part))
        section = field.annotation if field else None
        kinds = [section, *getattr(section, "__args__", ())]
        keys = next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, Keys)), keys)
    return keys
