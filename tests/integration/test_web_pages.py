"""The pages: what they show, who may ask, what they may do; on real sockets, a real queue and real files."""

from __future__ import annotations

import asyncio
import contextlib
import html
import json
import os
import re
import shutil
import threading
import time
from dataclasses import replace
from datetime import datetime
from types import SimpleNamespace
from unittest.mock import AsyncMock
from urllib.parse import quote
from zoneinfo import ZoneInfo

import pytest
from structlog.testing import capture_logs

from dropscribe.app.housekeeping import Housekeeping
from dropscribe.cli.commands.status import render_status
from dropscribe.config.model import HttpConfig
from dropscribe.config.notation.secret import Secret
from dropscribe.core.model import AttemptEnd
from dropscribe.core.retry import REUSED
from dropscribe.core.routing import BACKLOG
from dropscribe.core.text.printing import utc_text
from dropscribe.files.audio import Progress
from dropscribe.queue.model import NOT_MOVABLE
from dropscribe.queue.sql.intake_queries import forget_failed
from dropscribe.reports.explain import explain
from dropscribe.reports.queue_reader import view_queue
from dropscribe.reports.transcript_reader import MOST_DOCUMENT_COMMAS, read_document
from dropscribe.reports.wording import moment_words
from dropscribe.web import actions, guard, listener, routes, uploads
from dropscribe.web import site as site_module
from dropscribe.web.file_views import turns_of
from dropscribe.web.reading import LIST_ROWS, PAGE_ROWS, day_starts
from dropscribe.web.recordings import parse_range
from dropscribe.web.uploads import LEFTOVER_SECONDS, remove_leftovers, safe_name
from dropscribe.web.views import progress_of
from support.pages import Site, serving
from support.scene import CONFIG, Scene, add_attempt, add_hold, add_job, add_pause, wav_bytes
from support.waiting import until

TOKEN = "a-long-enough-token"
COOKIE = guard.Access(HttpConfig(host="", port=0, token=Secret(TOKEN, "test"))).cookie
EVIL = '<script>alert("x")</script>'


def add_done(scene, store, name="call.wav", text="Hello there. Goodbye.", **document) -> int:
    """A finished file with its audio and its transcript in done."""
    audio = scene.drop(name, part="done")
    words = [
        {"word": "Hello", "start": 0.5, "end": 0.9, "confidence": 0.99, "speaker": None},
        {"word": "there.", "start": 0.9, "end": 1.2, "confidence": 0.2, "speaker": None},
        {"word": "Goodbye.", "start": 9.0, "end": 9.5, "confidence": 0.9, "speaker": None},
    ]
    transcript = {
        "schema": "dropscribe.transcript/1",
        "text": text,
        "language": "en",
        "duration": 10.0,
        "segments": [],
        "words": words,
        "speakers": [],
        "warnings": [],
        "source": {"sha256": "ab" * 32},
        "provider": {"name": "main", "model": "m"},
        **document,
    }
    audio.with_suffix(".json").write_text(json.dumps(transcript))
    audio.with_suffix(".txt").write_text(text + "\n")
    now = time.time()
    columns = {"state": "done", "ended_at": now - 60, "filed": str(audio).encode(), "provider": "main"}
    job_id = add_job(store, scene, name, received_at=now - 120, **columns)
    add_attempt(store, job_id, now - 100, AttemptEnd(2.5))
    return job_id


def add_failed(scene, store, name: str) -> int:
    """A failed file with its audio in failed."""
    audio = scene.drop(name, part="failed")
    columns = {"state": "failed", "ended_at": time.time(), "filed": str(audio).encode()}
    return add_job(store, scene, name, **columns)


def add_cached(store, sha256: str, job_id: int) -> None:
    """A stored answer."""
    sql = "INSERT INTO ledger (sha256, settings, size_bytes, kept_at, folder, job_id, document)"
    row = (sha256, "", 1, time.time(), "calls", job_id, b"")
    store.call(lambda db: db.execute(f"{sql} VALUES (?, ?, ?, ?, ?, ?, ?)", row)).result()


async def page_of(site, path: str, status: int = 200) -> str:
    """The text of one page."""
    async with site.client() as client:
        answer = await client.get(path, headers={"Accept": "text/html"})
    assert answer.status_code == status, answer.text
    return answer.text


async def test_the_overview_shows_what_status_says(scene):
    """Folders with counts, files by state, holds with their reason and the next try."""
    with scene.queue() as store:
        add_done(scene, store)
        failed = add_job(store, scene, "bad.wav", state="failed", ended_at=time.time())
        add_attempt(store, failed, time.time(), AttemptEnd(1.0, status=400, code="undecodable", reason="no"))
        add_job(store, scene, "next.wav")
        add_hold(store, since=time.time() - 60, next_probe_at=time.time() + 60)
        async with serving(scene) as site:
            text = await page_of(site, "/")
    assert "Provider main is held: no credit is left" in text
    assert 'action="/providers/main/try"' in text
    assert "call.wav" in text
    assert "undecodable: no" in text
    assert "next.wav" in text
    assert '<span class="tag ">held</span>' in text
    assert "insufficient_quota: no credit is left" in text


async def test_the_overview_shows_a_pause_with_its_end(scene):
    """A paused provider is named, with the time of its next request and a way to try it now."""
    until = float(int(time.time()) + 3570)
    with scene.queue() as store:
        add_job(store, scene, "next.wav")
        add_pause(store, until)
        async with serving(scene) as site:
            text = await page_of(site, "/")
    assert "Provider main is paused: it asked for fewer requests" in text
    assert 'action="/providers/main/try"' in text
    assert f'the next one goes <time datetime="{utc_text(until)}' in text
    assert f"; the next request goes {moment_words(until)}" in text
    assert '<span class="tag warn">paused</span>' in text


async def test_the_overview_names_all_that_is_wrong(scene, monkeypatch):
    """In the words of ``dropscribe status``, with links to the files in place of commands for a terminal."""
    with scene.queue() as store:
        stuck = {"code": NOT_MOVABLE, "reason": "Permission denied", "due_at": time.time() + 60}
        add_job(store, scene, "stuck.wav", **stuck)
        add_job(store, scene, "later.wav", **{**stuck, "code": "http_503"})
        add_job(store, scene, "left.wav", folder="gone")
        add_failed(scene, store, "bad.wav")
        scene.write_live(settling=1, waiting={"<open>.wav": "open"}, idle_writers=["<open>.wav"])
        node = {"name": "b", "host": "h", "role": "all", "version": "1", "in_flight": 0, "silent": True}
        beats = dict.fromkeys(("started_at", "last_beat"), "2026-11-01T00:00:00Z")
        document = await Site(scene).status() | {"nodes": [node | beats]}
        monkeypatch.setattr(Site, "status", AsyncMock(return_value=document))
        async with serving(scene) as site:
            text = html.unescape(await page_of(site, "/"))
    told = render_status(document, time.time())
    for words in (
        "node b is silent: its last heartbeat was ",
        "; its files are processed by other nodes",
        "folder calls: <open>.wav stays open for writing and is not written to",
        "folder calls: 1 file cannot be moved; because: Permission denied",
        "folder calls: 1 file failed",
        "folder gone is not in the config any more, and 1 file of it cannot go on",
    ):
        assert words in told
        assert words[0].upper() + words[1:] in text
    assert "'list --failed' names them" in told
    assert "'list --failed'" not in text
    assert "folder calls: 1 file to be tried again after a failure" in told
    for state, number in (("failed", 1), ("waiting", 2)):
        assert text.count(f'<a href="/folders/calls?state={state}">Show</a>') == number


