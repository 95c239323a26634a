"""The config file as plain data, with the position of every key and value.

Guarantees: `data` holds the file's values with variables replaced, and at most :data:`MAX_NODES` values,
expanded aliases included; no problem made here shows a secret.
"""

from __future__ import annotations

import functools
import os
import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dropscribe.config.find import absolute_path
from dropscribe.config.yaml_parser import MAX_NODES, Flaw, Node, Span, parse_yaml, split_lines
from dropscribe.core.errors import ConfigError, Problem
from dropscribe.core.text.redaction import NAMES_OF_SECRETS

KeyPath = tuple[str | int, ...]  # the position of a value: ("folders", "calls", "outputs", 1)
_SECRET: Any = object()  # placeholder of a secret until it is left out
_SECRET_NAME = re.compile(f"{NAMES_OF_SECRETS}|auth|dsn|conninfo|^urls$", re.IGNORECASE)
_OPEN_NAMES = frozenset(
    {"api_key_file", "api_key_credential", "token_file", "secret_file", "auth", "dsn_file", "dsn_credential"}
)
_OPEN_IN_QUEUE = frozenset({"type", "role", "roots", "node", "dsn_file", "dsn_credential"})
_PASSWORD = re.compile(r"(?<=://)\S*@|(?<=:/)[^/\s]\S*@|(?<=passw)\w*\s*=\s*(?:'[^']*'?|\S+)", re.IGNORECASE)
"""Finds a password in a url or in a dsn of the form ``host=… password=…``, wherever it is by mistake."""
_QUERY = re.compile(r"(://[^\s\"'?#]*\?)([^\s\"'#]+)")
"""Finds the query of a url: some servers take their key there."""
_SECRET_QUERY = re.compile(
    r"([?&][^=&#\s]*(?:key|token|secret|pass|auth|sig)[^=&#\s]*=)[^&#\s]+", re.IGNORECASE
)
_ONE_VARIABLE = re.compile(r"[\"']?\$\{[A-Za-z_][A-Za-z0-9_]*\}[\"']?")
_REFERENCE = re.compile(r"\$\$\{|\$\{(?:([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}|[^}]*\}?)")
UNSET = "the environment variable"  # the beginning of the message about a variable that is not set


