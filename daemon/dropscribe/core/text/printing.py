"""Text from outside made harmless for terminals, logs and one-line fields. Pure."""

from __future__ import annotations


def escape_text(text: str, keep: str = "") -> str:
    r"""*text* with everything that does not print escaped: ``\n``, ``\x1b``, ``\u202e``, ``\udcff``.

    The letters of *keep* stay, and so does a backslash; direction marks and line separators do not print.
    """
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() or letter in keep else _escape(letter) for letter in text)


def one_line(text: str) -> str:
    """*text* with control characters and runs of white space made single spaces."""
    return " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())


def _escape(letter: str) -> str:
    return ascii(letter)[1:-1]
