"""Masks secrets in a provider's words; makes reasons for logs and files: one line, bounded."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, unquote, urlsplit

from dropscribe.core.text.printing import one_line
from dropscribe.core.text.redaction import SecretMask

if TYPE_CHECKING:
    from collections.abc import Iterable

REASON_CHARACTERS = 500

_SECRET_NAME = re.compile(r"key|token|secret|pass|auth|sig|credential", re.IGNORECASE)


class Redactor:
    """Masks secrets, as they are and percent-encoded.

    Args:
        secrets: Masked in reasons; ordinary words among them (a query's language) do no harm there.
        credentials: Masked in transcripts too, where an ordinary word must stay.
    """

    def __init__(self, secrets: Iterable[str], credentials: Iterable[str] = ()) -> None:
        self._mask = SecretMask(secrets)
        self._credentials = SecretMask(secret for secret in credentials if _is_no_word(secret))

    def __repr__(self) -> str:
        return "Redactor(…)"

    def reason(self, text: str) -> str:
        """*text* in one printable line of at most REASON_CHARACTERS, its secrets masked."""
        line = one_line(self._mask.mask(text))
        return line if len(line) <= REASON_CHARACTERS else line[: REASON_CHARACTERS - 1] + "…"

    def text(self, text: str) -> str:
        """*text* of a transcript with its credentials masked."""
        return self._credentials.mask(text)

    def value(self, value: Any) -> Any:
        """A JSON value with the credentials masked in every string, keys included."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, list):
            return [self.value(item) for item in value]
        if isinstance(value, dict):
            return {self.text(key): self.value(item) for key, item in value.items()}
        return value


def secrets_of(url: str, api_key: str | None) -> list[str]:
    """The key, and the possible secrets in a URL: its password and its query's values."""
    found = [value for _, value in parse_qsl(urlsplit(url).query)]
    return [*found, *credentials_of(url, api_key)]


def credentials_of(url: str, api_key: str | None) -> list[str]:
    """The key, the URL's password, and values of its query whose name says that they are secret."""
    parts = urlsplit(url)
    found = [value for name, value in parse_qsl(parts.query) if _SECRET_NAME.search(name)]
    if parts.password:
        found += [parts.password, unquote(parts.password)]
    return [*found, api_key] if api_key else found


def _is_no_word(secret: str) -> bool:
    """Whether nobody would say *secret*: masking a word of speech would falsify the transcript."""
    return len(secret) >= 8 or (len(secret) >= 6 and not secret.isalpha() and not secret.isdigit())