async def test_the_overview_tells_of_doubtful_transcripts_and_rate_limits(scene, monkeypatch):
    """As ``dropscribe status`` does; a rate limit from two seconds on."""
    next_at = float(int(time.time()) + 600)
    with scene.queue():
        scene.write_live(next_starts={"main": next_at})
        document = await Site(scene).status()
        document["folders"]["calls"]["suspect"] = 2
        monkeypatch.setattr(Site, "status", AsyncMock(return_value=document))
        async with serving(scene) as site:
            text = await page_of(site, "/")
    told = render_status(document, time.time())
    for words in ("2 doubtful transcripts so far", "its rate limit allows the next request "):
        assert words in told
        assert words in text
    assert f"its rate limit allows the next request {moment_words(next_at)}" in text


async def test_a_new_daemon_has_an_overview_too(scene):
    """Without a queue, files or folders there is something to read."""
    async with serving(scene) as site:
        assert "All files are done." in await page_of(site, "/")
        assert "No files." in await page_of(site, "/folders/calls")
        assert "no folder of that name" in await page_of(site, "/folders/nope", 404)
        await page_of(site, "/files/77", 404)


async def test_files_without_a_job_are_shown_with_the_reason(scene):
    """Files that settle or may not be read, and folders that cannot be listed, wait with their reason."""
    blocked = "may not be read: owner nobody, mode 0600; chmod g+r <it>"
    waiting = {
        "new.wav": "a writer has it open",
        "a/locked.wav": blocked,
        "b": "cannot be listed: owner nobody, mode 0700",
    }
    with scene.queue() as store:
        add_job(store, scene, "queued.wav")
        scene.write_live(settling=1, blocked=2, waiting=waiting)
        async with serving(scene) as site:
            front, listed, named, done, coded = [
                await page_of(site, path)
                for path in (
                    "/",
                    "/folders/calls",
                    "/folders/calls?state=waiting&q=locked",
                    "/folders/calls?state=done",
                    "/folders/calls?code=rejected",
                )
            ]
            scene.write_live(available=False, waiting=waiting)
            away = await page_of(site, "/")
    for text in (front, listed):
        assert "may not be read: owner nobody, mode 0600; chmod g+r &lt;it&gt;" in text
        rows = [text.index(name) for name in (">a/locked.wav<", ">b<", ">new.wav<", ">queued.wav<")]
        assert rows == sorted(rows)
        assert text.count(">blocked</span>") == 2
    assert "a/locked.wav" in named
    assert "new.wav" not in named
    assert not any("new.wav" in text for text in (done, coded, away))


@pytest.mark.parametrize("is_away", [False, True])
async def test_the_page_of_a_waiting_file_says_what_why_says(scene, is_away):
    """Also what keeps its inbox or its folder from being read."""
    file = scene.drop("a/queued.wav")
    with scene.queue() as store:
        job_id = add_job(store, scene, "a/queued.wav")
        scene.write_live(blocked=1, waiting={"a": "cannot be listed: owner nobody, mode 0700"})
        if is_away:
            os.rename(scene.root / "inbox", scene.root / "away")
        async with serving(scene) as site:
            text = html.unescape(await page_of(site, f"/files/{job_id}"))
            with view_queue(site.config) as view:
                words = explain(site.config, os.fsencode(file), view)[1].words
    assert ("the inbox is unavailable" if is_away else "it may not be read") in words[0]
    assert all(each[0].upper() + each[1:] in text for each in words)


async def test_thousands_of_files_without_a_job_make_a_small_page(scene):
    """A page has a limit of rows, and says how many more there are."""
    waiting = {f"{number}.wav": "quiet for 1 s of 2 s" for number in range(200)}
    with scene.queue():
        scene.write_live(settling=7000, waiting=waiting)
        async with serving(scene) as site:
            assert (await page_of(site, "/")).count("quiet for 1 s") == LIST_ROWS
            text = await page_of(site, "/folders/calls")
    assert text.count("quiet for 1 s") == PAGE_ROWS
    assert f"{7000 - PAGE_ROWS} more in the inbox are not queued yet" in text


async def test_a_file_has_its_story_transcript_and_downloads(scene):
    """Paragraphs at pauses, words with times and doubtful ones marked; every sidecar to download."""
    with scene.queue() as store:
        job_id = add_done(scene, store, warnings=["incomplete_audio"])
        async with serving(scene) as site:
            text = await page_of(site, f"/files/{job_id}")
            async with site.client() as client:
                sidecar = await client.get(f"/files/{job_id}/txt")
                missing = await client.get(f"/files/{job_id}/srt")
    assert text.count('class="turn"') == 2
    assert '<span class="w unsure" data-start="0.9" title="confidence 20 %">there.</span>' in text
    assert "incomplete when it was sent" in text
    assert "main: answered after 2.5 s." in text
    assert (sidecar.status_code, sidecar.text) == (200, "Hello there. Goodbye.\n")
    assert sidecar.headers["content-disposition"] == "attachment; filename*=UTF-8''call.txt"
    assert missing.status_code == 404


@pytest.mark.parametrize(
    ("ended", "words", "tone"),
    [
        (AttemptEnd(0.0, code=REUSED, reason="x.wav", counted=False), "its answer was known: x.wav", "good"),
        (AttemptEnd(None, code="interrupted", counted=False), "interrupted: the daemon ended; it may", "bad"),
        (
            AttemptEnd(2.0, status=500, code="http_500", reason="no"),
            "http_500: no (HTTP 500) after 2.0 s",
            "bad",
        ),
    ],
)
async def test_the_story_of_a_file_tells_its_attempts_as_why_does(scene, ended, words, tone):
    """In the same words; an answer that was known is no failure."""
    with scene.queue() as store:
        job_id = add_job(store, scene, "call.wav")
        add_attempt(store, job_id, time.time(), ended)
        async with serving(scene) as site:
            text = await page_of(site, f"/files/{job_id}")
    assert f'<li class="{tone}">main: {words}' in text


async def test_a_file_that_was_taken_back_has_failed_and_was_not_dropped(scene):
    """Neither on its page nor by ``why``."""
    with scene.queue() as store:
        job_id = add_failed(scene, store, "bad.wav")
        failed = scene.root / "failed/bad.wav"
        failed.rename(scene.root / "inbox/bad.wav")
        store.call(lambda db: forget_failed(db, bytes(failed))).result()
        async with serving(scene) as site:
            text = await page_of(site, f"/files/{job_id}")
            with view_queue(site.config) as view:
                words = explain(site.config, bytes(scene.root / "inbox/bad.wav"), view)[1].words
    assert "It failed, and was taken back into the inbox after that." in text
    assert "taken back into the inbox" in words[-1]
    assert not any("dropped from" in each for each in [text, *words])


