"""Search: words in finished transcripts, on real files, a real queue and a real index."""

from __future__ import annotations

import json
import os
import sqlite3
import threading
import time
import zlib

import pytest

from dropscribe.config.load import load_config
from dropscribe.core.errors import StoreError
from dropscribe.reports import timed_calls
from dropscribe.search import index as index_module
from dropscribe.search import indexer
from dropscribe.search.finding import MOST_LOOKED_AT, search
from dropscribe.search.indexer import Indexer, catch_up
from dropscribe.search.passages import passages_of, passages_of_text
from dropscribe.search.words import parse_query
from dropscribe.transcripts.cues import Cue
from dropscribe.transcripts.render import DEFAULT_LAYOUT, _vtt_block, render_md
from support.pages import serving
from support.scene import CONFIG, Scene, add_job

EVIL = "<script>alert(1)</script>"


@pytest.fixture
def config(scene):
    """Its config."""
    return load_config(scene.config, environ={})[0]


def words(text: str, start: float = 0.0, step: float = 1.0) -> list[dict]:
    """Words of a transcript, one each *step* seconds."""
    return [
        {"word": word, "start": start + step * n, "end": start + step * n + 0.5, "speaker": None}
        for n, word in enumerate(text.split())
    ]


def finish(
    scene, store, name: str, text: str, ago: float = 60.0, *, part="done", folder="calls", **document
) -> int:
    """A done file with that transcript; the id of its job."""
    audio = scene.drop(name, part=part)
    transcript = {"schema": "dropscribe.transcript/1", "text": text, "words": words(text), **document}
    audio.with_suffix(".json").write_text(json.dumps(transcript))
    ended_at = time.time() - ago
    filed = os.fsencode(audio)
    return add_job(store, scene, name, folder=folder, state="done", ended_at=ended_at, filed=filed)


def names(config, query: str, **options) -> list[str]:
    """The files that a search finds once the index is up to date."""
    assert catch_up(config, 30)
    return [os.fsdecode(file.job.path) for file in search(config, query, **options).files]


def test_a_hit_stands_in_its_sentence_with_its_second(scene, config):
    """All words must be in the transcript, wherever; case and accents make no difference."""
    with scene.queue() as store:
        finish(scene, store, "a.wav", "Good morning. The Café opens at nine. Good bye.")
        finish(scene, store, "b.wav", "Good evening. Nobody is here.")
        assert names(config, "good") == ["b.wav", "a.wav"]
        assert names(config, "CAFE morning") == ["a.wav"]
        assert names(config, "cafe evening") == []
        (found,) = search(config, "cafe nine").files
    (sentence,) = found.sentences
    assert sentence.text == "The Café opens at nine."
    assert [sentence.text[begin:end] for begin, end in sentence.spans] == ["Café", "nine"]
    assert sentence.start == 3.0


@pytest.mark.parametrize(
    ("companions", "transcript", "theirs"),
    [
        ('["{stem}.txt"]', "call.wav.txt", ["call.txt"]),
        ('["{stem}.json", "{name}.json"]', "call.transcript.json", ["call.json", "call.wav.json"]),
        ('["{stem}.md"]', None, ["call.md"]),
    ],
)
def test_a_companion_is_no_transcript(tmp_path, companions, transcript, theirs):
    """A transcript has another name where a companion has its usual one."""
    scene = Scene(tmp_path, f"{CONFIG}    companions: {companions}\n")
    config, _ = load_config(scene.config, environ={})
    with scene.queue() as store:
        finish(scene, store, "call.wav", "spoken")
        written = scene.root / "done/call.json"
        text = written.read_bytes() if transcript and transcript.endswith(".json") else b"spoken"
        written.unlink()
        for name in theirs:
            scene.drop(name, b'{"note": "noted"}', part="done")
        if transcript:
            scene.drop(transcript, text, part="done")
        assert names(config, "spoken") == (["call.wav"] if transcript else [])
        assert names(config, "noted") == []
        (scene.root / "done/call.wav").unlink()
        assert names(config, "spoken") == (["call.wav"] if transcript else [])
        if transcript:
            (scene.root / "done" / transcript).unlink()
        assert names(config, "spoken") == []


