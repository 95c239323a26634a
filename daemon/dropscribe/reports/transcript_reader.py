"""Reads published transcripts and their warnings."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

from dropscribe.config.sections.templates import template_output
from dropscribe.core.errors import AudioError
from dropscribe.core.naming import OUTPUT_FORMATS, TEMPLATE, sidecar_names
from dropscribe.files.audio import open_beneath
from dropscribe.reports.patience import ask_disk
from dropscribe.transcripts.document import doubts_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dropscribe.config.model import FolderRule

MOST_DOCUMENT_BYTES = 64 * 1024 * 1024  # a larger transcript is not read


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
            document = json.load(file)
    except (AudioError, OSError, ValueError, RecursionError):
        return None
    schema = document.get("schema") if isinstance(document, dict) else None
    return document if str(schema).startswith("dropscribe.transcript/") else None


def doubts_about(rule: FolderRule, audio: bytes) -> Sequence[str]:
    """The warnings of the transcript beside the filed *audio* (absolute) that speak against its text.

    None of them where the rule writes no JSON, or where it is not there any more.
    """
    root = os.fsencode(rule.done)
    if not audio.startswith(root + b"/"):
        return ()
    path = audio[len(root) + 1 :]
    for name in sidecar_names(path, b".json", rule.companions):
        try:
            document = ask_disk(root, lambda name=name: read_document(root, name))  # type: ignore[misc]
        except OSError:
            return ()
        if document is not None:
            return doubts_of(document)
    return ()
