"""What a rule asks for beside plain transcripts, through the whole pipeline."""

from __future__ import annotations

import asyncio

from dropscribe.config.model import SubtitleLayout
from support.house import House, make_config, read_json, tree
from support.scripted import ScriptedProvider, transcript_of


async def test_a_rule_gets_notes_with_names_and_dates(tmp_path):
    """`md`, `speaker_names`, `recorded_at` and `paragraphs` reach the files in done."""
    config = make_config(
        tmp_path,
        outputs=("json", "txt", "md"),
        recorded_at="%Y%m%d-%H%M%S",
        paragraphs=True,
    )
    async with House(config) as house:
        await house.drop("2026/call-20260102-030405.wav", b"RIFF a call")
        await house.rest()

    assert tree(tmp_path / "done") >= {
        f"2026/call-20260102-030405.{suffix}" for suffix in ("wav", "json", "txt", "md")
    }
    document = read_json(tmp_path / "done/2026/call-20260102-030405.json")
    assert (document["recorded_at"], document["recorded_by"]) == ("2026-01-02T03:04:05", "name")
    note = (tmp_path / "done/2026/call-20260102-030405.md").read_text()
    assert "date: 2026-01-02T03:04:05\n" in note
    assert "layout" not in document


async def test_a_stored_answer_keeps_its_layout(tmp_path):
    """A rule that changes between an answer and its publication does not change what is being published."""
    words = " ".join(f"word{number}" for number in range(10))
    script = ScriptedProvider([transcript_of(words)], gate=asyncio.Event())
    narrow = SubtitleLayout(line_characters=12, lines=6)
    async with House(make_config(tmp_path, outputs=("srt",), subtitles=narrow), {"main": script}) as house:
        await house.drop("2026/call.wav")
        await house.until(lambda: script.in_flight)
        (tmp_path / "done").mkdir()
        (tmp_path / "done/2026").write_text("in the way")
        script.gate.set()

        async def is_answered():
            return (await house.stats()).publishing

        await house.until(is_answered)
    (tmp_path / "done/2026").unlink()
    async with House(make_config(tmp_path, outputs=("srt",))) as house:
        await house.rest()

    lines = (tmp_path / "done/2026/call.srt").read_text().splitlines()[2:]
    assert " ".join(lines).split() == words.split()
    assert len(lines) == 5
    assert max(map(len, lines)) <= 12
