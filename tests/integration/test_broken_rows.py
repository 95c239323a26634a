"""Rows of the queue that another program has broken cost the file that they are about, and nothing else."""

from __future__ import annotations

import zlib

import pytest

from dropscribe.core.errors import ProviderUnusable
from dropscribe.core.model import Retry
from dropscribe.intake.probe import OpenInbox
from dropscribe.pipeline.publisher import Publisher
from dropscribe.queue.sql import result_cache
from dropscribe.queue.sql.hold_rows import read_holds
from support.house import House, make_config, read_json, tree
from support.scripted import ScriptedProvider

SIDECARS = {
    "no-text": b"\xff\xfe\0a.json",
    "no-companion": b"companion:x",
    "half-a-companion": b"companion:1:2\0a\0b",
    "long-number": b"companion:" + b"9" * 5000 + b":1:1\0a\0b",
}
"""Their names are chosen anew, and the answer is published."""

DOCUMENTS = {
    "no-json": b"\xff",
    "deep": b"[" * 200_000,
    "a-list": b"[]",
    "no-schema": b'{"text": "hello"}',
    "no-source": b'{"schema": "dropscribe.transcript/1"}',
    "no-number": b'{"schema": "x", "source": {"path": "no-number.wav"}, "warnings": [], "duration": "x"}',
}
"""There is nothing to publish: these files fail."""


async def test_a_stored_result_that_cannot_be_read_costs_its_file_alone(tmp_path, monkeypatch):
    """Packed names that are not text, and documents of any form: the other results are published."""

    async def later(*_):
        return Retry(3600.0, "test", "the files are not written yet")

    names = [*SIDECARS, *DOCUMENTS, "whole"]
    with monkeypatch.context() as held:
        held.setattr(Publisher, "publish", later)
        async with House(make_config(tmp_path)) as house:
            for name in names:
                await house.drop(f"{name}.wav", name.encode())
            await house.rest()
            changes = [("sidecars", *change) for change in SIDECARS.items()]
            changes += [("document", *change) for change in DOCUMENTS.items()]
            for column, name, value in changes:
                await _execute(
                    house,
                    f"UPDATE answers SET {column} = ? WHERE job_id = (SELECT id FROM jobs WHERE name = ?)",
                    (value, f"{name}.wav".encode()),
                )
            await _execute(house, "UPDATE jobs SET due_at = 0")

    async with House(make_config(tmp_path)) as house:
        await house.rest()
        await house.drop("new.wav", b"new")
        await house.rest()

    done = {f"{name}.wav" for name in (*SIDECARS, "whole", "new")}
    assert {name for name in tree(tmp_path / "done") if name.endswith(".wav")} == done
    for name in SIDECARS:
        assert read_json(tmp_path / f"done/{name}.json")["text"].startswith("heard ")
    failed = {f"{name}.{suffix}" for name in DOCUMENTS for suffix in ("wav", "error.json")}
    assert tree(tmp_path / "failed") == failed


@pytest.mark.parametrize(
    ("column", "value"), [("name", b"a" * 300), ("directory", b"a" * 300), ("directory", b"\0")]
)
async def test_a_path_that_no_file_can_have_costs_its_file_alone(tmp_path, monkeypatch, column, value):
    """A stored result whose row names one: its folder goes on."""

    async def later(*_):
        return Retry(3600.0, "test", "the files are not written yet")

    with monkeypatch.context() as held:
        held.setattr(Publisher, "publish", later)
        async with House(make_config(tmp_path)) as house:
            for name in ("long.wav", "whole.wav"):
                await house.drop(name, name.encode())
            await house.rest()
            await _execute(house, f"UPDATE jobs SET {column} = ? WHERE name = ?", (value, b"long.wav"))
            await _execute(house, "UPDATE jobs SET due_at = 0")

    async with House(make_config(tmp_path)) as house:
        await house.drop("new.wav", b"new")
        await house.until(lambda: {"whole.wav", "new.wav"} <= tree(tmp_path / "done"))


