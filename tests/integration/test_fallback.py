"""From one provider of a list to the next: when it is held, when it refuses the file, or both."""

from __future__ import annotations

import dataclasses

import pytest

from dropscribe.config.model import ProviderConfig
from dropscribe.core.budget import Budget, Limit
from dropscribe.core.errors import AudioRejected, ProviderUnusable, StoreBusy, TemporaryFailure
from dropscribe.queue import retrying_database
from support.house import House, make_config, read_json, tree
from support.scripted import ScriptedProvider

NAMES = ("first", "second", "third")
REFUSAL = AudioRejected("bad_format", "no such audio", status=415)
BAD_KEY = ProviderUnusable("unauthorized", "bad key", status=401)


def chained(root, fallback, *, most_bytes=None, **keys):
    """One rule on three providers; the first may take *most_bytes* at most."""
    providers = {name: ProviderConfig(name=name, type="openai", concurrency=1) for name in NAMES}
    providers["first"] = dataclasses.replace(providers["first"], max_upload_bytes=most_bytes)
    return make_config(root, providers=providers, fallback=fallback, hold=(60.0, 60.0), **keys)


def scripts(**of):
    """A scripted provider for each name; without a script it answers."""
    return {name: ScriptedProvider(list(of.get(name, ()))) for name in NAMES}


@pytest.mark.parametrize("fallback", ["refused", "both"])
async def test_a_refused_file_goes_to_the_next_and_the_sidecar_tells_the_way(tmp_path, fallback):
    """Two refuse, the third takes it: nothing failed, and the path names who refused and why."""
    script = scripts(first=[REFUSAL], second=[AudioRejected("too_long", "an hour at most", status=413)])
    async with House(chained(tmp_path, fallback), script) as house:
        await house.drop("call.wav")
        await house.rest()

    provider = read_json(tmp_path / "done/call.json")["provider"]
    assert provider["name"] == "third"
    assert provider["path"] == [
        {"provider": "first", "code": "bad_format"},
        {"provider": "second", "code": "too_long"},
    ]
    assert tree(tmp_path / "failed") == set()


async def test_by_default_a_refusal_is_the_end(tmp_path):
    """With fallback: held nobody else is asked, as before."""
    async with House(chained(tmp_path, "held"), scripts(first=[REFUSAL])) as house:
        await house.drop("call.wav")
        await house.rest()

    assert read_json(tmp_path / "failed/call.error.json")["code"] == "bad_format"
    assert house.providers["second"].calls == []


async def test_a_file_too_large_for_one_goes_to_another_unsent(tmp_path):
    """What max_upload refuses costs the first provider no upload, and the second takes it."""
    async with House(chained(tmp_path, "refused", most_bytes=3), scripts()) as house:
        await house.drop("call.wav", b"more than three bytes")
        await house.rest()

    document = read_json(tmp_path / "done/call.json")
    assert house.providers["first"].calls == []
    assert document["provider"]["path"] == [{"provider": "first", "code": "too_large"}]
    assert document["job"]["attempts"] == 1


async def test_refused_by_all_fails_and_the_error_tells_of_each(tmp_path):
    """The last one's reason is the file's; the attempts name every refusal in order."""
    config = chained(tmp_path, "both", most_bytes=3)
    async with House(config, scripts(second=[REFUSAL], third=[REFUSAL])) as house:
        await house.drop("call.wav", b"more than three bytes")
        await house.rest()

    error = read_json(tmp_path / "failed/call.error.json")
    assert (error["provider"], error["code"]) == ("third", "bad_format")
    told = [(attempt["provider"], attempt["code"]) for attempt in error["attempts"]]
    assert told == [("first", "too_large"), ("second", "bad_format"), ("third", "bad_format")]


async def test_with_refused_a_held_first_provider_is_waited_for(tmp_path):
    """The second is for refused files alone: a bad key keeps the others waiting."""
    async with House(chained(tmp_path, "refused"), scripts(first=[BAD_KEY] * 9)) as house:
        await house.drop("call.wav")
        await house.rest()
        stats = await house.stats()

    assert (stats.held, stats.done) == (1, 0)
    assert house.providers["second"].calls == []


