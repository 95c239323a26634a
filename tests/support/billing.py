"""The emulator as a vendor that counts paid answers, refuses some audio, and delays or fails at random."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from support.emulator import Emulator, Fault
from support.vendors import Received, Vendors

if TYPE_CHECKING:
    import random


class Till(Vendors):
    """Counts each answer that was paid for by the digest of its audio.

    An answer is paid for if the audio was received whole and the status is not 503, read or not.

    Attributes:
        refused: Digests of audio that is answered with 415.
    """

    def __init__(self) -> None:
        super().__init__()
        self.paid: Counter[str] = Counter()
        self.refused: set[str] = set()

    def documented(self, request: Received, body: bytes) -> tuple[int, Any]:
        status, answer = super().documented(request, body)
        if status == 200 and request.method == "POST":
            self.paid[request.audio_sha256] += 1
            if request.audio_sha256 in self.refused:
                return 415, {"error": "Unsupported media type"}
        return status, answer

    def paid_again(self) -> int:
        """Answers paid for a second time or more."""
        return sum(times - 1 for times in self.paid.values())


class Weather:
    """Endless faults in place of a script: delays at random, and a share of 503s."""

    def __init__(self, rng: random.Random, *, share_503: float, delay_seconds: tuple[float, float]) -> None:
        self._rng = rng
        self._share_503 = share_503
        self._delay_seconds = delay_seconds

    def __bool__(self) -> bool:
        return True

    def popleft(self) -> Fault:
        if self._rng.random() < self._share_503:
            return Fault(status=503, body={"error": "overloaded"})
        return Fault(delay_seconds=self._rng.uniform(*self._delay_seconds))


def billing_emulator(host: str = "127.0.0.1") -> tuple[Emulator, Till]:
    """An emulator that listens on *host*, to be entered, and its till."""
    emulator, till = Emulator(host=host), Till()
    emulator.vendors = till
    return emulator, till
