"""Events of the pipeline for log, metrics and hooks, each reported once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from dropscribe.core.budget import Account
    from dropscribe.core.model import AttemptEnd, Hold, Job


@dataclass(frozen=True, slots=True)
class Filed:
    """One file's end, with all that is told of it.

    Attributes:
        path: Relative to its inbox.
        filed: Where the audio stands now, absolute.
        is_done: False when it went to ``failed``.
        code: Why it failed, or "".
        reason: The same in words.
        attempts: Attempts that counted.
        waited_seconds: From arrival to here.
        audio_seconds: Length of the recording where it is known.
        audio_bytes: Size of the recording.
        is_reused: Its answer was known already; nothing was sent.
        outputs: (format, absolute path) of the files beside the audio.
        companions: Absolute paths of the files that came with it.
        recorded_at: When the recording was made, ISO 8601; None where nothing is known, and for failed files.
    """

    folder: str
    path: bytes
    filed: bytes
    is_done: bool
    provider: str
    attempts: int
    waited_seconds: float
    audio_bytes: int
    audio_seconds: float | None = None
    code: str = ""
    reason: str = ""
    is_reused: bool = False
    outputs: tuple[tuple[str, bytes], ...] = ()
    companions: tuple[bytes, ...] = ()
    recorded_at: str | None = None


class Observer(Protocol):
    """Observer of events; its methods must not raise and must be quick."""

    def attempt_ended(self, job: Job, ended: AttemptEnd) -> None:
        """An attempt at *job* ended, well or not."""
        ...

    def filed(self, filed: Filed) -> None:
        """A file was moved to done or failed."""
        ...

    def held(self, hold: Hold) -> None:
        """A provider or folder was held; not called again at its probes."""
        ...

    def released(self, hold: Hold) -> None:
        """The hold has ended."""
        ...

    def budget_low(self, account: Account) -> None:
        """Most of a budget is spent; called once in its day or month."""
        ...
