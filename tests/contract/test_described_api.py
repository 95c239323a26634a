"""`type: http`: an API that the config describes."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys

import pytest

from dropscribe.config.model import ProviderConfig
from dropscribe.config.sections.http_api import AnswerKeys, ErrorKeys, PollKeys
from dropscribe.core.errors import (
    AmbiguousFailure,
    AudioRejected,
    ProviderUnusable,
    RuleRejected,
    TemporaryFailure,
)
from dropscribe.core.model import RemoteJob, Retry
from dropscribe.core.requests.params import FIXED_PARAMS
from dropscribe.pipeline.attempts import poll
from dropscribe.providers import jobs
from dropscribe.providers.base import Unfinished
from dropscribe.providers.jobs import NO_RESULT, UNUSABLE_SECONDS
from dropscribe.providers.values import BadAnswer
from dropscribe.providers.vendors.described import DescribedApi, found_values
from support.benches import failure_of
from support.emulator import Fault
from support.speech import SPEECH, needs_speech, references


@needs_speech
@pytest.mark.parametrize("more", [{}, {"diarize": True}, {"language": "en-US"}])
async def test_a_config_reproduces_deepgrams_adapter_word_for_word(bench_of, more):
    """Text, words, segments, speakers, times, duration, language, id and the raw answer are the same."""
    described, built_in = bench_of("http"), bench_of("deepgram")
    described.emulator.vendors.text = references()["jfk.wav"]
    content = (SPEECH / "clips" / "jfk.wav").read_bytes()
    params = FIXED_PARAMS["deepgram"] | ({} if "language" in more else {"detect_language": True}) | more
    ours = await described.provider().transcribe(described.audio(content), params)
    theirs = await built_in.provider().transcribe(built_in.audio(content), params)
    assert dataclasses.asdict(ours) == dataclasses.asdict(theirs)
    first, second = described.emulator.requests
    assert (first.params, first.audio_sha256) == (second.params, second.audio_sha256)
    assert first.headers["authorization"] == second.headers["authorization"]


async def test_a_form_with_times_in_milliseconds_and_logarithms(bench_of):
    """Spans as start and length, fields in the form, the key in a header of its own."""
    bench = bench_of("http")
    answer = AnswerKeys(
        text="t", words="w[].{word: x, start: s, duration: d, confidence: c}",
        unit="ms", times="start_duration", confidence="logprob", duration="ms",
    )  # fmt: skip
    provider = bench.provider(
        url=bench.emulator.url + "/v1/speech-to-text",
        body="multipart",
        key_header="xi-api-key: {key}",
        answer=answer,
    )
    body = {"t": "Hi.", "ms": 1500, "w": [{"x": " Hi.", "s": 250, "d": 500, "c": 0.0}]}
    bench.emulator.fail(Fault(body=body))
    transcript = await provider.transcribe(bench.audio(), {"model_id": "scribe_v2"})
    (word,) = transcript.words
    assert (word.word, word.start, word.end, word.confidence) == ("Hi.", 0.25, 0.75, 1.0)
    assert [segment.text for segment in transcript.segments] == ["Hi."]
    assert transcript.duration == 1.5
    (request,) = bench.emulator.requests
    assert request.params == []
    assert request.headers["content-type"].startswith("multipart/form-data")
    assert "authorization" not in request.headers


async def test_lists_that_an_expression_nests_are_one_list(bench_of):
    """A filter inside a projection makes a list of each part; nothing was found in them, silently."""
    bench = bench_of("http")
    answer = AnswerKeys(text="t", words="parts[].items[?kind=='word'].{word: w, start: s, end: e}")
    one, two = ({"kind": "word", "w": word, "s": at, "e": at + 0.5} for word, at in (("A", 0.0), ("b.", 1.0)))
    body = {"t": "A b.", "parts": [{"items": [one, {"kind": "punct", "w": " "}]}, {"items": [two]}]}
    bench.emulator.fail(Fault(body=body))
    transcript = await bench.provider(answer=answer).transcribe(bench.audio(), {})
    assert [(word.word, word.start) for word in transcript.words] == [("A", 0.0), ("b.", 1.0)]


def test_lists_in_a_long_list_are_read_once():
    """Each of its levels cost a walk through the whole list: minutes, for an answer within the bounds."""

    class Walked(list):
        walks = 0

        def __iter__(self):
            self.walks += 1
            return super().__iter__()

    deep = ["end"]
    for _ in range(60):
        deep = [deep]
    items = Walked(["a"] * 1000 + deep)
    assert found_values(AnswerKeys(text="t", words="w"), {"w": items})["words"] == ["a"] * 1000 + ["end"]
    assert items.walks == 1


async def test_times_may_have_their_unit(bench_of):
    """As Google writes them."""
    bench = bench_of("http")
    answer = AnswerKeys(text="t", words="w[].{word: w, start: s, end: e}", duration="d")
    body = {"t": "Hi.", "d": "2s", "w": [{"w": "Hi.", "s": "0.100s", "e": "1.200s"}]}
    bench.emulator.fail(Fault(body=body))
    transcript = await bench.provider(answer=answer).transcribe(bench.audio(), {})
    (word,) = transcript.words
    assert (word.start, word.end, transcript.duration) == (0.1, 1.2, 2.0)


async def test_form_parameters_can_go_into_the_query(bench_of):
    """As whisper-asr-webservice wants them."""
    bench = bench_of("http")
    words = "segments[].words[].{word: word, start: start, end: end, confidence: probability}"
    provider = bench.provider(
        url=bench.emulator.url + "/asr", body="multipart", file_field="audio_file", params_in="query",
        key_header="Authorization: Bearer {key}", answer=AnswerKeys(text="text", words=words),
    )  # fmt: skip
    transcript = await provider.transcribe(bench.audio(), {"output": "json", "word_timestamps": True})
    assert [word.word for word in transcript.words] == transcript.text.split()


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (409, {"code": "no_credit"}, ProviderUnusable),
        (418, "", ProviderUnusable),
        (500, {"code": "UNREADABLE"}, AudioRejected),
        (404, "", RuleRejected),
        (400, {"code": "busy"}, TemporaryFailure),
        (422, {"detail": [{"msg": "field required"}]}, AudioRejected),
        (422, {"detail": [{"msg": "try it later on"}]}, TemporaryFailure),
        (422, {"code": "insufficient_quota"}, ProviderUnusable),
        (200, {"error": "Your balance is negative"}, ProviderUnusable),
    ],
)
async def test_errors_have_the_kinds_of_the_config(bench_of, status, body, kind):
    """By status, by the vendor's code or by its words; a list of wrong parameters does not outweigh them."""
    bench = bench_of("http")
    rows = ErrorKeys(
        account=("no_credit", 418), file=("unreadable", 422), rule=(404,), later=("busy", "it later")
    )
    bench.emulator.fail(Fault(status=status, body=body))
    assert type(await failure_of(bench.provider(errors=rows), bench.audio())) is kind


