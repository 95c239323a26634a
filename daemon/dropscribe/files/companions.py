"""Finds and reads the companions of one recording.

Guarantees: no link is followed; a companion counts as missing while a local process is writing it; JSON that
is damaged, large or deep counts as no JSON.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import time
from collections.abc import Iterable
from typing import Any, NamedTuple

from dropscribe.core.naming import Companion, companion_name, spellings
from dropscribe.core.settling import Lease
from dropscribe.files.audio import snapshot_of
from dropscribe.files.beneath import closing, open_file
from dropscribe.files.mounts import hold_lease

JSON_BYTES = 1024 * 1024
JSON_DEPTH = 50  # Larger or deeper JSON is moved, but not read
UNSEEN_WRITER_SECONDS = 5.0
"""Where writers cannot be detected, a file that changed within this time may be incomplete."""


class FoundCompanion(NamedTuple):
    """A companion file with its content, if that is JSON."""

    file: Companion
    content: tuple[Any] | None  # Its JSON value, alone in a tuple; None where it is no JSON within the limits


def find_companions(
    folder: int, audio: bytes, patterns: Iterable[str], quiet_seconds: float | None
) -> list[FoundCompanion]:
    """The companions of the recording *audio* that are complete in the open inbox *folder*."""
    quiet_seconds = UNSEEN_WRITER_SECONDS if quiet_seconds is None else quiet_seconds
    found = (_find(folder, audio, pattern, quiet_seconds) for pattern in patterns)
    return list({each.file.source: each for each in found if each}.values())


def _find(folder: int, audio: bytes, pattern: str, quiet_seconds: float) -> FoundCompanion | None:
    for spelling in spellings(pattern):
        name = companion_name(spelling, audio)
        with (
            contextlib.suppress(OSError),  # absent, no regular file, or not to be read
            closing(open_file(folder, name)) as descriptor,
        ):
            lease = hold_lease(descriptor)
            file = Companion(spelling, name, snapshot_of(os.fstat(descriptor)))
            is_young = 0 <= time.time() - file.snapshot.mtime_ns / 1e9 < quiet_seconds
            if lease is Lease.WRITER or (is_young and lease is not Lease.FREE):
                return None
            found = FoundCompanion(file, read_json(descriptor))
            return found if file.snapshot == snapshot_of(os.fstat(descriptor)) else None
    return None


def read_json(descriptor: int) -> tuple[Any] | None:
    """The value in the open file, alone in a tuple; None where it is no JSON within the limits."""
    data = os.pread(descriptor, JSON_BYTES + 1, 0)
    if len(data) > JSON_BYTES:
        return None
    try:
        value = json.loads(data, parse_constant=_finite, parse_float=_finite)
    except (ValueError, RecursionError):
        return None
    return (value,) if _is_within(value, JSON_DEPTH) else None


def _finite(text: str) -> float:
    """A number that JSON can hold: neither ``NaN`` nor ``1e999``."""
    if not math.isfinite(number := float(text)):
        raise ValueError(text)
    return number


def _is_within(value: Any, depth: int) -> bool:
    below = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return depth >= 0 and all(_is_within(item, depth - 1) for item in below)
