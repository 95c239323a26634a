"""What others say, made fit for logs and files: one line, bounded, no secret in it."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, unquote, urlsplit

from dropscribe.core.printing import one_line
from dropscribe.core.redaction import SecretMask

if TYPE_CHECKING:
    from collections.abc import Iterable

REASON_CHARACTERS = 500


class Redactor:
    """Makes reasons out of strangers' words.

    Guarantees: none of the secrets, as they are or percent-encoded, is in what it returns.
    """

    def __init__(self, secrets: Iterable[str]) -> None:
        self._mask = SecretMask(secrets)

    def __repr__(self) -> str:
        return "Redactor(…)"

    def reason(self, text: str) -> str:
        """*text* in one printable line of at most REASON_CHARACTERS, its secrets masked."""
        line = one_line(self._mask.mask(text))
        return line if len(line) <= REASON_CHARACTERS else line[: REASON_CHARACTERS - 1] + "…"


def secrets_of(url: str, api_key: str | None) -> list[str]:
    """The key, and what a URL may hold of secrets: its password and its query's values."""
    parts = urlsplit(url)
    found = [value for _, value in parse_qsl(parts.query)]
    if parts.password:
        found += [parts.password, unquote(parts.password)]
    return [*found, api_key] if api_key else found
