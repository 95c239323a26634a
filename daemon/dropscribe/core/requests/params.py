"""Request parameters: their type, and the defaults of each type of provider."""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Mapping
from typing import Any

from dropscribe.core.text.redaction import MASK

ParamValue = bool | int | float | str | list[Any]
"""A request parameter's value; a list holds several. In queries and forms a boolean is ``true`` or ``false``,
a list a repeated parameter."""

OPENAI_MODEL = "whisper-1"

FIXED_PARAMS: dict[str, dict[str, ParamValue]] = {
    "pulse": {"model": "pulse", "word_timestamps": True},
    "soniox": {"model": "stt-async-v5", "enable_language_identification": True},
    "assemblyai": {"speech_models": ["universal-3-5-pro", "universal-2"]},
    "reson8": {"include_timestamps": True, "include_words": True, "include_confidence": True},
    "deepgram": {"model": "nova-3", "smart_format": True, "utterances": True},
    "elevenlabs": {"model_id": "scribe_v2", "timestamps_granularity": "word"},
    "whisper-asr": {"output": "json", "word_timestamps": True},
    "azure": {"api-version": "2024-11-15"},
}
"""Defaults that depend on nothing else, by provider type."""

AWAY_PARAMS = {
    "deepgram": ("callback",),
    "elevenlabs": ("webhook",),
    "openai": ("stream",),
    "pulse": ("webhook_url",),
}
"""Parameters by which a vendor sends the transcript elsewhere, or in parts, by provider type."""

AWAY_WORDS = "the answer would not be the transcript, which goes elsewhere or comes in parts"

_SPEECHMATICS_LANGUAGE = "transcription_config.language"
_SPEECHMATICS_DETECTION: dict[str, ParamValue] = {
    _SPEECHMATICS_LANGUAGE: "auto",
    "language_identification_config.low_confidence_action": "allow",
    "language_identification_config.default_language": "en",
}
"""Detects the language. Without the last two, a short or silent recording is refused, not transcribed."""

GRANULARITIES = ("timestamp_granularities[]", "timestamp_granularities")
"""OpenAI's parameter for the times of words and segments, in both its spellings."""


def effective_params(provider_type: str, params: Mapping[str, ParamValue]) -> dict[str, ParamValue]:
    """Parameters to send: the type's defaults, overridden by *params*. An empty list drops a default."""
    defaults = dict(FIXED_PARAMS.get(provider_type, {}))
    match provider_type:
        case "openai":
            defaults = _openai_defaults(params)
        case "deepgram" if not params.get("language") and "detect_language" not in params:
            defaults["detect_language"] = True  # without either, it assumes English
        case "assemblyai" if not params.get("language_code"):
            defaults["language_detection"] = True  # without either, it assumes English
        case "azure" if any(name.startswith("phraseList") for name in params):
            defaults["api-version"] = "2025-10-15"  # the first one with phrase lists
        case "speechmatics" if not params.get(_SPEECHMATICS_LANGUAGE):
            # Without a language it refuses the job; the model Melia is multilingual and knows no "auto".
            is_melia = str(params.get("transcription_config.model", "")).startswith("melia")
            defaults = {_SPEECHMATICS_LANGUAGE: "multi"} if is_melia else _SPEECHMATICS_DETECTION
            params = {name: value for name, value in params.items() if name != _SPEECHMATICS_LANGUAGE}
    return {**defaults, **params}


_SECRET_NAME = re.compile(
    r"(?:key|token|secret|passw(?:or)?d|passphrase|passcode|pwd|(?<![a-z])pass|auth(?:orization)?"
    r"|credentials?|signature|sig)$",
    re.IGNORECASE,
)


def is_secret_param(name: str) -> bool:
    """Whether the name of a parameter says that its value is secret; ``keyterm`` and ``keywords`` do not."""
    return _SECRET_NAME.search(name) is not None


def secret_params(params: Mapping[str, ParamValue]) -> dict[str, str]:
    """The texts among *params* whose names say that they are secret: some APIs take their key there."""
    texts = {name: value for name, value in params.items() if isinstance(value, str)}
    return {name: value for name, value in texts.items() if is_secret_param(name)}


def shown_params(params: Mapping[str, ParamValue]) -> dict[str, ParamValue]:
    """*params* as a JSON document may show them: no secret, no removed one, infinite numbers as text."""
    shown = {name: value for name, value in params.items() if value != []}
    odd = {name: str(value) for name, value in shown.items() if not is_finite(value)}
    return {**shown, **odd, **dict.fromkeys(secret_params(shown), MASK)}


def is_finite(value: ParamValue | None) -> bool:
    """Whether no number in *value* is infinite or NaN, which JSON does not have."""
    items = value if isinstance(value, list) else [value]
    return all(math.isfinite(item) for item in items if isinstance(item, float))