@pytest.mark.parametrize(
    ("language", "texts", "shown", "tag"),
    [
        ("de", ["Um", "20", "Uhr."], "Um 20 Uhr.", "de"),
        ("zh", ["我们", "明天", "去", "IBM", "开会。"], "我们明天去 IBM 开会。", "zh"),
        ("ar", ["مرحبا", "يا", "صديقي"], "مرحبا يا صديقي", "ar"),
        (None, ["hello"], "hello", ""),
        ('en" onclick="x', ["hello"], "hello", ""),
    ],
)
async def test_the_text_of_a_transcript_is_shown_as_it_is_written(scene, language, texts, shown, tag):
    """All words, also those without a time; spaces where their script has them; direction and language."""
    words = [{"word": text, "start": 0.5 * n or None, "end": None} for n, text in enumerate(texts)]
    words = words if len(words) > 1 else [{**words[0], "start": 0.5}]
    with scene.queue() as store:
        job_id = add_done(scene, store, language=language, words=words, segments=[])
        async with serving(scene) as site:
            text = await page_of(site, f"/files/{job_id}")
    (paragraph,) = re.findall(r'<p dir="auto" lang="([^"]*)">(.*?)</p>', text)
    assert (paragraph[0], re.sub("<[^>]*>", "", paragraph[1])) == (tag, shown)
    timed = [word for word in words if word["start"]]
    assert text.count("data-start") == len(timed) + 1  # and the button that plays from there


async def test_a_long_transcript_holds_up_nothing(scene, monkeypatch):
    """Its page is made beside the event loop."""
    threads = []
    monkeypatch.setattr(
        "dropscribe.web.file_views.facts_of", lambda *_: threads.append(threading.current_thread()) or []
    )
    with scene.queue() as store:
        job_id = add_done(scene, store)
        async with serving(scene) as site:
            await page_of(site, f"/files/{job_id}")
    assert threads
    assert threading.main_thread() not in threads


async def test_many_readers_hold_up_nothing(scene, monkeypatch):
    """No page is rendered in the event loop."""
    threads, render = [], site_module.Site.page

    def page(*args, **context):
        threads.append(threading.current_thread())
        return render(*args, **context)

    monkeypatch.setattr(site_module.Site, "page", page)
    with scene.queue() as store:
        job_id = add_done(scene, store)
        async with serving(scene) as site:
            for path in ("/", "/folders/calls", "/search?q=hello", f"/files/{job_id}"):
                await page_of(site, path)
    assert len(threads) == 4
    assert threading.current_thread() not in threads


async def test_few_transcripts_are_in_memory_at_once(scene, monkeypatch):
    """Forty readers of a long one took 1.2 GB of the daemon's memory."""
    with scene.queue() as store:
        job_id = add_done(scene, store)
    read, now, most, are_all_there = site_module.read_details, [], [], threading.Event()

    def slow(*arguments):
        now.append(1)
        most.append(len(now))
        are_all_there.wait(10)
        now.pop()
        return read(*arguments)

    monkeypatch.setattr(site_module, "read_details", slow)
    async with serving(scene) as site, site.client() as client:
        reading = [asyncio.create_task(client.get(f"/files/{job_id}")) for _ in range(6)]
        await until(lambda: len(now) == 2)
        assert (await client.get("/")).status_code == 200
        are_all_there.set()
        assert [(await each).status_code for each in reading] == [200] * 6
        assert max(most) == site_module.TRANSCRIPTS_PER_FOLDER == 2


async def test_a_page_that_takes_too_long_says_so(scene, monkeypatch):
    """The queue's disk, or other readers, held it up: 503, as programs know it, and words for people."""
    is_over = threading.Event()
    monkeypatch.setattr(routes, "ANSWER_SECONDS", 0.05)
    monkeypatch.setattr(site_module, "read_job", lambda *_: is_over.wait(10))
    with capture_logs() as lines:
        async with serving(scene) as site, site.client() as client:
            answer = await client.get("/files/1")
            is_over.set()
    assert (answer.status_code, "could not be made in time" in answer.text) == (503, True)
    assert [line for line in lines if line["event"] == "http.failed"] == []


async def test_an_upload_does_not_wait_for_the_queue_without_end(scene, monkeypatch):
    """A cluster's database may not answer."""
    is_over = threading.Event()
    monkeypatch.setattr(actions, "FORM_SECONDS", 0.05)
    monkeypatch.setattr(actions, "unavailable_reason", lambda *_: is_over.wait(3) and "")
    async with serving(scene, uploads=True) as site, site.client() as client:
        files = [("file", ("new.wav", wav_bytes()))]
        answer = await client.post("/folders/calls/upload", files=files)
        is_over.set()
    assert (answer.status_code, "could not be made in time" in answer.text) == (503, True)
    assert not (scene.root / "inbox/new.wav").exists()


async def test_a_part_of_a_recording_costs_no_transcript(scene, monkeypatch):
    """A player asks for many parts; the transcript of many hours takes a tenth of a second to read."""
    monkeypatch.setattr("dropscribe.web.reading.read_document", None)
    with scene.queue() as store:
        job_id = add_done(scene, store)
        async with serving(scene) as site, site.client() as client:
            answer = await client.get(f"/files/{job_id}/audio", headers={"Range": "bytes=0-9"})
    assert (answer.status_code, answer.content) == (206, wav_bytes()[:10])


async def test_all_sidecars_of_a_file_are_offered(tmp_path):
    """The template's output and those of earlier `outputs` too; a companion is no transcript."""
    template = "minutes #1.txt.j2"
    (tmp_path / template).write_text("{{ audio }}")
    rule = f'    outputs: [srt]\n    template: "{template}"\n    companions: ["{{stem}}.md"]\n'
    scene = Scene(tmp_path, CONFIG + rule)
    with scene.queue() as store:
        job_id = add_done(scene, store)
        waiting = add_job(store, scene, scene.drop("new.wav").name)
        for name, part in (("call.srt", "done"), ("call.minutes #1.txt", "done"), ("call.md", "done")):
            scene.drop(name, name.encode(), part=part)
        scene.drop("new.txt", b"of a dropper")
        async with serving(scene) as site, site.client() as client:
            text = await page_of(site, f"/files/{job_id}")
            links = re.findall(r'href="([^"]+)" download>([^<]+)<', text)
            assert [label for _, label in links] == ["JSON", "TXT", "SRT", "minutes #1.txt"]
            assert [(await client.get(link)).status_code for link, _ in links] == [200] * 4
            assert (await client.get(links[3][0])).text == "call.minutes #1.txt"
            assert "download>" not in await page_of(site, f"/files/{waiting}")


@pytest.mark.parametrize(
    ("header", "status", "part"),
    [
        (None, 200, slice(None)),
        ("bytes=0-9", 206, slice(0, 10)),
        ("bytes=100-", 206, slice(100, None)),
        ("bytes=-50", 206, slice(-50, None)),
        ("bytes=0-0,5-9", 200, slice(None)),
        ("bytes=999999999-", 416, None),
        ("bytes=9-3", 416, None),
    ],
)
async def test_a_recording_is_sent_in_ranges(scene, header, status, part):
    """A player asks for parts; what lies outside is 416."""
    with scene.queue() as store:
        job_id = add_done(scene, store)
        async with serving(scene) as site, site.client() as client:
            headers = {"Range": header} if header else {}
            answer = await client.get(f"/files/{job_id}/audio", headers=headers)
    assert answer.status_code == status
    assert answer.headers["content-type"] == ("audio/wav" if part else "text/plain; charset=utf-8")
    if part:
        assert answer.content == wav_bytes()[part]


