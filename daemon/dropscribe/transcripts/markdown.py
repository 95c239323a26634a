"""A transcript as a Markdown note with YAML front matter. Pure."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from dropscribe.core.naming import split_name
from dropscribe.core.text.printing import one_line
from dropscribe.transcripts.document import WARNING_WORDS
from dropscribe.transcripts.layout import DEFAULT_LAYOUT, Layout
from dropscribe.transcripts.paragraphs import paragraphs_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from dropscribe.transcripts.paragraphs import Paragraph

TAG = "transcript"

_SPECIAL = re.compile(r"[\\`*_\[\]<>#]|~~|==|\$\$")
_LIST_START = re.compile(r"^(\d{1,9})([.)])(?=\s|$)|^([-+])(?=\s|$)")


def render_md(document: Mapping[str, Any], _: Layout = DEFAULT_LAYOUT) -> bytes:
    """Front matter, title, warnings and paragraphs, each with its time and speaker."""
    text = "\n\n".join(["\n".join(_front_matter(document)), *_body(document)]) + "\n"
    # A name may hold bytes, and an answer half a surrogate pair, that UTF-8 does not have.
    return text.encode("utf-8", "replace")


def title_of(document: Mapping[str, Any]) -> str:
    """The audio's file name without its suffix."""
    name = document["source"]["file"].encode("utf-8", "surrogateescape")
    return one_line(split_name(name)[0].decode("utf-8", "replace")) or "?"


def clock(seconds: float) -> str:
    """Minutes and seconds, with hours from the first one on: 0:07, 1:02:03."""
    minutes, second = divmod(int(max(seconds, 0.0)), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02d}:{second:02d}" if hours else f"{minute}:{second:02d}"


def warning_lines(document: Mapping[str, Any]) -> list[str]:
    """The document's warnings and gaps as sentences."""
    sentences = [WARNING_WORDS.get(word, one_line(word)) for word in document["warnings"]]
    gaps = [
        f"Missing from {clock(gap['start'])} to {clock(gap['end'])} ({one_line(gap['code'])})."
        for gap in document["missing"]
    ]
    return sentences + gaps


def _front_matter(document: Mapping[str, Any]) -> Iterator[str]:
    duration = document["duration"]
    yield "---"
    yield f"title: {_quoted(title_of(document))}"
    yield f"date: {document.get('recorded_at') or 'null'}"
    yield f"date_from: {document.get('recorded_by') or 'null'}"
    yield f"duration: {_quoted(clock(duration)) if duration is not None else 'null'}"
    yield f"folder: {_quoted(document['job']['folder'])}"
    yield f"provider: {_quoted(document['provider']['name'])}"
    yield f"model: {_quoted(document['provider']['model'])}"
    yield f"language: {_quoted(document['language'])}"
    yield f"speakers: [{', '.join(map(_quoted, document['speakers']))}]"
    yield f"source: {_quoted(document['source']['path'])}"
    yield f"tags: [{TAG}]"
    if document["warnings"]:
        yield f"warnings: [{', '.join(map(_quoted, document['warnings']))}]"
    yield "---"


def _body(document: Mapping[str, Any]) -> Iterator[str]:
    yield f"# {escape(title_of(document))}"
    if warnings := warning_lines(document):
        yield "\n".join(["> [!warning]", *(f"> {escape(line)}  " for line in warnings)]).rstrip()
    yield from map(_paragraph, paragraphs_of(document))


def _paragraph(paragraph: Paragraph) -> str:
    text = escape(paragraph.text)
    time = None if paragraph.start is None else clock(paragraph.start)
    speaker = None if paragraph.speaker is None else f"{escape(one_line(paragraph.speaker))}:"
    head = " ".join(filter(None, (time, speaker)))
    return f"**{head}** {text}" if head else text


def escape(text: str) -> str:
    """One line of *text* that Markdown shows as it is."""
    escaped = _SPECIAL.sub(lambda found: "".join(f"\\{letter}" for letter in found.group()), text)
    return _LIST_START.sub(lambda found: f"{found[1]}\\{found[2]}" if found[1] else f"\\{found[3]}", escaped)


def _quoted(text: str | None) -> str:
    """A YAML scalar: a JSON string is one in every YAML."""
    return "null" if text is None else json.dumps(one_line(text), ensure_ascii=False)
