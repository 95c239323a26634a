"""What an answer adds to the result cache and to the budgets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dropscribe.core.model import Scope


@dataclass(frozen=True, slots=True)
class AnswerKey:
    """Under what an answer may be found again: the content, and how it was asked for.

    Attributes:
        sha256: Hex digest of the audio.
        settings: Hex digest of all that shapes an answer (provider, parameters, what the rule does).
    """

    sha256: str
    settings: str


@dataclass(frozen=True, slots=True)
class Spending:
    """What one answer cost, charged to a provider or a folder.

    Attributes:
        day: In the configured time zone, "2026-11-21".
        seconds: Of audio; None where nobody could tell.
    """

    scope: Scope
    day: str
    money: float
    seconds: float | None


@dataclass(frozen=True, slots=True)
class Booking:
    """What an answer adds to the result cache and to the budgets, in the transaction that stores it.

    Attributes:
        answer: The answer's key in the cache; None where it is not cached.
        keep_seconds: Cached answers that are older than this are deleted.
        spending: What it cost whom.
        document: What the cache keeps in place of the stored result's document, or b"".
    """

    answer: AnswerKey | None = None
    keep_seconds: float = 0.0
    spending: tuple[Spending, ...] = ()
    document: bytes = b""
