"""An account's trouble is not a file's trouble: holds, probes, releases, lists."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from types import SimpleNamespace

import pytest
from structlog.testing import capture_logs

from dropscribe.config.load import load_config
from dropscribe.config.model import FolderRule, ProviderConfig
from dropscribe.core.errors import (
    AmbiguousFailure,
    AudioRejected,
    ProviderUnusable,
    RuleRejected,
    TemporaryFailure,
)
from dropscribe.core.model import Hold, Scope, ScopeKind
from dropscribe.providers.build import build_provider
from dropscribe.providers.jobs import UNNAMED_STATE
from support.emulator import Emulator, Fault
from support.house import House, make_config, read_json, tree
from support.inboxes import wav
from support.scripted import ScriptedProvider
from support.vendors import KEY
from support.whole import Whole

MAIN = Scope(ScopeKind.PROVIDER, "main")


class Moody(ScriptedProvider):
    """Fails with *trouble* until it is None; says when it was asked."""

    def __init__(self, trouble=None):
        super().__init__()
        self.trouble = trouble
        self.asked_at = []

    async def _play(self, step, audio):
        self.asked_at.append(time.monotonic())
        answer = await super()._play(step, audio)
        if self.trouble is not None:
            raise self.trouble
        return answer


def _providers(*names, **keys):
    return {name: ProviderConfig(name=name, type="openai", **{"concurrency": 1, **keys}) for name in names}


def _rules(root, *names, providers=("main",)):
    return {
        name: FolderRule(
            name=name,
            inbox=root / name,
            providers=providers,
            **{part: root / f"{name}-{part}" for part in ("done", "failed")},
        )
        for name in names
    }


async def test_probes_come_one_at_a_time_and_less_and_less_often(tmp_path):
    """At hold.first, doubling to hold.max, with one file each; after the release all go at once."""
    script = Moody(ProviderUnusable("unauthorized", status=401))
    config = make_config(tmp_path, providers=_providers("main", concurrency=4), hold=(0.1, 0.4))
    async with House(config, {"main": script}) as house:
        await house.drop("0.wav", b"0")
        await house.until(lambda: house.listener.holds)
        for number in range(1, 6):
            await house.drop(f"{number}.wav", b"%d" % number)
        await house.until(lambda: len(script.asked_at) >= 5)
        gaps = [later - sooner for sooner, later in zip(script.asked_at, script.asked_at[1:], strict=False)]
        assert all(gap >= wait * 0.95 for gap, wait in zip(gaps, [0.1, 0.2, 0.4, 0.4], strict=False))
        assert script.most_in_flight == 1
        stats = await house.stats()
        assert (stats.held + stats.transcribing, stats.failed) == (6, 0)
        script.trouble = None
        await house.until(lambda: len(house.listener.files) == 6)

    assert (len(house.listener.holds), len(house.listener.releases)) == (1, 1)
    assert {read_json(path)["job"]["attempts"] for path in (tmp_path / "done").glob("*.json")} == {1}


async def test_an_accepted_upload_does_not_end_a_hold_for_jobs_whose_end_is_not_named(tmp_path):
    """All files would be accepted, paid for, and wait for ever; a job with a named end ends the hold."""
    async with House(make_config(tmp_path, providers=_providers("main"))) as house:
        await house.drop("call.wav")
        await house.until(lambda: house.listener.files)  # the holds of the last run are read by then
        policy, job = house.handler.attempts.holds, SimpleNamespace(provider="main", folder="calls")
        for code, ends in (
            ("unauthorized", {policy.accepted, policy.answered, policy.succeeded}),
            (UNNAMED_STATE, {policy.answered, policy.succeeded}),
        ):
            for tell in (policy.accepted, policy.answered, policy.succeeded):
                await house.engine.holds.hold(Hold(MAIN, code, "why", 0.0, 9e9, 60.0))
                await tell(job)
                assert (house.engine.holds.get(MAIN) is None) == (tell in ends)


async def test_other_providers_and_rules_never_notice(tmp_path):
    """One provider held, and one rule of another held: the rest is filed as ever."""
    rules = {
        **_rules(tmp_path, "unpaid", providers=("broke",)),
        **_rules(tmp_path, "wrong", "good", providers=("well",)),
    }

    def answer(audio):
        return RuleRejected("bad_param", status=400) if b"wrong" in audio.name else None

    scripts = {"broke": Moody(ProviderUnusable("quota", status=402)), "well": ScriptedProvider([answer] * 99)}
    config = make_config(tmp_path, rules=rules, providers=_providers("broke", "well"), hold=(30.0, 60.0))
    async with House(config, scripts) as house:
        for name in rules:
            for number in range(3):
                await house.drop(f"{name} {number}.wav", f"{name} {number}".encode(), folder=name)
        await house.rest()
        stats = {name: await house.stats(name) for name in rules}

    assert [(each.done, each.held, each.failed) for each in stats.values()] == [
        (0, 3, 0),
        (0, 3, 0),
        (3, 0, 0),
    ]
    assert {hold.scope.name for hold in house.listener.holds} == {"broke", "wrong"}


async def test_a_hold_survives_a_restart(tmp_path, queue_kind):
    """It is still held, since when it was; a daemon of one machine probes it at once, with one file."""
    config = make_config(tmp_path, hold=(60.0, 60.0))
    script = Moody(ProviderUnusable("unauthorized", "bad key", status=401))
    async with House(config, {"main": script}) as house:
        for name in ("a.wav", "b.wav", "c.wav"):
            await house.drop(name, name.encode())
        await house.until(lambda: house.listener.holds)
        await house.rest()
        before = house.engine.holds.get(MAIN)
    still = Moody(ProviderUnusable("unauthorized", "bad key", status=401))
    async with House(config, {"main": still}) as house:
        await house.until(lambda: len(still.calls) == (queue_kind == "embedded"))
        await house.rest()
        held = house.engine.holds.get(MAIN)
        assert (await house.stats()).held == 3
    assert held.since == before.since
    repaired = Moody()
    async with House(config, {"main": repaired}) as house:
        if queue_kind != "embedded":
            await house.until(lambda: house.engine.holds.get(MAIN))
            house.engine.holds.probe_now(MAIN)  # the other nodes have not stopped
        await house.until(lambda: len(house.listener.files) == 3)

    assert len(still.calls) == (queue_kind == "embedded")
    assert len(house.listener.releases) == 1


async def test_retry_after_slows_the_provider_and_not_only_the_file(tmp_path):
    """After a 429 nothing is sent before its time, of any folder."""
    rules = _rules(tmp_path, "one", "two")
    script = ScriptedProvider(
        [TemporaryFailure("rate_limited", status=429, retry_after_seconds=0.4, slows_provider=True)]
    )
    asked = []
    transcribe = script.transcribe

    async def timed(audio, params):
        asked.append(time.monotonic())
        return await transcribe(audio, params)

    script.transcribe = timed
    config = make_config(tmp_path, rules=rules, providers=_providers("main"))
    async with House(config, {"main": script}) as house:
        await house.drop("1.wav", b"1", folder="one")
        await house.drop("2.wav", b"2", folder="two")
        await house.until(lambda: len(house.listener.files) == 2)

    assert asked[1] - asked[0] >= 0.38
    assert house.listener.holds == []


@pytest.mark.parametrize("asked_seconds", [3600.0, 60.0])
async def test_a_long_pause_sends_files_to_the_next_of_a_list(tmp_path, asked_seconds):
    """An hour is not waited for, also not by the file that was told of it; a minute is."""
    busy = TemporaryFailure("busy", status=429, retry_after_seconds=asked_seconds, slows_provider=True)
    script = {"first": ScriptedProvider([busy]), "second": ScriptedProvider()}
    config = make_config(tmp_path, providers=_providers("first", "second"))
    async with House(config, script) as house:
        await house.drop("1.wav", b"1")
        await house.until(lambda: house.engine.rates.pauses)
        await house.drop("2.wav", b"2")
        if asked_seconds > 60:
            await house.until(lambda: len(house.listener.files) == 2)
        else:
            await house.rest()
        assert not house.listener.holds

    assert script["first"].calls == [b"1.wav"]
    assert sorted(script["second"].calls) == ([b"1.wav", b"2.wav"] if asked_seconds > 60 else [])


async def test_one_file_that_is_always_answered_503_does_not_stop_the_others(tmp_path):
    """Its own waits grow with its attempts; the pause of the provider stays short."""

    def answer(audio):
        return TemporaryFailure("busy", status=503, slows_provider=True) if audio.name == b"bad.wav" else None

    script = ScriptedProvider([answer] * 99)
    config = make_config(tmp_path, retry={"max_seconds": 600.0, "give_up_after_seconds": 6000.0})
    async with House(config, {"main": script}) as house:
        await house.drop("bad.wav", b"bad")
        await house.until(lambda: script.calls.count(b"bad.wav") >= 7 and script.in_flight == 0)
        pause = house.engine.rates.pauses.get("main")
        assert pause is None or pause.until - house.engine.now() <= 0.01
        await house.drop("good.wav", b"good")
        await house.until(lambda: house.listener.files)

    assert house.listener.holds == []


async def test_one_file_that_cannot_connect_holds_nothing_and_three_do(tmp_path):
    """The same failure again and again of one file is not enough; three different ones in a row are."""
    script = Moody(TemporaryFailure("connect_failed", "refused"))
    config = make_config(tmp_path, hold=(30.0, 60.0), retry={"give_up_after_seconds": 600.0})
    async with House(config, {"main": script}) as house:
        await house.drop("1.wav", b"1")
        await house.until(lambda: len(script.calls) >= 5)
        assert house.listener.holds == []
        await house.drop("2.wav", b"2")
        await house.drop("3.wav", b"3")
        await house.until(lambda: house.listener.holds)
        await house.rest()
        assert (await house.stats()).held == 3


async def test_a_verdict_on_a_file_releases_its_provider(tmp_path):
    """A probe that is refused for its own sake shows that the provider is there and takes the key."""
    script = Moody(ProviderUnusable("unauthorized", status=401))
    async with House(make_config(tmp_path, hold=(0.05, 0.05)), {"main": script}) as house:
        await house.drop("call.wav")
        await house.until(lambda: house.listener.holds)
        script.trouble = AudioRejected("bad_format", status=415)
        await house.until(lambda: house.listener.files)

    assert len(house.listener.releases) == 1
    assert tree(tmp_path / "failed") == {"call.wav", "call.error.json"}


def _refuse_short_clips(audio):
    if not audio.name.startswith(b"short"):
        return None
    words = f"{os.fsdecode(audio.name)}: 0.0{audio.size_bytes} s is too short (request {audio.sha256[:8]}7)"
    return AudioRejected("http_400", words, status=400, maybe_rule=True)


@pytest.mark.parametrize("good_at", [0, 6, 12])
async def test_bad_clips_do_not_keep_a_good_one_from_its_end(tmp_path, good_at):
    """Twelve clips with the same plain 400 hold the rule; a good call before, among or after them is done."""
    script = ScriptedProvider([_refuse_short_clips] * 9999)
    config = make_config(tmp_path, providers=_providers("main"), hold=(0.02, 0.05))
    names = [f"short {number}.wav" for number in range(12)]
    names.insert(good_at, "good.wav")
    async with House(config, {"main": script}) as house:
        for name in names:
            await house.drop(name, name.encode())
        await house.until(lambda: house.listener.holds and (tmp_path / "done/good.wav").exists())

    assert tree(tmp_path / "done") == {"good.wav", "good.json", "good.txt"}
    assert script.calls.count(b"good.wav") == 1


async def test_a_rule_whose_parameters_are_wrong_does_not_fail_its_backlog(tmp_path):
    """Plain 400s for everything hold the rule; a probe costs one file, a good answer frees the rest."""
    refusal = AudioRejected("http_400", "unknown language", status=400, maybe_rule=True)
    script = Moody(refusal)
    config = make_config(tmp_path, providers=_providers("main"), hold=(0.05, 30.0))
    async with House(config, {"main": script}) as house:
        for number in range(20):
            await house.drop(f"{number}.wav", b"%d" % number)
        await house.until(lambda: len(script.calls) >= 4)
        script.trouble = None
        house.engine.holds.probe_now(Scope(ScopeKind.FOLDER, "calls"))
        await house.until(lambda: len(house.listener.files) == 20)

    assert len(list((tmp_path / "failed").glob("*.error.json"))) in {3, 4}
    assert len(set(script.calls)) == 20


async def test_a_rule_that_has_worked_is_held_after_three_refusals_too(tmp_path):
    """A success before them changes nothing: the third of three files with the same plain 400 holds it."""
    script = Moody()
    config = make_config(tmp_path, providers=_providers("main"), hold=(30.0, 60.0))
    async with House(config, {"main": script}) as house:
        await house.drop("good.wav", b"good")
        await house.until(lambda: house.listener.files)
        script.trouble = AudioRejected("http_400", "unknown language", status=400, maybe_rule=True)
        for number in range(6):
            await house.drop(f"{number}.wav", b"%d" % number)
        await house.until(lambda: house.listener.holds)
        await house.rest()
        stats = await house.stats()

    assert (stats.done, stats.failed, stats.held) == (1, 2, 4)


@pytest.mark.parametrize(("code", "status"), [("http_400", 400), ("job_failed", 200)])
async def test_a_rule_that_stays_wrong_stops_losing_files(tmp_path, code, status):
    """However long its parameters are refused, few files fail; the others wait and are done at last."""
    script = Moody(AudioRejected(code, "unknown language", status=status, maybe_rule=True))
    config = make_config(tmp_path, providers=_providers("main"), hold=(0.01, 0.02))
    async with House(config, {"main": script}) as house:
        for number in range(12):
            await house.drop(f"{number}.wav", b"%d" % number)
        await house.until(lambda: len(script.calls) > 24)
        assert (await house.stats()).held >= 7
        script.trouble = None
        await house.until(lambda: len(house.listener.files) == 12)

    assert len(list((tmp_path / "failed").glob("*.error.json"))) <= 5
    assert len(set(script.calls)) == 12


async def test_a_file_whose_answer_was_paid_for_is_not_sent_again_to_probe_its_rule(tmp_path):
    """Answers too large hold the rule, so that fewer are paid for; each file is sent once and fails."""
    script = Moody(AudioRejected("answer_too_large", "too many values", status=200, maybe_rule=True))
    config = make_config(tmp_path, providers=_providers("main"), hold=(0.01, 0.02))
    async with House(config, {"main": script}) as house:
        for number in range(7):
            await house.drop(f"{number}.wav", b"%d" % number)
        await house.until(lambda: len(script.calls) > 7 or len(house.listener.files) == 7)

    assert sorted(script.calls) == [b"%d.wav" % number for number in range(7)]
    assert len(house.listener.holds) == 1


async def test_refusals_in_different_words_are_no_series(tmp_path):
    """Three bad files in three different ways are three bad files."""
    refusals = [
        AudioRejected("http_400", words, status=400, maybe_rule=True)
        for words in ("too short", "no audio track", "unknown codec")
    ]
    async with House(make_config(tmp_path), {"main": ScriptedProvider(list(refusals))}) as house:
        for number in range(4):
            await house.drop(f"{number}.wav", b"%d" % number)
        await house.until(lambda: len(house.listener.files) == 4)

    assert house.listener.holds == []
    assert len(list((tmp_path / "failed").glob("*.error.json"))) == 3


async def test_a_login_page_for_different_files_holds_the_provider(tmp_path):
    """No file ends because of a page in between; all are done once it is gone."""
    script = Moody(TemporaryFailure("html_page", "an HTML page", status=200))
    config = make_config(tmp_path, hold=(0.02, 0.05))
    async with House(config, {"main": script}) as house:
        for number in range(5):
            await house.drop(f"{number}.wav", b"%d" % number)
        await house.until(lambda: house.listener.holds and len(script.calls) > 12)
        script.trouble = None
        await house.until(lambda: len(house.listener.files) == 5)

    assert not (tmp_path / "failed").exists()


async def test_after_an_ambiguous_attempt_a_file_stays_with_its_provider(tmp_path):
    """It may have been paid for there; also while that provider is held, the next one does not get it."""
    first = ScriptedProvider([AmbiguousFailure("no_answer"), ProviderUnusable("unauthorized", status=401)])
    second = ScriptedProvider()
    config = make_config(tmp_path, providers=_providers("first", "second"), hold=(600.0, 600.0))
    async with House(config, {"first": first, "second": second}) as house:
        await house.drop("pinned.wav", b"1")
        await house.until(lambda: house.listener.holds)
        await house.drop("free.wav", b"2")
        await house.until(lambda: len(house.listener.files) == 1)
        house.engine.holds.probe_now(Scope(ScopeKind.PROVIDER, "first"))
        await house.until(lambda: len(house.listener.files) == 2)

    assert second.calls == [b"free.wav"]
    assert read_json(tmp_path / "done/pinned.json")["provider"]["name"] == "first"


async def test_when_all_are_held_a_file_waits_for_the_first_that_is_released(tmp_path):
    """Each of the list is probed; the one that is well first takes all that waits."""
    first = Moody(ProviderUnusable("unauthorized", status=401))
    second = Moody(ProviderUnusable("insufficient_quota", status=429))
    config = make_config(tmp_path, providers=_providers("first", "second"), hold=(0.05, 0.05))
    async with House(config, {"first": first, "second": second}) as house:
        for number in range(3):
            await house.drop(f"{number}.wav", b"%d" % number)
        await house.until(lambda: len(house.listener.holds) == 2)
        await house.until(lambda: min(len(first.calls), len(second.calls)) >= 2)
        second.trouble = None
        await house.until(lambda: len(house.listener.files) == 3)

    names = {read_json(path)["provider"]["name"] for path in (tmp_path / "done").glob("*.json")}
    assert names == {"second"}


# Through the real adapters -------------------------------------------------------------------------

TROUBLE = {
    "401": Fault(status=401, body={"error": {"message": "bad key", "code": "invalid_api_key"}}),
    "402": Fault(status=402, body={"error": {"message": "pay first"}}),
    "403": Fault(status=403, body={"error": {"message": "not for you"}}),
    "quota": Fault(status=429, body={"error": {"message": "spent", "code": "insufficient_quota"}}),
    "model": Fault(status=404, body={"error": {"message": "no such model", "code": "model_not_found"}}),
    "redirect": Fault(status=301, body="", headers={"Location": "https://elsewhere.invalid/"}),
    "parameter": Fault(
        status=400,
        body={"error": {"message": "no such parameter", "code": "unknown_parameter", "param": "languag"}},
    ),
}


@pytest.mark.parametrize("trouble", TROUBLE.values(), ids=TROUBLE)
async def test_a_real_refusal_holds_and_lets_go_by_itself(tmp_path, monkeypatch, trouble):
    """Said once at its begin and once at its end; files wait in the inbox and end in done at attempt one."""
    with Emulator() as emulator:
        emulator.fail(*[trouble] * 4)
        path = tmp_path / "dropscribe.yaml"
        path.write_text(
            f"state_dir: state\nproviders: {{main: {{type: openai, url: '{emulator.url}/v1', api_key: {KEY},"
            " concurrency: 1, params: {model: whisper-1}}}\n"
            "folders: {calls: {inbox: inbox, provider: main}}\nhold: {first: 50ms, max: 100ms}\n"
        )
        (tmp_path / "inbox").mkdir()
        config, _ = load_config(path, environ={})
        provider = build_provider(config.providers["main"])
        with capture_logs() as logs:
            async with Whole(monkeypatch, replace(config), {"main": provider}) as whole:
                for number in range(3):
                    (tmp_path / f"inbox/{number}.wav").write_bytes(wav(100 + number))
                await whole.until(lambda: len(emulator.requests) >= 2)
                assert len(list((tmp_path / "inbox").glob("*.wav"))) == 3
                assert not (tmp_path / "failed").exists()
                await whole.until(lambda: len(tree(tmp_path / "done")) == 9)
    events = [line["event"] for line in logs if line["event"].endswith((".held", ".released"))]
    assert len(events) == 2
    assert events[0].replace("held", "released") == events[1]
    assert {read_json(each)["job"]["attempts"] for each in (tmp_path / "done").glob("*.json")} == {1}
