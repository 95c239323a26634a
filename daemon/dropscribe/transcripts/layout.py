"""The layout of text outputs that a folder rule asks for. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """The layout of subtitles and plain text, and the outputs by a template.

    Attributes:
        line_characters: The longest line of a subtitle; a longer word stays whole.
        cue_lines: The most lines of a subtitle.
        cue_seconds: The longest time that one subtitle is shown.
        paragraphs: Whether plain text has paragraphs with a blank line between them.
        texts: By format, the outputs that a template has made already.
    """

    line_characters: int = 42
    cue_lines: int = 2
    cue_seconds: float = 7.0
    paragraphs: bool = False
    texts: Mapping[str, str] = field(default_factory=dict)


DEFAULT_LAYOUT = Layout()
