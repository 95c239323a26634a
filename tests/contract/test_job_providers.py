"""What the vendors with jobs document, and what their providers make of it, on a real socket."""

import json
import time

import pytest

from dropscribe.config.model import ProviderConfig
from dropscribe.core.errors import (
    AmbiguousFailure,
    AudioRejected,
    ProviderError,
    ProviderUnusable,
    RuleRejected,
    TemporaryFailure,
)
from dropscribe.core.requests.speech_hints import SpeechHints, hint_params
from dropscribe.providers import answers, jobs
from dropscribe.providers.base import Unfinished
from dropscribe.providers.conformance.checks import attempt
from dropscribe.providers.transport import http
from dropscribe.providers.vendors.speechmatics import Speechmatics
from support.benches import JOB_PATHS
from support.emulator import Fault

VENDORS = list(JOB_PATHS)
CREATES_IN_UPLOAD = {"speechmatics"}
TELLS_NO_WORDS = {"gladia"}
"""Types whose failed jobs have a number alone."""


@pytest.fixture
def desk(job_bench):
    return job_bench.emulator.vendors.desk


async def failure_of(started) -> ProviderError:
    with pytest.raises(ProviderError) as caught:
        await started
    return caught.value


async def started(bench, params=None):
    """A provider, and the id of its job."""
    provider = bench.provider()
    return provider, await provider.start_job(bench.audio(), params or {})


async def failure_of_job(bench) -> ProviderError:
    """The error of a job that the vendor finds failed at the first poll."""
    bench.emulator.vendors.desk.polls = 0
    provider, job_id = await started(bench)
    return await failure_of(provider.poll_job(job_id, {}))


def sent_to(bench, kind: str) -> dict:
    """The options of the one job, as one flat object."""
    (job,) = bench.emulator.vendors.desk.created
    options = job.options
    return options["transcription_config"] | options if kind == "speechmatics" else options


@pytest.mark.parametrize("kind", VENDORS)
async def test_a_transcript_has_its_length_language_and_job(bench_of, kind):
    """What a budget, a sidecar and a question to the vendor's support need."""
    transcript = await attempt(bench_of(kind).provider(), bench_of(kind).audio())
    assert transcript.duration > 0
    assert transcript.language.startswith("en")
    assert transcript.request_id == "job-1"


async def test_a_command_waits_for_the_result_and_deletes_the_job(job_bench, desk, monkeypatch):
    """Where nobody polls from a row, the provider polls by itself, and leaves nothing at the vendor."""
    monkeypatch.setattr(jobs, "FIRST_POLL_SECONDS", 0.01)
    transcript = await job_bench.provider().transcribe(job_bench.audio(), {})
    assert transcript.text.startswith("Heard ")
    assert desk.jobs == {}
    assert transcript.warnings == ()


async def test_a_command_whose_job_fails_leaves_nothing_at_the_vendor(job_bench, desk, monkeypatch):
    """The audio is deleted there too."""
    monkeypatch.setattr(jobs, "FIRST_POLL_SECONDS", 0.01)
    desk.failure = "File does not appear to contain audio"
    await failure_of(job_bench.provider().transcribe(job_bench.audio(), {}))
    assert (len(desk.created), desk.jobs) == (1, {})


@pytest.mark.parametrize("status", [401, 403])
async def test_a_command_outlasts_a_passing_refusal_of_its_polls(job_bench, desk, monkeypatch, status):
    """A web application firewall refuses now and then; the job is paid for already."""
    monkeypatch.setattr(jobs, "FIRST_POLL_SECONDS", 0.01)
    starts = [None] if job_bench.type in CREATES_IN_UPLOAD else [None, None]
    job_bench.emulator.fail(*starts, Fault(status=status, body={"error": "refused"}))
    transcript = await job_bench.provider().transcribe(job_bench.audio(), {})
    assert transcript.text.startswith("Heard ")
    assert (len(desk.created), desk.jobs) == (1, {})


async def test_a_command_waits_as_long_as_a_poll_is_told_to(job_bench, desk, monkeypatch):
    """A vendor that is asked too often asks for a pause."""
    monkeypatch.setattr(jobs, "FIRST_POLL_SECONDS", 0.01)
    starts = [None] if job_bench.type in CREATES_IN_UPLOAD else [None, None]
    job_bench.emulator.fail(*starts, Fault(status=429, headers={"Retry-After": "0.7"}))
    began = time.monotonic()
    await job_bench.provider().transcribe(job_bench.audio(), {})
    assert time.monotonic() - began >= 0.7