@pytest.mark.parametrize(
    ("query", "phrases"),
    [
        ('"good morning', [("good", "morning")]),
        ("NEAR(a b) OR * -c: ^d", [("near", "a"), ("b",), ("or",), ("c",), ("d",)]),
        ("well-known", [("well", "known")]),
        ("'; DROP TABLE \" \x00 ) (", [("drop",), ("table",)]),
        ("你好", [("你", "好")]),
        ('\ud800 *""', []),
    ],
)
def test_signs_of_a_query_mean_nothing(scene, config, query, phrases):
    """Only words and double quotes count; no query is an error."""
    assert parse_query(query) == phrases
    with scene.queue() as store:
        finish(scene, store, "a.wav", "x")
        assert names(config, query) == []


def test_a_long_query_is_cut(scene, config):
    """A query of thousands of words is answered."""
    assert sum(map(len, parse_query("word%d " * 5 % (1, 2, 3, 4, 5) * 1000 + '"' + "x y " * 999))) <= 16


def test_phrases_and_scripts_without_spaces(scene, config):
    """Quoted words follow each other; Chinese is found within a sentence."""
    with scene.queue() as store:
        finish(scene, store, "a.wav", "bye good day morning. 早上好世界。")
        finish(scene, store, "b.wav", "a good morning to all")
        assert names(config, '"good morning"') == ["b.wav"]
        assert names(config, "世界") == ["a.wav"]
        assert names(config, "界世") == []


@pytest.mark.parametrize(
    ("text", "found", "not_found"),
    [
        ("आज दिन है", ["दिन", '"आज दिन"'], ["दान", "दन"]),
        ("قال مُحَمَّد نعم", ["محمد", "مُحَمَّد"], ["محمود"]),
        ("שָׁלוֹם לך", ["שלום"], ["שלם"]),
        ("ọ̀rọ̀ kan", ["oro", "ọ̀rọ̀"], ["r"]),
        ("Łódź i Øre, Æro đ", ["lodz", "ore", "aero", "d"], ["od"]),
        ("กินข้าว", ["กิน"], ["กาน"]),
        ("cafe\u0301 1\ufe0f", ["café", "1"], []),
        ("\U00011103\U00011127 x", ["\U00011103\U00011127"], ["\U00011103\U00011128"]),
    ],
)
def test_marks_belong_to_their_word(scene, config, text, found, not_found):
    """Accents and vowel points make no difference; vowel signs do, and no mark divides a word."""
    with scene.queue() as store:
        finish(scene, store, "a.wav", text)
        assert [query for query in found + not_found if names(config, query)] == found


@pytest.mark.parametrize(
    ("text", "phrase", "shown"),
    [
        (" ".join(f"w{n}" for n in range(80)), "w39 w40", ("w0", "w79")),
        ("see you. tomorrow then", "you tomorrow", ("see", "then")),
        ("one. two. three", "one two three", ("one.", "three")),
    ],
)
def test_a_phrase_goes_beyond_its_sentence(scene, config, text, phrase, shown):
    """A phrase that passes the end of a sentence, a pause or a cut is found, and shown with both."""
    with scene.queue() as store:
        finish(scene, store, "a.wav", text)
        finish(scene, store, "b.wav", " ".join(reversed(text.replace(".", "").split())))
        assert names(config, f'"{phrase}"') == ["a.wav"]
        ((sentence,),) = (file.sentences for file in search(config, f'"{phrase}"').files)
    (span,) = sentence.spans
    assert sentence.text[span[0] : span[1]].replace(".", "") == phrase
    assert (sentence.text.split()[0], sentence.text.split()[-1]) == shown
    assert sentence.start == float(text.replace(".", "").split().index(phrase.split()[0]))


def test_pages_are_bounded(scene, config):
    """A page has so many files; the next one begins where it ended."""
    with scene.queue() as store:
        ids = [finish(scene, store, f"{n}.wav", "hello") for n in range(7)]
        first = names(config, "hello", limit=3)
        found = search(config, "hello", limit=3)
        second = names(config, "hello", limit=3, before_id=found.older_than)
    assert first == ["6.wav", "5.wav", "4.wav"]
    assert second == ["3.wav", "2.wav", "1.wav"]
    assert found.older_than == ids[4]


