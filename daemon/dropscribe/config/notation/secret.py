"""A secret in memory with its origin, which cannot be printed by accident."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Never, final

from dropscribe.core.text.redaction import MASK


@final
@dataclass(frozen=True, slots=True, repr=False)
class Secret:
    """A key or token.

    Guarantees: ``str``, ``repr`` and format never hold the value; pickling and copying are refused, so
    that no queue, log processor or crash dump contains it. Only :meth:`reveal` returns it.
    """

    _value: str
    origin: str = field(compare=False)  # "environment SMALLEST_API_KEY", "file /etc/key", "config", …

    def reveal(self) -> str:
        """The value itself, for the one header that carries it."""
        return self._value

    def __repr__(self) -> str:
        return f"<Secret from {self.origin}>"

    def __str__(self) -> str:
        return MASK

    def __format__(self, spec: str) -> str:
        return format(MASK, spec)

    def __reduce__(self) -> Never:
        raise TypeError("a secret is not pickled")