async def test_a_job_that_may_not_be_asked_for_is_not_deleted(job_bench, desk, monkeypatch):
    """It may be finished, and it is paid for; the reason names it."""
    monkeypatch.setattr(jobs, "FIRST_POLL_SECONDS", 0.01)
    monkeypatch.setattr(jobs, "UNUSABLE_SECONDS", 0.0)
    starts = [None] if job_bench.type in CREATES_IN_UPLOAD else [None, None]
    job_bench.emulator.fail(*starts, Fault(status=403, body={"error": "refused"}))
    error = await failure_of(job_bench.provider().transcribe(job_bench.audio(), {}))
    assert isinstance(error, AmbiguousFailure)
    assert "job-1 is left" in error.reason
    assert list(desk.jobs) == ["job-1"]


@pytest.mark.parametrize(
    "fault", [Fault(status=504), Fault(close=True), Fault(body="no JSON"), Fault(body={})]
)
async def test_what_is_only_uploaded_was_not_paid_for(job_bench, fault):
    """A lost answer to an upload is tried again at no cost, unless the upload makes the job."""
    job_bench.emulator.fail(fault)
    error = await failure_of(job_bench.provider().start_job(job_bench.audio(), {}))
    is_paid = job_bench.type in CREATES_IN_UPLOAD
    assert type(error) is (AmbiguousFailure if is_paid else TemporaryFailure)


@pytest.mark.parametrize(("status", "left"), [(429, 0), (400, 0), (504, 1)])
async def test_an_upload_without_a_job_is_deleted_where_the_vendor_can(bench_of, status, left):
    """Soniox has room for a limited number of files; after a lost answer there may be a job on the file."""
    bench = bench_of("soniox")
    bench.emulator.fail(None, Fault(status=status))
    await failure_of(bench.provider().start_job(bench.audio(), {}))
    assert len(bench.emulator.vendors.desk.uploads) == left


@pytest.mark.parametrize("is_gone", [False, True])
async def test_an_upload_is_deleted_with_its_job_where_the_vendor_keeps_it(bench_of, is_gone):
    """Soniox' client deletes both; its reference says that the file goes with the transcription."""
    bench = bench_of("soniox")
    provider, job_id = await started(bench)
    if is_gone:
        bench.emulator.vendors.desk.uploads.clear()
    await provider.delete_job(job_id)
    asked = [(request.method, request.path) for request in bench.emulator.requests[-2:]]
    assert {*asked} == {("DELETE", "/v1/transcriptions/job-1"), ("DELETE", "/v1/files/up-1")}
    assert not bench.emulator.vendors.desk.uploads
    await provider.delete_job(job_id)


@pytest.mark.parametrize("done", [0, 1, 2])
async def test_a_deletion_that_cannot_be_asked_for_is_an_error(bench_of, done):
    """It is tried again, and leaves nothing: the account has room for a limited number of files."""
    bench = bench_of("soniox")
    provider, job_id = await started(bench)
    bench.emulator.fail(*[None] * done, Fault(status=503))
    assert type(await failure_of(provider.delete_job(job_id))) is TemporaryFailure
    await provider.delete_job(job_id)
    assert not bench.emulator.vendors.desk.uploads


async def test_an_upload_whose_job_cannot_be_asked_for_is_deleted(bench_of):
    """A parameter in the way of others is found when the file is there already."""
    bench = bench_of("soniox")
    error = await failure_of(bench.provider().start_job(bench.audio(), {"context": "x", "context.text": "y"}))
    assert type(error) is RuleRejected
    assert not bench.emulator.vendors.desk.uploads


@pytest.mark.parametrize("kind", ["soniox", "speechmatics"])
async def test_a_result_that_is_not_there_yet_is_asked_for_again(bench_of, kind):
    """The job is known, so that a result that is not found is no loss."""
    bench = bench_of(kind)
    bench.emulator.vendors.desk.polls = 0
    provider, job_id = await started(bench)
    bench.emulator.fail(None, Fault(status=404, body={"error": "not ready"}))
    found = await provider.poll_job(job_id, {})
    assert isinstance(found, Unfinished)
    assert type(found.error) is TemporaryFailure
    assert not isinstance(await provider.poll_job(job_id, {}), Unfinished)


async def test_a_failed_job_may_be_the_file_or_the_rule(job_bench, desk):
    """The error comes in an answer with status 200."""
    desk.failure = "File does not appear to contain audio"
    error = await failure_of_job(job_bench)
    assert type(error) is AudioRejected
    assert error.maybe_rule
    assert ("error_code 400" if job_bench.type in TELLS_NO_WORDS else "contain audio") in error.reason


async def test_a_failed_job_of_an_empty_account_holds_the_provider(job_bench, desk):
    """No further file is sent to an account without money."""
    desk.failure = "Your account balance is negative"
    kind = AudioRejected if job_bench.type in TELLS_NO_WORDS else ProviderUnusable
    assert type(await failure_of_job(job_bench)) is kind