@pytest.mark.parametrize(
    ("method", "headers", "status"),
    [("GET", {"If-Range": '"another"'}, 200), ("HEAD", {}, 200), ("GET", {}, 206)],
)
async def test_a_range_of_another_version_or_method_is_ignored(scene, method, headers, status):
    """RFC 9110, 13.1.5 and 14.2: no validator is ever sent, so none in If-Range is this recording's."""
    with scene.queue() as store:
        job_id = add_done(scene, store)
        async with serving(scene) as site, site.client() as client:
            headers = {"Range": "bytes=0-9", **headers}
            answer = await client.request(method, f"/files/{job_id}/audio", headers=headers)
    assert answer.status_code == status
    assert answer.headers["content-length"] == ("10" if status == 206 else str(len(wav_bytes())))


@pytest.mark.parametrize(
    ("header", "found"),
    [
        ("items=1-2", None),
        ("bytes=2-3", (2, 4)),
        ("Bytes=2-3", (2, 4)),
        ("bytes=-", None),
        ("bytes=" + "9" * 5000 + "-", None),
    ],
)
def test_ranges(header, found):
    """One range of bytes is understood; anything else is the whole file."""
    assert parse_range(header, 10) == found


@pytest.mark.parametrize(
    "broken",
    [
        {"words": [{"word": "hi", "start": 10**400}]},
        {"words": [{"word": "hi", "start": float("nan")}]},
        {"words": [], "segments": [{"text": "hi", "start": float("inf")}]},
        {"words": [{"word": "hi", "start": 0, "end": "x"}, {"word": "there", "start": 1}]},
        {"missing": [{"start": "x"}]},
        {"duration": 10**400, "words": []},
        {"speakers": 5},
        {"warnings": 5},
        {"language": "\ud800", "words": [{"word": "\ud800", "start": 0}]},
    ],
)
async def test_a_transcript_made_to_harm_has_a_page(scene, broken):
    """Whoever may write to done may write there what he likes: the file's record is shown all the same."""
    with scene.queue() as store:
        job_id = add_done(scene, store, **broken)
        async with serving(scene) as site:
            assert "call.wav" in await page_of(site, f"/files/{job_id}")


@pytest.mark.parametrize(("count", "is_read"), [(1000, True), (MOST_DOCUMENT_COMMAS + 1, False)])
def test_a_transcript_of_millions_of_values_is_not_read(tmp_path, count, is_read):
    """Empty objects take twenty times as much memory as they have bytes."""
    head = b'{"schema": "dropscribe.transcript/1", "words": ['
    (tmp_path / "a.json").write_bytes(head + b"{}," * count + b"{}]}")
    found = read_document(os.fsencode(tmp_path), b"a.json")
    assert (found is not None) is is_read


async def test_names_and_transcripts_are_only_text(scene):
    """A name, a word, a speaker or an error that is a script is shown as text."""
    with scene.queue() as store:
        words = [{"word": EVIL, "start": 0.0, "end": 1.0, "confidence": 0.1, "speaker": EVIL}]
        job_id = add_done(scene, store, f"{EVIL.replace('/', '_')}.wav", words=words, speakers=[EVIL])
        bad = add_job(store, scene, f"{EVIL.replace('/', '_')}-2.wav", state="failed", ended_at=time.time())
        add_attempt(store, bad, time.time(), AttemptEnd(1.0, code=EVIL, reason=EVIL))
        async with serving(scene) as site:
            pages = [
                await page_of(site, path)
                for path in (
                    "/",
                    "/folders/calls",
                    f"/files/{job_id}",
                    f"/files/{bad}",
                    f"/folders/calls?q={EVIL}",
                )
            ]
    assert all("<script>alert" not in text for text in pages)
    assert all("&lt;script&gt;" in text for text in pages)


async def test_no_name_turns_the_letters_around_it(scene):
    """Direction and control characters of a name are shown as escapes; a form keeps what was typed."""
    turned = "call\u202egpj\u2066.wav"
    with scene.queue() as store:
        scene.write_live(waiting={f"new {turned}": f"it is the same file as {turned}"})
        words = [{"word": "Hello\u3000you", "start": 0.0, "end": 1.0, "confidence": 0.9, "speaker": turned}]
        done = add_done(scene, store, turned, words=words, speakers=[turned])
        failed = add_job(store, scene, f"bad {turned}", state="failed", ended_at=time.time())
        add_attempt(store, failed, time.time(), AttemptEnd(1.0, code="rejected", reason=f"{turned} \x1b[31m"))
        async with serving(scene) as site:
            addresses = ("/", "/folders/calls", f"/files/{done}", f"/files/{failed}", "/search?q=call")
            pages = [await page_of(site, address) for address in addresses]
            asked = await page_of(site, f"/folders/calls?q={quote(turned)}")
    assert not [letter for text in pages for letter in "\u202e\u2066\x1b" if letter in text]
    assert r"<title>call\u202egpj\u2066.wav · dropscribe</title>" in pages[2]
    assert "Hello\u3000you" in pages[2]
    assert f'name="q" value="{turned}"' in asked


async def test_links_are_never_followed(scene, tmp_path):
    """A recording that was replaced by a link to elsewhere is not sent."""
    secret = tmp_path / "secret"
    secret.write_text("secret")
    with scene.queue() as store:
        job_id = add_done(scene, store)
        for name in ("call.wav", "call.txt"):
            (scene.root / "done" / name).unlink()
            (scene.root / "done" / name).symlink_to(secret)
        async with serving(scene) as site, site.client() as client:
            for path in ("audio", "txt"):
                assert (await client.get(f"/files/{job_id}/{path}")).status_code == 404


async def test_files_are_found_by_state_name_and_page(scene):
    """Filters narrow the list; a page has a link to the older one."""
    with scene.queue() as store:
        for number in range(60):
            add_job(store, scene, f"a{number:03}.wav")
        add_job(store, scene, "bad.wav", state="failed", ended_at=time.time())
        async with serving(scene) as site:
            first = await page_of(site, "/folders/calls")
            older = re.search(r'href="([^"]+)" rel="next"', first)
            assert older
            second = await page_of(site, older[1].replace("&amp;", "&"))
            failed = await page_of(site, "/folders/calls?state=failed")
            named = await page_of(site, "/folders/calls?q=a007")
    assert "a059.wav" in first
    assert "a000.wav" not in first
    assert "a000.wav" in second
    assert "bad.wav" in failed
    assert "a059.wav" not in failed
    assert "a007.wav" in named
    assert "a008.wav" not in named


