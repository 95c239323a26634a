"""The promises of :class:`dropscribe.providers.base.JobProvider`, each as one check."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dropscribe.config.notation.secret import Secret
from dropscribe.core.errors import AmbiguousFailure, ProviderError, ProviderUnusable
from dropscribe.providers.base import JobProvider, Unfinished
from dropscribe.providers.conformance.bench import AUDIO, SPOKEN, Broken, Fault, attempt, expect

if TYPE_CHECKING:
    from collections.abc import Awaitable
    from typing import Any

    from dropscribe.providers.conformance.bench import Bench
    from dropscribe.providers.conformance.checks import Check

FAULTS = (
    Fault(500),
    Fault(429),
    Fault(504),
    Fault(400, {"error": "no"}),
    Fault(close=True),
    Fault(body="no JSON"),
    Fault(404, "<html><body>a proxy</body></html>"),
)
"""Answers to a poll that say nothing about the job."""
UNKNOWN_STATE = Fault(body={"status": "of no document"})


async def polling_sends_no_audio(bench: Bench) -> None:
    """The audio goes up once, however often the job is asked for."""
    await attempt(_jobs(bench), bench.audio())
    expect(bench.times_received(AUDIO) == 1, "the audio is sent once")


async def a_poll_that_fails_says_nothing_about_the_job(bench: Bench) -> None:
    """The job goes on at the vendor, and is asked for again."""
    bench.hear(SPOKEN)
    for fault in (*FAULTS, UNKNOWN_STATE):
        provider = _jobs(bench)
        job_id = await provider.start_job(bench.audio(), {})
        bench.fail(fault)
        found = await provider.poll_job(job_id, {})
        is_told = isinstance(found, Unfinished) and (found.error or fault is UNKNOWN_STATE)
        expect(is_told, f"{fault} in a poll is told, and no verdict")
        while isinstance(found, Unfinished):
            found = await provider.poll_job(job_id, {})
        expect(found.text == SPOKEN, f"after {fault} the job has its result")


async def a_key_that_is_refused_while_polling_keeps_the_job(bench: Bench) -> None:
    """The account's trouble holds the provider; the job is still there with the next key."""
    job_id = await _jobs(bench).start_job(bench.audio(), {})
    found = await _jobs(bench, api_key=Secret("sk_another_key", "test")).poll_job(job_id, {})
    is_held = isinstance(found, Unfinished) and isinstance(found.error, ProviderUnusable)
    expect(is_held, f"a key that is refused holds the provider, and the job is unfinished: {found!r}")


async def a_job_that_the_vendor_does_not_know_is_over(bench: Bench) -> None:
    """It may have been paid for."""
    job_id = await _jobs(bench).start_job(bench.audio(), {})
    provider = _jobs(bench)
    await provider.delete_job(job_id)
    error = await _failure(provider.poll_job(job_id, {}))
    expect(type(error) is AmbiguousFailure, f"a job that is lost may have been paid for: {error!r}")


async def a_deleted_job_can_be_deleted_again(bench: Bench) -> None:
    """A crash after the deletion repeats it."""
    provider = _jobs(bench)
    job_id = await provider.start_job(bench.audio(), {})
    await provider.delete_job(job_id)
    await provider.delete_job(job_id)


async def a_deletion_that_fails_says_so(bench: Bench) -> None:
    """It is tried again later."""
    provider = _jobs(bench)
    job_id = await provider.start_job(bench.audio(), {})
    bench.fail(Fault(500, "no"))
    await _failure(provider.delete_job(job_id))


def _jobs(bench: Bench, **settings: Any) -> JobProvider:
    provider = bench.provider(**settings)
    if isinstance(provider, JobProvider):
        return provider
    raise Broken("the provider has start_job, poll_job and delete_job")


async def _failure(awaited: Awaitable[object]) -> ProviderError:
    try:
        await awaited
    except ProviderError as error:
        return error
    raise Broken("it fails with a ProviderError")


JOB_CHECKS: tuple[Check, ...] = (
    polling_sends_no_audio,
    a_poll_that_fails_says_nothing_about_the_job,
    a_key_that_is_refused_while_polling_keeps_the_job,
    a_job_that_the_vendor_does_not_know_is_over,
    a_deleted_job_can_be_deleted_again,
    a_deletion_that_fails_says_so,
)
"""For a provider with jobs, beside the others."""
