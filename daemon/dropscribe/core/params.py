"""Request parameters: their type, and what each type of provider is sent where the user says nothing."""

from __future__ import annotations

ParamValue = bool | int | float | str | list[str]
"""A request parameter's value. A boolean is sent as ``true``/``false``, a list as a repeated parameter."""

FIXED_PARAMS: dict[str, dict[str, ParamValue]] = {
    "pulse": {"model": "pulse", "word_timestamps": True},
    "reson8": {"include_timestamps": True, "include_words": True, "include_confidence": True},
}
"""Defaults that depend on nothing else, by provider type (CONTRACT.md §3)."""