def test_what_leaves_done_leaves_the_index(scene, config):
    """A file whose transcript was moved away too is not found; its words leave the index with the hit.

    Old recordings may be removed before their transcripts (docs/recipes/old-audio.md).
    """
    with scene.queue() as store:
        finish(scene, store, "a.wav", "secretword hello")
        finish(scene, store, "b.wav", "hello")
        assert names(config, "hello") == ["b.wav", "a.wav"]
        (scene.root / "done" / "a.wav").rename(scene.root / "a.wav")
        assert names(config, "hello") == ["b.wav", "a.wav"]
        (scene.root / "done" / "a.json").rename(scene.root / "a.json")
        assert names(config, "hello") == ["b.wav"]
        with index_module.open_index(config.state_dir) as index:
            assert index.find(["secretword"], 2**62, 9) == []


def test_files_are_found_after_the_config_got_another_path(scene, config):
    """The daemon filed them by a path with a link in it; the config names the same folder without."""
    link = scene.root.with_name("link")
    link.symlink_to(scene.root)
    with scene.queue() as store:
        finish(scene, store, "a.wav", "good morning")
        store.call(
            lambda db: db.execute("UPDATE jobs SET filed = ?", (os.fsencode(link / "done/a.wav"),))
        ).result()
        assert names(config, "morning") == ["a.wav"]
        assert names(config, "morning") == ["a.wav"]  # nor has the first search taken it out of the index


def test_folders_that_do_not_answer_are_asked_once_for_all_files(scene, config, monkeypatch):
    """Of files that were filed by a path which the config does not have."""
    hanging = [b"/old", os.fsencode(scene.root / "done"), os.fsencode(scene.root / "failed")]
    answers, asked, realpath = threading.Event(), [], os.path.realpath

    def hang(path, **keys):
        if os.fsencode(path) in hanging:
            asked.append(os.fsencode(path))
            answers.wait(60)
        return realpath(path, **keys)

    with scene.queue() as store:
        for number in range(4):
            finish(scene, store, f"{number}.wav", "good morning")
        store.call(lambda db: db.execute("UPDATE jobs SET filed = CAST('/old/' || id AS BLOB)")).result()
        monkeypatch.setattr(timed_calls, "ANSWER_SECONDS", 0.1)
        monkeypatch.setattr(os.path, "realpath", hang)
        assert names(config, "morning") == []
    answers.set()
    assert sorted(asked) == sorted(hanging)


def test_the_sweep_takes_out_what_is_gone_and_adds_what_is_back(scene, config, monkeypatch):
    """It also finds jobs that were pruned; an unmounted share is not taken for an empty one."""
    monkeypatch.setattr(indexer, "SWEEP_JOBS", 2)
    monkeypatch.setattr(indexer, "SWEEP_SECONDS", 0.0)
    with scene.queue() as store:
        ids = [finish(scene, store, f"{n}.wav", "hello") for n in range(5)]
        assert len(names(config, "hello")) == 5
        files = [scene.root / "done" / name for name in ("0.wav", "0.json")]
        for file in files:
            file.rename(scene.root / file.name)
        store.call(lambda db: db.execute("DELETE FROM jobs WHERE id = ?", (ids[1],))).result()
        assert swept(config) == set(ids[2:])
        for file in files:
            (scene.root / file.name).rename(file)
        assert swept(config) == {ids[0], *ids[2:]}
        (scene.root / "done").rename(scene.root / "away")
        assert swept(config) == {ids[0], *ids[2:]}


def swept(config) -> set[int]:
    """The indexed jobs after one whole sweep."""
    indexer = Indexer()
    while indexer.step(config):
        pass
    with index_module.open_index(config.state_dir) as index:
        return index.read_ids(0, 2**62)


@pytest.mark.parametrize("damage", [b"no database" * 400, b""])
def test_the_index_can_be_thrown_away(scene, config, damage):
    """Damaged, empty or deleted, it is built anew."""
    with scene.queue() as store:
        finish(scene, store, "a.wav", "hello")
        assert names(config, "hello") == ["a.wav"]
        for suffix in ("-wal", "-shm"):
            (config.state_dir / f"search.db{suffix}").unlink(missing_ok=True)
        (config.state_dir / "search.db").write_bytes(damage)
        assert names(config, "hello") == ["a.wav"]
        index_module.delete_index(config.state_dir)
        assert names(config, "hello") == ["a.wav"]
        db = sqlite3.connect(config.state_dir / "search.db")
        db.execute("PRAGMA user_version = 99")
        db.close()
        assert names(config, "hello") == ["a.wav"]
    assert (config.state_dir / "search.db").stat().st_mode & 0o077 == 0


