"""Names of a job's files in ``done`` or ``failed``: groups, collision numbers, name limits.

The whole group shares one stem and one number: ``call-2.wav`` never stands beside
``call.json``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dropscribe.core.model import Group

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

TEMPLATE = "template:"
"""Before the ending of an output's name, the format of an output by a template."""

_LINEAR_NUMBERS = 16
"""The lowest free number is looked for this far; beyond, the search doubles (a recorder that uses one
name for years must not pay for each earlier recording)."""


def split_name(name: bytes) -> tuple[bytes, bytes]:
    """(stem, suffix with its dot); a name without a suffix has b""."""
    stem, dot, suffix = name.rpartition(b".")
    return (stem, dot + suffix) if dot and stem else (name, b"")


def number_group(
    root: bytes,
    path: bytes,
    formats: Sequence[str],
    *,
    sidecar_name: str = "stem",
    number: int = 1,
    name_max_bytes: int = 255,
) -> Group:
    """The group for *path* (relative to its inbox) under *root* with collision *number* (1: none).

    Args:
        root: Absolute path of ``done`` or ``failed``.
        path: The audio's path relative to its inbox; its folders are kept.
        formats: Sidecars to name, in writing order: json, txt, srt, vtt, md, error, "template:minutes.txt".
        sidecar_name: "stem" (call.json; an audio file with a sidecar's suffix gets "full") or "full"
            (call.wav.json).
        number: 1-based; from 2 on it is part of every name.
        name_max_bytes: The file system's limit; the stem is cut until every name fits.
    """
    directory, _, name = path.rpartition(b"/")
    stem, suffix = split_name(name)
    # A rule that takes *.json or *.txt as audio: the sidecar of that form would have the audio's own name.
    is_full = sidecar_name == "full" or suffix in {_ending(form) for form in formats}
    base = suffix if is_full else b""
    endings = [(form, base + _ending(form)) for form in formats]
    mark = b"-%d" % number if number > 1 else b""
    longest = max(len(ending) for ending in [suffix, *(ending for _, ending in endings)])
    stem = _cut(stem, name_max_bytes - longest - len(mark)) + mark
    return Group(
        root=root,
        directory=directory,
        audio=stem + suffix,
        sidecars=tuple((form, stem + ending) for form, ending in endings),
    )


def first_free(is_free: Callable[[int], bool]) -> int:
    """The number to use: the lowest free one near the start, else a free one found by doubling."""
    for number in range(1, _LINEAR_NUMBERS + 1):
        if is_free(number):
            return number
    taken, free = _LINEAR_NUMBERS, _LINEAR_NUMBERS * 2
    while not is_free(free):
        taken, free = free, free * 2
    while free - taken > 1:
        middle = (taken + free) // 2
        if is_free(middle):
            free = middle
        else:
            taken = middle
    return free


def free_name(name: bytes, is_free: Callable[[bytes], bool]) -> bytes:
    """*name*, or it with the next free number, for a file that goes back into an inbox."""
    stem, suffix = split_name(name)

    def numbered(number: int) -> bytes:
        mark = b"-%d" % number if number > 1 else b""
        return _cut(stem, 255 - len(suffix) - len(mark)) + mark + suffix

    return numbered(first_free(lambda number: is_free(numbered(number))))


def _ending(form: str) -> bytes:
    if form == "error":
        return b".error.json"
    return b"." + form.removeprefix(TEMPLATE).encode("utf-8", "surrogateescape")


def _cut(stem: bytes, limit_bytes: int) -> bytes:
    """*stem* cut to *limit_bytes*, not within a UTF-8 character where it is UTF-8."""
    if len(stem) <= limit_bytes:
        return stem
    cut = stem[: max(1, limit_bytes)]
    try:
        stem.decode()
    except UnicodeDecodeError:
        return cut
    return cut.decode(errors="ignore").encode() or cut