@pytest.mark.parametrize(
    ("status", "kind"), [(400, AudioRejected), (402, ProviderUnusable), (429, TemporaryFailure)]
)
async def test_a_gladia_job_fails_as_the_status_of_its_error_says(bench_of, status, kind):
    """The number is all that it tells; an account's trouble is not the file's."""
    bench = bench_of("gladia")
    provider, job_id = await started(bench)
    bench.emulator.fail(Fault(body={"id": job_id, "status": "error", "error_code": status}))
    assert type(await failure_of(provider.poll_job(job_id, {}))) is kind


@pytest.mark.parametrize("kind", ["assemblyai", "gladia"])
async def test_a_job_that_failed_by_the_vendor_s_fault_is_sent_again(bench_of, kind):
    """AssemblyAI asks for it in words, Gladia by the number."""
    bench = bench_of(kind)
    bench.emulator.vendors.desk.failure = "Internal server error, please try again"
    assert type(await failure_of_job(bench)) is TemporaryFailure


@pytest.mark.parametrize("kind", VENDORS)
async def test_hints_are_sent_and_speakers_told(bench_of, kind):
    """`language`, `vocabulary` and `speakers` reach the vendor in the shape that its documents ask for."""
    bench = bench_of(kind)
    hints = SpeechHints("en-GB", ("Dropscribe", "inotify"), speakers=True)
    transcript = await attempt(bench.provider(), bench.audio(), hint_params(kind, "", hints))
    assert {word.speaker for word in transcript.words} == {"speaker_0"}
    assert {segment.speaker for segment in transcript.segments} == {"speaker_0"}
    assert "Dropscribe" in repr(sent_to(bench, kind))
    assert transcript.language == "en"


@pytest.mark.parametrize("kind", VENDORS)
async def test_without_speakers_nobody_is_named(bench_of, kind):
    """Speechmatics' "UU" is no speaker."""
    params = hint_params(kind, "", SpeechHints(speakers=False))
    transcript = await attempt(bench_of(kind).provider(), bench_of(kind).audio(), params)
    assert {word.speaker for word in transcript.words} == {None}


@pytest.mark.parametrize(
    ("kind", "language", "sent"),
    [
        ("speechmatics", "zh-TW", {"language": "cmn"}),
        ("speechmatics", "nb", {"language": "no"}),
        ("gladia", "nb-NO", {"language_config": {"languages": ["no"]}}),
        ("soniox", "de-AT", {"language_hints": ["de"]}),
        ("assemblyai", "pt-BR", {"language_code": "pt"}),
    ],
)
async def test_a_language_is_spelt_as_the_vendor_spells_it(bench_of, kind, language, sent):
    """Whatever the user has written."""
    bench = bench_of(kind)
    await started(bench, hint_params(kind, "", SpeechHints(language)))
    assert sent.items() <= sent_to(bench, kind).items()


async def test_speechmatics_detects_the_language_and_takes_silence(bench_of):
    """By itself it refuses a job without a language, and with "auto" one without enough speech."""
    bench = bench_of("speechmatics")
    await started(bench)
    assert sent_to(bench, "speechmatics")["language"] == "auto"
    fallback = {"low_confidence_action": "allow", "default_language": "en"}
    assert sent_to(bench, "speechmatics")["language_identification_config"] == fallback


async def test_a_parameter_in_the_way_of_others_is_the_rule_s(bench_of):
    """A name cannot be an object and a value; the order of the two does not matter."""
    bench = bench_of("speechmatics")
    error = await failure_of(bench.provider().start_job(bench.audio(), {"transcription_config": "x"}))
    assert (type(error), error.code) == (RuleRejected, "bad_parameter")
    assert bench.emulator.requests == []


async def test_speechmatics_melia_is_multilingual(bench_of):
    """The model refuses "auto"."""
    bench = bench_of("speechmatics")
    hints = hint_params("speechmatics", "melia-1", SpeechHints("en"))
    await started(bench, hints | {"transcription_config.model": "melia-1"})
    sent = sent_to(bench, "speechmatics")
    assert (sent["language"], sent["language_hints"]) == ("multi", ["en"])


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        ("Format Not Supported", AudioRejected),
        ("Job rejected due to invalid audio", AudioRejected),
        ("No language selected", RuleRejected),
        ("Requested product not available", ProviderUnusable),
    ],
)
async def test_speechmatics_errors_are_told_by_their_fixed_texts(bench_of, error, kind):
    """They stand in `error`, beside the status as a number, and `detail` says more."""
    bench = bench_of("speechmatics")
    bench.emulator.fail(Fault(status=400, body={"code": 400, "error": error, "detail": "because"}))
    failure = await failure_of(bench.provider().start_job(bench.audio(), {}))
    assert type(failure) is kind
    assert not getattr(failure, "maybe_rule", False)
    assert failure.reason == f"{error}: because"