def test_a_queue_that_was_made_anew_gives_no_wrong_hits(scene, config):
    """Ids start again with a new queue: the old rows of the index are no one's."""
    with scene.queue() as store:
        finish(scene, store, "old.wav", "ancient words")
        assert names(config, "ancient") == ["old.wav"]
    for path in config.state_dir.glob("queue.db*"):
        path.unlink()
    with scene.queue() as store:
        finish(scene, store, "new.wav", "fresh words", ago=1)
        assert names(config, "ancient") == []
        assert names(config, "fresh") == ["new.wav"]


def test_the_later_of_two_files_at_one_place_counts(scene, config):
    """A transcript is found under the job whose page shows it."""
    with scene.queue() as store:
        finish(scene, store, "a.wav", "first recording")
        assert names(config, "first") == ["a.wav"]
        later = finish(scene, store, "a.wav", "second recording", ago=30)
        assert names(config, "first") == []
        assert [file.job.id for file in search(config, "recording").files] == [later]


def test_jobs_that_end_late_are_not_missed(scene, config):
    """A job whose transaction ends after a later one's, and one from before a clock was set back."""
    with scene.queue() as store:
        finish(scene, store, "a.wav", "hello", ago=1)
        assert names(config, "hello") == ["a.wav"]
        finish(scene, store, "b.wav", "hello", ago=3)
        assert names(config, "hello") == ["b.wav", "a.wav"]


def test_a_few_new_transcripts_take_one_step(scene, config, monkeypatch):
    """There is more to do only after a full batch."""
    monkeypatch.setattr(indexer, "BATCH_JOBS", 2)
    with scene.queue() as store:
        for number in range(3):
            finish(scene, store, f"{number}.wav", "hello", ago=60 - number)
        one = Indexer()
        assert one.step(config, sweep=False) is True
        assert one.step(config, sweep=False) is False
        assert len(names(config, "hello")) == 3


def test_search_false_deletes_the_index(scene):
    """Nothing of any transcript is left in the state directory; the command says why it finds nothing."""
    with scene.queue() as store:
        finish(scene, store, "a.wav", "hello")
        assert names(load_config(scene.config, environ={})[0], "hello") == ["a.wav"]
        scene.config.write_text(scene.config.read_text() + "search: false\n")
        config = load_config(scene.config, environ={})[0]
        assert Indexer().step(config) is False
        assert search(config, "hello").files == []
        assert scene.run("search", "hello") == 78
    assert list(config.state_dir.glob("search.db*")) == []


def test_a_note_is_read_without_its_facts():
    """The folder's and the provider's names, the title and the warnings stand in each of them."""
    segments = [
        {"text": "# Hello *there*. Bye.", "start": 3667.0, "end": 3669.0, "speaker": "speaker_0"},
        {"text": "1. > Who?", "start": None, "end": None, "speaker": "a*b"},
        {"text": "Me", "start": None, "end": None, "speaker": None},
    ]
    document = {
        "source": {"file": "a.wav", "path": "a.wav"},
        "duration": 4000.0,
        "job": {"folder": "calls"},
        "provider": {"name": "main", "model": "m"},
        "language": "en",
        "speakers": ["speaker_0", "a*b"],
        "warnings": ["incomplete_audio"],
        "missing": [],
        "text": "",
        "segments": segments,
        "words": [],
    }
    passages = passages_of_text(render_md(document).decode())
    assert [(p.text, p.start_at(0)) for p in passages] == [
        ("# Hello *there*.", 3667.0),
        ("Bye.", 3667.0),
        ("1.", None),
        ("> Who?", None),
        ("Me", None),
    ]


