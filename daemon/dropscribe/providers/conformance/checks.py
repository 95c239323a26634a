"""The promises of Provider and JobProvider (:mod:`dropscribe.providers.base`), each as one check."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Mapping
from itertools import cycle, product
from typing import Any, cast

from dropscribe.config.notation.secret import Secret
from dropscribe.core.errors import (
    AmbiguousFailure,
    AudioChanged,
    AudioRejected,
    ProviderError,
    ProviderUnusable,
    TemporaryFailure,
)
from dropscribe.core.requests.params import ParamValue
from dropscribe.files.audio import AudioFile
from dropscribe.providers.base import JobProvider, Provider, Unfinished
from dropscribe.providers.conformance.stand_in import AUDIO, SPOKEN, Fault, StandIn
from dropscribe.transcripts.model import Segment, Transcript, Word

Check = Callable[[StandIn], Awaitable[None]]

KINDS_OF_STATUS: dict[int, type[ProviderError]] = {
    **dict.fromkeys((301, 307, 401, 402, 403, 404, 451), ProviderUnusable),
    **dict.fromkeys((413, 415), AudioRejected),
    **dict.fromkeys((408, 409, 424, 425, 429, 498, 500, 502, 503), TemporaryFailure),
    **dict.fromkeys((504, 522, 524), AmbiguousFailure),
}
BODIES = ("", "<html>no</html>", {"error": "some words"})

FAULTS = (
    *map(Fault, (500, 429, 504)),
    *(Fault(400, {"error": "no"}), Fault(404, "<html><body>a proxy</body></html>")),
    *(Fault(body="no JSON"), Fault(close=True)),
)
"""Answers to a poll that say nothing about the job."""
UNKNOWN_STATE = Fault(body={"status": "of no document"})

MOST_POLLS = 100

_WRONG_KEY = "sk_wrong_and_secret"
_LARGE_BYTES = 4 * 1024 * 1024


class Broken(AssertionError):
    """A provider does not keep a promise."""


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


async def _refusal(bench: StandIn, *faults: Fault | None, **settings: Any) -> ProviderError:
    """The error of an attempt by a new provider, whose requests get *faults* as answers."""
    bench.fail(*faults)
    return await failure_of(attempt(bench.provider(**settings), bench.audio()))


def _key(text: str) -> dict[str, Secret]:
    return {"api_key": Secret(text, "test")}


async def audio_arrives_once_and_whole(bench: StandIn) -> None:
    """The transcript is of exactly the file's bytes, which are sent once."""
    content = b"RIFF\x24\0\0\0WAVEfmt " + os.urandom(5000)
    bench.hear(SPOKEN)
    transcript = await attempt(bench.provider(), bench.audio(content))
    expect(transcript.text == SPOKEN, f"the text is what the vendor heard, not {transcript.text!r}")
    expect(bench.times_received(content) == 1, "the audio is received once, whole and unchanged")
    expect(transcript.raw, "the vendor's answer is kept as it is")


async def words_and_segments_are_seconds(bench: StandIn) -> None:
    """Words and segments say all that the text says, in seconds and probabilities."""
    bench.hear(SPOKEN)
    transcript = await attempt(bench.provider(), bench.audio())
    words = [word.word for word in transcript.words]
    expect(words in ([], SPOKEN.split()), f"the words are those of the text, not {words}")
    said = " ".join(segment.text for segment in transcript.segments)
    expect(said in ("", SPOKEN), f"the segments hold the text, not {said!r}")
    parts: tuple[Word | Segment, ...] = (*transcript.words, *transcript.segments)
    for part in parts:
        if part.start is not None and part.end is not None:
            expect(0 <= part.start <= part.end < len(words) + 1, f"times are seconds: {part}")
        expect(part.confidence is None or 0 <= part.confidence <= 1, f"confidences are probabilities: {part}")


async def silence_is_a_result(bench: StandIn) -> None:
    """An empty text is a transcript, not a failure."""
    bench.hear("")
    transcript = await attempt(bench.provider(), bench.audio())
    expect((transcript.text, transcript.words) == ("", ()), "silence has neither text nor words")


