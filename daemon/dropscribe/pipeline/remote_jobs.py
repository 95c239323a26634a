"""Jobs at a provider: selects the files for them, and evaluates polls."""

from __future__ import annotations

import time
from functools import cache
from typing import TYPE_CHECKING, cast

from dropscribe.core.errors import AmbiguousFailure, ProviderUnusable
from dropscribe.core.links import is_link
from dropscribe.core.model import AtProvider, Retry
from dropscribe.providers.base import JobProvider, Unfinished
from dropscribe.providers.jobs import JOB_SECONDS, NO_RESULT, UNUSABLE_SECONDS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dropscribe.core.model import Job, RemoteJob
    from dropscribe.core.requests.params import ParamValue
    from dropscribe.files.audio import AudioFile
    from dropscribe.pipeline.runtime_config import RuntimeConfig
    from dropscribe.transcripts.model import Transcript


def job_provider_of(job: Job, runtime: RuntimeConfig, audio: AudioFile) -> JobProvider | None:
    """The provider that runs *job* by itself; None where the answer comes in the request.

    A rule that re-encodes recordings sends pieces, for which the row's single id is not enough.
    """
    rule, provider = runtime.rule(job.folder), runtime.providers[job.provider]
    if rule.reads_media or (rule.links and is_link(audio.suffix)):
        return None
    return cast("JobProvider", provider) if _runs_jobs(type(provider)) else None


@cache
def _runs_jobs(kind: type) -> bool:
    """Cached: a check against a protocol takes some 50 µs and is made for each file."""
    return issubclass(kind, JobProvider)


async def poll(
    job: Job, runtime: RuntimeConfig, remote: RemoteJob, params: Mapping[str, ParamValue]
) -> Transcript | AtProvider | Retry | ProviderUnusable:
    """Ask for the result once; a failed poll is repeated until the provider can be asked.

    Raises:
        ProviderError: The job is over without a result, or the provider does not finish it.
    """
    provider = runtime.providers[job.provider]
    if not isinstance(provider, JobProvider):
        raise AmbiguousFailure("job_lost", f"{job.provider} is of another type now, and has no jobs")
    found = await provider.poll_job(remote.id, params)
    if not isinstance(found, Unfinished):
        return found
    if isinstance(found.error, ProviderUnusable):
        return found.error
    age_seconds = max(0.0, time.time() - remote.created_at)
    wait_seconds = provider.poll_seconds(age_seconds)
    error = found.error
    if error is not None and error.code == NO_RESULT and age_seconds > UNUSABLE_SECONDS:
        return ProviderUnusable(error.code, error.reason, status=error.status, request_id=error.request_id)
    # After days without a network the result may still be there: only the provider's own answers count.
    if age_seconds > JOB_SECONDS and (error is None or error.status is not None):
        last = f"; its last poll: {error.reason}" if error is not None else ""
        raise AmbiguousFailure("job_unfinished", f"not finished after {JOB_SECONDS / 3600:.0f} h{last}")
    if error is not None:
        asked_seconds = getattr(error, "retry_after_seconds", None) or 0.0
        return Retry(max(wait_seconds, asked_seconds), error.code, error.reason)
    return AtProvider(remote.id, wait_seconds)