async def test_an_answer_without_the_text_names_the_expression_and_what_is_there(bench_of):
    """Enough to mend the config; the request may have been paid for."""
    bench = bench_of("http")
    provider = bench.provider(answer=AnswerKeys(text="result.text"))
    bench.emulator.fail(Fault(body={"results": {"text": "hi"}, "id": "7"}))
    error = await failure_of(provider, bench.audio())
    assert type(error) is AmbiguousFailure
    assert error.reason == "a success without a text at 'result.text'; it has results, id"


async def test_an_expression_that_overflows_finds_nothing(bench_of):
    """No number in an answer turns a paid answer into a bug."""
    bench = bench_of("http")
    provider = bench.provider(answer=AnswerKeys(text="text", duration="ceil(to_number(seconds))"))
    bench.emulator.fail(Fault(body={"text": "hi", "seconds": "1e999"}))
    transcript = await provider.transcribe(bench.audio(), {})
    assert (transcript.text, transcript.duration) == ("hi", None)


async def test_a_check_names_the_fields_of_the_answer(bench_of):
    """Where the server answers a request without audio."""
    bench = bench_of("http")
    provider = bench.provider(answer=AnswerKeys(text="text", duration="seconds", error="problem"))
    bench.emulator.fail(Fault(body={"text": "", "seconds": 0}))
    assert await provider.probe() == "answers and takes the key (HTTP 200); its answer has text, duration"


