"""Companions: files that belong to a recording by their names, as ``call.json`` to ``call.wav``. Pure.

A pattern has one placeholder: ``{stem}`` is the recording's name without its suffix, ``{name}`` all of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dropscribe.core.model import FileSnapshot

PLACEHOLDERS = ("{stem}", "{name}")


@dataclass(frozen=True, slots=True)
class Companion:
    """One companion of a recording, as it was when the recording's names were chosen.

    Attributes:
        pattern: As the file spells it.
        source: Its name beside the recording in the inbox.
        snapshot: Anything else at that name is another file.
        name: Its name in ``done`` or ``failed``; b"" before it is chosen.
    """

    pattern: bytes
    source: bytes
    snapshot: FileSnapshot
    name: bytes = b""


def spellings(pattern: str) -> tuple[bytes, ...]:
    """*pattern* as it is, and with its fixed text in lower and upper case: ``CALL.XML`` for ``CALL.WAV``."""
    before, placeholder, after = split_pattern(pattern)
    cased = ((before, after), (before.lower(), after.lower()), (before.upper(), after.upper()))
    texts = dict.fromkeys(start + placeholder + end for start, end in cased)
    return tuple(text.encode("utf-8", "surrogateescape") for text in texts)


def as_glob(pattern: str) -> str:
    """The glob that matches the companions of all recordings."""
    before, _, after = split_pattern(pattern)
    return f"{before}*{after}"


def split_pattern(pattern: str) -> tuple[str, str, str]:
    """(text before the placeholder, the placeholder, text after it)."""
    placeholder = next(each for each in PLACEHOLDERS if each in pattern)
    return pattern.partition(placeholder)
