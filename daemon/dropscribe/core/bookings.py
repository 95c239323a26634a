"""Entries of an answer in the result cache and in the budgets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dropscribe.core.model import Scope


@dataclass(frozen=True, slots=True)
class AnswerKey:
    """The key of an answer in the cache: the content and the settings of the request.

    Attributes:
        sha256: Hex digest of the audio.
        settings: Hex digest of all settings that affect an answer (provider, parameters, rule).
    """

    sha256: str
    settings: str


@dataclass(frozen=True, slots=True)
class Spending:
    """The cost of one answer, charged to a provider or a folder.

    Attributes:
        day: In the configured time zone, "2026-11-21".
        seconds: Of audio; None if unknown.
    """

    scope: Scope
    day: str
    money: float
    seconds: float | None


@dataclass(frozen=True, slots=True)
class Booking:
    """Entries of an answer in the result cache and the budgets, written in the transaction that stores it.

    Attributes:
        answer: The answer's key in the cache; None where it is not cached.
        keep_seconds: Cached answers that are older than this are deleted.
        spending: Its cost, by provider and folder.
        document: The document for the cache, if it differs from the stored result's; else b"".
    """

    answer: AnswerKey | None = None
    keep_seconds: float = 0.0
    spending: tuple[Spending, ...] = ()
    document: bytes = b""