JOBS = {
    "answer": AnswerKeys(text="transcript", error="why"),
    "errors": ErrorKeys(file=("cannot be decoded",)),
    "poll": PollKeys(
        url="/jobs/{id}",
        id="job.number",
        state="finished",
        done=("true",),
        failed=("broken",),
        result="/jobs/{id}/text",
        every_seconds=7.0,
    ),
}


async def test_an_upload_can_be_the_job_and_the_result_be_elsewhere(bench_of):
    """Ids may be numbers and states truth values; without `delete` nothing is deleted."""
    bench = bench_of("http")
    provider = bench.provider(**JOBS, params={"model": "m"})
    bench.emulator.fail(
        Fault(status=201, body={"job": {"number": 12}}),
        Fault(body={"finished": False}),
        Fault(body={"finished": True}),
        Fault(body={"transcript": "Hi."}),
    )
    job_id = await provider.start_job(bench.audio(), {"model": "m"})
    assert job_id == "12"
    assert await provider.poll_job(job_id, {}) == Unfinished()
    assert (await provider.poll_job(job_id, {})).text == "Hi."
    await provider.delete_job(job_id)
    upload, *polls = bench.emulator.requests
    assert upload.params == [("model", "m")]
    assert [poll.path for poll in polls] == ["/jobs/12", "/jobs/12", "/jobs/12/text"]
    assert (provider.poll_seconds(0.0), provider.poll_seconds(200.0)) == (7.0, 20.0)


@pytest.mark.parametrize(
    ("job_id", "path"),
    [
        ("Zm9v/YmFy+Q==", "/jobs/Zm9v%2FYmFy%2BQ%3D%3D"),
        ("a b?c#d", "/jobs/a%20b%3Fc%23d"),
        ("urn:x:1", "/jobs/urn:x:1"),
    ],
)
async def test_an_id_is_quoted_in_urls(bench_of, job_id, path):
    """Base64 and other printable ASCII; the file was refused after three paid uploads."""
    bench = bench_of("http")
    provider = bench.provider(**JOBS)
    bench.emulator.fail(Fault(body={"job": {"number": job_id}}), Fault(body={"finished": False}))
    assert await provider.start_job(bench.audio(), {}) == job_id
    assert await provider.poll_job(job_id, {}) == Unfinished()
    assert bench.emulator.requests[-1].path == path


@pytest.mark.parametrize(
    ("job", "reason"),
    [
        ({"id": "x"}, "a job without an id at 'job.number'; it has job"),
        ({"number": "日本"}, "a job with an id that no URL can carry"),
        ({"number": ".."}, "a job with an id that no URL can carry"),
        ({"number": "a\nb"}, "a job with an id that no URL can carry"),
    ],
)
async def test_a_job_without_a_usable_id_says_why(bench_of, job, reason):
    """The expression is named; the job may have been paid for."""
    bench = bench_of("http")
    bench.emulator.fail(Fault(body={"job": job}))
    with pytest.raises(AmbiguousFailure) as caught:
        await bench.provider(**JOBS).start_job(bench.audio(), {})
    assert caught.value.reason == reason


@pytest.mark.parametrize(
    ("why", "kind"),
    [("The audio cannot be decoded.", AudioRejected), ("out of credits", ProviderUnusable)],
)
async def test_a_job_that_failed_says_why(bench_of, why, kind):
    """`answer.error`, weighed by `errors`."""
    bench = bench_of("http")
    bench.emulator.fail(Fault(body={"finished": "broken", "why": why}))
    with pytest.raises(kind) as caught:
        await bench.provider(**JOBS).poll_job("12", {})
    assert caught.value.reason == why


