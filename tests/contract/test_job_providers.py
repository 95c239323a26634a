"""What every provider with jobs promises (providers.base.JobProvider), against a server on a real socket."""

import contextlib
import dataclasses
import hashlib

import pytest

from dropscribe.config.model import ProviderConfig
from dropscribe.config.notation.secret import Secret
from dropscribe.core.errors import (
    AmbiguousFailure,
    AudioRejected,
    ProviderError,
    ProviderUnusable,
    TemporaryFailure,
)
from dropscribe.providers import jobs
from dropscribe.providers.base import JobProvider, Unfinished
from dropscribe.providers.build import build_provider
from support.benches import Bench
from support.emulator import Fault
from support.recipes import recipe_config
from support.vendors import KEY, heard_text

KINDS = ["assemblyai", "soniox", "http"]
CREATES_IN_UPLOAD = set()


class JobBench(Bench):
    """A bench for a provider with jobs."""

    def provider(self, **overrides) -> JobProvider:
        if self.type == "http":
            return self._described(**overrides)
        settings = {
            "name": "mine",
            "type": self.type,
            "url": self.emulator.url,
            "api_key": Secret(KEY, "test"),
            "timeout_seconds": 5.0,
        }
        return self._built(ProviderConfig(**{**settings, **overrides}))

    def _described(self, **overrides) -> JobProvider:
        """The recipe with jobs. The type has no defaults: the recipe's `params` are laid under a test's."""
        config = recipe_config("jobs", self.emulator.url)
        provider = self._built(dataclasses.replace(config, **overrides))
        provider.vendor.params = lambda given: {**config.params, **given}
        return provider

    def _built(self, config: ProviderConfig) -> JobProvider:
        provider = build_provider(config)
        self.stack.push_async_callback(provider.close)
        assert isinstance(provider, JobProvider)
        return provider

    @property
    def desk(self):
        return self.emulator.vendors.desk

    async def finished(self, params=None, **overrides):
        """The transcript of a job, and its id; all polls are made at once."""
        provider = self.provider(**overrides)
        job_id = await provider.start_job(self.audio(), params or {})
        while isinstance(found := await provider.poll_job(job_id, params or {}), Unfinished):
            assert found.error is None
        return found


@pytest.fixture(params=KINDS)
async def bench(request, emulator, tmp_path):
    """Every test runs for every vendor with jobs."""
    async with contextlib.AsyncExitStack() as stack:
        yield JobBench(request.param, emulator, tmp_path, stack)


async def failure_of(started) -> ProviderError:
    with pytest.raises(ProviderError) as caught:
        await started
    return caught.value


async def test_the_transcript_is_of_the_audio_that_was_sent(bench):
    """One upload makes one job, whose text was heard in exactly the file's bytes."""
    audio = bench.audio()
    transcript = await bench.finished()
    digest = hashlib.sha256(audio.head).hexdigest()
    assert transcript.text == heard_text(audio.size_bytes, digest)
    (job,) = bench.desk.created
    assert job.sha256 == digest
    assert transcript.raw
    assert transcript.request_id


async def test_words_and_segments_are_timed_by_default(bench):
    """Times are seconds and confidences probabilities, without any parameter of the user's."""
    transcript = await bench.finished()
    assert [word.word for word in transcript.words] == transcript.text.split()
    assert [word.start for word in transcript.words[:3]] == [0.0, 0.4, 0.8]
    assert all(0 <= word.start < word.end and 0.9 < word.confidence < 1 for word in transcript.words)
    assert " ".join(segment.text for segment in transcript.segments) == transcript.text
    assert transcript.segments[-1].end > 0
    assert transcript.duration is None or transcript.duration > 0


async def test_silence_is_an_empty_text(bench):
    """A job that heard nothing has a result."""
    bench.emulator.vendors.text = ""
    transcript = await bench.finished()
    assert (transcript.text, transcript.words, transcript.segments) == ("", (), ())


