"""A transcript as plain JSON values and back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dropscribe.transcripts.model import Missing, Segment, Transcript, Word

if TYPE_CHECKING:
    from collections.abc import Mapping


def parse_transcript(fields: Mapping[str, Any]) -> Transcript:
    """The transcript whose ``dataclasses.asdict`` is *fields*; fields with defaults may be left out.

    Raises:
        KeyError, TypeError: *fields* is something else.
    """
    parsed = {
        **fields,
        "segments": tuple(Segment(**item) for item in fields["segments"]),
        "words": tuple(Word(**item) for item in fields["words"]),
        "warnings": tuple(fields["warnings"]),
        "missing": tuple(Missing(**item) for item in fields.get("missing", ())),
    }
    return Transcript(**parsed)
