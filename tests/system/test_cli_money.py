"""What ``status``, ``why`` and ``plan`` say about providers in a list, budgets and a backlog."""

from __future__ import annotations

import contextlib
import json
import sqlite3
import time
from importlib import resources

import pytest

from dropscribe.config.extras import LIBRARIES
from dropscribe.core.model import AttemptEnd
from dropscribe.core.routing import BACKLOG
from dropscribe.core.text.printing import amount_words
from dropscribe.queue.embedded.store import MIGRATIONS
from support.scene import Scene, add_attempt, add_hold, add_job, add_pause, json_of, wav_bytes

CHAIN = """\
state_dir: state
providers:
  main: {type: openai, url: "http://127.0.0.1:9/v1", max_upload: 1KB, price_per_minute: 0.6}
  other: {type: openai, url: "http://127.0.0.1:9/v1", price_per_minute: 6}
folders:
  calls: {inbox: inbox, provider: [main, other], fallback: both}
"""


def test_why_names_who_refused_a_file_that_waits(tmp_path, capsys):
    """The refusal, the turn in the queue, and the attempt are told."""
    scene = Scene(tmp_path, CHAIN)
    file = scene.drop("call.wav")
    with scene.queue() as store:
        job_id = add_job(store, scene, "call.wav", pin="other", code="too_large", reason="too large")
        refusal = AttemptEnd(0.0, code="too_large", reason="too large", counted=False)
        add_attempt(store, job_id, time.time(), refusal)
        store.call(lambda db: db.execute("UPDATE attempts SET refused = 1")).result()
        scene.write_live()
        explanation = json_of(scene, capsys, "why", file)
    assert explanation["state"] == "queued"
    assert "main refused it (too_large)" in explanation["words"]
    assert "it is the next in the queue" in explanation["words"]


@pytest.mark.parametrize(("prepare", "provider"), [("never", "other"), ("when_needed", "main")])
def test_plan_counts_with_the_provider_that_takes_the_file(tmp_path, capsys, monkeypatch, prepare, provider):
    """A file too large for the first is planned with the second, unless it is made to fit."""
    monkeypatch.setitem(LIBRARIES, "media", ())
    scene = Scene(tmp_path, CHAIN.replace("fallback: both", f"fallback: both, prepare: {prepare}"))
    scene.drop("large.wav", wav_bytes(60))
    scene.drop("small.wav", b"small")
    files = {file["path"]: file for file in json_of(scene, capsys, "plan")["folders"]["calls"]["files"]}
    assert files["large.wav"]["provider"] == provider
    assert files["large.wav"]["reason"] is None
    assert files["small.wav"]["provider"] == "main"


@pytest.mark.parametrize(
    ("keys", "reason"),
    [
        ("prepare: never", "larger than max_upload (1.0 kB): it goes to failed, unsent"),
        ("silence: skip", "larger than max_upload (1.0 kB): it goes to failed, unsent, unless it is silent"),
        ("prepare: when_needed", None),
        ("channels: split", None),
    ],
)
def test_plan_tells_a_file_that_is_too_large_from_one_that_is_made_smaller(
    tmp_path, capsys, monkeypatch, keys, reason
):
    """A rule that only looks for silence sends recordings as they are."""
    monkeypatch.setitem(LIBRARIES, "media", ())
    rule = f"calls: {{inbox: inbox, provider: main, {keys}}}"
    scene = Scene(tmp_path, CHAIN.replace(CHAIN[CHAIN.index("calls:") :], rule))
    scene.drop("large.wav", wav_bytes(60))
    folder = json_of(scene, capsys, "plan")["folders"]["calls"]
    assert (folder["files"][0]["reason"], folder["totals"]["files"]) == (reason, int(reason is None))


def test_plan_says_how_many_files_it_has_opened(tmp_path, capsys, monkeypatch):
    """One beyond the limit is judged by its name."""
    monkeypatch.setattr("dropscribe.cli.commands.plan.MOST_OPENED", 1)
    scene = Scene(tmp_path, CHAIN)
    scene.drop("first.wav", wav_bytes(1))
    scene.drop("second.wav", wav_bytes(2))
    assert scene.run("plan") == 0
    assert "1 file opened, 1 judged by name alone." in capsys.readouterr().out