@pytest.mark.parametrize(
    ("told", "expected"),
    [("DONE", "Hi."), ("Failed", AudioRejected), ("cancelled", AudioRejected), ("queued", None)],
)
async def test_states_are_known_in_any_case(bench_of, told, expected):
    """And `failed` is one, named or not: its job was polled for a day, and the file sent three times."""
    bench = bench_of("http")
    poll = PollKeys(url="/jobs/{id}", done=("done",), failed=("Cancelled",))
    provider = bench.provider(answer=AnswerKeys(text="text"), poll=poll)
    bench.emulator.fail(Fault(body={"status": told, "text": "Hi."}))
    if expected is AudioRejected:
        with pytest.raises(AudioRejected):
            await provider.poll_job("1", {})
        return
    found = await provider.poll_job("1", {})
    assert getattr(found, "text", None) == expected


async def test_an_end_that_the_config_does_not_name_holds_the_provider(bench_of, monkeypatch):
    """Its job is kept until the config is mended; `transcribe` ends at once."""
    monkeypatch.setattr(jobs, "FIRST_POLL_SECONDS", 0.01)
    bench = bench_of("http")
    poll = PollKeys(url="/jobs/{id}", done=("ready",), every_seconds=0.01)
    provider = bench.provider(answer=AnswerKeys(text="text"), poll=poll)
    finished = Fault(body={"status": "completed", "text": "Hi."})
    bench.emulator.fail(finished, Fault(body={"id": "1"}), finished)
    found = await provider.poll_job("1", {})
    assert isinstance(found.error, ProviderUnusable)
    assert "'completed'" in found.error.reason
    with pytest.raises(AmbiguousFailure) as caught:
        await provider.transcribe(bench.audio(), {})
    assert "'completed'" in caught.value.reason


async def test_a_refused_creation_in_a_success_is_no_job(bench_of):
    """Nothing is polled, and nothing counts as paid for."""
    bench = bench_of("http")
    bench.emulator.fail(Fault(body={"why": "out of credits"}))
    with pytest.raises(ProviderUnusable):
        await bench.provider(**JOBS).start_job(bench.audio(), {})


async def test_a_lost_answer_to_an_upload_that_is_the_job_may_have_been_paid_for(bench_of):
    """It counts as sent whole."""
    bench = bench_of("http")
    bench.emulator.fail(Fault(close=True))
    with pytest.raises(AmbiguousFailure):
        await bench.provider(**JOBS).start_job(bench.audio(), {})


@pytest.mark.parametrize("params", [{"audio": "x"}, {"audio.content": "x"}])
async def test_a_parameter_in_the_way_of_the_audio_is_the_rules_fault(bench_of, params):
    """A name cannot be a value and an object."""
    bench = bench_of("http")
    provider = bench.provider(body="json", file_field="audio.content.data")
    assert type(await failure_of(provider, bench.audio(), params)) is RuleRejected
    assert bench.emulator.requests == []


@pytest.mark.parametrize(
    ("problem", "kind"),
    [
        ("file is broken", AudioRejected),
        ("Your balance is negative", ProviderUnusable),
        ("slow", TemporaryFailure),
    ],
)
async def test_a_failure_in_a_success_is_found_where_the_config_says(bench_of, problem, kind):
    """`answer.error` is not null."""
    bench = bench_of("http")
    provider = bench.provider(
        answer=AnswerKeys(text="text", error="outcome.problem"), errors=ErrorKeys(later=("slow",))
    )
    bench.emulator.fail(Fault(body={"text": "", "outcome": {"problem": problem}}), Fault(body={"text": "ok"}))
    error = await failure_of(provider, bench.audio())
    assert type(error) is kind
    assert error.reason == problem
    assert (await provider.transcribe(bench.audio(), {})).text == "ok"


@pytest.mark.parametrize(
    ("body", "error"),
    [
        ({"text": "hi", "error": {"code": 0, "message": "ok"}}, "why"),
        ({"text": "hi", "status": "pending"}, None),
        ({"text": "hi", "status": "pending"}, "why"),
        ({"text": "", "error": {"code": 0, "message": "ok"}}, "why"),
    ],
)
async def test_a_text_is_taken_in_spite_of_the_usual_signs_of_an_error(bench_of, body, error):
    """The config says where an error stands; a text with a `status` beside it was paid for."""
    bench = bench_of("http")
    bench.emulator.fail(Fault(body=body))
    provider = bench.provider(answer=AnswerKeys(text="text", error=error))
    assert (await provider.transcribe(bench.audio(), {})).text == body["text"]


