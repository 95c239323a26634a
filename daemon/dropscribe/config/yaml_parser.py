"""Parses YAML text into a tree of nodes with their places, by the rules of YAML 1.2.

PyYAML gives the events; this module resolves the values, because PyYAML resolves them by YAML 1.1: there
`language: no` is False, `22:30` is 1350 and `0100` is 64.

Guarantees: the answer and the words of errors are the same with and without libyaml; no error quotes a
value; depth, size and the work for merges are bounded (``document.py`` bounds the expansion of aliases).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

Scalar = str | int | float | bool | None

MAX_DEPTH = 40
MAX_NODES = 20_000  # limit of the values in one file, and of the keys that all its ``<<`` merge into mappings
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_TAG = "tag:yaml.org,2002:"
_LINE_BREAK = re.compile("\r\n|[\n\r\x85\u2028\u2029]")
# A set of refused characters, because a set of allowed ones takes ten times as long to compile.
_UNPRINTABLE = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f\u2028\u2029\ud800-\udfff\ufeff\ufffe\uffff]"
)
_SURROGATE = re.compile("[\ud800-\udfff]")
_NO_CHARACTER = re.compile(r"\\(?:[uU](?=(?:0000)?[dD][89a-fA-F])|U(?!000|0010))")
"""The start of an escape for a number that no character has."""

_INTEGER = re.compile(r"[-+]?[0-9]{1,300}")
_PREFIXED = re.compile(r"0o[0-7]{1,300}|0x[0-9a-fA-F]{1,300}")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_WORDS: dict[str, Scalar] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **dict.fromkeys((".inf", ".Inf", ".INF", "+.inf", "+.Inf", "+.INF"), float("inf")),
    **dict.fromkeys(("-.inf", "-.Inf", "-.INF"), float("-inf")),
    **dict.fromkeys((".nan", ".NaN", ".NAN"), float("nan")),
}


@dataclass(frozen=True, slots=True)
class Span:
    """A range of the text: first character, and the one behind the last; lines and columns count from 1."""

    line: int
    column: int
    end_line: int
    end_column: int


@dataclass(eq=False)
class Flaw(Exception):
    """Something wrong at a place, whose key is not known yet; raised where the text cannot be read on."""

    span: Span
    message: str
    hint: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Node:
    """A value and its position; for an alias also the position of its anchor's value.

    `value` of a mapping: key → (the key's place, the value).
    """

    span: Span
    value: Scalar | list[Node] | dict[str, tuple[Span, Node]]
    anchored: Span | None = None


def split_lines(text: str) -> list[str]:
    """The text's lines as YAML counts them."""
    return _LINE_BREAK.split(text)


def resolve_plain(text: str) -> Scalar:
    """Value of an unquoted scalar by YAML 1.2's core schema."""
    if text in _WORDS:
        return _WORDS[text]
    if _INTEGER.fullmatch(text):
        return int(text)
    if _PREFIXED.fullmatch(text):
        return int(text, 0)
    return float(text) if _FLOAT.fullmatch(text) else text


def parse_yaml(text: str) -> tuple[Node, list[Flaw]]:
    """The root of *text* as one document, and the flaws that did not stop the reading.

    Such are duplicate keys, of which the first counts, unknown aliases, and tags.

    Raises:
        Flaw: It is no YAML, or nested deeper than :data:`MAX_DEPTH`.
    """
    if found := _UNPRINTABLE.search(text):
        message = f"an unprintable character (U+{ord(found[0]):04X})"
        raise Flaw(_end_of(text[: found.start()]), message, "delete it and type the line anew")
    builder = _Builder(text)
    try:
        return builder.document(), builder.flaws
    except yaml.MarkedYAMLError as error:
        flaw = _syntax_flaw(error, split_lines(text))
    except ValueError:  # an escape that libyaml refuses and PyYAML without it does not
        found = _NO_CHARACTER.search(text)
        flaw = Flaw(_end_of(text[: found.end() if found else 0]), _NOT_YAML)
    raise flaw  # here, so that PyYAML's own error, which may quote a secret, is not its context


class _Builder:
    """Turns the event stream into nodes; one use."""

    def __init__(self, text: str) -> None:
        self.flaws: list[Flaw] = []
        self._anchors: dict[str, Node] = {}
        self._nodes = 0
        self._merged = 0
        self._events: Iterator[Any] = yaml.parse(text, Loader=_LOADER)

    def document(self) -> Node:
        next(self._events)  # the stream's start
        start = next(self._events)
        if isinstance(start, yaml.StreamEndEvent):
            return Node(_span_of(start), None)
        root = self._node(next(self._events), 0)
        next(self._events)  # the document's end
        second = next(self._events)
        if not isinstance(second, yaml.StreamEndEvent):
            self._flaw(second, "a second document begins here", "keep one document in the file")
        return root

    def _node(self, event: Any, depth: int) -> Node:
        if depth > MAX_DEPTH:
            raise Flaw(_span_of(event), f"nested deeper than {MAX_DEPTH} levels")
        self._nodes += 1
        if self._nodes > MAX_NODES:
            raise Flaw(_span_of(event), f"more than {MAX_NODES} values")
        if isinstance(event, yaml.AliasEvent):
            return self._alias(event)
        if isinstance(event, yaml.ScalarEvent):
            node = Node(_span_of(event), self._scalar(event))
        else:
            first = _point(event.start_mark.line, event.start_mark.column)
            is_list = isinstance(event, yaml.SequenceStartEvent)
            self._check_tag(event, "seq" if is_list else "map")
            node = Node(first, self._list(depth) if is_list else self._mapping(depth))
        if event.anchor is not None:
            self._anchors[event.anchor] = node
        return node

    def _alias(self, event: Any) -> Node:
        anchor = self._anchors.get(event.anchor)
        if anchor is None:
            hint = "put a value that begins with '*' in quotes"
            self._flaw(event, "this alias names no anchor above", hint)
            return Node(_span_of(event), None)
        return Node(_span_of(event), anchor.value, anchored=anchor.span)

    def _scalar(self, event: Any) -> Scalar:
        tag = event.tag
        if tag in (None, "!", _TAG + "str"):
            text = _letters_of(event)
            return resolve_plain(text) if event.implicit[0] and tag is None else text
        self._check_tag(event, "int", "float", "bool", "null")
        return resolve_plain(event.value)

    def _list(self, depth: int) -> list[Node]:
        return [self._node(item, depth + 1) for item in self._until(yaml.SequenceEndEvent)]

    def _mapping(self, depth: int) -> dict[str, tuple[Span, Node]]:
        own: dict[str, tuple[Span, Node]] = {}
        merged: dict[str, tuple[Span, Node]] = {}
        for key in self._until(yaml.MappingEndEvent):
            name = self._key(key, depth)
            value = self._node(next(self._events), depth + 1)
            if name == "<<" and key.implicit[0]:
                merged |= {k: v for k, v in self._merge(value).items() if k not in merged}
            elif name in own:
                self._flaw(key, f"duplicate key '{name}'", f"first given on line {own[name][0].line}")
            elif name is not None:
                own[name] = (_span_of(key), value)
        return merged | own

    def _key(self, event: Any, depth: int) -> str | None:
        if isinstance(event, yaml.ScalarEvent):
            return _letters_of(event)
        self._node(event, depth + 1)
        self._flaw(event, "a key must be a plain word")
        return None

    def _merge(self, value: Node) -> dict[str, tuple[Span, Node]]:
        merged: dict[str, tuple[Span, Node]] = {}
        for part in value.value if isinstance(value.value, list) else [value]:
            if isinstance(part.value, dict):
                self._merged += len(part.value)
                if self._merged > MAX_NODES:
                    raise Flaw(part.span, f"'<<' merges more than {MAX_NODES} keys")
                merged = part.value | merged
            else:
                self.flaws.append(Flaw(part.span, "'<<' merges mappings, and this is not one"))
        return merged

    def _until(self, end: type[Any]) -> Iterator[Any]:
        while not isinstance(event := next(self._events), end):
            yield event

    def _check_tag(self, event: Any, *allowed: str) -> None:
        if event.tag not in {None, "!", *(_TAG + kind for kind in allowed)}:
            self._flaw(event, "tags ('!…') have no meaning here", "a value that begins with '!' needs quotes")

    def _flaw(self, event: Any, message: str, hint: str = "") -> None:
        self.flaws.append(Flaw(_span_of(event), message, hint))


def _end_of(text: str) -> Span:
    lines = split_lines(text)
    return _point(len(lines) - 1, len(lines[-1]))


def _letters_of(event: Any) -> str:
    text = str(event.value)
    if _SURROGATE.search(text):
        raise ValueError("an escape of half a character")
    return text


def _span_of(event: Any) -> Span:
    start, end = event.start_mark, event.end_mark
    return Span(start.line + 1, start.column + 1, end.line + 1, end.column + 1)


_NOT_YAML = "this is not YAML"
_UNCLOSED = {
    "while scanning a quoted scalar": "this quote is never closed",
    "while parsing a flow sequence": "this '[' is never closed, or an item in it needs quotes",
    "while parsing a flow mapping": "this '{' is never closed, or an item in it needs quotes",
}
_BEGUN_BEFORE = {"while scanning a simple key", "while scanning an alias"}
"""Contexts of errors whose place is the beginning of what is read."""
_NO_VALUE = "a value cannot begin with this character"
_QUOTE = "put the value in quotes"
_ALIGN_OR_QUOTE = "align the line with the keys above, or quote a value that holds ': '"
_SYNTAX = (
    ("exceeded maximum nesting depth", f"nested deeper than {MAX_DEPTH} levels", ""),
    ("mapping values are not allowed", "a ':' where no key can be", _ALIGN_OR_QUOTE),
    ("cannot start any token", _NO_VALUE, _QUOTE),
    ("while scanning an alias", _NO_VALUE, _QUOTE),  # *.wav
    (
        "while parsing a block",
        "this line fits nothing above it",
        "give the keys of one section one indentation",
    ),
    ("could not find expected ':'", "a key without its ':'", "write it as 'key: value'"),
)


def _syntax_flaw(error: yaml.MarkedYAMLError, lines: Sequence[str]) -> Flaw:
    """Message for a syntax error: those of libyaml and PyYAML differ, and may quote secrets."""
    context = error.context or ""
    mark = error.problem_mark or error.context_mark
    if context in _BEGUN_BEFORE:
        mark = error.context_mark or mark
    row, column, at_end = len(lines) - 1, 0, True
    if mark is not None and mark.line < len(lines):  # libyaml counts a line behind the end
        row, column, at_end = mark.line, mark.column, False
    line = lines[row]
    indent = line[: len(line) - len(line.lstrip())]
    if "\t" in indent:
        return Flaw(_point(row, indent.index("\t")), "a tab cannot indent YAML", "use spaces")
    if context in _UNCLOSED and error.context_mark is not None:
        hint = f"noticed on line {row + 1}"
        if "flow" in context and "${" in line:
            hint = "inside '{…}' and '[…]' write \"${NAME}\" in quotes"
        return Flaw(_point(error.context_mark.line, error.context_mark.column), _UNCLOSED[context], hint)
    if "flow node" in context and (at_end or not "".join([line[column:], *lines[row + 1 :]]).strip()):
        return Flaw(_end_of("\n".join(lines).rstrip()), "the file ends within a '[' or a '{'", "close it")
    said = f"{context} {error.problem or ''}"
    for sign, message, hint in _SYNTAX:
        if sign in said:
            return Flaw(_point(row, column), message, hint)
    return Flaw(_point(row, column), "the file ends too early" if at_end else _NOT_YAML)


def _point(line: int, column: int) -> Span:
    return Span(line + 1, column + 1, line + 1, column + 2)
