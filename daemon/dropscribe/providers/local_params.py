"""Parameters of the embedded engine, checked before any audio is decoded.

Guarantees: imports nothing of the engine; an unknown or ill-typed parameter is a RuleRejected that
names it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from dropscribe.core.errors import RuleRejected
from dropscribe.core.requests.languages import base_language
from dropscribe.core.requests.params import ENGINE_PARAMS, LOCAL_PARAMS
from dropscribe.native.recording import RawForm

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dropscribe.core.requests.params import ParamValue

RAW_ENCODINGS = frozenset(
    f"pcm_{coding}"
    for coding in ("s8", "u8", "s16le", "s16be", "s24le", "s24be", "s32le", "s32be", "f32le", "f32be")
) | {"pcm_alaw", "pcm_mulaw"}

ENGINE_DEFAULTS: dict[str, Any] = {
    "beam_size": 5,
    "vad_filter": True,  # without it Whisper writes "You" into digital silence
    "word_timestamps": True,
    "condition_on_previous_text": False,  # one wrong window must not talk the next into repeating it
}

_RAW_FIELDS = {"encoding": "encoding", "sample_rate": "sample_rate_hz", "channels": "channels"}
_AT_LEAST_ONE = frozenset({"beam_size", "best_of", "channels", "max_new_tokens", "sample_rate"})
_CHOICES = {"task": frozenset({"transcribe", "translate"}), "encoding": RAW_ENCODINGS}


@dataclass(frozen=True, slots=True)
class SpeechRequest:
    """One rule's parameters, ready for the engine.

    Attributes:
        language: Lower-case code without a region ("en" for "en-GB"); None to detect it.
        options: Keyword arguments of ``WhisperModel.transcribe``, our defaults included.
        raw: Set by any of encoding, sample_rate and channels; applies to files without a header.
    """

    language: str | None = None
    options: dict[str, Any] = field(default_factory=dict)
    raw: RawForm = field(default_factory=RawForm)


def parse_params(params: Mapping[str, ParamValue]) -> SpeechRequest:
    """Check *params* and split them into the engine's and dropscribe's own.

    `language` and `vocabulary` of rule and provider are in them already (core.requests.speech_hints).

    Raises:
        RuleRejected: Code "unknown_parameter" or "bad_parameter"; the reason names the parameter.
    """
    checked = {name: _checked(name, value) for name, value in params.items()}
    asked = {name: value for name, value in checked.items() if name in ENGINE_PARAMS}
    return SpeechRequest(
        language=_parse_language(checked.get("language", "")),
        options={**ENGINE_DEFAULTS, **asked},
        raw=RawForm(**{field: checked[name] for name, field in _RAW_FIELDS.items() if name in checked}),
    )


def _checked(name: str, value: ParamValue) -> Any:
    wanted = LOCAL_PARAMS.get(name)
    if wanted is None:
        raise RuleRejected("unknown_parameter", f"the embedded engine has no parameter {name!r}")
    if wanted is float and type(value) is int:
        return float(value)
    if type(value) is not wanted:  # type(), for True is an int to isinstance
        raise RuleRejected("bad_parameter", f"{name} must be {_article(wanted)}, not {value!r}")
    if name in _AT_LEAST_ONE and isinstance(value, int) and value < 1:
        raise RuleRejected("bad_parameter", f"{name} must be at least 1, not {value!r}")
    if name in _CHOICES and value not in _CHOICES[name]:
        raise RuleRejected("bad_parameter", f"{name} must be one of {', '.join(sorted(_CHOICES[name]))}")
    return value


def _article(wanted: type) -> str:
    return {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}[wanted]


def _parse_language(language: str) -> str | None:
    code = language.strip().lower().replace("_", "-").partition("-")[0]
    # A code of two letters is the engine's own (jw); "english", "eng" and "unknown" are other people's words.
    return code if len(code) == 2 else base_language(language)