async def test_actions_are_forms(scene):
    """Retry, release, try now and forget are asked for by POST and lead back to a page that tells the end."""
    with scene.queue() as store:
        done = add_done(scene, store)
        failed = [add_failed(scene, store, f"bad-{number}.wav") for number in range(3)]
        missing = add_job(store, scene, "gone.wav", state="failed", ended_at=time.time())
        backlog = [add_job(store, scene, f"old-{number}.wav", pin=BACKLOG) for number in range(2)]
        add_cached(store, "ab" * 32, done)
        async with serving(scene) as site, site.client() as client:
            for path, end in (
                (f"/files/{failed[0]}/retry", "/folders/calls?did=retried&n=1"),
                (f"/files/{missing}/retry", "/folders/calls?did=refused&n=1"),
                (f"/files/{done}/retry", "/folders/calls?did=retried&n=0"),
                (f"/files/{done}/forget", f"/files/{done}?did=forgotten&n=1"),
                ("/folders/calls/release", f"/folders/calls?did=released&n={len(backlog)}"),
                ("/folders/calls/try", "/?did=tried&n=0"),
                ("/providers/main/try", "/?did=tried&n=0"),
            ):
                answer = await client.post(path)
                assert (answer.status_code, answer.headers["location"]) == (303, end)
                assert (await client.get(path)).status_code in {404, 405}
            ids = ",".join(map(str, [*failed[1:], done])) + ",x"
            answer = await client.post("/folders/calls/retry", data={"ids": ids})
            assert answer.headers["location"] == "/folders/calls?did=retried&n=2"
            assert "Back in the inbox: 2." in await page_of(site, answer.headers["location"])
    assert sorted(os.listdir(scene.root / "inbox")) == [f"bad-{number}.wav" for number in range(3)]
    assert site.engine.probed == ["folder calls", "provider main"]
    assert site.engine.signals.wake.is_set()


@pytest.mark.parametrize("digest", ["..", "../..", "/", "", "AB" * 32, 5, ["ab" * 32]])
async def test_only_a_digest_is_forgotten(scene, digest):
    """A transcript that anybody has put into done names no folder to remove."""
    (scene.root / "state/spool/answers").mkdir(parents=True)
    with scene.queue() as store:
        job_id = add_done(scene, store, source={"sha256": digest})
        async with serving(scene) as site, site.client() as client:
            assert (await client.post(f"/files/{job_id}/forget")).status_code == 404
    assert (scene.root / "state/spool/answers").is_dir()


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 303),
        ({"Origin": "http://localhost"}, 303),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://["}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Sec-Fetch-Site": "same-origin", "Origin": "http://localhost"}, 303),
    ],
)
async def test_other_sites_cannot_post(scene, headers, status):
    """A form on a foreign page reaches nothing."""
    async with serving(scene) as site, site.client() as client:
        answer = await client.post("/providers/main/try", headers={"Host": "localhost", **headers})
    assert answer.status_code == status
    assert bool(site.engine.probed) == (status == 303)


@pytest.mark.parametrize("since", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", "soon"])
async def test_a_time_that_no_calendar_knows_is_left_out(scene, since):
    """Of the filters in an address."""
    with scene.queue() as store:
        add_job(store, scene, "old.wav")
        async with serving(scene) as site:
            assert "old.wav" in await page_of(site, f"/folders/calls?since={quote(since)}")


async def test_a_rebound_name_gets_nothing(scene):
    """A web page whose name points to this machine is not answered; an allowed name is."""
    async with serving(scene, allowed_hosts=("nas.example",)) as site, site.client() as client:
        assert (await client.get("/", headers={"Host": "evil.example"})).status_code == 421
        assert (await client.get("/", headers={"Host": "nas.example"})).status_code == 200
        assert (await client.get("/", headers={"Host": "nas.example:8080"})).status_code == 200


async def test_a_pattern_allows_all_names_below_it(scene):
    """As in link_hosts; a name that is listed with a port is allowed with that port alone."""
    async with serving(scene, allowed_hosts=("*.lan", "nas.example:8443")) as site, site.client() as client:
        for host, status in (("nas.lan", 200), ("a.nas.LAN:8080", 200), ("lan", 421), ("evillan", 421)):
            assert (await client.get("/", headers={"Host": host})).status_code == status, host
        assert (await client.get("/", headers={"Host": "nas.example:8443"})).status_code == 200
        assert (await client.get("/", headers={"Host": "nas.example"})).status_code == 421


@pytest.mark.parametrize(
    ("host", "origin", "status"),
    [
        ("foo.lan", "http://foo.lan", 303),
        ("FOO.lan:8790", "http://foo.LAN:8790", 303),
        ("foo.lan", "http://evil.lan", 403),
        ("foo.lan", "http://foo.lan:8000", 403),
        ("nas.local", "http://dropscribe.local", 403),
        ("nas.local:8790", "http://nas.local", 403),
        ("nas.local:8790", "http://nas.local:8000", 403),
        # A proxy that replaces the Host, and one that cuts off its port.
        ("localhost:8790", "https://nas.local", 303),
        ("localhost:8790", "https://nas.local:8443", 303),
        ("localhost:8790", "https://foo.lan", 403),
        ("nas.local", "https://nas.local:8443", 303),
        # A proxy that adds the default port to the Host.
        ("nas.local:443", "https://nas.local", 303),
        ("foo.lan:80", "http://foo.lan", 303),
        ("foo.lan:443", "https://evil.lan", 403),
        ("nas.local:80", "https://nas.local", 403),
    ],
)
async def test_an_allowed_host_opens_no_posts_to_other_sites(scene, host, origin, status):
    """The session of a reader is not spent by a page of a sibling host, or of another port of the host.

    Browsers send no Sec-Fetch-Site to a site without TLS, and SameSite cookies to all hosts of one site.
    """
    hosts = ("*.lan", "nas.local", "nas.local:8443", "dropscribe.local")
    async with serving(scene, token=TOKEN, allowed_hosts=hosts) as site, site.client() as client:
        cookie = f"{COOKIE}={guard.Access(site.config.http).new_session(time.time())}"
        headers = {"Host": host, "Origin": origin, "Cookie": cookie}
        answer = await client.post("/providers/main/try", headers=headers)
    assert answer.status_code == status
    assert bool(site.engine.probed) == (status == 303)


async def test_every_answer_has_the_security_headers(scene):
    """Pages, endpoints, static files, refusals and errors alike."""
    async with serving(scene) as site, site.client() as client:
        site.engine.error = ValueError("sk-secret")
        answers = [
            await client.get("/"),
            await client.get("/static/style.css"),
            await client.get("/healthz"),
            await client.get("/nothing"),
            await client.get("/", headers={"Host": "evil"}),
            await client.post("/providers/main/try"),
        ]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 404, 421, 500]
    for answer in answers:
        assert answer.headers["content-security-policy"].startswith("default-src 'self'")
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "sk-secret" not in answer.text


