"""Names of a job's files in ``done`` or ``failed``: groups, collision numbers, name limits, companions.

All files of a job share one stem and one number: ``call-2.wav`` is never beside ``call.json``. A companion
is a file that belongs to a recording by its name, as ``call.json`` to ``call.wav``. Its pattern has one
placeholder: ``{stem}`` is the recording's name without its suffix, ``{name}`` all of it.
"""

from __future__ import annotations

import bisect
import contextlib
import itertools
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, replace

from dropscribe.core.model import FileSnapshot, OutputNames

OUTPUT_FORMATS = ("json", "txt", "srt", "vtt", "md")  # the formats that ``outputs`` may list
TEMPLATE = "template:"
"""Prefix of the format of an output from a template; the ending of the output's name follows."""

_LINEAR_NUMBERS = 16
"""Numbers up to this one are tried one by one; then the search doubles, so that it stays short for a recorder
that has used one name for years."""

_LONGEST_SUFFIX = 16  # bytes; a longer text after the last dot is a part of the stem, and may be cut


def split_name(name: bytes) -> tuple[bytes, bytes]:
    """(stem, suffix with its dot or b""); ``St. Mary's, the sermon of the first Sunday`` has no suffix."""
    stem, dot, suffix = name.rpartition(b".")
    return (stem, dot + suffix) if stem and len(suffix) <= _LONGEST_SUFFIX else (name, b"")


def leads_below(path: bytes) -> bool:
    """Whether *path* can only lead below the folder that it is relative to; the file system is not asked."""
    return b"\0" not in path and {b"", b".", b".."}.isdisjoint(path.split(b"/"))


def is_within(names: OutputNames, roots: Collection[bytes]) -> bool:
    """Whether all files of *names* stand below one of *roots*, and its companions beside their recording."""
    files = [*names.all_names, *(companion.source for companion in names.companions)]
    folders = [names.directory] if names.directory else []
    is_plain = not any(b"/" in name for name in files)
    return names.root in roots and is_plain and all(map(leads_below, [*folders, *files]))


@dataclass(frozen=True, slots=True)
class Companion:
    """One companion of a recording, as it was when the recording's names were chosen."""

    pattern: bytes  # as the file spells it
    source: bytes  # its name beside the recording in the inbox
    snapshot: FileSnapshot  # anything else at that name is another file
    name: bytes = b""  # its name in ``done`` or ``failed``; b"" before it is chosen


def spellings(pattern: str) -> tuple[bytes, ...]:
    """*pattern* as it is, and with its fixed text in lower and upper case: ``CALL.XML`` for ``CALL.WAV``."""
    before, placeholder, after = split_pattern(pattern)
    cased = ((before, after), (before.lower(), after.lower()), (before.upper(), after.upper()))
    texts = dict.fromkeys(start + placeholder + end for start, end in cased)
    return tuple(text.encode("utf-8", "surrogateescape") for text in texts)


def as_glob(pattern: str) -> str:
    """The glob that matches the companions of all recordings."""
    before, _, after = split_pattern(pattern)
    return f"{before}*{after}"


def split_pattern(pattern: str) -> tuple[str, str, str]:
    """(text before the placeholder, the placeholder, text after it)."""
    return pattern.partition("{stem}" if "{stem}" in pattern else "{name}")


@dataclass(frozen=True, slots=True)
class OutputPlan:
    """One job's files before their names are chosen."""

    root: bytes  # absolute path of ``done`` or ``failed``
    path: bytes  # the audio's path relative to its inbox; its folders are kept
    # Sidecars to name, in writing order: json, txt, srt, vtt, md, error, "template:minutes.txt".
    formats: Collection[str]
    # "stem" (call.json) or "full" (call.wav.json). Where the audio or a companion has a sidecar's name, all
    # sidecars of the job get the other one.
    sidecar_name: str = "stem"
    companions: tuple[Companion, ...] = ()  # the files that go with the audio