@pytest.mark.parametrize("nothing", [None, False, 0, "", [], {}])
async def test_an_error_of_no_content_is_none(bench_of, nothing):
    """Many APIs have the place for an error in each answer."""
    bench = bench_of("http")
    bench.emulator.fail(Fault(body={"text": "hi", "why": nothing}))
    provider = bench.provider(answer=AnswerKeys(text="text", error="why"))
    assert (await provider.transcribe(bench.audio(), {})).text == "hi"


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        ({"text": "", "status": "pending"}, RuleRejected),
        ({"text": None, "error": "broken"}, AudioRejected),
        ({"text": "partial", "error": "broken"}, AudioRejected),
        ({"text": "partial", "why": "broken"}, AudioRejected),
    ],
)
async def test_an_answer_with_an_error_is_no_transcript(bench_of, body, kind):
    """By the usual signs where there is no text, and at the config's own place in any case."""
    bench = bench_of("http")
    bench.emulator.fail(Fault(body=body))
    error = "why" if "why" in body else None
    provider = bench.provider(answer=AnswerKeys(text="text", error=error))
    assert type(await failure_of(provider, bench.audio())) is kind


async def test_a_blank_that_the_expression_supplies_is_no_text(bench_of):
    """An error answer would be filed as an empty transcript."""
    bench = bench_of("http")
    bench.emulator.fail(Fault(body={"error": {"code": 429, "message": "quota exceeded"}}))
    provider = bench.provider(answer=AnswerKeys(text="text || ''", error="failure_reason"))
    assert "quota exceeded" in (await failure_of(provider, bench.audio())).reason


async def test_a_result_that_stays_away_holds_the_provider(bench_of):
    """A wrong path of the config: more uploads would be paid for in vain."""
    bench = bench_of("http")
    provider = bench.provider(**JOBS, params={"model": "m"})
    for age_seconds, kind in ((0.0, Retry), (UNUSABLE_SECONDS + 1, ProviderUnusable)):
        bench.emulator.fail(Fault(body={"finished": True}), Fault(status=404, body="no such page"))
        found = await poll(provider, RemoteJob("12", 0.0), {}, age_seconds)
        assert type(found) is kind
        assert found.code == NO_RESULT


async def test_a_word_may_be_a_number(bench_of):
    """As the JSON has it; a truth value is no word."""
    bench = bench_of("http")
    bench.emulator.fail(Fault(body={"text": "x", "words": [{"word": 5}, {"word": 1.5}, {"word": True}]}))
    provider = bench.provider(answer=AnswerKeys(text="text", words="words"))
    transcript = await provider.transcribe(bench.audio(), {})
    assert [word.word for word in transcript.words] == ["5", "1.5", ""]


@pytest.mark.parametrize("answer", [{}, {"text": 5}, {"text": None}, {"text": ["a"]}])
def test_what_does_not_fit_is_no_transcript(answer):
    """Nothing raises, whatever the answer holds."""
    keys = AnswerKeys(text="text", words="length(text)", duration="sort(text)", language="join(',', text)")
    api = DescribedApi(ProviderConfig(name="x", type="http", url="http://h", answer=keys))
    with pytest.raises(BadAnswer):
        api.transcript(answer, {})
    assert api.transcript({"text": "hi"}, {}).words == ()


def test_jmespath_is_loaded_only_where_it_is_used(tmp_path):
    """A config without `type: http` pays nothing for it."""
    program = (
        "import sys\nfrom pathlib import Path\nfrom dropscribe.config.load import parse_config\n"
        "import dropscribe.app.daemon, dropscribe.providers.build\n"
        "text = 'providers: {p: {type: pulse, api_key: k-1234}}\\nfolders: {f: {inbox: in, provider: p}}'\n"
        "config, _ = parse_config(text, folder=Path('/srv'), environ={})\n"
        "dropscribe.providers.build.build_provider(config.providers['p'])\n"
        "import json; print(json.dumps(sorted(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    loaded = json.loads(done.stdout)
    unwanted = {
        "jmespath",
        *(f"dropscribe.providers.vendors.{name}" for name in ("described", "azure", "deepgram")),
    }
    assert unwanted.isdisjoint(loaded)
