"""The bytes of every sidecar, from the document and its layout.

Guarantees: pure and deterministic: one document with one layout gives one sequence of bytes, today and
after a crash; each file ends with a newline.
"""

from __future__ import annotations

import itertools
import json
from typing import TYPE_CHECKING, Any

from dropscribe.core.text.printing import one_line
from dropscribe.transcripts.cues import cues_of, lines_of
from dropscribe.transcripts.layout import DEFAULT_LAYOUT
from dropscribe.transcripts.line_breaks import joined
from dropscribe.transcripts.markdown import render_md
from dropscribe.transcripts.paragraphs import paragraphs_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from dropscribe.transcripts.cues import Cue
    from dropscribe.transcripts.layout import Layout


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
        return _encoded(
            "\n\n".join(_named(item.speaker, item.text) for item in paragraphs_of(document)) + "\n"
        )
    lines = list(_turns(document)) if document["speakers"] else [document["text"].rstrip("\r\n")]
    return _encoded("\n".join(lines) + "\n")


def render_srt(document: Mapping[str, Any], layout: Layout = DEFAULT_LAYOUT) -> bytes | None:
    """SubRip cues, or None where nothing is timed."""
    cues = cues_of(document, layout)
    blocks = (_srt_block(number, cue, layout) for number, cue in enumerate(cues, 1))
    return _encoded("\n".join(blocks)) if cues else None


def render_vtt(document: Mapping[str, Any], layout: Layout = DEFAULT_LAYOUT) -> bytes | None:
    """WebVTT cues, or None where nothing is timed."""
    cues = cues_of(document, layout)
    return _encoded("\n".join(["WEBVTT\n", *(_vtt_block(cue, layout) for cue in cues)])) if cues else None


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


def _laid_out(value: Any) -> str:
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return "[\n    " + ",\n    ".join(map(_encoded_value, value)) + "\n  ]"
    return _encoded_value(value)


def _turns(document: Mapping[str, Any]) -> Iterator[str]:
    key = "text" if any(item["speaker"] is not None for item in document["segments"]) else "word"
    items = document["segments" if key == "text" else "words"]
    for speaker, turn in itertools.groupby(items, key=lambda item: item["speaker"]):
        if text := joined(filter(None, (one_line(item[key]) for item in turn))):
            yield _named(speaker, text)


def _named(speaker: str | None, text: str) -> str:
    return text if speaker is None else f"{one_line(speaker)}: {text}"


def _srt_block(number: int, cue: Cue, layout: Layout) -> str:
    # SubRip knows no escape: an arrow in the text would be read as a line of times.
    text = cue.spoken.replace("-->", "->")
    return f"{number}\n{_clock(cue.start, ',')} --> {_clock(cue.end, ',')}\n{_wrapped(text, layout)}\n"


def _vtt_block(cue: Cue, layout: Layout) -> str:
    voice = "" if cue.speaker is None else f"<v {_vtt_escaped(one_line(cue.speaker))}>"
    text = _vtt_escaped(_wrapped(cue.text, layout))
    return f"{_clock(cue.start, '.')} --> {_clock(cue.end, '.')}\n{voice}{text}\n"


def _wrapped(text: str, layout: Layout) -> str:
    return "\n".join(lines_of(text, layout))


def _vtt_escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _clock(seconds: float, separator: str) -> str:
    whole, milliseconds = divmod(round(max(seconds, 0.0) * 1000), 1000)
    minutes, second = divmod(whole, 60)
    hour, minute = divmod(minutes, 60)
    return f"{hour:02d}:{minute:02d}:{second:02d}{separator}{milliseconds:03d}"


def _encoded(text: str) -> bytes:
    # A provider's JSON may hold half a surrogate pair, which has no UTF-8.
    return text.encode("utf-8", "replace")