def test_other_forms_than_json_are_read(scene, config):
    """Segments, plain text and subtitles have their times where they have any."""
    segments = [{"text": "One. Two!", "start": 4.0}, {"text": "Three", "start": "x"}]
    assert [(p.text, p.start_at(0)) for p in passages_of({"segments": segments})] == [
        ("One.", 4.0),
        ("Two!", 4.0),
        ("Three", None),
    ]
    vtt = "WEBVTT\n\n1\n00:01:02.500 --> 00:01:04.000\nHello there\n"
    assert [(p.text, p.start_at(0)) for p in passages_of_text(vtt)] == [("Hello there", 62.0)]
    cues = [Cue(0.0, 2.0, "Tom & Jerry <3", "speaker_0")]
    ours = "WEBVTT\n\n" + "".join(_vtt_block(cue, DEFAULT_LAYOUT) for cue in cues)
    assert [p.text for p in passages_of_text(ours)] == ["Tom & Jerry <3"]
    assert [p.text for p in passages_of_text("a <b> &amp; c")] == ["a <b> &amp; c"]
    with scene.queue() as store:
        finish(scene, store, "a.wav", "x")
        (scene.root / "done" / "a.json").unlink()
        (scene.root / "done" / "a.txt").write_text("only a text\n")
        assert names(config, "only") == ["a.wav"]


@pytest.mark.parametrize("line", ["9" * 5000 + ":00:00.0 --> x", "9" * 400 + ":00:00.0 --> x"])
def test_a_transcript_made_to_harm_hides_no_other(scene, config, line):
    """Whoever may write to done may write there what he likes."""
    with scene.queue() as store:
        finish(scene, store, "a.wav", "x")
        (scene.root / "done" / "a.json").unlink()
        (scene.root / "done" / "a.txt").write_text(line)
        finish(scene, store, "b.wav", "hello")
        assert names(config, "hello") == ["b.wav"]


def test_a_bug_with_one_transcript_hides_no_other(scene, config, monkeypatch):
    """It is logged, and that file is not found by its words."""

    def broken(document):
        if document["text"] == "x":
            raise ZeroDivisionError
        return passages_of(document)

    monkeypatch.setattr(indexer, "passages_of", broken)
    with scene.queue() as store:
        finish(scene, store, "a.wav", "x")
        finish(scene, store, "b.wav", "hello")
        assert names(config, "hello") == ["b.wav"]


BROKEN = [b"no zlib", zlib.compress(b"{}"), zlib.compress(b"[[1, []]]"), zlib.compress(b"[" * 100_000)]


@pytest.mark.parametrize("packed", BROKEN)
def test_an_index_with_broken_passages_is_made_anew(scene, config, packed):
    """One search fails and says so; the next one finds what is there."""
    with scene.queue() as store:
        finish(scene, store, "a.wav", "hello")
        assert names(config, "hello") == ["a.wav"]
        db = sqlite3.connect(config.state_dir / "search.db")
        db.execute("UPDATE indexed_transcripts SET passages = ?", (packed,))
        db.commit()
        db.close()
        with pytest.raises(StoreError, match="made anew"):
            search(config, "hello")
        assert names(config, "hello") == ["a.wav"]


def test_a_search_before_the_first_start_finds_nothing(scene, capsys):
    """There is no state directory yet: no error, and none is made."""
    state = scene.root / "state"
    assert not state.exists()
    assert scene.run("search", "hello") == 0
    assert capsys.readouterr() == ("nothing found\n", "")
    assert not state.exists()


def test_the_command_prints_text_and_json(scene, capsys):
    """Each file with its place, each sentence with its time; the shell's quotes make a phrase."""
    with scene.queue() as store:
        finish(scene, store, "a.wav", "good day to you. good morning")
        assert scene.run("search", "good morning") == 0
        text = capsys.readouterr().out
        assert scene.run("search", "--json", "--limit", "1", "--folder", "calls", "good") == 0
        document = json.loads(capsys.readouterr().out)
        assert scene.run("search", "nowhere") == 0
        assert capsys.readouterr().out == "nothing found\n"
    assert str(scene.root / "done" / "a.wav") in text
    assert "0:04  good morning" in text
    assert "good day" not in text
    (file,) = document["files"]
    assert (document["schema"], file["file"], file["folder"]) == ("dropscribe.search/1", "a.wav", "calls")
    assert file["sentences"][0] == {"start": 0.0, "text": "good day to you.", "words": ["good"]}