@pytest.mark.parametrize(("column", "value"), [("crashes", 2**63 - 1), ("attempts", -(2**63))])
async def test_a_count_at_its_end_ends_no_start(tmp_path, monkeypatch, column, value):
    """An interrupted job whose next count no column can hold is handed back like any other."""

    async def later(*_):
        return Retry(3600.0, "test", "the files are not written yet")

    with monkeypatch.context() as held:
        held.setattr(Publisher, "publish", later)
        async with House(make_config(tmp_path)) as house:
            await house.drop("odd.wav", b"odd")
            await house.rest()
            for table in ("answers", "reservations"):
                await _execute(house, f"DELETE FROM {table}")
            await _execute(house, f"UPDATE jobs SET state = 'transcribing', {column} = ?", (value,))

    async with House(make_config(tmp_path)) as house:
        await house.drop("new.wav", b"new")
        await house.until(lambda: "new.wav" in tree(tmp_path / "done"))


@pytest.mark.parametrize(
    ("column", "value", "end"),
    [
        ("attempts", 2**63 - 1, "done"),
        ("attempts", -(2**63), "done"),
        ("fence", 2**63 - 1, "done"),
        ("crashes", 2**63 - 1, "failed"),
    ],
)
async def test_a_queued_row_with_a_count_at_its_end_stops_no_other(tmp_path, column, value, end):
    """It is claimed like any other: one that the database refused would be its provider's next for ever."""
    refused = ScriptedProvider([ProviderUnusable("unauthorized", status=401)])
    async with House(make_config(tmp_path, hold=(3600.0, 3600.0)), {"main": refused}) as house:
        await house.drop("odd.wav", b"RIFF odd")
        await house.until(lambda: house.listener.attempts)
        await house.rest()
        await _execute(house, f"UPDATE jobs SET {column} = ?, due_at = 0.0", (value,))
        await _execute(house, "DELETE FROM holds")

    async with House(make_config(tmp_path)) as house:
        await house.drop("new.wav", b"RIFF new")
        await house.until(lambda: "new.wav" in tree(tmp_path / "done"))
        await house.until(lambda: "odd.wav" in tree(tmp_path / end))


@pytest.mark.parametrize("packed", [b"no zlib", zlib.compress(b"{}")[:-4], zlib.compress(bytes(200_000))])
async def test_a_cached_answer_that_cannot_be_unpacked_is_none(tmp_path, monkeypatch, packed):
    """The recording is transcribed as if it were new, and its answer takes the broken one's place."""
    monkeypatch.setattr(result_cache, "MOST_DOCUMENT_BYTES", 100_000)
    config = make_config(tmp_path, ledger_keep_seconds=86_400.0)
    async with House(config) as house:
        await house.drop("first.wav", b"the same")
        await house.rest()
        await _execute(house, "UPDATE ledger SET document = ?", (packed,))
        for name in ("second.wav", "third.wav"):
            await house.drop(name, b"the same")
            await house.rest()

    reused = [read_json(tmp_path / f"done/{name}.json")["reused"] for name in ("first", "second", "third")]
    assert reused == [False, False, True]


async def test_holds_and_marks_that_mean_nothing_stop_nothing(tmp_path):
    """A hold of a kind that there is not, and a first start at no time."""
    async with House(make_config(tmp_path)) as house:
        await _execute(house, "INSERT INTO holds VALUES ('planet', 'calls', 'x', 'x', 0.0, 0.0, 1.0)")
        await _execute(house, "INSERT INTO facts VALUES ('backlog:calls', 'yesterday')")
    async with House(make_config(tmp_path)) as house:
        await house.drop("call.wav")
        await house.rest()
        assert await house.store.do(read_holds) == []

    assert "call.wav" in tree(tmp_path / "done")


def test_a_row_of_no_path_has_no_file(tmp_path):
    """No file system has a name with a zero byte: the listing goes on."""
    with OpenInbox(bytes(tmp_path)) as inbox:
        assert inbox.stat(b"a\0b") is None
        assert inbox.stat(b"a\0b/c.wav") is None


async def _execute(house, sql, values=()):
    await house.store.do(lambda db: db.execute(sql, values))
