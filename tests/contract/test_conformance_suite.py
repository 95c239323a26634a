"""The conformance suite as a package of its own uses it, and that it finds what is broken."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from types import MappingProxyType

import pytest

from dropscribe.core.errors import AudioRejected, ProviderError, TemporaryFailure
from dropscribe.providers.base import Unfinished
from dropscribe.providers.conformance import CHECKS, JOB_CHECKS, KEY, Broken, StandIn, checks
from dropscribe.providers.jobs import JobProvider, JobVendor
from dropscribe.providers.transport.requests import raw_request
from dropscribe.providers.values import told_text
from dropscribe.providers.vendor import HttpProvider, Vendor
from dropscribe.transcripts.model import Transcript

PAGE = (Path(__file__).parents[2] / "docs" / "design" / "adding-a-provider.md").read_text("utf-8")


class Mine(Vendor):
    """The smallest vendor: a raw body, an answer with a text."""

    errors = MappingProxyType({})

    def params(self, given):
        return dict(given)

    def upload(self, audio, params):
        return raw_request(self.url, audio)

    def transcript(self, parsed, params):
        return Transcript(told_text(parsed.get("text")))

    def probe(self):
        return "GET", self.url


class MineWithJobs(JobVendor):
    """The smallest vendor with jobs."""

    type = "mine"
    upload_path = "/files"
    file_name = ("id", "file")
    jobs_path = "/jobs"
    transcript = Mine.transcript


build = Mine.build
build_with_jobs = MineWithJobs.build


def documented_by_the_page():
    """The function in the page's example."""
    (example,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    found = {}
    exec(example.replace("from my_package.provider import build", ""), found)
    return found["documented"]


def jobs_of_a_vendor():
    """A vendor's documented answers, with a job that is done at the second poll."""
    polls: dict[str, int] = {}

    def documented(request, heard):
        if request.headers.get("authorization") != f"Bearer {KEY}":
            return 401, {"error": "wrong key"}
        path = request.target.partition("?")[0]
        job_id = path.removeprefix("/jobs/")
        if request.method == "POST":
            name = f"{len(polls)}-of-it"
            if path == "/jobs":
                polls[name] = 0
            return 201, {"id": name}
        if path == "/jobs":
            return 200, []
        if job_id not in polls:
            return 404, {"error": "no such job"}
        if request.method == "DELETE":
            del polls[job_id]
            return 204, ""
        polls[job_id] += 1
        return 200, {"status": "completed", "text": heard} if polls[job_id] > 1 else {"status": "queued"}

    return documented


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
async def test_the_page_s_example_keeps_all_promises(tmp_path, check):
    """As a contributor would write it."""
    async with StandIn(build, documented_by_the_page(), tmp_path) as bench:
        await check(bench)


@pytest.mark.parametrize("check", [*CHECKS, *JOB_CHECKS], ids=lambda check: check.__name__)
async def test_a_small_vendor_with_jobs_keeps_all_promises(tmp_path, check):
    """With a class of a few lines."""
    async with StandIn(build_with_jobs, jobs_of_a_vendor(), tmp_path) as bench:
        await check(bench)


class Faulty(HttpProvider):
    """Turns an error into another, and knows no limits."""

    def __init__(self, config):
        super().__init__(config, Mine(config))
        self._key = config.api_key.reveal()

    def _check_size(self, audio):
        """No limit."""

    async def transcribe(self, audio, params):
        try:
            return await super().transcribe(audio, params)
        except ProviderError as error:
            if error.status == 400:
                raise AudioRejected("no", f"refused with the key {self._key}", status=400) from None
            raise TemporaryFailure("later", f"{error.reason} {self._key}", status=error.status) from error

    async def probe(self):
        return "fine"


class LosesJobs(JobProvider):
    """Takes every poll that fails for the job's end, and every deletion for done."""

    def __init__(self, config):
        super().__init__(config, MineWithJobs(config))

    async def poll_job(self, job_id, params):
        found = await super().poll_job(job_id, params)
        if isinstance(found, Unfinished) and found.error is not None:
            raise found.error
        return found

    async def delete_job(self, job_id):
        pass


@pytest.mark.parametrize(
    "check",
    [
        checks.a_status_decides_whatever_the_body_is,
        checks.an_unexplained_4xx_may_be_the_rule,
        checks.a_lost_answer_may_have_been_paid_for,
        checks.a_wrong_key_holds_the_provider,
        checks.an_echoed_key_is_masked,
        checks.a_file_above_max_upload_is_not_sent,
        checks.a_probe_pays_for_nothing,
    ],
    ids=lambda check: check.__name__,
)
async def test_a_promise_that_is_not_kept_is_found(tmp_path, check):
    """Each check can fail."""
    async with StandIn(Faulty, documented_by_the_page(), tmp_path) as bench:
        with pytest.raises(Broken):
            await check(bench)


@pytest.mark.parametrize(
    ("check", "error"),
    [
        (checks.a_poll_that_fails_says_nothing_about_the_job, ProviderError),
        (checks.a_key_that_is_refused_while_polling_keeps_the_job, ProviderError),
        (checks.a_job_that_the_vendor_does_not_know_is_over, Broken),
        (checks.a_deletion_that_fails_says_so, Broken),
    ],
    ids=lambda check: getattr(check, "__name__", ""),
)
async def test_a_job_that_is_lost_is_found(tmp_path, check, error):
    """Each check of jobs can fail."""
    async with StandIn(LosesJobs, jobs_of_a_vendor(), tmp_path) as bench:
        with pytest.raises(error):
            await check(bench)


@pytest.mark.parametrize(
    ("answer", "check"),
    [
        ({"text": "something else"}, checks.audio_arrives_once_and_whole),
        ({"text": "always"}, checks.silence_is_a_result),
    ],
)
async def test_an_answer_that_is_another_file_s_is_found(tmp_path, answer, check):
    """The text has to be what the vendor hears."""
    async with StandIn(build, lambda *_: (200, answer), tmp_path) as bench:
        with pytest.raises(Broken):
            await check(bench)


def test_the_suite_needs_no_test_library():
    """It is in the installed package, whose dependencies have none."""
    script = "import dropscribe.providers.conformance, json, sys; print(json.dumps(list(sys.modules)))"
    loaded = json.loads(subprocess.check_output([sys.executable, "-c", script]))
    assert not {"pytest", "_pytest"} & set(loaded)