@pytest.mark.parametrize(
    ("fallback", "held", "provider", "reason"),
    [
        ("held", ["main"], "other", None),
        ("held", ["main", "other"], "main", "waits: provider main is held: no credit is left"),
        ("refused", ["main"], "main", "waits: provider main is held: no credit is left"),
    ],
)
def test_plan_names_the_provider_that_is_not_held(tmp_path, capsys, fallback, held, provider, reason):
    """As a run would choose it: a file in the queue and a new one."""
    config = CHAIN.replace("fallback: both", f"fallback: {fallback}").replace("max_upload: 1KB, ", "")
    scene = Scene(tmp_path, config)
    new, queued = scene.drop("new.wav", wav_bytes(1)), scene.drop("queued.wav", wav_bytes(2))
    with scene.queue() as store:
        add_job(store, scene, queued.name)
        for name in held:
            add_hold(store, name=name, since=store.now(), next_probe_at=store.now() + 60)
    files = json_of(scene, capsys, "plan")["folders"]["calls"]["files"]
    told = {file["path"]: (file["state"], file["provider"], file["reason"]) for file in files}
    assert told[new.name] == ("new", provider, reason)
    assert told[queued.name] == ("queued", provider, reason or "it is in the queue already")


@pytest.mark.parametrize(
    ("seconds", "fallback", "provider"),
    [(3600, "held", "other"), (3600, "refused", "main"), (20, "held", "main")],
)
def test_plan_names_the_provider_that_is_not_paused(tmp_path, capsys, seconds, fallback, provider):
    """A long pause counts as a hold for a list; a file that waits for a pause is told so."""
    config = CHAIN.replace("fallback: both", f"fallback: {fallback}").replace("max_upload: 1KB, ", "")
    scene = Scene(tmp_path, config)
    scene.drop("new.wav", wav_bytes(1))
    with scene.queue() as store:
        add_job(store, scene, scene.drop("queued.wav", wav_bytes(2)).name)
        add_pause(store, time.time() + seconds)
        files = json_of(scene, capsys, "plan")["folders"]["calls"]["files"]
    assert [file["provider"] for file in files] == [provider, provider]
    waits = ["waits: provider main is paused" in (file["reason"] or "") for file in files]
    assert waits == [provider == "main"] * 2


def test_plan_names_the_provider_that_a_file_is_assigned_to(tmp_path, capsys):
    """The first one has refused it."""
    scene = Scene(tmp_path, CHAIN)
    scene.drop("call.wav", b"small")
    with scene.queue() as store:
        add_job(store, scene, "call.wav", pin="other")
    (file,) = json_of(scene, capsys, "plan")["folders"]["calls"]["files"]
    assert (file["state"], file["provider"]) == ("queued", "other")


@pytest.mark.parametrize(
    ("first", "second", "cost"),
    [
        ("type: local", "price_per_minute: 6", 6.0),
        ("price_per_minute: 6", "", None),
        ("", "price_per_minute: 6", 6.0),
        ("", "", None),
        ("type: local", "type: local", None),
    ],
)
def test_plan_has_a_cost_where_all_that_is_used_has_a_price(
    tmp_path, capsys, monkeypatch, first, second, cost
):
    """A minute of audio, too large for the first provider; the embedded engine costs nothing."""
    monkeypatch.setitem(LIBRARIES, "local", ())

    def provider(keys, more):
        remote = "type: openai, url: 'http://127.0.0.1:9/v1', "
        return f"{{{'' if 'local' in keys else remote}{more}{keys}}}"

    text = CHAIN.partition("providers:")[0] + (
        f"providers:\n  main: {provider(first, 'max_upload: 1KB, ')}\n  other: {provider(second, '')}\n"
        "folders:\n  calls: {inbox: inbox, provider: [main, other], fallback: both}\n"
    )
    scene = Scene(tmp_path, text)
    scene.drop("large.wav", wav_bytes(60))
    assert json_of(scene, capsys, "plan")["folders"]["calls"]["totals"]["cost"] == cost


BUDGET = CHAIN.replace("[main, other], fallback: both", "main").replace(
    "max_upload: 1KB", "budget: {per_day: 3, per_month: 600min}"
)


def spend(store, money: float, seconds: float, unknown: int = 0, provider: str = "main") -> None:
    """What was paid today at *provider*."""
    today = time.strftime("%Y-%m-%d")
    row = ("provider", provider, today, money, seconds, unknown, time.time())
    sql = "INSERT OR REPLACE INTO spending VALUES (?, ?, ?, ?, ?, ?, ?)"
    store.call(lambda db: db.execute(sql, row)).result()


def test_status_shows_spent_and_left(tmp_path, capsys):
    """A row for each limit; without budgets there is no such table."""
    scene = Scene(tmp_path, BUDGET)
    with scene.queue() as store:
        spend(store, 1.25, 7200.0, unknown=2)
        scene.write_live()
        scene.run("status")
        words = capsys.readouterr().out
        document = json_of(scene, capsys, "status")
    rows = [line.split() for line in words.splitlines() if line.startswith("provider main")]
    assert rows[0] == ["provider", "main", "day", "3.00", "1.25", "1.75", "2", "files"]
    assert rows[1][2:] == ["month", "600.00", "min", "120.00", "min", "480.00", "min", "2", "files"]
    assert document["providers"]["main"]["budget"]["per_day"]["left"] == 1.75
    assert document["folders"]["calls"]["budget"] is None