async def test_with_both_a_held_first_provider_is_passed_by_and_asked_in_the_end(tmp_path):
    """What the second refuses goes to the third, not to the held one."""
    script = scripts(first=[BAD_KEY] * 9, second=[None, REFUSAL])
    async with House(chained(tmp_path, "both"), script) as house:
        await house.drop("a.wav", b"a")
        await house.rest()
        await house.drop("b.wav", b"b")
        await house.rest()

    assert read_json(tmp_path / "done/a.json")["provider"]["name"] == "second"
    provider = read_json(tmp_path / "done/b.json")["provider"]
    assert (provider["name"], len(provider["path"])) == ("third", 1)


async def test_a_doubtful_refusal_is_no_reason_to_ask_another(tmp_path):
    """A 400 that may be the rule's fault is not paid for at the next provider."""
    doubtful = AudioRejected("http_400", "what?", status=400, maybe_rule=True)
    async with House(chained(tmp_path, "both"), scripts(first=[doubtful])) as house:
        await house.drop("call.wav")
        await house.rest()

    assert read_json(tmp_path / "failed/call.error.json")["code"] == "http_400"
    assert house.providers["second"].calls == []


async def test_an_empty_file_goes_nowhere(tmp_path):
    """It is empty for every provider."""
    async with House(chained(tmp_path, "both"), scripts()) as house:
        await house.drop("empty.wav", b"")
        await house.rest()

    assert read_json(tmp_path / "failed/empty.error.json")["attempts"] == []


async def test_the_way_survives_a_new_start(tmp_path):
    """A refusal is in the queue: after a restart the first is not asked again."""
    config = chained(tmp_path, "refused")
    busy = TemporaryFailure("http_503", status=503, retry_after_seconds=0.01)
    wait = make_config(tmp_path, retry={"first_seconds": 30.0, "max_seconds": 30.0}).retry
    async with House(
        dataclasses.replace(config, retry=wait), scripts(first=[REFUSAL], second=[busy])
    ) as house:
        await house.drop("call.wav")
        await house.until(lambda: house.providers["second"].calls)
        await house.rest()
    async with House(config, scripts()) as house:
        await house.store.do(lambda db: db.execute("UPDATE jobs SET due_at = 0"))
        house.engine.signals.wake.set()
        await house.until(lambda: house.listener.files)

    assert house.providers["first"].calls == []
    assert read_json(tmp_path / "done/call.json")["provider"]["path"] == [
        {"provider": "first", "code": "bad_format"}
    ]


async def test_a_provider_that_left_the_list_keeps_no_file(tmp_path):
    """A file on its way to a provider that the rule no longer names is free again at the next start."""
    config = chained(tmp_path, "refused")
    busy = TemporaryFailure("http_503", status=503, retry_after_seconds=30.0)
    async with House(config, scripts(first=[REFUSAL], second=[busy])) as house:
        await house.drop("call.wav")
        await house.until(lambda: house.providers["second"].calls)
        await house.rest()
    rule = dataclasses.replace(config.folders["calls"], providers=("first", "third"))
    async with House(dataclasses.replace(config, folders={"calls": rule}), scripts()) as house:
        await house.store.do(lambda db: db.execute("UPDATE jobs SET due_at = 0"))
        house.engine.signals.wake.set()
        await house.until(lambda: house.listener.files)

    assert tree(tmp_path / "done") >= {"call.wav", "call.json"}


@pytest.mark.parametrize("fallback", ["refused", "held"])
async def test_a_locked_queue_loses_no_answer(tmp_path, monkeypatch, fallback):
    """Somebody locks the database just when the answer has come: it is waited for, and paid for once."""
    monkeypatch.setattr(retrying_database, "RETRY_SECONDS", 0.05)
    busy = []

    def lock(_audio):
        busy.append(StoreBusy("queue.db", "locked"))

    providers = {name: ScriptedProvider([lock]) for name in NAMES}
    budget = Budget(per_day=Limit(600.0, is_money=False))
    async with House(chained(tmp_path, fallback, budget=budget), providers) as house:
        do = house.store.do

        async def locked(work):
            if busy:
                raise busy.pop()
            return await do(work)

        house.store.do = locked
        await house.drop("call.wav")
        await house.until(lambda: house.listener.files)

    assert tree(tmp_path / "done") >= {"call.wav", "call.json"}
    assert providers["first"].calls == [b"call.wav"]
