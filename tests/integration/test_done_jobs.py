"""What is told of finished files on both engines: search, the chart of the last days, progress on the way."""

import asyncio
import json
import time

from dropscribe.core.model import JobState
from dropscribe.queue.sql import history
from dropscribe.queue.sql.history import FileFilter, read_files, read_page
from dropscribe.queue.sql.stats import Ended, count_ended, read_ended
from dropscribe.reports.queue_reader import view_queue
from dropscribe.reports.waiting import listed_state
from dropscribe.search.finding import search
from dropscribe.search.indexer import Indexer, catch_up
from dropscribe.web.views import file_row
from support.house import House, make_config
from support.scripted import ScriptedProvider


async def test_a_done_file_is_found_until_it_leaves_done(tmp_path):
    """By a word of its transcript, whatever the engine; what was moved away leaves the index."""
    async with House(config := make_config(tmp_path)) as house:
        await house.drop("call.wav")
        await house.rest()
        words = (tmp_path / "done/call.txt").read_text().split()
        assert await asyncio.to_thread(catch_up, config, 30)
        found = await asyncio.to_thread(search, config, f'"{" ".join(words[:2])}"')
        nothing = await asyncio.to_thread(search, config, "zebra' & | !")
        for file in (tmp_path / "done").glob("call.*"):
            file.unlink()
        gone = await asyncio.to_thread(search, config, words[0])
        indexer = Indexer()
        while await asyncio.to_thread(indexer.step, config):
            pass  # a whole sweep, on both engines
    assert [file.job.path for file in found.files] == [b"call.wav"]
    assert found.files[0].sentences
    assert nothing.files == gone.files == []


async def test_vowel_signs_distinguish_words_in_the_index(tmp_path):
    """In a transcript in Hindi, Arabic and Polish, whatever the engine; accents and points do not."""
    text = "दिन مُحَمَّد Łódź"
    async with House(config := make_config(tmp_path)) as house:
        await house.drop("call.wav")
        await house.rest()
        document = {"schema": "dropscribe.transcript/1", "text": text}
        (tmp_path / "done/call.json").write_text(json.dumps(document))
        assert await asyncio.to_thread(catch_up, config, 30)
        queries = (text, "दिन", "محمد", "lodz", "दान", "दन")
        found = [len((await asyncio.to_thread(search, config, query)).files) for query in queries]
    assert found == [1, 1, 1, 1, 0, 0]


async def test_ended_files_are_counted_by_day(tmp_path):
    """Files and seconds of audio; a length that cannot be is left out."""
    async with House(make_config(tmp_path)) as house:
        now = time.time()
        for folder, state, seconds in (
            ("calls", JobState.DONE, 90.0),
            ("calls", JobState.DONE, 1e300),
            ("calls", JobState.FAILED, 0.0),
            ("other", JobState.DONE, 5.0),
        ):
            await house.store.do(lambda db, row=(folder, state, seconds): count_ended(db, *row, time.time()))
        days = await house.store.do(lambda db: read_ended(db, ["calls"], [now - 86400, now - 7200]))
        await house.drop("call.wav")
        await house.rest()
        after = await house.store.do(lambda db: read_ended(db, ["calls"], [now - 7200]))
    assert days == [Ended(), Ended(2, 1, 90.0)]
    assert after[0].done == 3


async def test_an_attempt_under_way_has_its_progress(tmp_path):
    """While it runs, and no longer; the page says in words and percent how far it is."""
    gate = asyncio.Event()
    provider = ScriptedProvider(gate=gate)
    async with House(make_config(tmp_path), {"main": provider}) as house:
        await house.drop("call.wav", b"x" * 1000)
        await house.until(lambda: provider.in_flight)
        ((job_id, audio),) = house.handler.attempts.sending.items()
        audio.progress.sent_bytes = 250
        with view_queue(house.config) as view:
            (job,) = read_files(view.db, FileFilter(states=[JobState.TRANSCRIBING]), 9)
            state = listed_state(job, house.config.folders[job.folder], view)
        row = file_row(job, state, time.time(), audio)
        gate.set()
        await house.rest()
        assert house.handler.attempts.sending == {}
    assert job.id == job_id
    assert (row.words, row.percent) == ("250 B of 1.0 kB sent", 25)


async def test_a_text_to_look_for_may_begin_with_a_slash(tmp_path):
    """It is a part of the folder's path, and no place of this machine's."""
    async with House(make_config(tmp_path)) as house:
        await house.drop("2026/11/call.wav", b"x")
        await house.rest()

        def paths(text: str) -> list[bytes]:
            with view_queue(house.config) as view:
                return [job.path for job in read_files(view.db, FileFilter(text=text), 9)]

        assert await asyncio.to_thread(paths, "/11") == [b"2026/11/call.wav"]
        assert await asyncio.to_thread(paths, "/12") == []


async def test_pages_of_files_are_bounded(tmp_path, monkeypatch):
    """Filtered pages look at so many files at most, and the next ones go on until all were looked at."""
    monkeypatch.setattr(history, "MOST_SCANNED", 4)
    async with House(make_config(tmp_path)) as house:
        for number in range(11):
            await house.drop(f"{'odd' if number % 5 == 1 else 'even'}-{number}.wav", b"%d" % number)
            await house.rest()

        def pages(**wanted) -> list[list[str]]:
            found, before_id = [], None
            while True:
                filters = FileFilter(["calls"], before_id=before_id, **wanted)
                with view_queue(house.config) as view:
                    jobs, before_id = read_page(view.db, filters, 3)
                found.append([job.path.decode() for job in jobs])
                if before_id is None:
                    return found

        odd = await asyncio.to_thread(pages, text="odd")
        every = await asyncio.to_thread(pages)
        none = await asyncio.to_thread(pages, states=[JobState.FAILED])
    assert odd == [[], ["odd-6.wav"], ["odd-1.wav"]]
    assert [name for page in every for name in page] == [
        f"{'odd' if number % 5 == 1 else 'even'}-{number}.wav" for number in reversed(range(11))
    ]
    assert [len(page) for page in every] == [3, 3, 3, 2]
    assert none == [[]]
