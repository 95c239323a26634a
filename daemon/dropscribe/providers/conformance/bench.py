"""A provider under test and the server that stands for its vendor, as the checks see them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from dropscribe.core.errors import ProviderError
from dropscribe.providers.base import JobProvider, Unfinished

if TYPE_CHECKING:
    from collections.abc import Awaitable, Mapping

    from dropscribe.core.requests.params import ParamValue
    from dropscribe.files.audio import AudioFile
    from dropscribe.providers.base import Provider
    from dropscribe.transcripts.model import Transcript

KEY = "sk_conformance_key"

AUDIO = b"RIFF\x24\0\0\0WAVEfmt speech"
SPOKEN = "Hello there, this is what was said."
MOST_POLLS = 100


class Broken(AssertionError):
    """A provider does not keep a promise."""


@dataclass(frozen=True, slots=True)
class Fault:
    """Answer to one request in place of the vendor's documented one.

    Attributes:
        body: A text, or a value that is sent as JSON.
        close: Close the connection after the request, without an answer.
    """

    status: int = 200
    body: Any = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    close: bool = False


class Bench(Protocol):
    """A provider, its server, and files to send."""

    @property
    def key(self) -> str:
        """The key that the server takes."""

    def provider(self, **settings: Any) -> Provider:
        """A new provider for the server; *settings* are ProviderConfig's. The bench closes it."""

    def audio(self, content: bytes = AUDIO) -> AudioFile:
        """An open file with *content*. The bench closes it."""

    def shrink(self, audio: AudioFile) -> None:
        """Cut the content of *audio* to a byte."""

    def hear(self, text: str) -> None:
        """Make the vendor transcribe all audio as *text*."""

    def fail(self, *faults: Fault | None) -> None:
        """Set the answer to the next requests; None is the documented one."""

    def request_count(self) -> int:
        """Number of requests that the server has received."""

    def times_received(self, content: bytes) -> int:
        """Number of requests with the audio *content*, whole and unchanged."""


def expect(is_kept: object, promise: str) -> None:
    """Raise :class:`Broken` with *promise* where it is not kept."""
    if not is_kept:
        raise Broken(promise)


async def attempt(
    provider: Provider, audio: AudioFile, params: Mapping[str, ParamValue] | None = None
) -> Transcript:
    """One transcript of *audio*; jobs are polled at once, and a poll that fails is an error."""
    sent = params or {}
    if not isinstance(provider, JobProvider):
        return await provider.transcribe(audio, sent)
    job_id = await provider.start_job(audio, sent)
    for _ in range(MOST_POLLS):
        found = await provider.poll_job(job_id, sent)
        if not isinstance(found, Unfinished):
            return found
        if found.error is not None:
            raise found.error
    raise Broken(f"a job has no result after {MOST_POLLS} polls")


async def failure_of(awaited: Awaitable[object]) -> ProviderError:
    """The error of an attempt or another request, which must fail."""
    try:
        await awaited
    except ProviderError as error:
        return error
    raise Broken("a request that must fail does not fail with a ProviderError")