async def test_the_token_is_asked_for_and_a_session_remembers_it(scene, monkeypatch):
    """A browser gets a form; its cookie is HttpOnly and SameSite=Strict; a wrong token gets no session."""
    monkeypatch.setattr(guard, "WRONG_TOKEN_SECONDS", 0.01)
    async with serving(scene, token=TOKEN) as site, site.client() as client:
        html = {"Accept": "text/html"}
        answer = await client.get("/", headers=html)
        assert (answer.status_code, answer.headers["location"]) == (303, "/login")
        assert (await client.get("/folders/calls")).status_code == 401
        assert (await client.get("/static/style.css")).status_code == 200
        assert (await client.post("/login", data={"token": "wrong"})).status_code == 401
        assert not client.cookies
        answer = await client.post("/login", data={"token": TOKEN})
        cookie = answer.headers["set-cookie"]
        assert "HttpOnly" in cookie
        assert "SameSite=Strict" in cookie
        assert TOKEN not in cookie
        assert (await client.get("/", headers=html)).status_code == 200
        assert (await client.post("/logout")).status_code == 303
        assert (await client.get("/", headers=html)).status_code == 303
    async with serving(scene, token=TOKEN) as site, site.client() as client:
        bearer = {"Authorization": f"Bearer {TOKEN}"}
        assert (await client.get("/", headers=bearer)).status_code == 200
        for cookie in ("x", "9999999999.00", "²³.00", f"{2**40}.{'0' * 64}"):
            headers = {"Cookie": f"{COOKIE}={cookie}".encode()}
            assert (await client.get("/status", headers=headers)).status_code == 401


@pytest.mark.parametrize(
    ("asked", "shown"),
    [
        ("/folders/calls?q=a%26b&state=done", "/folders/calls?q=a%26b&state=done"),
        ("/login?next=/%09/elsewhere.example/", "/"),
        ("/login?next=//elsewhere.example/", "/"),
        ("/login?next=/%5Celsewhere.example/", "/"),
        ("/login?next=https://elsewhere.example/", "/"),
    ],
)
async def test_the_login_leads_to_the_page_that_was_asked_for(scene, monkeypatch, asked, shown):
    """Also below a root path, and after a wrong token; never to another site."""
    monkeypatch.setattr(guard, "WRONG_TOKEN_SECONDS", 0.01)
    async with (
        serving(scene, token=TOKEN, root_path="/scribe") as site,
        site.client(headers={"Accept": "text/html"}) as client,
    ):
        answer = await client.get(asked)
        if answer.is_redirect:
            answer = await client.get(answer.headers["location"].removeprefix("/scribe"))
        for token, status in (("wrong", 401), (TOKEN, 303)):
            (path,) = re.findall(r'name="next" value="([^"]*)"', answer.text)
            answer = await client.post("/login", data={"token": token, "next": html.unescape(path)})
            assert answer.status_code == status
    assert answer.headers["location"] == f"/scribe{shown}"


async def test_sessions_with_two_daemons_of_one_host_do_not_end_each_other(scene):
    """A browser sends a cookie to all ports of a host."""
    async with (
        serving(scene, token=TOKEN) as one,
        serving(scene, token=TOKEN[::-1]) as other,
        one.client() as client,
    ):
        addresses = {f"http://127.0.0.1:{site.listener.port}": site for site in (one, other)}
        for address, site in addresses.items():
            token = site.config.http.token.reveal()
            assert (await client.post(f"{address}/login", data={"token": token})).status_code == 303
        for address in addresses:
            assert (await client.get(f"{address}/status")).status_code == 200


async def test_a_form_whose_session_has_ended_leads_to_the_login(scene):
    """A program is told 401."""
    async with serving(scene, token=TOKEN) as site, site.client() as client:
        answer = await client.post("/providers/main/try", headers={"Accept": "text/html,*/*"})
        assert (answer.status_code, answer.headers["location"]) == (303, "/login")
        assert (await client.post("/providers/main/try")).status_code == 401
    assert site.engine.probed == []


@pytest.mark.parametrize("path", ["/nothing", "/static/nothing.css", "/files/1/a/b"])
async def test_an_address_of_nothing_has_a_page(scene, path):
    """With a way back."""
    async with serving(scene, root_path="/scribe") as site, site.client() as client:
        answer = await client.get(path)
    assert answer.status_code == 404
    assert '<a href="/scribe/">Back to the overview</a>' in answer.text


async def test_without_pages_nobody_is_led_to_a_login(scene):
    """There is no form then."""
    async with serving(scene, token=TOKEN, pages=False) as site, site.client() as client:
        assert (await client.get("/status", headers={"Accept": "text/html"})).status_code == 401


async def test_head_is_answered_as_get(scene):
    """The login form, and the way to it, without a body."""
    async with serving(scene, token=TOKEN) as site, site.client() as client:
        for path in ("/", "/login"):
            got, head = [
                await client.request(method, path, headers={"Accept": "text/html"})
                for method in ("GET", "HEAD")
            ]
            assert (head.status_code, head.content) == (got.status_code, b"")
            assert head.headers == got.headers
    async with serving(scene) as site, site.client() as client, asyncio.timeout(5):
        head = await client.head("/events")  # a stream has no end
        assert (await client.get("/healthz")).status_code == 200  # on the same connection
    assert head.headers["content-type"].startswith("text/event-stream")


async def test_wrong_tokens_are_slowed_down(scene, monkeypatch):
    """Guesses wait, and more than a few at once are refused; the right token is answered meanwhile."""
    monkeypatch.setattr(guard, "WRONG_TOKEN_SECONDS", 0.3)
    async with serving(scene, token=TOKEN) as site, site.client() as client:
        wrong = {"Authorization": "Bearer wrong"}
        guesses = [asyncio.create_task(client.get("/status", headers=wrong)) for _ in range(20)]
        right = await client.get("/healthz", headers={"Authorization": f"Bearer {TOKEN}"})
        statuses = {(await guess).status_code for guess in guesses}
    assert right.status_code == 200
    assert statuses == {401, 429}


async def test_unfinished_forms_do_not_keep_programs_out(scene):
    """The login form is open to everybody: forms that never end leave room for health checks."""
    head = b"POST /login HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\ntoken="
    writers = []
    async with serving(scene, token=TOKEN) as site, site.client() as client:
        for _ in range(listener.MOST_CONNECTIONS + 44):
            _, writer = await asyncio.open_connection("127.0.0.1", site.listener.port)
            writer.write(head)
            writers.append(writer)
        health = await client.get("/healthz", headers={"Authorization": f"Bearer {TOKEN}"})
        for writer in writers:
            writer.close()
    assert health.status_code == 200


async def test_a_form_that_never_ends_is_given_up(scene, monkeypatch):
    """Its connection ends after a bounded time."""
    monkeypatch.setattr(actions, "FORM_SECONDS", 0.05)
    monkeypatch.setattr(listener, "HEAD_SECONDS", 1.0)
    async with serving(scene, token=TOKEN) as site:
        reader, writer = await asyncio.open_connection("127.0.0.1", site.listener.port)
        writer.write(b"POST /login HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\ntoken=")
        answer = await asyncio.wait_for(reader.read(), 30)
        writer.close()
    assert b" 200 " not in answer.partition(b"\r\n")[0]