def test_amounts_below_a_cent_are_shown(tmp_path, capsys):
    """A budget, what is spent of it, and a plan's cost are not 0.00 where they are not nothing."""
    text = BUDGET.replace("{per_day: 3, per_month: 600min}", "{per_day: 0.004}")
    scene = Scene(tmp_path, text.replace("price_per_minute: 0.6", "price_per_minute: 0.006"))
    scene.drop("new.wav", wav_bytes(1))
    with scene.queue() as store:
        spend(store, 0.0031, 31.0)
        scene.run("status")
        words = capsys.readouterr().out
        scene.run("plan")
        plan = capsys.readouterr().out
        spend(store, 0.0041, 41.0)
        reason = json_of(scene, capsys, "status")["providers"]["main"]["reason"]
    (row,) = [line.split() for line in words.splitlines() if line.startswith("provider main")]
    assert row[2:6] == ["day", "0.004", "0.0031", "0.0009"]
    assert "0.0001 " in plan
    assert reason.startswith("the budget of 0.004 a day is spent")


@pytest.mark.parametrize(
    ("amount", "words"),
    [
        (0, "0.00"),
        (3, "3.00"),
        (1234.567, "1234.57"),
        (0.1, "0.10"),
        (0.0999, "0.10"),
        (0.05, "0.05"),
        (0.0126, "0.013"),
        (0.003, "0.003"),
        (1e-6, "0.000001"),
    ],
)
def test_amounts_have_two_digits_at_least(amount, words):
    """Hundredths, and where there are none the first two digits."""
    assert amount_words(amount) == words


def test_a_spent_budget_is_told_by_status_why_and_list(tmp_path, capsys):
    """Until when it lasts; nobody is promised a probe before."""
    scene = Scene(tmp_path, BUDGET)
    file = scene.drop("call.wav")
    with scene.queue() as store:
        spend(store, 3.0, 300.0)
        add_job(store, scene, "call.wav")
        scene.write_live()
        scene.run("status")
        words = capsys.readouterr().out
        document = json_of(scene, capsys, "status")
        explanation = json_of(scene, capsys, "why", file)
        (listed,) = json_of(scene, capsys, "list")["files"]
    assert "provider main is held: the budget of 3.00 a day is spent; it resets at 20" in words
    assert "tried again" not in words
    assert document["folders"]["calls"]["held"] == 1
    assert document["providers"]["main"]["code"] == "budget"
    assert explanation["state"] == "held"
    assert explanation["words"][0].startswith("provider main waits: the budget of 3.00 a day is spent")
    assert "budget" in explanation["remedy"]
    assert (listed["state"], listed["code"]) == ("held", "budget")
    assert listed["reason"].startswith("the budget of 3.00 a day is spent")


def test_a_spent_budget_of_others_is_no_remedy(tmp_path, capsys):
    """The file waits for its own provider, whose credit is empty."""
    text = CHAIN.replace("[main, other], fallback: both", "main").replace(
        "price_per_minute: 6}", "price_per_minute: 6, budget: {per_day: 3}}"
    )
    scene = Scene(tmp_path, text)
    file = scene.drop("call.wav")
    with scene.queue() as store:
        spend(store, 3.0, 300.0, provider="other")
        add_hold(store, since=time.time(), next_probe_at=time.time() + 60)
        add_job(store, scene, "call.wav")
        scene.write_live()
        explanation = json_of(scene, capsys, "why", file)
    assert explanation["state"] == "held"
    assert explanation["remedy"].startswith("dropscribe check --online")


def make_older_queue(scene, version: int) -> None:
    """The database of *version*, with one file."""
    (scene.root / "state").mkdir()
    with contextlib.closing(sqlite3.connect(scene.root / "state/queue.db")) as db:
        for name in MIGRATIONS[:version]:
            db.executescript(resources.files("dropscribe.queue.sql").joinpath(name).read_text("utf-8"))
        db.executescript(
            f"PRAGMA user_version = {version};"
            "INSERT INTO jobs (id, folder, directory, name, identity, stable_inodes, device, inode,"
            " size_bytes, mtime_ns, state, received_at, due_at)"
            " VALUES (1, 'calls', x'', CAST('call.wav' AS BLOB), x'01', 1, 1, 2, 3, 4, 'queued', 5.0, 5.0);"
            "INSERT INTO attempts (job_id, at, provider, seconds, code)"
            " VALUES (1, 5.0, 'main', 1.0, 'http_500');"
        )