async def test_polling_sends_no_audio(bench):
    """Each further question about a job is a request without a body."""
    bench.desk.polls = 3
    await bench.finished()
    uploads = [request for request in bench.emulator.requests if request.method == "POST"]
    polls = [request for request in bench.emulator.requests if request.method == "GET"]
    assert len(polls) >= 4
    assert all(request.body_bytes == 0 for request in polls)
    assert bench.emulator.requests[: len(uploads)] == uploads


async def test_a_command_waits_for_the_result_and_deletes_the_job(bench, monkeypatch):
    """Where nobody polls from a row, the provider polls by itself, and leaves nothing at the vendor."""
    monkeypatch.setattr(jobs, "FIRST_POLL_SECONDS", 0.01)
    transcript = await bench.provider().transcribe(bench.audio(), {})
    assert transcript.text.startswith("Heard ")
    assert bench.desk.jobs == {}
    assert transcript.warnings == ()


async def test_a_deleted_job_can_be_deleted_again(bench):
    """A crash after the deletion repeats it: a job that is gone is no error."""
    provider = bench.provider()
    job_id = await provider.start_job(bench.audio(), {})
    await provider.delete_job(job_id)
    await provider.delete_job(job_id)
    assert len(bench.desk.deleted) == 1


async def test_a_deletion_that_fails_says_so(bench):
    """It is tried again later."""
    provider = bench.provider()
    job_id = await provider.start_job(bench.audio(), {})
    bench.emulator.fail(Fault(status=500, body="no"))
    assert isinstance(await failure_of(provider.delete_job(job_id)), TemporaryFailure)


@pytest.mark.parametrize(
    ("status", "kind"),
    [(401, ProviderUnusable), (402, ProviderUnusable), (413, AudioRejected), (429, TemporaryFailure),
     (500, TemporaryFailure), (503, TemporaryFailure)],
)  # fmt: skip
@pytest.mark.parametrize("body", ["", "<html>no</html>", {"error": "some words"}])
async def test_a_refused_upload_is_classified_by_its_status(bench, status, kind, body):
    """The common table holds for uploads too."""
    bench.emulator.fail(Fault(status=status, body=body))
    error = await failure_of(bench.provider().start_job(bench.audio(), {}))
    assert type(error) is kind
    assert bench.desk.created == []


@pytest.mark.parametrize(
    "fault", [Fault(status=504), Fault(close=True), Fault(body="no JSON"), Fault(body={})]
)
async def test_what_is_only_uploaded_was_not_paid_for(bench, fault):
    """A lost answer to an upload is tried again at no cost, unless the upload makes the job."""
    bench.emulator.fail(fault)
    error = await failure_of(bench.provider().start_job(bench.audio(), {}))
    is_paid = bench.type in CREATES_IN_UPLOAD
    assert type(error) is (AmbiguousFailure if is_paid else TemporaryFailure)


async def test_a_lost_answer_to_the_creation_may_have_been_paid_for(bench):
    """The vendor may have the job: the file counts as sent whole."""
    before = [] if bench.type in CREATES_IN_UPLOAD else [None]
    bench.emulator.fail(*before, Fault(close=True))
    assert type(await failure_of(bench.provider().start_job(bench.audio(), {}))) is AmbiguousFailure


@pytest.mark.parametrize(
    "fault",
    [Fault(status=500), Fault(status=429), Fault(status=504), Fault(close=True), Fault(body="no JSON"),
     Fault(status=404, body="<html><body>a proxy</body></html>"), Fault(body={"status": "new"}),
     Fault(status=400, body={"error": "no"})],
)  # fmt: skip
async def test_a_poll_that_fails_says_nothing_of_the_job(bench, fault):
    """The job goes on at the vendor, and is asked for again."""
    if bench.type == "http" and fault.body == {"status": "new"}:
        pytest.skip("a state that the config does not name is one of work")
    bench.desk.polls = 0
    provider = bench.provider()
    job_id = await provider.start_job(bench.audio(), {})
    bench.emulator.fail(fault)
    found = await provider.poll_job(job_id, {})
    assert isinstance(found, Unfinished)
    assert found.error is not None
    assert not isinstance(await provider.poll_job(job_id, {}), Unfinished)