@pytest.mark.parametrize(
    ("method", "path", "headers", "body"),
    [
        ("GET", "/", {"Cookie": f'{COOKIE}="1.\xe9"'.encode("latin-1")}, b""),
        ("GET", "/files/" + "9" * 30, {}, b""),
        ("GET", "/files/" + "9" * 5000, {}, b""),
        ("POST", "/files/" + "9" * 30 + "/retry", {}, b""),
        ("POST", "/folders/calls/retry", {}, b"ids=" + b"9" * 5000 + b"," + b"9" * 30),
        ("POST", "/folders/calls/retry", {}, b"a=b&" * 100),
        ("POST", "/login", {}, b"\xff=%ff&" * 100),
    ],
)
@pytest.mark.parametrize("token", [None, TOKEN])
async def test_no_request_is_a_bug(scene, method, path, headers, body, token):
    """Odd cookies, ids and forms are refused; a page elsewhere cannot fill the log with tracebacks."""
    async with serving(scene, token=token) as site, site.client() as client:
        with capture_logs() as lines:
            answer = await client.request(method, path, headers=headers, content=body)
    assert answer.status_code < 500
    assert [line for line in lines if line["event"] == "http.failed"] == []


async def test_changes_are_told_to_open_pages(scene, monkeypatch):
    """An open stream hears of a change within a moment, and nothing is looked at without a listener."""
    monkeypatch.setattr(routes, "LOOK_SECONDS", 0.05)
    monkeypatch.setattr(routes, "PAGES_A_SECOND", 100.0)
    async with serving(scene) as site, site.client() as client, client.stream("GET", "/events") as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        lines = answer.aiter_lines()
        assert await anext(lines) == "retry: 3000"
        site.token += 1
        async with asyncio.timeout(10):
            while await anext(lines) != "event: change":
                pass


async def test_a_page_asks_for_changes_since_it_was_made(scene, monkeypatch):
    """Those before its stream is open are told too, and nothing where there were none."""
    monkeypatch.setattr(routes, "LOOK_SECONDS", 0.05)
    monkeypatch.setattr(routes, "PAGES_A_SECOND", 100.0)
    async with serving(scene) as site, site.client() as client:
        (version,) = re.findall(r'data-version="([0-9a-f]+)"', await page_of(site, "/"))
        for expected in ("", "event: change"):
            async with client.stream("GET", f"/events?since={version}") as answer:
                lines = answer.aiter_lines()
                assert [await anext(lines), await anext(lines)] == ["retry: 3000", ""]
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(10 if expected else 0.5):
                        assert await anext(lines) == expected
            site.token += 1


@pytest.mark.parametrize("body", [b"preamble\r\n--b\r\n", b"--b\r\nA : \x01\r\n", b"--b--more"])
async def test_a_malformed_upload_writes_no_line(scene, caplog, body):
    """Anybody can send as many as he likes."""
    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    async with serving(scene, uploads=True) as site, site.client() as client:
        answer = await client.post("/folders/calls/upload", content=body, headers=headers)
    assert answer.status_code == 400
    assert caplog.records == []


async def test_recordings_can_be_dropped_onto_a_page(scene):
    """Whole files appear under their names, never over a file; nothing is left of a broken upload."""
    scene.drop("call.wav", b"there before")
    async with serving(scene, uploads=True) as site, site.client() as client:
        names = ["call.wav", "../../sub/x\u202ey.wav", 'a "talk".wav']
        files = [("file", (name, wav_bytes())) for name in names]
        answer = await client.post("/folders/calls/upload", files=files)
        assert (answer.status_code, answer.text) == (200, 'call-2.wav\nxy.wav\na "talk".wav\n')
        refused = await client.post("/folders/calls/upload", files=[("file", ("notes.pdf", b"1"))])
        assert refused.status_code == 415
        assert "notes.pdf" in refused.text
        assert (await client.post("/folders/calls/upload", data={"a": "b"})).status_code == 400
        broken = {"Content-Type": "multipart/form-data; boundary=b"}
        part = b'--b\r\nContent-Disposition: form-data; name="file"; filename="half.wav"\r\n\r\nhalf'
        for body in (part, part + b"\r\n" + part):  # the second with a whole file before the half one
            answer = await client.post("/folders/calls/upload", content=body, headers=broken)
            assert (answer.status_code, answer.text) == (400, "the form is malformed\n")
    inbox = scene.root / "inbox"
    found = sorted(path.name for path in inbox.iterdir())
    assert found == ['a "talk".wav', "call-2.wav", "call.wav", "xy.wav"]
    assert (inbox / "call.wav").read_bytes() == b"there before"
    assert (inbox / "call-2.wav").read_bytes() == wav_bytes()


@pytest.mark.parametrize("path", ["/login", "/folders/calls/retry", "/folders/calls/upload"])
async def test_a_form_that_is_broken_off_is_no_bug(scene, path):
    """People close pages while they upload: nothing is logged as an error, and nothing stays in the inbox."""
    content_type = (
        "multipart/form-data; boundary=b" if "upload" in path else "application/x-www-form-urlencoded"
    )
    part = b'--b\r\nContent-Disposition: form-data; name="file"; filename="half.wav"\r\n\r\nhalf'
    async with serving(scene, uploads=True, token=TOKEN) as site:
        lines = [f"POST {path} HTTP/1.1", "Host: localhost", f"Authorization: Bearer {TOKEN}"]
        lines += [f"Content-Type: {content_type}", "Content-Length: 10000", "", ""]
        with capture_logs() as logged:
            _, writer = await asyncio.open_connection("127.0.0.1", site.listener.port)
            writer.write("\r\n".join(lines).encode() + part)
            await writer.drain()
            requests = site.listener._state.tasks
            async with asyncio.timeout(30):
                while not requests:  # noqa: ASYNC110  # the server has no event for it
                    await asyncio.sleep(0.01)
                writer.close()
                while requests:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
    assert [line for line in logged if line["log_level"] == "error"] == []
    assert list((scene.root / "inbox").iterdir()) == []


def hidden_upload(scene, number: int):
    """The name of an upload that has not ended."""
    return scene.root / "inbox" / f".dropscribe-upload-{number:016x}.part"


def test_what_a_crash_left_of_an_upload_is_removed(scene, tmp_path):
    """Old files of that name without a writer; no links, no other names, none that is being written."""
    left, written, new, link, folder = (hidden_upload(scene, number) for number in range(5))
    other = scene.drop(".dropscribe-upload-mine.part", b"x")
    victim = tmp_path / "victim"
    for path in (left, written, new, victim):
        path.write_bytes(b"x")
    link.symlink_to(victim)
    folder.mkdir()
    old = time.time() - LEFTOVER_SECONDS - 60
    for path in (left, written, link, folder, other, victim):
        os.utime(path, (old, old), follow_symlinks=False)
    with written.open("r+b"):
        assert remove_leftovers(scene.root / "inbox") == 1
    assert not left.exists()
    assert written.exists()
    assert remove_leftovers(scene.root / "inbox") == 1
    assert sorted((scene.root / "inbox").iterdir()) == sorted([new, link, folder, other])
    assert victim.exists()


