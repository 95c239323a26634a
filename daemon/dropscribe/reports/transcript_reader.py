"""Reads published transcripts and their warnings."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from typing import Any

from dropscribe.config.model import FolderRule
from dropscribe.config.sections.templates import template_output
from dropscribe.core.errors import AudioError
from dropscribe.core.naming import OUTPUT_FORMATS, TEMPLATE, companion_name, sidecar_ending, sidecar_names
from dropscribe.files.audio import open_beneath
from dropscribe.reports.locations import Place
from dropscribe.reports.timed_calls import ask_disk_or
from dropscribe.transcripts.document import doubts_of

MOST_DOCUMENT_BYTES = 64 * 1024 * 1024  # a larger transcript is not read
MOST_DOCUMENT_COMMAS = 4_000_000
"""Nor one with more values than 35 hours of speech have: 64 MiB of empty objects take 1.4 GiB of memory."""


def possible_formats(rule: FolderRule) -> list[str]:
    """The formats of all sidecars that a filed recording of *rule* may have, also by earlier ``outputs``."""
    template = [TEMPLATE + template_output(rule.template)] if rule.template else []
    return [*OUTPUT_FORMATS, *template, "error"]


def read_document(root: bytes, path: bytes) -> dict[str, Any] | None:
    """The transcript at *path* below *root*; None if there is none of dropscribe's."""
    try:
        descriptor = open_beneath(root, path)
        with os.fdopen(descriptor, "rb") as file:
            if os.fstat(descriptor).st_size > MOST_DOCUMENT_BYTES:
                return None
            content = file.read()
        if content.count(b",") > MOST_DOCUMENT_COMMAS:
            return None
        document = json.loads(content)
    except (AudioError, OSError, ValueError, RecursionError):
        return None
    schema = document.get("schema") if isinstance(document, dict) else None
    return document if str(schema).startswith("dropscribe.transcript/") else None


def sidecar_paths(rule: FolderRule, audio: bytes, form: str) -> list[bytes]:
    """The paths that the sidecar of the format *form* of the filed *audio* may have, the likeliest first.

    A companion's name is one of them, the last, if the rule writes that format: the sidecar may be older than
    the rule's ``companions``.
    """
    others = {audio}
    if form not in rule.outputs:
        others |= companion_paths(rule, audio)
    paths = sidecar_names(audio, sidecar_ending(form), rule.companions)
    return [path for path in paths if path not in others]


def companion_paths(rule: FolderRule, audio: bytes) -> set[bytes]:
    """The paths that the companions of the filed *audio* may have."""
    folder, name = os.path.split(audio)
    return {os.path.join(folder, companion_name(each.encode(), name)) for each in rule.companions}


def read_transcript(rule: FolderRule, root: bytes, audio: bytes) -> dict[str, Any] | None:
    """The transcript beside the filed *audio*, a path below *root*; None if there is no JSON."""
    paths = sidecar_names(audio, b".json", rule.companions)
    return next(filter(None, (read_document(root, path) for path in paths)), None)


def doubts_about(place: Place | None) -> Sequence[str]:
    """The warnings in the JSON beside the audio at *place* that speak against its text; only in done."""
    if place is None or place.part != "done":
        return ()
    document = ask_disk_or(None, place.root, lambda: read_transcript(place.rule, place.root, place.path))
    return doubts_of(document) if document else ()