async def test_a_key_that_is_refused_while_polling_keeps_the_job(bench):
    """The account's trouble holds the provider; the job is still there with the next key."""
    provider = bench.provider()
    job_id = await provider.start_job(bench.audio(), {})
    bench.emulator.vendors.key = "another"
    found = await provider.poll_job(job_id, {})
    assert isinstance(found, Unfinished)
    assert isinstance(found.error, ProviderUnusable)


async def test_a_job_that_the_vendor_has_lost_is_over(bench):
    """It may have been paid for: the rules for answers that never came hold."""
    error = await failure_of(bench.provider().poll_job("job-99", {}))
    assert (type(error), error.code) == (AmbiguousFailure, "job_lost")


async def test_a_failed_job_may_be_the_file_or_the_rule(bench):
    """The error comes in an answer with status 200."""
    bench.desk.failure = "File does not appear to contain audio"
    provider = bench.provider()
    job_id = await provider.start_job(bench.audio(), {})
    await provider.poll_job(job_id, {})
    error = await failure_of(provider.poll_job(job_id, {}))
    assert type(error) is AudioRejected
    assert "contain audio" in error.reason


async def test_a_failed_job_of_an_empty_account_holds_the_provider(bench):
    """No further file is sent to an account without money."""
    bench.desk.failure, bench.desk.polls = "Your account balance is negative", 0
    provider = bench.provider()
    job_id = await provider.start_job(bench.audio(), {})
    assert type(await failure_of(provider.poll_job(job_id, {}))) is ProviderUnusable


async def test_speakers_and_words_are_sent_and_told(bench):
    """`speakers` and `vocabulary` reach the vendor in the shape that its documents ask for."""
    if bench.type == "http":
        pytest.skip("the names of its parameters are the API's own")
    from dropscribe.core.requests.speech_hints import SpeechHints, hint_params

    hints = SpeechHints("en", ("Dropscribe", "inotify"), speakers=True)
    transcript = await bench.finished(hint_params(bench.type, "", hints))
    assert {word.speaker for word in transcript.words} != {None}
    assert transcript.segments[0].speaker == transcript.words[0].speaker
    assert "Dropscribe" in repr(bench.desk.created[0].options)
    assert transcript.language == "en"


async def test_the_key_is_never_in_an_error(bench):
    """A vendor that echoes the key gets it masked."""
    bench.emulator.fail(Fault(status=401, body={"error": f"bad key {KEY}"}))
    provider = bench.provider()
    error = await failure_of(provider.start_job(bench.audio(), {}))
    assert KEY not in f"{error!r} {error.reason} {provider!r}"


async def test_a_probe_pays_for_nothing(bench):
    """A probe creates no job, and a wrong key fails it."""
    assert "takes the key" in await bench.provider().probe()
    assert bench.desk.created == []
    bench.emulator.vendors.key = "another"
    assert isinstance(await failure_of(bench.provider().probe()), ProviderUnusable)


async def test_a_file_above_max_upload_is_not_sent(bench):
    """The user's limit is looked at before a byte goes out."""
    error = await failure_of(bench.provider(max_upload_bytes=10).start_job(bench.audio(), {}))
    assert error.code == "too_large"
    assert bench.emulator.requests == []


async def test_assemblyai_answers_400_to_a_negative_balance(bench):
    """The account's trouble comes as a 400 with words alone."""
    if bench.type != "assemblyai":
        pytest.skip("another vendor's words")
    bench.desk.refusal = (400, {"error": "Your current account balance is negative. Please top up."})
    assert isinstance(await failure_of(bench.provider().start_job(bench.audio(), {})), ProviderUnusable)


async def test_assemblyai_asks_for_the_file_again_after_its_own_trouble(bench):
    """A job that failed on the vendor's servers is tried again."""
    if bench.type != "assemblyai":
        pytest.skip("another vendor's words")
    bench.desk.failure, bench.desk.polls = "Internal server error, please try again", 0
    provider = bench.provider()
    job_id = await provider.start_job(bench.audio(), {})
    assert isinstance(await failure_of(provider.poll_job(job_id, {})), TemporaryFailure)