def test_a_sentence_is_printed_with_its_joiners(scene, capsys):
    """Words of many languages and emoji have them; they were printed as their codes."""
    text = "क्\u200dष good 👩\u200d👧"
    with scene.queue() as store:
        finish(scene, store, "a.wav", text)
        assert scene.run("search", "good") == 0

    assert text in capsys.readouterr().out


def test_on_a_terminal_all_lines_of_a_hit_begin_in_one_column(scene, capsys, monkeypatch):
    """The time keeps its column whether the sentence is wrapped or not."""
    monkeypatch.setattr("dropscribe.cli.commands.search.terminal_width", lambda: 40)
    with scene.queue() as store:
        finish(
            scene, store, "a.wav", "good day. and a sentence that is much too long for this terminal, good"
        )
        assert scene.run("search", "good") == 0
    lines = capsys.readouterr().out.splitlines()[1:]

    assert lines[0] == "     0:00  good day."
    assert len(lines) > 2
    assert all(line[9:11] == "  " and line[11] != " " for line in lines)


def test_the_command_looks_at_as_many_transcripts_as_it_needs(scene, capsys):
    """A rule whose only hit is older than hundreds of others has it; the last line counts what is printed."""
    rule = "  rare: {inbox: inbox2, done: done2, provider: main}\n"
    scene.config.write_text(scene.config.read_text() + rule)
    config = load_config(scene.config, environ={})[0]
    with scene.queue() as store:
        finish(scene, store, "rare.wav", "hello", part="done2", folder="rare")
        for number in range(MOST_LOOKED_AT + 10):
            finish(scene, store, f"{number}.wav", "hello")
        assert catch_up(config, 60)
        assert scene.run("search", "--folder", "rare", "hello") == 0
        rare = capsys.readouterr().out
        assert scene.run("search", "--limit", "205", "--json", "hello") == 0
        many = json.loads(capsys.readouterr().out)
        assert scene.run("search", "--limit", "211", "hello") == 0
        everything = capsys.readouterr().out
        assert scene.run("search", "--limit", "3", "hello") == 0
        three = capsys.readouterr().out
    assert (rare.count("hello"), "--limit" in rare) == (1, False)
    assert (len(many["files"]), many["more"]) == (205, True)
    assert (everything.count("hello"), "--limit" in everything) == (211, False)
    assert three.endswith("The newest 3 files; more with --limit.\n")


def test_chinese_and_japanese_sentences_are_shown_without_spaces(scene, config):
    """Their words have none between them, whatever the provider takes for a word; Latin ones keep theirs."""
    text = "今日 は Tokyo Tower 。 明日 も 晴れ 。"
    with scene.queue() as store:
        finish(scene, store, "a.wav", text)
        assert names(config, "今日 tower") == names(config, '"は tokyo"') == ["a.wav"]
    sentences = {
        query: search(config, query).files[0].sentences for query in ("今日は tower", '"tower 明日"')
    }
    shown = [
        (found.text, found.start, [found.text[begin:end] for begin, end in found.spans])
        for (found,) in sentences.values()
    ]
    assert shown == [
        ("今日は Tokyo Tower 。", 0.0, ["今日は", "Tower"]),
        ("今日は Tokyo Tower 。明日も晴れ。", 3.0, ["Tower 。明日"]),
    ]


async def test_the_page_shows_hits_and_only_text(scene, config):
    """Hits are marked and lead to their second; names, words and queries are never markup."""
    with scene.queue() as store:
        job_id = finish(scene, store, "a.wav", f"well {EVIL} spoken word here")
        assert catch_up(config, 30)
        async with serving(scene) as site, site.client() as client:
            found = (await client.get("/search", params={"q": "word"})).text
            evil = (await client.get("/search", params={"q": EVIL, "before": "9" * 30})).text
            empty = (await client.get("/search")).text
    assert f'href="/files/{job_id}?t=3"' in found
    assert "<mark>word</mark>" in found
    assert "No transcript has all" not in evil
    assert "Type words" in empty
    assert "<script>alert" not in found + evil


async def test_the_page_without_search(scene):
    """`search: false` takes the field away."""
    scene.config.write_text(scene.config.read_text() + "search: false\n")
    async with serving(scene) as site, site.client() as client:
        assert (await client.get("/search?q=x")).status_code == 404
        assert 'role="search"' not in (await client.get("/")).text