async def a_status_decides_whatever_the_body_is(bench: StandIn) -> None:
    """A plain, an HTML and an empty body do not change the meaning of a status."""
    provider, audio = bench.provider(), bench.audio()
    for status, body in (*zip(KINDS_OF_STATUS, cycle(BODIES)), *product((401, 429, 504), BODIES)):
        bench.fail(Fault(status, body))
        error = await failure_of(attempt(provider, audio))
        kinds = {kind := KINDS_OF_STATUS[status]}
        if kind is AmbiguousFailure and isinstance(provider, JobProvider):
            kinds.add(TemporaryFailure)  # an upload that is no job costs nothing
        expect(type(error) in kinds, f"HTTP {status} {body!r} is a {kind.__name__}: {error!r}")
        expect(error.status == status, f"the error has the status {status}")
        slows = getattr(error, "slows_provider", False)
        expect(slows is (status in {429, 503}), f"HTTP {status}: slows_provider is {slows}")


async def an_unexplained_4xx_may_be_the_rule(bench: StandIn) -> None:
    """A failure that may be the file's or the rule's fault is reported as such."""
    for status in (400, 418, 444):
        error = await _refusal(bench, Fault(status, "no"))
        expect(isinstance(error, AudioRejected) and error.maybe_rule, f"HTTP {status}: {error!r}")


async def a_lost_answer_may_have_been_paid_for(bench: StandIn) -> None:
    """The last request sends the audio or makes a job of it: without an answer it counts as sent whole."""
    provider = bench.provider()
    before = bench.request_count()
    start = provider.start_job if isinstance(provider, JobProvider) else provider.transcribe
    await start(bench.audio(), {})
    others = [None] * (bench.request_count() - before - 1)
    error = await _refusal(bench, *others, Fault(close=True))
    expect(type(error) is AmbiguousFailure, f"an answer that is lost is an AmbiguousFailure: {error!r}")


async def a_page_of_html_is_no_answer(bench: StandIn) -> None:
    """A login page or a proxy's comes from something in between: no provider has seen the file."""
    error = await _refusal(bench, Fault(200, "<!DOCTYPE html><html><body>Log in</body></html>"))
    expect(type(error) is TemporaryFailure, f"an HTML page with status 200 is temporary: {error!r}")


async def a_wrong_key_holds_the_provider(bench: StandIn) -> None:
    """One that the vendor refuses, or that no header can carry, is about the account; it is in no error."""
    for key in (_WRONG_KEY, f"ü\n{_WRONG_KEY}"):
        error = await _refusal(bench, **_key(key))
        expect(isinstance(error, ProviderUnusable), f"a wrong key is the account's trouble: {error!r}")
        shown = f"{error!r} {error} {error.reason} {error.__cause__!r} {error.__context__!r}"
        expect(_WRONG_KEY not in shown, "the key is not in the error")


async def an_echoed_key_is_masked(bench: StandIn) -> None:
    """A vendor that echoes the key, with control characters around it, gets it masked."""
    echo = f"bad key {bench.key}\r\n\x1b[31m{bench.key}!" + "x" * 2000
    error = await _refusal(bench, Fault(401, {"error": {"message": echo, "code": bench.key}}))
    expect(bench.key not in f"{error!r} {error.reason} {error.code}", "the key is not in the error")
    expect(error.reason.isprintable() and len(error.reason) <= 500, "the reason is fit for a log")
    expect(bench.key not in repr(bench.provider()), "the key is not in the provider's repr")


async def retry_after_is_honoured(bench: StandIn) -> None:
    """Seconds, and never more than an hour; a value that is not a time is ignored."""
    for text, seconds in (("7", 7.0), ("9" * 30, 3600.0), ("soon", None), ("nan", None)):
        error = await _refusal(bench, Fault(429, "{}", {"Retry-After": text}))
        told = getattr(error, "retry_after_seconds", None)
        expect(told == seconds, f"Retry-After: {text} is {seconds} s, not {told}")


async def a_file_above_max_upload_is_not_sent(bench: StandIn) -> None:
    """The user's limit is looked at before a byte goes out."""
    error = await _refusal(bench, max_upload_bytes=10)
    expect((type(error), error.code) == (AudioRejected, "too_large"), f"it is refused: {error!r}")
    expect(bench.request_count() == 0, "nothing is sent")