def _openai_defaults(params: Mapping[str, ParamValue]) -> dict[str, ParamValue]:
    model = str(params.get("model", OPENAI_MODEL))
    # Behind a gateway a model's name has the vendor before it: openai/gpt-4o-transcribe, azure/whisper-1.
    name = model.rpartition("/")[2].lower()
    # OpenAI's gpt transcribers and Mistral's Voxtral refuse verbose_json with a 400.
    richest = "json" if name.startswith("gpt-") or "voxtral" in name else "verbose_json"
    richest = "diarized_json" if "diarize" in name else richest
    defaults: dict[str, ParamValue] = {"model": OPENAI_MODEL, "response_format": richest}
    if "diarize" in model:
        defaults["chunking_strategy"] = "auto"  # required for more than 30 s
    asked = params.get("response_format", richest)
    if asked == "verbose_json" and not any(name in params for name in GRANULARITIES):
        defaults[GRANULARITIES[0]] = ["word", "segment"]
    return defaults


_WHISPER_MODELS = (
    "tiny.en tiny base.en base small.en small medium.en medium large-v1 large-v2 large-v3 large"
    " large-v3-turbo turbo distil-small.en distil-medium.en distil-large-v2 distil-large-v3 distil-large-v3.5"
)
WHISPER_MODELS = frozenset(_WHISPER_MODELS.split())
"""The names that faster-whisper knows; ``OWNER/NAME`` is a model of a hub."""

_COMPUTE_TYPES = "auto default int8 int8_float32 int8_float16 int8_bfloat16 int16 float16 bfloat16 float32"
COMPUTE_TYPES = tuple(_COMPUTE_TYPES.split())
"""The names that CTranslate2 4.8 knows; which of them work depends on the processor and the card."""

ENGINE_PARAMS: dict[str, type] = {
    name: kind
    for kind, names in (
        (bool, "condition_on_previous_text multilingual suppress_blank vad_filter without_timestamps"),
        (bool, "word_timestamps"),
        (float, "compression_ratio_threshold hallucination_silence_threshold length_penalty"),
        (float, "log_prob_threshold max_initial_timestamp no_speech_threshold patience"),
        (float, "prompt_reset_on_temperature repetition_penalty temperature"),
        (int, "beam_size best_of max_new_tokens no_repeat_ngram_size"),
        (str, "append_punctuations hotwords initial_prompt prefix prepend_punctuations task"),
    )
    for name in names.split()
}
"""Scalar parameters of faster-whisper 1.2's ``WhisperModel.transcribe``, with the type of each.

``clip_timestamps`` and ``chunk_length`` are missing because dropscribe cuts the recording itself.
"""

LOCAL_PARAMS = ENGINE_PARAMS | {"channels": int, "encoding": str, "language": str, "sample_rate": int}
"""All parameters of a provider of type local; the last ones describe files without a header."""

_ENCODINGS = "s8 u8 s16le s16be s24le s24be s32le s32be f32le f32be alaw mulaw"
LOCAL_CHOICES = {
    "task": {"transcribe", "translate"},
    "encoding": {f"pcm_{encoding}" for encoding in _ENCODINGS.split()},
}

LOCAL_LIMITS = {
    "beam_size": (1, 1000),
    "best_of": (1, 1000),
    "channels": (1, math.inf),
    "length_penalty": (-100, 100),
    "max_initial_timestamp": (0, 30),
    "max_new_tokens": (1, 447),  # of the 448 tokens of Whisper's decoder; a prompt leaves fewer
    "no_repeat_ngram_size": (0, 448),
    "patience": (0.01, 1000),
    "repetition_penalty": (0.01, 1000),
    "sample_rate": (1, math.inf),
}
"""Smallest and largest values that CTranslate2 and faster-whisper take, tried with 4.8 and 1.2."""

_TYPE_NAMES = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}


def local_param_problem(name: str, value: object) -> str:
    """The reason why a parameter of LOCAL_PARAMS cannot have *value* ("must be …"); "" if it can."""
    wanted = LOCAL_PARAMS[name]
    if type(value) is not wanted and not (wanted is float and type(value) is int):  # True is an int
        return f"must be {_TYPE_NAMES[wanted]}"
    if name in LOCAL_CHOICES and value not in LOCAL_CHOICES[name]:
        return f"must be one of {', '.join(sorted(LOCAL_CHOICES[name]))}"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return ""
    is_beyond = not abs(value) <= sys.float_info.max  # True for NaN
    if is_beyond and (name in LOCAL_LIMITS or not isinstance(value, float) or math.isnan(value)):
        return "must be a finite number"  # infinite thresholds switch a check of the engine off
    lowest, highest = LOCAL_LIMITS.get(name, (-math.inf, math.inf))
    if lowest <= value <= highest:
        return ""
    return f"must be at least {lowest}" if highest == math.inf else f"must be {lowest} to {highest}"
