"""A rule's template file: where it is, and the name of the output that it makes."""

from __future__ import annotations

import json
from importlib.resources import files
from typing import TYPE_CHECKING

from dropscribe.config.disk_reads import read_small_file
from dropscribe.core.errors import Problem

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from jinja2 import nodes

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
        OSError: It cannot be read, is no regular file, or is larger than :data:`LARGEST_BYTES`.
        ValueError: It is not UTF-8.
    """
    try:
        return read_small_file(path, LARGEST_BYTES)[0].decode()
    except FileNotFoundError:
        if path.name not in SHIPPED:
            raise
        return (files("dropscribe") / "templates" / path.name).read_text("utf-8")


def template_output(path: Path) -> str:
    """The ending of the output's name after the audio's stem: ``minutes.txt`` for ``minutes.txt.j2``."""
    suffix = next((suffix for suffix in _SUFFIXES if path.name.endswith(suffix)), "")
    return path.name.removesuffix(suffix)


def template_problems(path: Path) -> Iterator[Problem]:
    """The problems of a template; a name that it uses and does not get is a warning."""
    from jinja2 import TemplateSyntaxError, meta  # noqa: PLC0415  # for rules with a template alone
    from jinja2.sandbox import SandboxedEnvironment  # noqa: PLC0415

    environment = SandboxedEnvironment(autoescape=False)
    environment.filters |= dict.fromkeys(_FILTERS, str)
    try:
        text = read_template(path)
        environment.compile(text)
        tree = environment.parse(text)
        optional = _optional_names(tree)
        names = meta.find_undeclared_variables(tree) - optional - environment.globals.keys()
        keys = {f"transcript.{key}" for key in _transcript_keys(tree) if key not in optional}
    except TemplateSyntaxError as error:
        yield Problem(f"{path}, line {error.lineno}: {error.message}")
    except (RecursionError, MemoryError, SyntaxError):  # from Python's own compiler
        yield Problem(f"{path} is nested too deeply")
    except (OSError, ValueError) as error:
        yield Problem(f"{path} cannot be read: {getattr(error, 'strerror', error)}")
    else:
        if unknown := ", ".join(sorted(names.difference(TEMPLATE_NAMES)) + sorted(keys)):
            hint = f"a template has {', '.join(TEMPLATE_NAMES)}; see dropscribe schema --transcript"
            yield Problem(f"{path} uses {unknown}, which no transcript gives it", hint=hint, warning=True)


def _optional_names(tree: nodes.Template) -> set[str]:
    """Names, and keys of the transcript, that a template sets, or that may be missing in it."""
    from jinja2 import nodes  # noqa: PLC0415

    guards = [each for each in tree.find_all((nodes.Filter, nodes.Test)) if each.name in _GUARDS]
    guarded = {name.name for guard in guards for name in guard.find_all(nodes.Name)}
    guarded.update(each.attr for guard in guards for each in guard.find_all(nodes.Getattr))
    return guarded | {name.name for name in tree.find_all(nodes.Name) if name.ctx == "store"}


def _transcript_keys(tree: nodes.Template) -> set[str]:
    """Names behind ``transcript.`` that are neither keys of a transcript in a template nor methods."""
    from jinja2 import nodes  # noqa: PLC0415

    schema = files("dropscribe") / "transcripts" / "schema" / "transcript.schema.json"
    known = {*json.loads(schema.read_text("utf-8"))["properties"], *dir(dict)} - {"raw"}
    return {
        each.attr
        for each in tree.find_all(nodes.Getattr)
        if isinstance(each.node, nodes.Name) and each.node.name == "transcript" and each.attr not in known
    }
