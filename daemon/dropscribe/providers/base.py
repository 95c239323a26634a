"""The interface of all providers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dropscribe.core.errors import ProviderError
    from dropscribe.core.requests.params import ParamValue
    from dropscribe.files.audio import AudioFile
    from dropscribe.transcripts.model import Transcript


class Transcriber(Protocol):
    """Transcribes recordings: a provider, or one wrapped with a rule's preparation."""

    async def transcribe(self, audio: AudioFile, params: Mapping[str, ParamValue]) -> Transcript:
        """Upload *audio* once and return its transcript.

        One attempt; the caller retries. Cancel-safe: nothing is left open. After a return the whole
        file has been read through ``audio.blocks()`` or its digest is asked for by the caller.

        Args:
            audio: Settled file, open. Read in blocks, never whole.
            params: The provider's parameters with the rule's laid over them; sent as they are.

        Raises:
            TemporaryFailure: Network, timeout before the body was sent whole, 5xx, 429.
            AmbiguousFailure: The body was sent whole and no usable answer came.
            AudioRejected: The provider will never take this file.
            RuleRejected: The parameters are wrong for every file.
            ProviderUnusable: Key, credit, endpoint, model; says nothing about the file.
            AudioChanged: The file shrank while it was being sent.
        """


class Provider(Transcriber, Protocol):
    """One configured account at one vendor, or the engine on this machine."""

    async def probe(self) -> str:
        """Ask whether the provider answers and takes the key, without paying for audio.

        Returns the result in a few words, for ``check --online``; raises as :meth:`transcribe`.
        """

    async def close(self) -> None:
        """Close connections and unload models. Safe to call twice."""


@dataclass(frozen=True, slots=True)
class Unfinished:
    """A job at a provider that has no result yet."""

    # Why the provider could not be asked; None where it says that it works on the job.
    error: ProviderError | None = None


@runtime_checkable
class JobProvider(Provider, Protocol):
    """A provider that takes the audio, works on it by itself, and is asked for the result later."""

    async def start_job(self, audio: AudioFile, params: Mapping[str, ParamValue]) -> str:
        """Upload *audio* and create a job; returns the job's id. Raises as :meth:`Provider.transcribe`."""

    def poll_seconds(self, age_seconds: float) -> float:
        """The wait before the next poll of a job that is *age_seconds* old."""

    async def poll_job(self, job_id: str, params: Mapping[str, ParamValue]) -> Transcript | Unfinished:
        """Ask for the result of a job; sends no audio.

        Raises ProviderError if the job is over without one: it failed, or the provider does not know it.
        """

    async def delete_job(self, job_id: str) -> None:
        """Delete a job and its audio at the provider; a job that is gone already is no error.

        Raises ProviderError if it could not be deleted now.
        """
