"""Extracts code blocks and sections from the documentation, to run and compare them."""

from __future__ import annotations

import re

_BLOCK = re.compile(r"^```(\S*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(text: str, kind: str) -> list[str]:
    """The fenced blocks of one kind, in order."""
    return [content for found, content in _BLOCK.findall(text) if found == kind]


def section(text: str, heading: str) -> str:
    """The text below the line *heading*, up to the next heading of its kind."""
    mark = heading.partition(" ")[0]
    return text.partition(f"\n{heading}\n")[2].partition(f"\n{mark} ")[0]


def commands(block: str, prompt: str = "#") -> str:
    """The commands of a console block, without prompts and remarks."""
    lines = [line.removeprefix(f"{prompt} ") for line in block.splitlines() if line.startswith(f"{prompt} ")]
    return "\n".join(re.sub(r"\s{2,}# .*$", "", line) for line in lines)