@pytest.mark.parametrize("version", range(5, len(MIGRATIONS)))
def test_commands_read_a_queue_that_an_older_daemon_made(tmp_path, capsys, version):
    """Also before the new daemon has started once: what is spent and what waits is told as it is."""
    scene = Scene(tmp_path, BUDGET)
    file = scene.drop("call.wav")
    make_older_queue(scene, version)
    with contextlib.closing(sqlite3.connect(tmp_path / "state/queue.db")) as db, db:
        today = (time.strftime("%Y-%m-%d"), time.time())
        db.execute("INSERT INTO spending VALUES ('provider', 'main', ?, 3.0, 300.0, 0, ?)", today)
    status = json_of(scene, capsys, "status")
    assert status["folders"]["calls"]["held"] == 1
    assert status["providers"]["main"]["code"] == "budget"
    assert json_of(scene, capsys, "why", file)["attempts"][0]["code"] == "http_500"
    assert scene.run("plan") == scene.run("list") == 0


@pytest.mark.parametrize("version", range(1, 5))
@pytest.mark.parametrize("command", ["status", "why", "list"])
def test_commands_name_what_a_queue_too_old_to_be_read_needs(tmp_path, capsys, version, command):
    """The remedy is a start of the new daemon, not a look at the disk."""
    scene = Scene(tmp_path, BUDGET)
    file = scene.drop("call.wav")
    make_older_queue(scene, version)
    assert scene.run(command, *([file] if command == "why" else [])) == 74
    words = capsys.readouterr().err
    assert "queue.db: was made by an older dropscribe (no such " in words
    assert "start this version's daemon once" in words


ASKING = BUDGET.replace("provider: main", "provider: main, backlog: ask")


def test_plan_and_why_say_before_the_first_start_what_would_wait_and_cost(tmp_path, capsys):
    """Nobody has run yet: all of it is backlog, and its price is told."""
    scene = Scene(tmp_path, ASKING)
    file = scene.drop("old.wav", wav_bytes(60))
    folder = json_of(scene, capsys, "plan")["folders"]["calls"]
    assert folder["files"][0]["reason"] == "waits for 'dropscribe release' (backlog: ask)"
    assert folder["totals"]["cost"] == 0.6
    explanation = json_of(scene, capsys, "why", file)
    assert any("until it is released" in words for words in explanation["words"])
    assert "dropscribe release --folder calls" in explanation["remedy"]


def test_a_backlog_is_told_and_released(tmp_path, capsys):
    """Status and why name the command; it frees the jobs in the database of a running daemon."""
    scene = Scene(tmp_path, ASKING)
    file = scene.drop("old.wav")
    with scene.queue() as store:
        add_job(store, scene, "old.wav", pin=BACKLOG)
        scene.write_live()
        scene.run("status")
        assert "1 file from before the first start; 'dropscribe release" in capsys.readouterr().out
        explanation = json_of(scene, capsys, "why", file)
        planned = json_of(scene, capsys, "plan")["folders"]["calls"]["files"][0]
        assert scene.run("release", "--folder", "calls") == 0
        pins = store.call(lambda db: db.execute("SELECT pin FROM jobs").fetchall()).result()
    assert (explanation["state"], explanation["remedy"]) == ("held", "dropscribe release --folder calls")
    assert planned["reason"].startswith("waits for")
    assert pins == [("",)]
    assert "calls: 1 file goes on\n" in capsys.readouterr().out


def test_release_of_what_is_not_there(scene, capsys):
    """A rule of no such name is a config error; before the first run nothing can wait."""
    assert scene.run("release", "--folder", "cals") == 78
    assert "did you mean 'calls'?" in capsys.readouterr().err
    assert scene.run("release", "--folder", "calls") == 74
    with scene.queue():
        assert scene.run("release", "--folder", "calls") == 0
    assert "nothing waited" in capsys.readouterr().out


def test_a_backlog_needs_a_release_also_while_the_daemon_is_down(tmp_path, capsys):
    """A start alone would not let it go, so `release` stands first among what is to be done."""
    scene = Scene(tmp_path, ASKING)
    with scene.queue() as store:
        add_job(store, scene, "old.wav", pin=BACKLOG)
    scene.drop("old.wav")
    scene.run("why", "--json", scene.root / "inbox" / "old.wav")
    remedy = json.loads(capsys.readouterr().out)["remedy"]
    assert remedy.startswith("dropscribe release --folder calls")
    assert "start dropscribe" in remedy