def dotted(path: KeyPath) -> str:
    """*path* as text: ``folders.calls.outputs[1]``."""
    parts = (f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return "".join(parts).removeprefix(".")


@functools.lru_cache(maxsize=4096)
def is_secret_name(name: str) -> bool:
    """Whether a value under this key may be a secret; a misspelt ``api_key`` is one too."""
    if name in _OPEN_NAMES:
        return False
    import difflib  # noqa: PLC0415 - for mistakes alone

    near = difflib.get_close_matches(name.lower(), ("api_key", "token", "secret"), n=1, cutoff=0.7)
    return bool(near or _SECRET_NAME.search(name))


def is_secret_path(path: KeyPath, text: str) -> bool:
    """Whether the value at *path* may be a secret; *text* is the value, or its line.

    The names of providers and rules are the user's own and are ignored. A heartbeat's url is a key in
    itself, and any url may hold a password. An unknown key of the queue may be a misspelt dsn.
    """
    if path[:1] in (("providers",), ("folders",)) and len(path) > 2:
        path = path[2:]
    names = [part for part in path if isinstance(part, str)]
    if names[:1] == ["queue"] and not _OPEN_IN_QUEUE.intersection(names[1:2]):
        return True
    if names[-1:] == ["url"]:
        return names[0] in {"heartbeat", "notify"} or "@" in text
    return any(map(is_secret_name, names))


def _is_key_of_secret(path: KeyPath) -> bool:
    """Whether *path* is that of a name below a secret's: a key in braces is a mapping to YAML."""
    depth = 4 if path[:1] in (("providers",), ("folders",)) else 3  # the user's own names are ignored
    return len(path) >= depth and isinstance(path[-2], str) and is_secret_name(path[-2])


def substitute(text: str, environ: Mapping[str, str]) -> tuple[str, tuple[str, ...], dict[str, str]]:
    """*text* with variables of *environ* put in, the variables' names, and the hint for each mistake.

    ``$${`` stands for a literal ``${``. As in a shell, ``:-`` gives its default if the variable is unset or
    empty. Variables go into values that have been parsed, never into the text of the file, so that they can
    add no key, line or type.
    """
    names: list[str] = []
    mistakes: dict[str, str] = {}

    def value_of(found: re.Match[str]) -> str:
        name, default = found.groups()
        if found[0] == "$${":
            return "${"
        if name is None:
            mistakes["a '${' without a variable's name and its '}'"] = "write $${ for a plain ${"
            return found[0]
        names.append(name)
        if default and "${" in default:
            mistakes["a '${' in the default of a variable"] = "a default is plain text: ${NAME:-text}"
        if default is None and name not in environ:
            hint = f"set it, or give a default: ${{{name}:-…}}"
            mistakes[f"{UNSET} {name} is not set"] = hint
        return environ.get(name) or default or ""

    replaced = _REFERENCE.sub(value_of, text)
    return replaced, tuple(names), mistakes


class Document:
    """One parsed file: `data` has its values, without the top-level ``x-…`` keys."""

    def __init__(
        self,
        text: str,
        file: str,
        environ: Mapping[str, str],
        *,
        folder: Path = Path(),
        status: os.stat_result | None = None,
    ) -> None:
        """Parse *text*, which *file* names in problems and whose relative paths begin at *folder*.

        Raises:
            ConfigError: It is not YAML, or reading cannot go on; with one problem.
        """
        self.file = file
        self.environ = environ
        self.folder = folder
        self.status = status  # the file's; None for text in memory
        self.problems: list[Problem] = []
        self.variables: dict[KeyPath, tuple[str, ...]] = {}  # those that were put into a value with ``${…}``
        self._flawed: set[KeyPath] = set()
        self._flawed_below: set[KeyPath] = set()
        self._lines = [*split_lines(text), ""]  # an empty value may be positioned after the last line
        self._places: dict[KeyPath, tuple[Span | None, Node]] = {}
        self._secrets: defaultdict[int, set[Span]] = defaultdict(set)  # by line
        try:
            root, flaws = parse_yaml(text)
        except Flaw as flaw:
            raise ConfigError((self._problem_of(flaw),)) from None
        if not isinstance(root.value, dict):
            message, hint = "the top level must be a mapping of sections", "providers: …"
            if root.value is None:
                message, hint = "the file is empty", "'dropscribe init' writes one to begin with"
            raise ConfigError((self._at(root.span, message, hint),))
        data: dict[str, Any] = self._data_of((), None, root)
        self.data = {name: value for name, value in data.items() if not name.startswith("x-")}
        self.problems += map(self._problem_of, flaws)

    def report(
        self, path: KeyPath, message: str, hint: str = "", *, on_key: bool = False, warning: bool = False
    ) -> None:
        """Add a problem at *path*, or at the nearest enclosing value that is in the file."""
        self._flawed.add(path)
        self._flawed_below.update(path[:length] for length in range(len(path) + 1))
        known = path
        while known and known not in self._places:
            known = known[:-1]
        key, node = self._places.get(known, (None, Node(Span(1, 1, 1, 1), None)))
        is_key_meant = on_key or known != path or isinstance(node.value, dict | list)
        span = key if key is not None and is_key_meant else node.span
        self.problems.append(self._at(span, message, hint, dotted(path), warning=warning))

    def refuse(self, path: KeyPath, value: object, said: str, hint: str = "") -> None:
        """Report a problem of the *value* at *path*, unless one was reported there already."""
        if path not in self._flawed:
            self.report(path, f"{self.shown(path, value)} {said}", hint)

    def item_path(self, path: KeyPath, index: int) -> KeyPath:
        """The position of item *index* of the list at *path*; *path* itself if it is one value alone."""
        return (*path, index) if (*path, index) in self._places else path

    def absolute(self, text: str) -> Path:
        """The path *text* in the file as an absolute path."""
        return absolute_path(text, self.folder, self.environ)

    def located(self, problem: Problem) -> Problem:
        """*problem*, which names its key, with the place of that key."""
        path = next((path for path in self._places if dotted(path) == problem.path), ())
        if not path:
            return problem
        self.report(path, problem.message, problem.hint, warning=problem.warning)
        return self.problems.pop()

    def has_problem_below(self, path: KeyPath) -> bool:
        """Whether something was reported at *path* or inside it."""
        return path in self._flawed_below

    def line_of(self, path: KeyPath) -> int:
        """The line of the key at *path*, or 0."""
        key, node = self._places.get(path, (None, None))
        span = key or (node and node.span)
        return span.line if span else 0

    def shown(self, path: KeyPath, value: object) -> str:
        """*value* as a message may quote it: never a secret or the value of a variable."""
        if is_secret_path(path, str(value)):
            return "the value"
        if path in self.variables:
            return "the value of ${" + "} ${".join(self.variables[path]) + "}"
        if isinstance(value, dict | list):
            return "this list" if isinstance(value, list) else "this section"
        if value is None:
            return "an empty value"
        word = str(value).lower() if isinstance(value, bool) else str(value)
        return f"'{word}'" if len(word) <= 60 else f"'{word[:60]}…'"

    def without_secrets(self, path: KeyPath, value: Any) -> Any:
        """The *value* of the document at *path* without the secrets that are written out.

        A secret that is a reference (``${NAME}``) stays one; other references are replaced by their values.
        """
        if isinstance(value, dict):
            items = {name: self.without_secrets((*path, name), item) for name, item in value.items()}
            return {name: item for name, item in items.items() if item is not _SECRET}
        if isinstance(value, list):
            found = [self.without_secrets((*path, index), item) for index, item in enumerate(value)]
            return [item for item in found if item is not _SECRET]
        written = self._places[path][1].value
        if isinstance(written, str) and _ONE_VARIABLE.fullmatch(written) and is_secret_path(path, written):
            return written
        if value is not None and is_secret_path(path, str(value)):
            return _SECRET
        return _SECRET_QUERY.sub(r"\1***", value.replace("${", "$${")) if isinstance(value, str) else value

    def _data_of(self, path: KeyPath, key: Span | None, node: Node) -> Any:
        if len(self._places) > MAX_NODES:
            where = key or node.span
            raise ConfigError((self._at(where, f"more than {MAX_NODES} values, counting aliases"),))
        value = node.value
        self._places[path] = (key, node)
        if key is not None and _is_key_of_secret(path):
            self._secrets[key.line].add(key)
        if isinstance(value, dict):
            return {name: self._data_of((*path, name), *entry) for name, entry in value.items()}
        if isinstance(value, list):
            return [self._data_of((*path, index), None, item) for index, item in enumerate(value)]
        span = node.anchored or node.span
        line = self._lines[span.line - 1]
        is_reference = _ONE_VARIABLE.fullmatch(line[span.column - 1 : span.end_column - 1])
        # A hook's command may have a key among its arguments.
        is_secret = is_secret_path(path, line) or path[:1] == ("hooks",)
        if is_secret and not is_reference and span not in self._secrets[span.line]:
            for number in range(span.line, span.end_line + 1):
                self._secrets[number].add(span)
        if not isinstance(value, str):
            return value
        replaced, names, mistakes = substitute(value, self.environ)
        if names:
            self.variables[path] = names
        for message, hint in mistakes.items() if not str(path[0]).startswith("x-") else ():
            self.report(path, message, hint)
        return replaced

    def _problem_of(self, flaw: Flaw) -> Problem:
        """The problem of a *flaw*, without its line: nobody can tell which part of it is a secret."""
        return replace(self._at(flaw.span, flaw.message, flaw.hint), source_line="")

    def _at(
        self, span: Span, message: str, hint: str = "", path: str = "", *, warning: bool = False
    ) -> Problem:
        line = self._lines[span.line - 1]
        end = span.end_column if span.end_line == span.line else len(line) + 1
        for secret in self._secrets[span.line]:
            first = secret.column - 1 if secret.line == span.line else 0
            last = secret.end_column - 1 if secret.end_line == span.line else len(line)
            line = line[:first] + "*" * (last - first) + line[last:]
        return Problem(
            _without_passwords(message),
            file=self.file,
            line=span.line,
            column=span.column,
            length=max(1, end - span.column),
            hint=_without_passwords(hint),
            source_line=_without_passwords(line),
            path=_without_passwords(path),
            warning=warning,
        )


@dataclass(frozen=True, slots=True)
class SectionPlace:
    """A section of a document, to report problems of its keys."""

    document: Document
    path: KeyPath  # its place in the document

    def report(
        self, name: str, message: str, hint: str = "", *, on_key: bool = False, warning: bool = False
    ) -> None:
        """Report a problem of the key *name*, or of the whole section for ""."""
        path = (*self.path, name) if name else self.path
        self.document.report(path, message, hint, on_key=on_key, warning=warning)

    def has_problem_in(self, *name: str) -> bool:
        """Whether something was reported anywhere inside the key *name*, or inside the section."""
        return self.document.has_problem_below((*self.path, *name))

    def line_of(self, name: str) -> int:
        """The line of the key *name*, or 0."""
        return self.document.line_of((*self.path, name))


def _without_passwords(text: str) -> str:
    """*text* with likely passwords and the queries of urls masked, at its original length."""
    text = _PASSWORD.sub(lambda found: "*" * len(found[0]), text)
    return _QUERY.sub(lambda found: found[1] + "*" * len(found[2]), text)
