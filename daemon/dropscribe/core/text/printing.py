"""Text from outside made harmless for terminals, logs and one-line fields; paths, figures and times. Pure."""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_ESCAPE_SEQUENCE = re.compile(
    r"\x1b(?:\[[0-?]*[ -/]*[@-~]|[\]PX^_][^\x07\x1b\x9c]*(?:\x07|\x1b\\|\x9c)?|[ -/]*[0-~])?"
    r"|\x9b[0-?]*[ -/]*[@-~]"
)
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_DIRECTION = re.compile(r"[\u202a-\u202e\u2066-\u2069]")
"""Control characters that set the direction of the following text, regardless of its letters."""
_MARKS = re.compile(r"[\u061c\u200e\u200f\ufeff]")
"""Direction marks, which have no width and move the punctuation beside them, and the byte order mark."""
_DECEPTIVE = re.compile(f"{_CONTROL.pattern}|{_DIRECTION.pattern}")


def escape_text(text: str, keep: str = "") -> str:
    r"""*text* with everything that does not print escaped: ``\n``, ``\x1b``, ``\u202e``, ``\udcff``.

    The letters of *keep* stay, and so does a backslash; direction marks and line separators do not print.
    """
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() or each in keep else ascii(each)[1:-1] for each in text)


def escape_deceptive(text: str) -> str:
    r"""*text* with control and direction characters escaped, but every space, tab and newline kept."""
    if text.isprintable():
        return text
    return _DECEPTIVE.sub(lambda found: ascii(found[0])[1:-1], text)


def one_line(text: str) -> str:
    """*text* with control characters and runs of white space made single spaces, without direction marks.

    Joiners (Persian words, emoji), tags (the flag of England) and characters that Python does not know stay.
    """
    if not text.isprintable():
        text = _DECEPTIVE.sub(" ", _MARKS.sub("", text))
    return " ".join(text.split())


def plain_text(text: str) -> str:
    """*text* without terminal sequences, control characters (but tab and newline) and lone surrogates.

    Direction controls are removed too, because they make a text look different from its real content.
    """
    if text.isprintable():
        return text
    text = _ESCAPE_SEQUENCE.sub("", text.replace("\r\n", "\n"))
    return _CONTROL.sub(" ", _DIRECTION.sub("", text))


def amount_words(amount: float) -> str:
    """Money or minutes with two decimals; a part of a hundredth with its first two digits: ``0.0034``."""
    if not 1e-9 < amount < 0.1:  # less is a sum's rounding error
        return f"{amount:.2f}"
    whole, _, decimals = f"{amount:.{1 - math.floor(math.log10(amount))}f}".partition(".")
    return f"{whole}.{decimals.rstrip('0').ljust(2, '0')}"


_UNITS = ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"))


def duration_words(seconds: float) -> str:
    """The two largest units: ``3 s``, ``2 min``, ``1 h 5 min``, ``3 d 4 h``."""
    rest = max(0, round(seconds))
    parts: list[str] = []
    for size, unit in _UNITS:
        number, rest = divmod(rest, size)
        if number or (unit == "s" and not parts):
            parts.append(f"{number} {unit}")
    # From ten minutes on, seconds are noise.
    return " ".join(parts[:1] if len(parts) > 1 and parts[1].endswith(" s") and seconds >= 600 else parts[:2])


def plural(number: int, word: str) -> str:
    """``1 file``, ``2 files``."""
    return f"{number:,} {word}" if number == 1 else f"{number:,} {word}s"


def clock_text(seconds: int) -> str:
    """Whole seconds as ``0:05`` or ``1:02:03``."""
    minutes, second = divmod(seconds, 60)
    hour, minute = divmod(minutes, 60)
    return f"{hour}:{minute:02d}:{second:02d}" if hour else f"{minute}:{second:02d}"


def name_text(path: bytes) -> str:
    r"""The last part of *path*; bytes that are not UTF-8 become ``\udcXX``."""
    return path_text(path.rpartition(b"/")[2])


def path_text(path: bytes) -> str:
    r"""*path* as text; bytes that are not UTF-8 become ``\udcXX``."""
    return path.decode("utf-8", "surrogateescape")


def shell_word(text: str) -> str:
    """*text* as one word of a shell's command line, on one line; odd bytes as bash's ``$'…'`` has them."""
    if text.isprintable():
        return shlex.quote(text)
    escaped = ""
    for letter in text.replace("\\", "\\\\").replace("'", "\\'"):
        odd_bytes = b"" if letter.isprintable() else letter.encode("utf-8", "surrogateescape")
        escaped += "".join(f"\\x{byte:02x}" for byte in odd_bytes) or letter
    return f"$'{escaped}'"


def utc_text(unix_seconds: float) -> str | None:
    """ISO 8601 in UTC to the millisecond; None for times that no calendar holds (a broken mtime)."""
    try:
        moment = _EPOCH + timedelta(seconds=unix_seconds)
    except (OverflowError, ValueError):
        return None
    return moment.isoformat(timespec="milliseconds").removesuffix("+00:00") + "Z"


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A hint such as "did you mean 'language'?", or the known names if none is similar."""
    import difflib  # noqa: PLC0415  # for mistakes alone

    names = sorted(known)
    near = difflib.get_close_matches(word.lower(), names, n=1, cutoff=0.6)
    if near:
        return f"did you mean '{near[0]}'?"
    return f"known here: {', '.join(names)}" if names else ""
