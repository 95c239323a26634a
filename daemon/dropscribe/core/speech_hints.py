"""The settings `language`, `vocabulary` and `speakers` as parameters of each type of provider. Pure.

A hint that a provider has no parameter for is not sent; :func:`ignored_hints` names it, for `check`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from dropscribe.core.languages import base_language

if TYPE_CHECKING:
    from collections.abc import Callable

    from dropscribe.core.params import ParamValue

Found = dict[str, "ParamValue | None"]
"""By parameter; None removes one that was set further down."""


@dataclass(frozen=True, slots=True)
class SpeechHints:
    """What is known of the speech in a recording.

    Attributes:
        language: A BCP 47 tag, "auto" to let the provider detect it, or None.
        vocabulary: Likely words and names.
        speakers: Whether speakers are to be told apart, or None.
    """

    language: str | None = None
    vocabulary: tuple[str, ...] = ()
    speakers: bool | None = None


def hint_params(kind: str, model: str, hints: SpeechHints) -> Found:
    """The parameters that carry *hints* to a provider of type *kind*, which uses *model*."""
    found: Found = {}
    if hints.language is not None:
        found["language"] = base_language(hints.language)
    if hints.vocabulary and (send_words := _vocabulary(kind, model)) is not None:
        found |= send_words(hints.vocabulary)
    if hints.speakers is not None and (name := _speakers(kind, model)):
        found[name] = hints.speakers
    return found


def ignored_hints(kind: str, model: str, hints: SpeechHints) -> list[str]:
    """The names of the settings that such a provider has no parameter for."""
    ignored = []
    if hints.vocabulary and _vocabulary(kind, model) is None:
        ignored.append("vocabulary")
    if hints.speakers and not _speakers(kind, model) and "diarize" not in model:
        ignored.append("speakers")
    return ignored


def _vocabulary(kind: str, model: str) -> Callable[[tuple[str, ...]], Found] | None:
    if kind == "local":
        return lambda words: {"hotwords": ", ".join(words)}
    if kind != "openai" or "diarize" in model:
        return None  # Pulse takes keywords over its WebSocket alone, Reson8 in custom models
    if "voxtral" in model.lower():
        return lambda words: {"context_bias[]": list(words)}
    return lambda words: {"prompt": ", ".join(words)}


def _speakers(kind: str, model: str) -> str:
    is_known = kind in {"pulse", "reson8"} or (kind == "openai" and "voxtral" in model.lower())
    return "diarize" if is_known else ""
