"""``${NAME}`` and ``${NAME:-default}`` in a value that has been parsed already.

Variables are never put into the text of the file, so that their values can add no key, line or type.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

_REFERENCE = re.compile(r"\$\$\{|\$\{([^}]*)(\}?)")
_INSIDE = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)(?::-(.*))?", re.DOTALL)


class Substituted(NamedTuple):
    """A value with its variables put in.

    Attributes:
        names: The variables that it refers to, in order.
        unset: Those of them that are not set and have no default.
        is_malformed: Whether something begins like a reference and is none: "${2}", or no "}".
    """

    text: str
    names: tuple[str, ...]
    unset: tuple[str, ...]
    is_malformed: bool


def substitute(text: str, environ: Mapping[str, str]) -> Substituted:
    """Put the variables of *environ* into *text*, once; ``$${`` stands for a literal ``${``.

    As in a shell, ``:-`` gives its default if the variable is unset or empty.
    """
    names: list[str] = []
    unset: list[str] = []
    malformed: list[str] = []

    def value_of(found: re.Match[str]) -> str:
        if found[1] is None:
            return "${"
        inside = _INSIDE.fullmatch(found[1]) if found[2] else None
        if inside is None:
            malformed.append(found[0])
            return found[0]
        name, default = inside[1], inside[2]
        names.append(name)
        if default is not None:
            return environ.get(name) or default
        if name not in environ:
            unset.append(name)
        return environ.get(name, "")

    replaced = _REFERENCE.sub(value_of, text)
    return Substituted(replaced, tuple(names), tuple(unset), bool(malformed))
