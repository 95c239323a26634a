"""Reduces log fields to printable values without secrets.

Guarantees: after :class:`Redactor` no value holds a secret that was given to it, nor its escaped forms,
also inside exception text; URLs carry no query and no password.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from dropscribe.core.links import without_query
from dropscribe.core.text.redaction import MASK, SecretMask

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

_MOST_KEYS = 512

_SECRET_KEY = re.compile(r"(?:^|[^a-z])(api[_-]?key|authorization|token|password|secret)$", re.IGNORECASE)
_URL_PASSWORD = re.compile(r"([a-z][a-z0-9+.-]{0,20}://)[^/\s@\"'<>]*@", re.IGNORECASE)

_SEQUENCES = (list, tuple, set, frozenset)

Plain = None | bool | int | float | str | list["Plain"] | dict[str, "Plain"]


class Redactor:
    """Makes values plain and masks secrets; a registered secret stays masked.

    Old keys stay too, because an attempt may end after the reload that changed its key.
    """

    def __init__(self) -> None:
        self._mask = SecretMask()
        self._keys: dict[str, tuple[str, bool]] = {}

    def learn(self, secrets: Iterable[str]) -> None:
        """Take *secrets* out of every value from now on."""
        self._mask.learn(secrets)
        self._keys = {}

    def clean_text(self, text: str) -> str:
        """*text* without secrets, and with its URLs cut before the query."""
        text = self._mask.mask(text)
        if "://" in text:
            text = without_query(_URL_PASSWORD.sub(rf"\1{MASK}@", text))
        return text

    def clean_fields(self, fields: Mapping[Any, Any]) -> dict[str, Plain]:
        """*fields* as plain values; those whose key says that they are secret are masked."""
        plain: dict[str, Plain] = {}
        for key, value in fields.items():
            name, is_secret = self._key(str(key))
            plain[name] = MASK if is_secret and value is not None else self.clean(value)
        return plain

    def _key(self, name: str) -> tuple[str, bool]:
        """The clean name, and whether it marks its value as secret; cached, because keys recur."""
        keys = self._keys  # another thread that learns secrets replaces the cache
        known = keys.get(name)
        if known is None:
            known = (self.clean_text(name), _SECRET_KEY.search(name) is not None)
            if len(keys) < _MOST_KEYS:
                keys[name] = known
        return known

    def clean(self, value: object) -> Plain:
        """*value* as JSON values. Bytes are paths: bytes that are not UTF-8 become lone surrogates."""
        if isinstance(value, str | bytes):  # first: most logged values
            return self.clean_text(_text_of(value))
        if value is None or isinstance(value, int):
            return value
        if isinstance(value, float):
            return value if math.isfinite(value) else str(value)
        if isinstance(value, Mapping):
            return dict(self.clean_fields(value))
        if isinstance(value, _SEQUENCES):
            return [self.clean(item) for item in value]
        return self.clean_text(_text_of(value))


def _text_of(value: object) -> str:
    if isinstance(value, bytes):
        return os.fsdecode(value)
    if isinstance(value, BaseException):
        return f"{type(value).__name__}: {value}"
    return str(value)