def number_names(plan: OutputPlan, number: int = 1, name_max_bytes: int = 255) -> OutputNames:
    """The names of *plan* with one collision number, which from 2 on is part of every name.

    The stem is cut until every name has at most *name_max_bytes*.
    """
    directory, _, name = plan.path.rpartition(b"/")
    stem, suffix = split_name(name)
    base = _sidecar_base(plan, name)
    endings = [(form, base + sidecar_ending(form)) for form in plan.formats]
    added = [len(companion_name(each.pattern, name)) - len(stem) for each in plan.companions]
    longest = max([len(suffix), *(len(ending) for _, ending in endings), *added])
    stem = _numbered(stem, number, name_max_bytes - longest)
    audio = stem + suffix
    sidecars = tuple((form, stem + ending) for form, ending in endings)
    companions = (replace(each, name=companion_name(each.pattern, audio)) for each in plan.companions)
    return OutputNames(plan.root, directory, audio, sidecars, tuple(companions))


def _sidecar_base(plan: OutputPlan, audio: bytes) -> bytes:
    """The text before the endings of the sidecars' names: one that collides with no other file of the job."""
    stem, suffix = split_name(audio)
    others = {audio.lower(), *(companion_name(each.pattern, audio).lower() for each in plan.companions)}
    usual = (suffix, b"") if plan.sidecar_name == "full" else (b"", suffix)
    further = (b".transcript" * count for count in itertools.count(1))
    return next(
        base
        for base in itertools.chain(usual, further)
        if others.isdisjoint((stem + base + sidecar_ending(form)).lower() for form in plan.formats)
    )


def companion_name(pattern: bytes, audio: bytes) -> bytes:
    """The name that *pattern* gives to a companion of the recording *audio*."""
    placeholder, text = (b"{stem}", split_name(audio)[0]) if b"{stem}" in pattern else (b"{name}", audio)
    return pattern.replace(placeholder, text, 1)


def sidecar_ending(form: str) -> bytes:
    """The end of the name of a sidecar of the format *form*, with its dot."""
    if form == "error":
        return b".error.json"
    return b"." + form.removeprefix(TEMPLATE).encode("utf-8", "surrogateescape")


def sidecar_names(audio: bytes, ending: bytes, companions: Iterable[str]) -> list[bytes]:
    """The names that a sidecar of the filed *audio* (name or path) may have, those of *companions* last."""
    name = audio.rpartition(b"/")[2]
    theirs = tuple(companion_name(pattern.encode(), name).lower() for pattern in companions)
    names = [base + ending for base in (split_name(audio)[0], audio, split_name(audio)[0] + b".transcript")]
    return sorted(names, key=lambda sidecar: sidecar.rpartition(b"/")[2].lower() in theirs)


def first_free(is_free: Callable[[int], bool]) -> int:
    """The number to use: the lowest free one near the start, else a free one found by doubling."""
    for number in range(1, _LINEAR_NUMBERS + 1):
        if is_free(number):
            return number
    free = _LINEAR_NUMBERS * 2
    while not is_free(free):
        free *= 2
    return bisect.bisect_left(range(free), True, lo=free // 2 + 1, key=is_free)


def free_name(name: bytes, is_free: Callable[[bytes], bool]) -> bytes:
    """*name*, numbered if it is taken, for a file that is moved back into an inbox."""
    stem, suffix = split_name(name)

    def numbered(number: int) -> bytes:
        return _numbered(stem, number, 255 - len(suffix)) + suffix

    return numbered(first_free(lambda number: is_free(numbered(number))))


def _numbered(stem: bytes, number: int, limit_bytes: int) -> bytes:
    """*stem* with its collision number, cut to *limit_bytes*; not within a character where it is UTF-8."""
    mark = b"-%d" % number if number > 1 else b""
    cut = stem[: max(1, limit_bytes - len(mark))]
    if cut != stem:
        with contextlib.suppress(UnicodeDecodeError):
            stem.decode()
            cut = cut.decode(errors="ignore").encode() or cut
    return cut + mark
