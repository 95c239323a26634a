"""Checked values from a provider's JSON; a value of another type or range is unknown.

Guarantees: pure; nothing here raises, for any value.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from dropscribe.core.requests.languages import language_tag

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence


_MOST_SPEAKERS = 1_000_000
_LONGEST_SPEAKER_DIGITS = 7


def number(value: Any) -> float | None:
    """A finite number, also where it comes as a string (vLLM's duration); else None."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        found = float(value)
    except (ValueError, OverflowError):
        return None
    return found if math.isfinite(found) else None


def duration(value: Any, scale: float = 1.0) -> float | None:
    """A length in seconds; None below 0."""
    found = number(value)
    return found * scale if found is not None and found >= 0.0 else None


def seconds(value: Any, scale: float = 1.0) -> float | None:
    """A time, never before 0; *scale* makes it seconds."""
    found = number(value)
    return None if found is None else max(found * scale, 0.0)


def span(start: Any, end: Any, scale: float = 1.0) -> tuple[float | None, float | None]:
    """Start and end in seconds, the end never before the start."""
    first, last = seconds(start, scale), seconds(end, scale)
    return first, last if first is None or last is None else max(first, last)


def span_of_length(start: Any, length: Any, scale: float = 1.0) -> tuple[float | None, float | None]:
    """Start and end in seconds, from a start and a length."""
    first, spent = number(start), number(length)
    return span(first, None if first is None or spent is None else first + spent, scale)


def probability(value: Any) -> float | None:
    """A number in 0..1; else None."""
    found = number(value)
    return found if found is not None and 0.0 <= found <= 1.0 else None


def probability_of_log(value: Any) -> float | None:
    """The probability whose natural logarithm *value* is; None above 0."""
    found = number(value)
    return math.exp(found) if found is not None and found <= 0.0 else None


def speaker_label(value: Any) -> str | None:
    """A number n as "speaker_n", 0 included; a name as it is; else None."""
    if isinstance(value, bool) or value is None:
        return None
    if isinstance(value, int | float):
        return f"speaker_{value:g}" if abs(value) < _MOST_SPEAKERS else None
    return value.strip() or None if isinstance(value, str) else None


def speaker_or_channel(item: Mapping[str, Any], *, is_split: bool) -> str | None:
    """The label of an item's ``speaker``; else, of several channels, its ``channel``."""
    channel = number(item.get("channel"))
    label = speaker_label(item.get("speaker"))
    return f"channel_{channel:g}" if label is None and is_split and channel is not None else label


def counted_speaker(value: Any, first: str) -> str | None:
    """A label that counts from *first* ("A", "1", "S1") as "speaker_0" and so on; a name as it is."""
    name = word_or_none(value)
    prefix, base = first[:-1], first[-1]
    if name is None or not name.startswith(prefix):
        return speaker_label(value)
    place = name[len(prefix) :]
    if place.isdecimal() and base.isdecimal() and len(place) < _LONGEST_SPEAKER_DIGITS:
        count = int(place) - int(base)
    elif len(place) == 1 and place.isupper() and base.isupper():
        count = ord(place) - ord(base)
    else:
        return name
    return f"speaker_{count}" if count >= 0 else name


def first_of(item: Mapping[str, Any], *names: str) -> Any:
    """The first value of *names* in *item* that is not null."""
    return next((item[name] for name in names if item.get(name) is not None), None)


def told_text(*told: Any, parts: Sequence[object] = ()) -> str | None:
    """The first string of *told* that is not blank, else ""; None where there is no string and no *parts*.

    Args:
        parts: Segments or words, from which :func:`dropscribe.providers.turns.with_text` makes the text.
    """
    texts = [value for value in told if isinstance(value, str)]
    return next((text for text in texts if text.strip()), "") if texts or parts else None


def text_lines(texts: Iterable[Any]) -> str | None:
    """The strings of *texts*, which are those of channels, a line each; None if there are none."""
    found = [text.strip() for text in texts if isinstance(text, str)]
    return "\n".join(filter(None, found)) if found else None


def text_of(value: Any) -> str:
    """A string, or "" for anything else."""
    return value if isinstance(value, str) else ""


def word_or_none(value: Any) -> str | None:
    """A string with something in it; else None."""
    return value.strip() or None if isinstance(value, str) else None


def language(*told: Any) -> str | None:
    """The first of *told* that is one language, as a BCP 47 tag.

    "multi-eu" and a list of candidates ("nl,en") are requests, not a detected language.
    """
    for value in told:
        word = word_or_none(value)
        if word and "," not in word and not word.startswith("multi") and (tag := language_tag(word)):
            return tag
    return None


def mapping(value: Any) -> Mapping[str, Any]:
    """An object; {} for anything else."""
    return value if isinstance(value, dict) else {}


def objects(value: Any) -> list[Mapping[str, Any]]:
    """The objects in a list, without its other items; [] for null and for anything else."""
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def mean(values: list[float | None]) -> float | None:
    """The mean of the known values; None if there are none."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