@pytest.mark.parametrize("status", ["deleted", "expired"])
async def test_a_speechmatics_job_that_is_gone_may_have_been_paid_for(bench_of, status):
    """It answers with a state, not with a 404."""
    bench = bench_of("speechmatics")
    provider, job_id = await started(bench)
    bench.emulator.fail(Fault(body={"job": {"id": job_id, "status": status}}))
    error = await failure_of(provider.poll_job(job_id, {}))
    assert (type(error), error.code) == (AmbiguousFailure, "job_lost")


async def test_a_speechmatics_job_in_work_is_deleted_too(bench_of):
    """Nobody waits for it any more; without `force` it would go on, and be paid for."""
    bench = bench_of("speechmatics")
    bench.emulator.vendors.desk.polls = 5
    provider, job_id = await started(bench)
    await provider.delete_job(job_id)
    assert bench.emulator.vendors.desk.jobs == {}


def test_speechmatics_marks_are_joined_to_words():
    """By the direction in which each attaches; a language without spaces gets none."""

    def item(kind, content, **more):
        told = {"content": content, "confidence": 0.9, "language": "cmn"}
        return {"type": kind, "start_time": 1, "end_time": 2, "alternatives": [told], **more}

    results = [
        item("punctuation", "«", attaches_to="next"),
        item("word", "好"),
        item("punctuation", "、", attaches_to="previous"),
        item("entity", "100"),
        item("speaker_change", "x"),
    ]
    metadata = {"language_pack_info": {"word_delimiter": ""}}
    parsed = {"results": results, "metadata": metadata, "job": {"duration": 4}}
    vendor = Speechmatics(ProviderConfig(name="x", type="speechmatics", url="https://x"))
    transcript = vendor.transcript(json.loads(json.dumps(parsed)), {})
    assert transcript.text == "«好、100"
    assert [word.word for word in transcript.words] == ["«好、", "100"]
    assert [segment.text for segment in transcript.segments] == ["«好、100"]
    assert (transcript.language, transcript.duration) == ("zh", 4.0)


@pytest.mark.parametrize("kind", ["gladia", "soniox"])
async def test_a_list_of_wrong_parameters_is_the_rule_s(bench_of, kind):
    """The file is not at fault, and the reason says which parameter is."""
    bench = bench_of(kind)
    refusal = {"message": "Invalid parameter", "validation_errors": ['Field "x" is wrong']}
    bench.emulator.vendors.desk.refusal = (400, refusal)
    error = await failure_of(bench.provider().start_job(bench.audio(), {}))
    assert type(error) is RuleRejected
    assert 'Field \\"x\\"' in error.reason


async def test_assemblyai_answers_400_to_a_negative_balance(bench_of):
    """The account's trouble comes as a 400 with words alone."""
    bench = bench_of("assemblyai")
    words = "Your current account balance is negative. Please top up."
    bench.emulator.vendors.desk.refusal = (400, {"error": words})
    assert type(await failure_of(bench.provider().start_job(bench.audio(), {}))) is ProviderUnusable


async def test_an_upload_to_assemblyai_that_failed_is_sent_again(bench_of):
    """Its answer asks for that."""
    bench = bench_of("assemblyai")
    bench.emulator.fail(Fault(status=422, body={"error": "Upload failed, please try again"}))
    assert type(await failure_of(bench.provider().start_job(bench.audio(), {}))) is TemporaryFailure


async def test_a_failure_without_a_reason_says_so(bench_of):
    """Its status, which is that of a success, is none."""
    bench = bench_of("assemblyai")
    provider, job_id = await started(bench)
    bench.emulator.fail(Fault(body={"id": job_id, "status": "error", "error": None}))
    error = await failure_of(provider.poll_job(job_id, {}))
    assert (error.code, error.reason) == ("job_failed", "the provider gives no reason")


@pytest.mark.parametrize("fault", [Fault(huge_bytes=100_000), Fault(body="[" * 100)])
async def test_a_result_that_is_too_large_is_not_asked_for_all_day(job_bench, monkeypatch, fault):
    """Each poll would download it again, and so would each job that is paid for."""
    provider, job_id = await started(job_bench)
    monkeypatch.setattr(http, "ANSWER_BYTES", 1000)
    monkeypatch.setattr(answers, "MOST_CONTAINERS", 50)
    job_bench.emulator.fail(fault)
    error = await failure_of(provider.poll_job(job_id, {}))
    assert (type(error), error.code) == (AudioRejected, "answer_too_large")


async def test_a_failed_job_of_soniox_has_the_type_of_its_error_as_code(bench_of):
    """Also where its words could be a code."""
    bench = bench_of("soniox")
    bench.emulator.vendors.desk.failure = "broken"
    assert (await failure_of_job(bench)).code == "invalid_audio_file"
