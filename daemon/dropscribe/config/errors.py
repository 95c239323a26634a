"""Formats problems of a config, with a guess at the intended name."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from dropscribe.core.errors import Problem


def format_problem(problem: Problem) -> str:
    """Format *problem* as ``file:line:column: message``, then the line and a caret with the hint.

    A problem without a place is one line, with its hint below it. A line break in a value is escaped.
    """
    message = f"{problem.path}: {problem.message}" if problem.path else problem.message
    if problem.warning:
        message = f"warning: {message}"
    if not problem.line:
        head = _one_line(f"{problem.file}: {message}" if problem.file else message)
        return f"{head}\n    {_one_line(problem.hint)}" if problem.hint else head
    head = _one_line(f"{problem.file}:{problem.line}:{problem.column}: {message}")
    margin = " " * 6
    caret = " " * (problem.column - 1) + "^" * max(problem.length, 1)
    source = problem.source_line.replace("\t", " ")
    return f"{head}\n{problem.line:6d} | {source}\n{margin} | {caret} {_one_line(problem.hint)}".rstrip()


def _one_line(text: str) -> str:
    return text.replace("\n", "\\n")


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A hint such as "did you mean 'language'?", or the known names if none is similar."""
    import difflib  # noqa: PLC0415  # for mistakes alone

    names = sorted(known)
    near = difflib.get_close_matches(word.lower(), names, n=1, cutoff=0.6)
    if near:
        return f"did you mean '{near[0]}'?"
    return f"known here: {', '.join(names)}" if names else ""
