"""A request as an emulator received it, and an answer that refuses it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass
class Received:
    """One request as it came."""

    method: str
    path: str
    params: list[tuple[str, str]]
    headers: dict[str, str]
    fields: list[tuple[str, str]] = field(default_factory=list)
    filename: str = ""
    part_type: str = ""
    body_bytes: int = 0
    audio_bytes: int = 0
    audio_sha256: str = ""
    complete: bool = False
    link: str = ""


class Refused(Exception):
    """Raised for a request that breaks the vendor's contract, with the vendor's answer."""

    def __init__(self, status: int, body: Any) -> None:
        super().__init__(status)
        self.status = status
        self.body = body
