"""The settings `language`, `vocabulary` and `speakers` as parameters of each type of provider. Pure.

A hint that a provider has no parameter for is not sent; :func:`ignored_hints` names it, for `check`.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

from dropscribe.core.requests.languages import base_language, language_tag

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from dropscribe.core.requests.params import ParamValue

Found = dict[str, "ParamValue | None"]
"""By parameter; None removes one that was set further down."""


@dataclass(frozen=True, slots=True)
class SpeechHints:
    """Prior knowledge of the speech in a recording.

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
    if hints.language is not None and kind != "http":
        name, spell = _language(kind)
        found[name] = spell(hints.language)
    if hints.vocabulary and (send_words := _vocabulary(kind, model)) is not None:
        found |= send_words(hints.vocabulary)
    if hints.speakers is not None and (name := _speakers(kind, model)):
        found[name] = hints.speakers
    return found


def ignored_hints(kind: str, model: str, hints: SpeechHints) -> list[str]:
    """The names of the settings that such a provider has no parameter for."""
    ignored = ["language"] if hints.language and kind == "http" else []  # its user knows its parameters
    if hints.vocabulary and _vocabulary(kind, model) is None:
        ignored.append("vocabulary")
    if hints.speakers and not _speakers(kind, model) and "diarize" not in model:
        ignored.append("speakers")
    return ignored


def _language(kind: str) -> tuple[str, Callable[[str], ParamValue | None]]:
    if kind == "azure":
        return "locales", _as_list
    if kind == "soniox":
        return "language_hints", _as_base_list
    if kind == "deepgram":
        return "language", language_tag  # it tells en-GB from en-US
    return ("language_code" if kind in {"elevenlabs", "assemblyai"} else "language"), base_language


def _as_base_list(language: str) -> list[str] | None:
    base = base_language(language)
    return None if base is None else [base]


def _as_list(language: str) -> list[str] | None:
    tag = language_tag(language)
    return None if tag is None else [tag]


def _vocabulary(kind: str, model: str) -> Callable[[tuple[str, ...]], Found] | None:
    if kind == "openai" and "diarize" in model:
        return None
    if kind == "openai" and "voxtral" in model.lower():
        return _repeated("context_bias[]")
    if kind == "deepgram" and not model.startswith(("nova-3", "flux")) and model:
        return _repeated("keywords")  # keyterm came with nova-3
    return _VOCABULARY.get(kind)  # Pulse takes keywords over its WebSocket alone, Reson8 in custom models


def _repeated(name: str) -> Callable[[tuple[str, ...]], Found]:
    return lambda words: {name: list(words)}


def _joined(name: str) -> Callable[[tuple[str, ...]], Found]:
    return lambda words: {name: ", ".join(words)}


_VOCABULARY: Mapping[str, Callable[[tuple[str, ...]], Found]] = MappingProxyType(
    {
        "local": _joined("hotwords"),
        "openai": _joined("prompt"),
        "deepgram": _repeated("keyterm"),
        "elevenlabs": _repeated("keyterms"),
        "azure": _repeated("phraseList.phrases"),
        "whisper-asr": _joined("initial_prompt"),
        "assemblyai": _repeated("keyterms_prompt"),
        "soniox": _repeated("context.terms"),
    }
)
_SPEAKERS: Mapping[str, str] = MappingProxyType(
    {
        **dict.fromkeys(("pulse", "reson8", "deepgram", "elevenlabs", "whisper-asr"), "diarize"),
        "azure": "diarization.enabled",
        "assemblyai": "speaker_labels",
        "soniox": "enable_speaker_diarization",
    }
)


def _speakers(kind: str, model: str) -> str:
    return "diarize" if kind == "openai" and "voxtral" in model.lower() else _SPEAKERS.get(kind, "")
