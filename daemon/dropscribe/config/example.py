"""The commented example: what ``init`` writes and the docs show."""

from __future__ import annotations

from pathlib import Path

_HERE = Path(__file__).parent
_PLACES = (_HERE / "example.yaml", _HERE.parents[2] / "config.example.yaml")
"""In an installed package; in a source tree."""


def example_text() -> str:
    """The text of config.example.yaml."""
    place = next(place for place in _PLACES if place.is_file())
    return place.read_text(encoding="utf-8")
