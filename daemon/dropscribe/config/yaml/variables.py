"""``${NAME}`` and ``${NAME:-default}`` in a value that has been parsed already.

Never in the text: a variable's value can therefore add no key, no line and no type.

Guarantees: pure; what is put in is not looked at again.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

_REFERENCE = re.compile(r"\$\$\{|\$\{([^}]*)(\}?)")
_INSIDE = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)(?::-(.*))?", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Substituted:
    """A value with its variables put in.

    Attributes:
        names: The variables that were asked for, in order.
        unset: Those of them that are not set and have no default.
        is_malformed: A reference is none, such as "${2}" or one without its "}".
    """

    text: str
    names: tuple[str, ...] = ()
    unset: tuple[str, ...] = ()
    is_malformed: bool = False


def substitute(text: str, environ: Mapping[str, str]) -> Substituted:
    """Put the variables of *environ* into *text*; ``$${`` stands for a literal ``${``.

    As in a shell, ``:-`` gives its default where the variable is unset or empty.
    """
    names: list[str] = []
    unset: list[str] = []
    malformed = False

    def value_of(found: re.Match[str]) -> str:
        nonlocal malformed
        if found[1] is None:
            return "${"
        inside = _INSIDE.fullmatch(found[1]) if found[2] else None
        if inside is None:
            malformed = True
            return found[0]
        name, default = inside[1], inside[2]
        names.append(name)
        if default is not None:
            return environ.get(name) or default
        if name not in environ:
            unset.append(name)
        return environ.get(name, "")

    replaced = _REFERENCE.sub(value_of, text)
    return Substituted(replaced, tuple(names), tuple(unset), malformed)
