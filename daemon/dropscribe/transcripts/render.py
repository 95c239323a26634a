"""The bytes of every sidecar, from the document and its layout.

Guarantees: pure and deterministic: one document with one layout gives one sequence of bytes, today and
after a crash; each file ends with a newline.
"""

from __future__ import annotations

import html
import itertools
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any

from dropscribe.core.naming import split_name
from dropscribe.core.text.printing import clock_text, one_line
from dropscribe.transcripts.cues import Cue, cues_of, lines_of, named
from dropscribe.transcripts.document import WARNING_WORDS
from dropscribe.transcripts.line_breaks import joined
from dropscribe.transcripts.paragraphs import Paragraph, paragraphs_of

_MARKDOWN = re.compile(r"[\\`*_\[\]<>#]|~~|==|\$\$|&(?=#?\w+;)")
_LIST_START = re.compile(r"^(\d{1,9})([.)])(?=\s|$)|^([-+])(?=\s|$|--)")  # or a line across the page


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """The layout of subtitles and plain text, and the outputs by a template."""

    line_characters: int = 42  # the longest line of a subtitle; a longer word stays whole
    cue_lines: int = 2  # the most lines of a subtitle
    cue_seconds: float = 7.0  # the longest time that one subtitle is shown
    paragraphs: bool = False  # whether plain text has paragraphs with a blank line between them
    texts: Mapping[str, str] = field(default_factory=dict)  # by format, outputs already made by a template


DEFAULT_LAYOUT = Layout()


def render_json(document: Mapping[str, Any], _: Layout = DEFAULT_LAYOUT) -> bytes:
    r"""The document itself, for people and programs, in UTF-8; a name's other bytes as ``\udcXX``.

    One key per line; each segment, word and attempt has a line of its own.
    """
    lines = ",\n".join(f"  {_encoded_value(key)}: {_laid_out(value)}" for key, value in document.items())
    text = f"{{\n{lines}\n}}\n"
    # For a lone surrogate, and nothing else here, Python's escape is JSON's escape.
    return text.encode("utf-8", "backslashreplace")


def render_txt(document: Mapping[str, Any], layout: Layout = DEFAULT_LAYOUT) -> bytes:
    """The text and a newline; one line a speaker turn where speakers are known; or paragraphs."""
    if layout.paragraphs:
        text = "\n\n".join(named(item.speaker, item.text) for item in paragraphs_of(document))
    elif document["speakers"]:
        text = "\n".join(_turns(document))
    else:
        text = document["text"].rstrip("\r\n")
    return _encoded(text + "\n")


def render_srt(document: Mapping[str, Any], layout: Layout = DEFAULT_LAYOUT) -> bytes | None:
    """SubRip cues, or None where nothing is timed."""
    cues = cues_of(document, layout)
    blocks = [_srt_block(number, cue, layout) for number, cue in enumerate(cues, 1)]
    return _encoded("\n".join(blocks)) if blocks else None


def render_vtt(document: Mapping[str, Any], layout: Layout = DEFAULT_LAYOUT) -> bytes | None:
    """WebVTT cues, or None where nothing is timed."""
    cues = cues_of(document, layout)
    return _encoded("\n".join(["WEBVTT\n", *(_vtt_block(cue, layout) for cue in cues)])) if cues else None


def render_md(document: Mapping[str, Any], _: Layout = DEFAULT_LAYOUT) -> bytes:
    """Front matter, title, warnings and paragraphs, each with its time and speaker."""
    return _encoded("\n\n".join(["\n".join(_front_matter(document)), *_body(document)]) + "\n")


RENDERERS: dict[str, Callable[..., bytes | None]] = {
    "json": render_json,
    "txt": render_txt,
    "srt": render_srt,
    "vtt": render_vtt,
    "md": render_md,
    "error": render_json,
}
"""By sidecar format, of a document and a layout; None means that this file is not written."""


# json's own indentation is written in Python, many times slower, and gives each word six lines.
_encoded_value = json.JSONEncoder(ensure_ascii=False, allow_nan=False).encode
_encoded_lines = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",\n", ": ")).encode


