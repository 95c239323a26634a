"""Checked values from a provider's JSON; a value of another type or range is unknown.

Guarantees: pure; no value makes anything raise but :func:`told_text`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from dropscribe.core.requests.languages import language_tag
from dropscribe.core.requests.params import ParamValue

Item = Mapping[str, Any]  # a JSON object
Params = dict[str, ParamValue]  # the parameters of a request
_MOST_SPEAKERS = 1_000_000
_LONGEST_SPEAKER_DIGITS = 7
_MOST_NAMES = 10  # in a message


class BadAnswer(Exception):
    """Raised where a success lacks what the vendor documents; its text says what is missing."""


def number(value: Any) -> float | None:
    """A finite number, also as a string (vLLM's duration), with its unit "s" (Google's); else None."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        found = float(value.removesuffix("s") if isinstance(value, str) else value)
    except (ValueError, OverflowError):
        return None
    return found if math.isfinite(found) else None


def duration(*told: Any, scale: float = 1.0) -> float | None:
    """The first of *told* that is a length, in seconds; a negative one is none."""
    lengths = (found * scale for value in told if (found := number(value)) is not None and found >= 0.0)
    return next(lengths, None)


def span(start: Any, end: Any, scale: float = 1.0) -> tuple[float | None, float | None]:
    """Start and end in seconds, never before 0, the end never before the start; *scale* makes seconds."""
    first, last = (None if found is None else max(found * scale, 0.0) for found in map(number, (start, end)))
    return first, last if first is None or last is None else max(first, last)


def probability(value: Any) -> float | None:
    """A number in 0..1; else None."""
    found = number(value)
    return found if found is not None and 0.0 <= found <= 1.0 else None


def probability_of_log(value: Any) -> float | None:
    """The probability whose natural logarithm *value* is; None above 0."""
    found = number(value)
    return math.exp(found) if found is not None and found <= 0.0 else None


def mean(values: Iterable[float | None]) -> float | None:
    """The mean of the known values; None if there are none."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def speaker_label(value: Any) -> str | None:
    """A number n as "speaker_n", 0 included; a name as it is; None for whisper.cpp's "?" and all else."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return f"speaker_{value:g}" if abs(value) < _MOST_SPEAKERS else None
    label = word_or_none(value)
    return None if label == "?" else label


def channel_label(value: Any) -> str | None:
    """The label of the one speaker of a channel, from its number."""
    channel = number(value)
    return None if channel is None else f"channel_{channel:g}"


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


def first_of(item: Item, *names: str) -> Any:
    """The first value of *names* in *item* that is not null."""
    return next((item[name] for name in names if item.get(name) is not None), None)


def told_text(*told: Any, parts: Sequence[object] = (), missing: str = "a success without a text") -> str:
    """The first string of *told* that is not blank, else "".

    Raises BadAnswer(*missing*) if there is no string, and no segments or words (*parts*) to make a text of.
    """
    texts = [value for value in told if isinstance(value, str)]
    if not texts and not parts:
        raise BadAnswer(missing)
    return next((text for text in texts if text.strip()), "")


def text_lines(texts: Iterable[Any]) -> str | None:
    """The strings of *texts*, which are those of channels, a line each; None if there are none."""
    found = [text.strip() for text in texts if isinstance(text, str)]
    return "\n".join(filter(None, found)) if found else None


def text_of(value: Any) -> str:
    """A string, or "" for anything else."""
    return value if isinstance(value, str) else ""


def stripped(value: Any) -> str:
    """A string without the spaces around it, or "" for anything else."""
    return text_of(value).strip()


def word_or_none(value: Any) -> str | None:
    """A string with something in it; else None."""
    return stripped(value) or None


def language(*told: Any) -> str | None:
    """The first of *told* that is one language, as a BCP 47 tag.

    "multi-eu" and a list of candidates ("nl,en", ["nl", "en"]) are requests, not a detected language.
    """
    for word in map(word_or_none, told):
        if word and "," not in word and not word.startswith("multi") and (tag := language_tag(word)):
            return tag
    return None


def elements(value: Any) -> list[Any]:
    """A list; [] for anything else."""
    return value if isinstance(value, list) else []


def mapping(value: Any) -> Item:
    """An object; {} for anything else."""
    return value if isinstance(value, dict) else {}


def names_in(item: Item) -> str:
    """A clause with the names in an object, for a message that one is missing."""
    return f"it has {', '.join([*item][:_MOST_NAMES]) or 'nothing'}"


def objects(value: Any) -> list[Item]:
    """The objects in a list, without its other items; [] for null and for anything else."""
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []
