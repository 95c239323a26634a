"""All errors of dropscribe, grouped by cause: config, machine, file, listener, publishing, provider.

Errors carry data; ``cli`` puts them into words. No message holds a secret.
"""

from __future__ import annotations

from dataclasses import dataclass, field

_EXCERPT = 160  # at most so many characters of a config's line are shown


class DropscribeError(Exception):
    """Base of all errors that dropscribe raises on purpose."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong in a config, with its place."""

    message: str  # the problem, without the place
    file: str = ""  # the config's path as the user gave it
    line: int = 0  # 1-based; 0 when the problem has no place
    column: int = 0  # 1-based, in characters; 0 when the problem has no place
    length: int = 1  # how many characters the caret underlines; at least 1 where there is a place
    hint: str = ""  # the suggested correction ("did you mean 'language'?"), or ""
    source_line: str = ""  # the line itself, for the caret, or ""; never one that may hold a secret
    path: str = ""  # dotted path of the key ("folders.calls.provider"), or ""
    warning: bool = False  # True for a problem that is reported but not refused

    @property
    def place(self) -> str:
        """``file:line:column``, or the file alone."""
        return self.file + (f":{self.line}:{self.column}" if self.line else "")

    def __str__(self) -> str:
        """``file:line:column: message``, then the line and a caret with the hint, or the hint alone.

        A line break in a value is escaped.
        """
        message = f"{self.path}: {self.message}" if self.path else self.message
        if self.warning:
            message = f"warning: {message}"
        hint = _one_line(self.hint)
        head = _one_line(f"{self.place}: {message}" if self.file else message)
        if not self.source_line:
            return f"{head}\n    {hint}" if hint else head
        start = max(0, self.column - _EXCERPT // 2) if len(self.source_line) > _EXCERPT else 0
        caret = (" " * (self.column - 1 - start) + "^" * max(self.length, 1))[:_EXCERPT]
        source = self.source_line.replace("\t", " ")[start : start + _EXCERPT]
        return f"{head}\n{self.line:6d} | {source}\n{'':6} | {caret} {hint}".rstrip()


def _one_line(text: str) -> str:
    return text.replace("\n", "\\n")


class ConfigError(DropscribeError):
    """Raised when a config cannot be used; *problems* holds all of them."""

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        super().__init__(f"{len(problems)} config problem(s)")
        self.problems = problems


@dataclass(eq=False)
class StoreError(DropscribeError):
    """Raised when the state directory cannot be used."""

    path: str  # the state directory, database or inbox concerned
    reason: str  # the system's message
    remedy: str = ""  # a step for the admin

    def __post_init__(self) -> None:
        super().__init__(f"{self.path}: {self.reason}")


class StoreInUse(StoreError):
    """Raised when another daemon has the state directory or, maybe on another machine, an inbox."""


class StoreFull(StoreError):
    """Raised when the state directory's disk has no room for a row."""


class StoreBusy(StoreError):
    """Raised when another process has the database locked for longer than the lock timeout."""


class StoreAway(StoreBusy):
    """Raised while a cluster's database is unavailable; nodes wait for it."""


class StoreUnusable(StoreError):
    """Raised when the database is corrupt, from a newer version, or on a network file system."""


@dataclass(eq=False)
class AudioError(DropscribeError):
    """Raised when an audio file cannot be read now, for a reason other than its content."""

    path: bytes
    reason: str

    def __post_init__(self) -> None:
        super().__init__(self.reason)


class AudioMissing(AudioError):
    """Raised when nothing is at the path, or a folder on the way is gone."""


class AudioChanged(AudioError):
    """Raised when the path no longer leads to the file that settled."""


class AudioForbidden(AudioError):
    """Raised when the file may not be read; *reason* names owner and mode."""


class AudioUnsafe(AudioError):
    """Raised for symlinks, devices, pipes and sockets anywhere on the path."""


@dataclass(eq=False)
class PublishError(DropscribeError):
    """Raised when files could not be written or moved; the stored answer is safe."""

    path: bytes  # the file or folder concerned
    reason: str  # the system's message
    code: str  # the errno's name ("ENOSPC"), or dropscribe's own code

    def __post_init__(self) -> None:
        super().__init__(f"{self.code}: {self.reason}")


@dataclass(eq=False)
class ListenError(DropscribeError):
    """Raised when the listener cannot listen."""

    address: str  # host:port, as the config has it
    reason: str  # the system's message, or the missing part

    def __post_init__(self) -> None:
        super().__init__(f"{self.address}: {self.reason}")


@dataclass(eq=False)
class ProviderError(DropscribeError):
    """Raised by a provider when its one attempt failed."""

    # A short stable word: the provider's own code where it has one ("insufficient_quota"), else ours
    # ("timeout", "http_500", "bad_answer").
    code: str
    reason: str = ""  # the provider's words or the system's, cut to 500 characters, with no secret in them
    status: int | None = field(default=None, kw_only=True)  # the HTTP status, or None where none came
    request_id: str | None = field(default=None, kw_only=True)  # the provider's id of the request, or None

    def __post_init__(self) -> None:
        super().__init__(f"{self.code}: {self.reason}" if self.reason else self.code)
        self.reason = self.reason or self.code


@dataclass(eq=False)
class TemporaryFailure(ProviderError):
    """Raised when the same request may succeed later: network, 408, 409, 429, 5xx."""

    # The wait that the provider asked for, or None.
    retry_after_seconds: float | None = field(default=None, kw_only=True)
    # True when the whole provider must slow down (429, 503), not only this file.
    slows_provider: bool = field(default=False, kw_only=True)


class AmbiguousFailure(ProviderError):
    """Raised when the body was sent whole and no usable answer came: it may have been paid for."""


@dataclass(eq=False)
class AudioRejected(ProviderError):
    """Raised when the provider will never take this file (format, size, length)."""

    # True for a 400 that may be caused by the rule; the same error for three different files in a row holds
    # the rule.
    maybe_rule: bool = field(default=False, kw_only=True)


class RuleRejected(ProviderError):
    """Raised when the rule's parameters are wrong for this provider: the rule is held."""


class ProviderUnusable(ProviderError):
    """Raised when key, credit, endpoint, model or plan stop every file: the provider is held."""
