"""A rule's template file: where it is, and the name of the output that it makes."""

from __future__ import annotations

import errno
from importlib.resources import files
from typing import TYPE_CHECKING

from dropscribe.config.disk_reads import read_small_file
from dropscribe.core.naming import OUTPUT_FORMATS

if TYPE_CHECKING:
    from pathlib import Path

    from jinja2.sandbox import SandboxedEnvironment

SHIPPED = ("minutes.txt.j2", "notes.md.j2", "plain.txt.j2")
"""Templates of the package, used if no file of that name is beside the config."""

LARGEST_BYTES = 256 * 1024
TEMPLATE_NAMES = ("transcript", "audio", "title", "paragraphs", "warnings")
"""The names that a template is rendered with."""

_FILTERS = ("clock", "markdown")  # its filters beside Jinja's own
_GUARDS = frozenset({"default", "d", "defined", "undefined"})
"""Jinja's filter and tests for names that may be missing."""

_SUFFIXES = (".j2", ".jinja", ".jinja2")


def read_template(path: Path) -> str:
    """The template's text.

    Raises:
        OSError: It cannot be read, or is no regular file.
        ValueError: It is not UTF-8, or too large.
    """
    if path.name in SHIPPED and not path.exists():
        return (files("dropscribe") / "templates" / path.name).read_text("utf-8")
    try:
        return read_small_file(path, LARGEST_BYTES)[0].decode()
    except OSError as error:
        if error.errno == errno.EFBIG:
            raise ValueError(f"it is larger than {LARGEST_BYTES} bytes") from None
        raise


def template_output(path: Path) -> str:
    """The ending of the output's name after the audio's stem: ``minutes.txt`` for ``minutes.txt.j2``."""
    suffix = next((suffix for suffix in _SUFFIXES if path.name.endswith(suffix)), "")
    return path.name.removesuffix(suffix)


def problem_of(path: Path) -> tuple[str, str] | None:
    """(message, hint) of a problem in a template; None if there is none."""
    from jinja2 import TemplateSyntaxError  # noqa: PLC0415  # for rules with a template alone

    if template_output(path) in {*OUTPUT_FORMATS, "error.json"} or not template_output(path).strip("."):
        return f"{path.name} would give the name of another output", "name it such as minutes.txt.j2"
    try:
        _environment().compile(read_template(path))
    except TemplateSyntaxError as error:
        return f"{path}, line {error.lineno}: {error.message}", ""
    except (RecursionError, MemoryError, SyntaxError):  # from Python's own compiler
        return f"{path} is nested too deeply", ""
    except OSError as error:
        return f"{path} cannot be read: {error.strerror}", ""
    except ValueError as error:
        return f"{path} cannot be read: {error}", ""
    return None


def undeclared_names(path: Path) -> list[str]:
    """Names that the template uses and that nothing gives it; none where it cannot be parsed."""
    from jinja2 import TemplateSyntaxError, meta, nodes  # noqa: PLC0415

    environment = _environment()
    try:
        tree = environment.parse(read_template(path))
        used = meta.find_undeclared_variables(tree)
    except (TemplateSyntaxError, OSError, ValueError, RecursionError, MemoryError):
        return []
    guards = [each for each in tree.find_all((nodes.Filter, nodes.Test)) if each.name in _GUARDS]
    guarded = {name.name for guard in guards for name in guard.find_all(nodes.Name)}
    given = {name.name for name in tree.find_all(nodes.Name) if name.ctx == "store"}
    return sorted(used - guarded - given - set(TEMPLATE_NAMES) - environment.globals.keys())


def _environment() -> SandboxedEnvironment:
    """Jinja with the filters' names: nothing is rendered here."""
    from jinja2.sandbox import SandboxedEnvironment  # noqa: PLC0415

    environment = SandboxedEnvironment(autoescape=False)
    environment.filters |= dict.fromkeys(_FILTERS, str)
    return environment