def _laid_out(value: Any) -> str:
    if value is None:
        return "null"  # a third of a short transcript's values
    if not (isinstance(value, list) and value and isinstance(value[0], dict)):
        return _encoded_value(value)
    # All in one call, which is several times faster. No string of JSON has a line break, so each is one of
    # the separators; those between two items stay.
    text = _encoded_lines(value)[1:-1].replace("},\n{", "}\n    {").replace(",\n", ", ")
    return "[\n    " + text.replace("\n", ",\n") + "\n  ]"


def _turns(document: Mapping[str, Any]) -> Iterator[str]:
    has_names = any(item["speaker"] is not None for item in document["segments"])
    items, key = (document["segments"], "text") if has_names else (document["words"], "word")
    spoken = ((item["speaker"], text) for item in items if (text := one_line(item[key])))
    for speaker, turn in itertools.groupby(spoken, key=itemgetter(0)):
        yield named(speaker, joined(text for _, text in turn))


def _srt_block(number: int, cue: Cue, layout: Layout) -> str:
    # SubRip knows no escape: an arrow in the text would be read as a line of times.
    lines = lines_of(named(cue.speaker, cue.text).replace("-->", "->"), layout)
    return "\n".join([f"{number}", f"{_clock(cue.start, ',')} --> {_clock(cue.end, ',')}", *lines, ""])


def _vtt_block(cue: Cue, layout: Layout) -> str:
    voice = "" if cue.speaker is None else f"<v {html.escape(one_line(cue.speaker), quote=False)}>"
    text = html.escape("\n".join(lines_of(cue.text, layout)), quote=False)
    return f"{_clock(cue.start, '.')} --> {_clock(cue.end, '.')}\n{voice}{text}\n"


def _clock(seconds: float, separator: str) -> str:
    whole, milliseconds = divmod(round(max(seconds, 0.0) * 1000), 1000)
    minutes, second = divmod(whole, 60)
    hour, minute = divmod(minutes, 60)
    return f"{hour:02d}:{minute:02d}:{second:02d}{separator}{milliseconds:03d}"


def _encoded(text: str) -> bytes:
    # A provider's JSON may hold half a surrogate pair, and a name bytes, which have no UTF-8.
    return text.encode("utf-8", "replace")


def title_of(document: Mapping[str, Any]) -> str:
    """The audio's file name without its suffix."""
    name = _readable(document["source"]["file"])
    return one_line(split_name(name.encode())[0].decode()) or "?"


def _readable(name: str) -> str:
    """*name* with the replacement character for bytes that are not UTF-8."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def clock(seconds: float) -> str:
    """Minutes and seconds, with hours from the first one on: 0:07, 1:02:03."""
    return clock_text(int(max(seconds, 0.0)))


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
    yield f"source: {_quoted(_readable(document['source']['path']))}"
    yield "tags: [transcript]"
    if document["warnings"]:
        yield f"warnings: [{', '.join(map(_quoted, document['warnings']))}]"
    yield "---"


def _body(document: Mapping[str, Any]) -> Iterator[str]:
    yield f"# {escape(title_of(document))}"
    if warnings := warning_lines(document):
        yield "\n".join(["> [!warning]", *(f"> {escape(line)}  " for line in warnings)]).rstrip()
    yield from map(_paragraph, paragraphs_of(document))


def _paragraph(paragraph: Paragraph) -> str:
    head = [] if paragraph.start is None else [clock(paragraph.start)]
    head += [] if paragraph.speaker is None else [f"{escape(one_line(paragraph.speaker))}:"]
    return (f"**{' '.join(head)}** " if head else "") + escape(paragraph.text)


def escape(text: str) -> str:
    """One line of *text* that Markdown shows as it is."""
    escaped = _MARKDOWN.sub(lambda found: "".join(f"\\{letter}" for letter in found.group()), text)
    return _LIST_START.sub(lambda found: f"{found[1]}\\{found[2]}" if found[1] else f"\\{found[3]}", escaped)


def _quoted(text: str | None) -> str:
    """A YAML scalar: a JSON string is one in every YAML."""
    return "null" if text is None else json.dumps(one_line(text), ensure_ascii=False)