async def a_file_that_shrinks_is_a_changed_file(bench: StandIn) -> None:
    """A file that is cut while it goes up is AudioChanged, and no provider's fault."""
    audio = bench.audio(bytes(_LARGE_BYTES))
    bench.shrink(audio)
    try:
        await attempt(bench.provider(), audio)
    except AudioChanged:
        return
    raise Broken("a file that has shrunk is AudioChanged")


async def a_probe_pays_for_nothing(bench: StandIn) -> None:
    """A probe reports its result and sends no audio; it fails on a wrong key."""
    expect(await bench.provider().probe(), "a probe says what it learnt")
    expect(bench.times_received(AUDIO) == 0, "a probe sends no audio")
    error = await failure_of(bench.provider(**_key(_WRONG_KEY)).probe())
    expect(isinstance(error, ProviderUnusable), f"a probe with a wrong key is ProviderUnusable: {error!r}")


async def a_provider_can_be_closed_twice(bench: StandIn) -> None:
    """After a use, and without one."""
    used, unused = bench.provider(), bench.provider()
    await attempt(used, bench.audio())
    for provider in (used, used, unused, unused):
        await provider.close()


CHECKS: tuple[Check, ...] = (
    audio_arrives_once_and_whole,
    words_and_segments_are_seconds,
    silence_is_a_result,
    a_status_decides_whatever_the_body_is,
    an_unexplained_4xx_may_be_the_rule,
    a_lost_answer_may_have_been_paid_for,
    a_page_of_html_is_no_answer,
    a_wrong_key_holds_the_provider,
    an_echoed_key_is_masked,
    retry_after_is_honoured,
    a_file_above_max_upload_is_not_sent,
    a_file_that_shrinks_is_a_changed_file,
    a_probe_pays_for_nothing,
    a_provider_can_be_closed_twice,
)
"""For every provider."""


async def a_poll_that_fails_says_nothing_about_the_job(bench: StandIn) -> None:
    """The job goes on at the vendor, and is asked for again."""
    bench.hear(SPOKEN)
    provider = _jobs(bench)
    for fault in (*FAULTS, UNKNOWN_STATE):
        job_id = await provider.start_job(bench.audio(), {})
        bench.fail(fault)
        found = await provider.poll_job(job_id, {})
        is_told = isinstance(found, Unfinished) and (found.error or fault is UNKNOWN_STATE)
        expect(is_told, f"{fault} in a poll is told, and no verdict")
        while isinstance(found, Unfinished):
            found = await provider.poll_job(job_id, {})
        expect(found.text == SPOKEN, f"after {fault} the job has its result")


async def a_key_that_is_refused_while_polling_keeps_the_job(bench: StandIn) -> None:
    """The account's trouble holds the provider; the job is still there with the next key."""
    job_id = await _jobs(bench).start_job(bench.audio(), {})
    found = await _jobs(bench, **_key("sk_another_key")).poll_job(job_id, {})
    is_held = isinstance(found, Unfinished) and isinstance(found.error, ProviderUnusable)
    expect(is_held, f"a key that is refused holds the provider, and the job is unfinished: {found!r}")


async def a_job_that_the_vendor_does_not_know_is_over(bench: StandIn) -> None:
    """It may have been paid for. A crash after its deletion repeats that."""
    provider = _jobs(bench)
    job_id = await provider.start_job(bench.audio(), {})
    await provider.delete_job(job_id)
    error = await failure_of(provider.poll_job(job_id, {}))
    expect(type(error) is AmbiguousFailure, f"a job that is lost may have been paid for: {error!r}")
    await provider.delete_job(job_id)


async def a_deletion_that_fails_says_so(bench: StandIn) -> None:
    """It is tried again later."""
    provider = _jobs(bench)
    job_id = await provider.start_job(bench.audio(), {})
    bench.fail(Fault(500, "no"))
    await failure_of(provider.delete_job(job_id))


def _jobs(bench: StandIn, **settings: Any) -> JobProvider:
    provider = bench.provider(**settings)
    expect(isinstance(provider, JobProvider), "the provider has start_job, poll_job and delete_job")
    return cast("JobProvider", provider)


JOB_CHECKS: tuple[Check, ...] = (
    a_poll_that_fails_says_nothing_about_the_job,
    a_key_that_is_refused_while_polling_keeps_the_job,
    a_job_that_the_vendor_does_not_know_is_over,
    a_deletion_that_fails_says_so,
)
"""For a provider with jobs, beside the others."""
