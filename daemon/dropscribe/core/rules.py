"""Decides whether a folder rule takes a file, and gives the reason if it does not.

Names are bytes throughout: a recorder's Latin-1 name is a name like any other. Patterns are matched without
regard to case, because ``*.wav`` is meant to take a recorder's ``CALL.WAV``.

Guarantees: pure, and the same answer for intake, ``plan`` and ``why``.
"""

from __future__ import annotations

import functools
import re
import stat

from dropscribe.core.ignored_names import owner_of_folder, reason_temporary
from dropscribe.core.links import LINK_SUFFIXES
from dropscribe.core.naming import as_glob
from dropscribe.core.text.printing import path_text

_AUDIO_AND_VIDEO = (
    b"3ga 8svx aac ac3 adts aif aifc aiff alac amr ape au awb caf dss ds2 dts eac3 flac gsm loas m4a m4b m4p"
    b" m4r mka mlp mp1 mp2 mp3 mpa mpc mpga oga ogg opus pcm qcp ra ram raw rf64 sln sln12 sln16 sln24"
    b" sln32 sln44 sln48 sln96 sln192 snd spx tta voc vox w64 wav wave weba wma wv"
    b" 3g2 3gp asf avi divx f4v flv m2ts m2v m4v mkv mov mp4 mpeg mpg mts mxf ogv ogx qt rm rmvb ts vob webm"
    b" wmv"
)
KNOWN_SUFFIXES = frozenset(_AUDIO_AND_VIDEO.split())
"""Suffixes that a rule without ``include`` takes. A provider may still refuse a file with one of them."""

DEFAULT_INCLUDE = tuple(f"*.{suffix.decode()}" for suffix in sorted(KNOWN_SUFFIXES))
"""The same suffixes as patterns, for messages and for the config's schema."""


class FilePatterns:
    """One rule's patterns, compiled once because every name of every listing is matched."""

    def __init__(
        self,
        include: tuple[str, ...],
        exclude: tuple[str, ...],
        *,
        recursive: bool,
        links: bool = False,
        companions: tuple[str, ...] = (),
    ) -> None:
        plain = {glob for glob in include if _PLAIN_SUFFIX.fullmatch(glob)}
        self._suffixes = frozenset(glob[2:].lower().encode() for glob in plain) if include else KNOWN_SUFFIXES
        if links:
            self._suffixes |= {suffix[1:].encode() for suffix in LINK_SUFFIXES}
        self._include = [_Pattern(glob) for glob in include if glob not in plain]
        self._exclude = [_Pattern(glob) for glob in exclude]
        self._companions = [(pattern, _Pattern(as_glob(pattern))) for pattern in companions]
        self._is_default = not include or include == DEFAULT_INCLUDE
        self._recursive = recursive

    def takes(self, path: bytes) -> bool:
        """Whether a regular file at *path* (relative to the inbox) is taken."""
        return self.reason_not_taken(path) is None

    def reason_not_taken(self, path: bytes) -> str | None:
        """Reason why a regular file at *path* (relative to the inbox) is not taken; None if it is."""
        *folders, name = path.split(b"/")
        if folders and not self._recursive:
            return "it is in a sub-folder, and the rule is not recursive"
        if folders and (reason := next(filter(None, map(_reason_not_entered, folders)), None)):
            return reason
        if reason := reason_temporary(name):
            return reason
        return self._reason_by_patterns(path, name)

    def enters(self, name: bytes) -> bool:
        """Whether a folder called *name* is looked into."""
        return self._recursive and _reason_not_entered(name) is None

    def _reason_by_patterns(self, path: bytes, name: bytes) -> str | None:
        for companion, pattern in self._companions:
            if pattern.matches(path, name):
                return f'it goes with its recording: the rule\'s companions have "{companion}"'
        stem, _, suffix = name.rpartition(b".")
        has_suffix = bool(stem) and suffix.lower() in self._suffixes
        if not has_suffix and not any(pattern.matches(path, name) for pattern in self._include):
            if self._is_default:
                return "its suffix is not one of the known audio and video suffixes"
            return "no pattern of the rule's include matches it"
        hits = (pattern.source for pattern in self._exclude if pattern.matches(path, name))
        return next((f'the pattern "{hit}" of the rule\'s exclude matches it' for hit in hits), None)


compiled_patterns = functools.lru_cache(maxsize=64)(FilePatterns)  # shared by callers with equal patterns

_KINDS = (
    (stat.S_ISLNK, "it is a symlink, and symlinks are never followed"),
    (stat.S_ISDIR, "it is a folder"),
    (stat.S_ISFIFO, "it is a pipe"),
    (stat.S_ISSOCK, "it is a socket"),
    (stat.S_ISCHR, "it is a device"),
    (stat.S_ISBLK, "it is a device"),
)


def reason_not_a_file(mode: int) -> str | None:
    """Reason why an entry with this st_mode is never taken; None for a regular file."""
    if stat.S_ISREG(mode):
        return None
    return next((reason for is_kind, reason in _KINDS if is_kind(mode)), "it is not a regular file")


def _reason_not_entered(name: bytes) -> str | None:
    if owner := owner_of_folder(name):
        return f'the folder "{path_text(name)}" belongs to {owner}'
    reason = reason_temporary(name, is_folder=True)
    return reason and f'in the folder "{path_text(name)}": {reason}'


_PLAIN_SUFFIX = re.compile(r"\*\.[A-Za-z0-9]+")
"""Patterns of a suffix alone: a single set lookup checks a name against all of them."""


class _Pattern:
    """One glob: without "/" it is matched against the name, with one against the relative path."""

    def __init__(self, source: str) -> None:
        self.source = source
        self._on_path = "/" in source
        expression = "".join(map(_translate_token, _GLOB_TOKEN.findall(source)))
        self._regex = re.compile(expression, re.DOTALL | re.IGNORECASE)

    def matches(self, path: bytes, name: bytes) -> bool:
        return self._regex.fullmatch(path_text(path if self._on_path else name)) is not None


_GLOB_TOKEN = re.compile(r"(?:^|(?<=/))\*\*/|\*\*|\*|\?|\[!?+\]?+[^\]]*\]|.", re.DOTALL)


def has_empty_class(glob: str) -> bool:
    """Whether *glob* has a reversed range of characters, such as ``[z-a]``, which matches nothing."""
    return _NOTHING in map(_translate_token, _GLOB_TOKEN.findall(glob))


def has_open_bracket(glob: str) -> bool:
    """Whether *glob* has a ``[`` without its ``]``, which stands for itself."""
    return "[" in _GLOB_TOKEN.findall(glob)


def _translate_token(token: str) -> str:
    simple = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    if token in simple:
        return simple[token]
    if len(token) == 1:
        return re.escape(token)
    negated = token[1:2] == "!"
    letters = token[2 if negated else 1 : -1]
    inside = _IN_CLASS.sub(lambda of: "-".join(map(re.escape, of.groups() if of[1] else of[0])), letters)
    translated = f"(?!/)[{'^' if negated else ''}{inside}]"
    try:
        re.compile(translated)
    except re.error:  # a range that runs backwards
        return _NOTHING
    return translated


_NOTHING = "(?!)"
_IN_CLASS = re.compile(r"(.)-(.)|.", re.DOTALL)  # a range, or one character
