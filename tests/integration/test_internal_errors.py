"""A bug met by one file: it ends after few tries, nothing is sent again once an answer exists."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from structlog.testing import capture_logs

from dropscribe.pipeline import rendering
from dropscribe.pipeline.claims import Claim
from support.house import House, make_config, read_json, tree
from support.scripted import ScriptedProvider, transcript_of


def _deep(levels=100_000):
    value = []
    for _ in range(levels):
        value = [value]
    return value


ABSURD = {
    "a number of 5,000 digits": {"speaker": 10**5000},
    "JSON nested 100,000 deep": {"nested": _deep()},
    "a value that JSON does not have": {"value": object()},
}


@pytest.mark.parametrize("raw", ABSURD.values(), ids=ABSURD)
async def test_an_answer_that_cannot_be_written_down_is_paid_for_once(tmp_path, raw):
    """The file fails with internal_error, its neighbour is done; the traceback is in the log alone."""
    answer = replace(transcript_of("x"), raw=raw)
    script = ScriptedProvider([lambda audio: answer if audio.name == b"odd.wav" else None] * 9)
    with capture_logs() as logs:
        async with House(make_config(tmp_path), {"main": script}) as house:
            await house.drop("odd.wav", b"1")
            await house.drop("good.wav", b"2")
            await house.rest()

    assert sorted(script.calls) == [b"good.wav", b"odd.wav"]
    assert tree(tmp_path / "failed") == {"odd.wav", "odd.error.json"}
    error = read_json(tmp_path / "failed/odd.error.json")
    assert (error["code"], len(error["attempts"])) == ("internal_error", 1)
    assert "Traceback" not in (tmp_path / "failed/odd.error.json").read_text()
    assert [line["path"] for line in logs if line["event"] == "job.bug" and line.get("exc_info")] == [
        b"odd.wav"
    ]


async def test_an_answer_that_one_version_cannot_render_is_not_paid_for_by_the_next(tmp_path, monkeypatch):
    """It is cached before it is rendered: put back after an update, the file is done without a request."""
    config = make_config(tmp_path, ledger_keep_seconds=9e6)
    with monkeypatch.context() as broken:
        broken.setitem(rendering.RENDERERS, "txt", lambda document, _: document["no such key"])
        script = ScriptedProvider()
        async with House(config, {"main": script}) as house:
            await house.drop("call.wav")
            await house.rest()
        assert read_json(tmp_path / "failed/call.error.json")["code"] == "internal_error"
    (tmp_path / "failed/call.wav").rename(tmp_path / "inbox/call.wav")
    again = ScriptedProvider()
    async with House(config, {"main": again}) as house:
        await house.submit("call.wav")
        await house.rest()

    assert (len(script.calls), again.calls) == (1, [])
    assert tree(tmp_path / "done") == {"call.wav", "call.json", "call.txt"}


async def test_a_bug_while_sending_costs_max_ambiguous_tries(tmp_path):
    """The body may have gone out: the attempt counts, and the file ends."""
    script = ScriptedProvider([ZeroDivisionError("a bug")] * 99)
    async with House(make_config(tmp_path, retry={"max_ambiguous": 3}), {"main": script}) as house:
        await house.drop("call.wav")
        await house.rest()

    assert len(script.calls) == 3
    error = read_json(tmp_path / "failed/call.error.json")
    assert (error["code"], [each["code"] for each in error["attempts"]]) == (
        "internal_error",
        ["internal_error"] * 3,
    )


async def test_a_bug_before_anything_is_sent_ends_the_file_after_three_tries(tmp_path, monkeypatch):
    """Nothing is sent, and the other files flow."""
    refusal_of = Claim.refusal_of

    def broken(claim, audio):
        return 1 / 0 if audio.name == b"odd.wav" else refusal_of(claim, audio)

    monkeypatch.setattr(Claim, "refusal_of", broken)
    async with House(make_config(tmp_path)) as house:
        await house.drop("odd.wav", b"1")
        await house.drop("good.wav", b"2")
        await house.rest()

    assert house.providers["main"].calls == [b"good.wav"]
    assert read_json(tmp_path / "failed/odd.error.json")["code"] == "internal_error"


async def test_a_stored_answer_that_cannot_be_rendered_after_a_restart_ends(tmp_path, monkeypatch):
    """The transcript is in the row and a newer version cannot render it: the file fails, unsent."""
    script = ScriptedProvider(gate=asyncio.Event())
    config = make_config(tmp_path)
    async with House(config, {"main": script}) as house:
        await house.drop("call.wav")
        await house.until(lambda: script.in_flight)
        (tmp_path / "done").write_text("in the way")
        script.gate.set()
        await house.until(lambda: house.engine.folders.closed_reason("calls"))
    (tmp_path / "done").unlink()
    monkeypatch.setitem(rendering.RENDERERS, "txt", lambda document, _: document["no such key"])
    async with House(config, {"main": script}) as house:
        await house.until(lambda: house.listener.files)

    assert len(script.calls) == 1
    assert read_json(tmp_path / "failed/call.error.json")["code"] == "internal_error"


async def test_a_known_recording_under_a_name_that_is_no_utf8(tmp_path):
    """Where its answer comes from is told in words that a text column takes: sent once, both are done."""
    script = ScriptedProvider()
    config = make_config(tmp_path, ledger_keep_seconds=9e6)
    async with House(config, {"main": script}) as house:
        await house.drop(b"caf\xe9.wav", b"RIFF the same")
        await house.rest()
        await house.drop(b"na\xefve.wav", b"RIFF the same")
        await house.rest()

    assert len(script.calls) == 1
    assert len(list((tmp_path / "done").glob("*.wav"))) == 2
