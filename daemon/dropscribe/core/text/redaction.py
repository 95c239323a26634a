"""Masks secrets in text: log lines, reasons and providers' answers. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from urllib.parse import quote

MASK = "***"
SHORTEST_SECRET = 4
"""Shortest masked secret: a dummy key such as "x" (for some local servers) would mask half of every line."""

NAMES_OF_SECRETS = "key|token|secret|credential|passw|passphrase|(?<![a-z])pass$|pwd$"
"""A regular expression of what names of settings and variables have in them if their values are secret."""


class SecretMask:
    """Replaces secrets, also in their escaped and percent-encoded forms.

    A learned secret is never unlearned: an attempt may end after the reload that changed its key.
    """

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        self._forms: set[str] = set()
        self._pattern: re.Pattern[str] | None = None
        self.learn(secrets)

    def learn(self, secrets: Iterable[str]) -> None:
        """Mask *secrets* too from now on."""
        for secret in secrets:
            if len(secret) >= SHORTEST_SECRET:
                self._forms |= {secret, repr(secret)[1:-1], json.dumps(secret)[1:-1], quote(secret, safe="")}
        if self._forms:
            longest_first = sorted(self._forms, key=len, reverse=True)
            self._pattern = re.compile("|".join(map(re.escape, longest_first)))

    def mask(self, text: str) -> str:
        """*text* with each secret in it masked."""
        return text if self._pattern is None else self._pattern.sub(MASK, text)