async def test_the_daemon_looks_for_broken_uploads(scene):
    """Also where nobody uploads any more, but only where uploads are on; an upload lists no inbox."""
    hidden_upload(scene, 1).write_bytes(b"x")
    os.utime(hidden_upload(scene, 1), (0, 0))
    async with serving(scene, uploads=True) as site, site.client() as client:
        files = [("file", ("new.wav", wav_bytes()))]
        assert (await client.post("/folders/calls/upload", files=files)).status_code == 200
        assert hidden_upload(scene, 1).exists()
        runtime = SimpleNamespace(config=replace(site.config, http=None))
        housekeeping = Housekeeping(site.engine, lambda: runtime)
        await housekeeping._remove_uploads()
        assert hidden_upload(scene, 1).exists()
        runtime.config = site.config
        await housekeeping._remove_uploads()
    assert not hidden_upload(scene, 1).exists()


async def test_uploads_are_off_unless_the_config_says_so(scene):
    """Without http.uploads nothing is written."""
    async with serving(scene) as site, site.client() as client:
        answer = await client.post("/folders/calls/upload", files=[("file", ("a.wav", b"1"))])
    assert answer.status_code == 403
    assert list((scene.root / "inbox").iterdir()) == []


@pytest.mark.parametrize("length", ["Content-Length: 2000", "Transfer-Encoding: chunked"])
async def test_an_upload_that_is_too_large_says_so(scene, monkeypatch, length):
    """At once where the client names its length, so that nobody sends gigabytes in vain."""
    monkeypatch.setattr(uploads, "MOST_UPLOAD_BYTES", 1000)
    part = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n' + bytes(1000)
    head = f"POST /folders/calls/upload HTTP/1.1\r\nHost: localhost\r\n{length}\r\n"
    async with serving(scene, uploads=True) as site:
        reader, writer = await asyncio.open_connection("127.0.0.1", site.listener.port)
        writer.write(f"{head}Content-Type: multipart/form-data; boundary=b\r\n\r\n".encode())
        if "chunked" in length:
            writer.write(f"{len(part):x}\r\n".encode() + part + b"\r\n")
        answer = await asyncio.wait_for(reader.readuntil(b"GiB\n"), 10)
        writer.close()
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert list((scene.root / "inbox").iterdir()) == []


@pytest.mark.parametrize("accept", ["text/plain", "text/html"])
async def test_an_upload_to_no_folder_says_so(scene, accept):
    """Scripts get a line, browsers a page."""
    async with serving(scene, uploads=True) as site, site.client() as client:
        files, headers = [("file", ("a.wav", b"1"))], {"Accept": accept}
        answer = await client.post("/folders/nope/upload", files=files, headers=headers)
    assert answer.status_code == 404
    assert "no folder of that name" in answer.text
    assert answer.headers["content-type"].startswith(accept)


@pytest.mark.parametrize(
    ("given", "name"),
    [
        (b"call.wav", b"call.wav"),
        (b"C:\\Users\\x\\call.wav", b"call.wav"),
        (b"../../etc/passwd", b"passwd"),
        (b".hidden.wav", b"hidden.wav"),
        ("Gespräch 😀.m4a".encode(), "Gespräch 😀.m4a".encode()),
        ("क्\u200dष 👩\u200d👧\u202e.wav".encode(), "क्\u200dष 👩\u200d👧.wav".encode()),
        (b"a\x1b[31m.wav", b"a[31m.wav"),
        (b"", b"recording"),
        (b"x" * 500 + b".wav", b"x" * 196 + b".wav"),
        (b"Interview No." + b"x" * 500, b"Interview No." + b"x" * 186),
    ],
)
def test_names_are_made_safe(given, name):
    """No folders, no control characters, no hidden marks, no excess length."""
    assert safe_name(given) == name


async def test_pages_can_be_left_out(scene):
    """With http.pages: false only the endpoints for programs are served."""
    async with serving(scene, pages=False) as site, site.client() as client:
        assert (await client.get("/healthz")).status_code == 200
        assert (await client.get("/")).status_code == 404


async def test_a_page_works_below_a_root_path(scene):
    """Behind a proxy that serves it below a path, every link and form begins with that path."""
    with scene.queue() as store:
        job_id = add_done(scene, store)
        async with serving(scene, root_path="/scribe") as site:
            pages = [await page_of(site, path) for path in ("/", "/folders/calls", f"/files/{job_id}")]
    for text in pages:
        links = re.findall(r'(?:href|src|action)="(/[^"]*)"', text)
        assert links
        assert all(link.startswith("/scribe/") for link in links)


async def test_a_root_path_opens_no_page(scene):
    """It is the proxy's, which takes it away: the guard and the routes look at one and the same path."""
    scene.config.write_text(CONFIG.replace("calls:", "login:"))
    async with serving(scene, token=TOKEN, root_path="/folders") as site, site.client() as client:
        assert (await client.get("/folders/login")).status_code == 401
        assert (await client.get("/login")).status_code == 200


@pytest.mark.parametrize(
    ("progress", "words", "percent"),
    [
        (Progress(100), "", None),
        (Progress(100, sent_bytes=100), "sent, waiting for the answer", 100),
        (Progress(100, heard_seconds=75), "heard up to 1:15", None),
        (Progress(100, sent_bytes=7, piece=2, pieces=4), "piece 2 of 4", 50),
    ],
)
def test_progress_in_words(progress, words, percent):
    """Bytes, pieces, or how far the engine has heard."""
    assert progress_of(progress) == (words, percent)


async def test_an_upload_to_an_inbox_that_is_gone_says_so(scene):
    """The folder is opened in a thread: a share that hangs holds up no other page."""
    shutil.rmtree(scene.root / "inbox")
    async with serving(scene, uploads=True) as site, site.client() as client:
        answer = await client.post("/folders/calls/upload", files=[("file", ("a.wav", wav_bytes()))])
    assert answer.status_code == 507
    assert "the inbox cannot be written: No such file or directory" in answer.text


async def test_an_upload_to_an_inbox_that_is_not_available_is_refused_at_once(scene):
    """The daemon's last report is asked before the disk, which may hang."""
    with scene.queue():
        scene.write_live(available=False, reason="its disk has not answered for 5 s")
        async with serving(scene, uploads=True) as site, site.client() as client:
            answer = await client.post("/folders/calls/upload", files=[("file", ("a.wav", wav_bytes()))])
    assert answer.status_code == 503
    assert answer.text == "the inbox is not available: its disk has not answered for 5 s\n"
    assert list((scene.root / "inbox").iterdir()) == []


def test_the_days_of_the_chart_begin_at_midnight(monkeypatch):
    """Also those before the clocks were changed, in a zone that does so."""
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    try:
        starts = day_starts(datetime(2026, 4, 2, 12, tzinfo=ZoneInfo("Europe/Berlin")).timestamp())
        local = [time.localtime(start.timestamp()) for start in starts]
    finally:
        monkeypatch.undo()
        time.tzset()
    assert [(day.tm_mon, day.tm_mday) for day in local[:2]] == [(3, 20), (3, 21)]
    assert {(day.tm_hour, day.tm_min) for day in local} == {(0, 0)}
    assert len(starts) == 14


def test_a_gap_in_a_transcript_names_its_cause():
    """The code of the failure, as the transcript has it."""
    document = {"text": "", "missing": [{"start": 60.0, "end": 75.0, "code": "too_short"}]}
    assert [turn["gap"] for turn in turns_of(document)] == ["1:00 to 1:15 is missing: too_short"]
