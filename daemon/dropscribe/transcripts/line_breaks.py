"""Finds the places where a line of text may be broken. Pure.

Lines break at spaces; in Chinese and Japanese, which are written without them, between any two characters,
except that no line begins with closing punctuation or a small kana and none ends with an opening bracket
(W3C, Requirements for Japanese Text Layout, 3.1.7 and 3.1.8). Thai, Lao, Khmer and Burmese would need a
dictionary: they break at the spaces between their phrases.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import pairwise
from typing import NamedTuple

# CJK radicals, punctuation and kana; ideographs; full and half widths.
_WIDE = "\u2e80-\u312f\u31a0-\u9fff\uf900-\ufaff\uff00-\uffef\U00020000-\U0003ffff"
_OPENING = r"「『（［｛〈《【〔〖｢“‘(\["  # noqa: RUF001 - these are the full-width marks
_CLOSING = (
    r"」』）］｝〉》】〕〗｣”’)\]、。，．！？：；､｡・･…‥—〜～ー々〻゛゜ゝゞヽヾ％%,.!?:;"  # noqa: RUF001
    "ぁぃぅぇぉっゃゅょゎゕゖァィゥェォッャュョヮヵヶㇰ-ㇿｧ-ｯｰﾞﾟ"
    "\u3099\u309a\ufe00-\ufe0f\U000e0100-\U000e01ef"  # combining marks and variation selectors
)
_BREAK = re.compile(
    rf" |(?<=[{_WIDE}])(?<![{_OPENING}])(?=[^ {_CLOSING}])|(?<=[^ {_OPENING}])(?=[{_WIDE}])(?![{_CLOSING}])"
)
_WITHOUT_SPACE = re.compile(rf"[{_WIDE}]{{2}}")


class Piece(NamedTuple):
    """A part of a text that stays on one line."""

    joint: str  # the text before it where it does not begin a line: a space or nothing
    text: str


def pieces_of(text: str, before: str = "") -> list[Piece]:
    """*text*, one line with single spaces, in its pieces; *before* is the text that it follows."""
    pieces, start = [], 0
    joint = joint_of(before, text)
    for match in _BREAK.finditer(text):
        pieces.append(Piece(joint, text[start : match.start()]))
        start, joint = match.end(), match.group()
    return [*pieces, Piece(joint, text[start:])]


def joined(texts: Iterable[str]) -> str:
    """*texts*, which are stripped and not empty, as one, with spaces where their script has them."""
    pairs = pairwise(["", *texts])
    return "".join(joint_of(before, text) + text for before, text in pairs).removeprefix(" ")


def joint_of(before: str, text: str) -> str:
    """What their script has between two texts that follow each other: a space or nothing."""
    return "" if _WITHOUT_SPACE.fullmatch(before[-1:] + text[:1]) else " "


def wrapped(text: str, width: int) -> list[str]:
    """*text* in lines of at most *width* characters; a longer piece stays whole."""
    lines: list[str] = []
    for joint, piece in pieces_of(text):
        if lines and len(lines[-1]) + len(joint) + len(piece) <= width:
            lines[-1] += joint + piece
        else:
            lines.append(piece)
    return lines
