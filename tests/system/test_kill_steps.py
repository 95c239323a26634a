"""SIGKILL at every durable step of the whole daemon, then a start on what is left."""

from __future__ import annotations

import random
import re
import signal
from pathlib import Path

import pytest

import dropscribe
from support.billing import Weather, billing_emulator
from support.crash_points import COMPANION_POINTS, POINTS, REMOTE_POINTS, SIDE_POINTS
from support.daemon_process import Installation
from support.emulator import Fault
from support.house import digest, read_json, tree
from support.vendors import heard_text

pytestmark = pytest.mark.slow

COPY_POINTS = tuple(point for point in POINTS if point.startswith("cop"))
RENAME_POINTS = tuple(point for point in POINTS if point not in COPY_POINTS)

GOOD = {
    f"{name}.{suffix}": f"{name} {suffix}".encode() * 99 for name in ("a", "b/c") for suffix in ("wav", "mp3")
}
REFUSED = {"b/no.wav": b"no" * 500, "never.wav": b"never" * 500}

WITHOUT_LINKS = """
import errno, os, sys
def refuse(*arguments, **keywords):
    raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))
os.link = refuse
from dropscribe.cli.main import main
sys.exit(main())
"""
"""The command on a file system that has no hard links, such as FAT."""


@pytest.fixture
def vendor():
    """An emulator with a till, to which REFUSED is no audio."""
    emulator, till = billing_emulator()
    till.refused = {digest(content) for content in REFUSED.values()}
    with emulator:
        yield emulator, till


def every_file_ended_once(site: Installation, till) -> None:
    """All audio is in done or failed, unchanged, with sidecars of its own, and nothing else is anywhere."""
    assert tree(site.inbox) == set()
    assert_group(site.done, GOOD, ("json", "txt"))
    assert_group(site.failed, REFUSED, ("error.json",))
    for name, content in GOOD.items():
        filed = find(site.done, content)
        document = read_json(filed.with_suffix(".json"))
        assert document["source"]["path"] == name
        assert document["text"] == heard_text(len(content), digest(content))
        assert filed.with_suffix(".txt").read_text().strip() == document["text"]
    for name, content in REFUSED.items():
        assert read_json(find(site.failed, content).with_suffix(".error.json"))["file"] == Path(name).name


def assert_group(folder: Path, contents: dict[str, bytes], forms: tuple[str, ...]) -> None:
    """The folder holds these contents, each with one sidecar a form, and no other file."""
    found = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    audio = {path for path in found if path.suffix in {".wav", ".mp3"}}
    assert sorted(found[path] for path in audio) == sorted(contents.values())
    sidecars = {path.with_suffix(f".{form}") for path in audio for form in forms}
    assert found.keys() == audio | sidecars


def find(folder: Path, content: bytes) -> Path:
    """Where the one file with this content stands."""
    (found,) = (path for path in folder.rglob("*") if path.is_file() and path.read_bytes() == content)
    return found


def drop_all(site: Installation) -> None:
    """GOOD and REFUSED into the inbox."""
    for name, content in (GOOD | REFUSED).items():
        site.drop(name, content)


def kill_and_go_on(site: Installation, point: str, till, program: str | None = None) -> None:
    """Die the second time that *point* is reached (files are submitted at once); the next start ends all."""
    drop_all(site)
    assert site.run_once(point if point == "submitted" else f"{point}:2", program) == -signal.SIGKILL
    some_fail_yet = site.status()["failed"] < len(REFUSED)
    assert site.run_once(program=program) == (3 if some_fail_yet else 0)
    every_file_ended_once(site, till)
    status = site.status()
    assert (status["done"], status["failed"]) == (len(GOOD), len(REFUSED))
    assert till.paid_again() <= status["maybe_paid_twice"]
    assert status["maybe_paid_twice"] <= site.config()["providers"]["pulse"]["concurrency"]


@pytest.mark.parametrize("point", RENAME_POINTS)
def test_a_kill_at_a_durable_step_loses_nothing(tmp_path, vendor, point):
    """Whatever step the kill hits, the next start files every audio once, with its own sidecars."""
    emulator, till = vendor
    kill_and_go_on(Installation(tmp_path, emulator.url), point, till)


@pytest.mark.parametrize("point", COPY_POINTS)
def test_a_kill_on_the_way_to_another_file_system_loses_nothing(tmp_path, vendor, other_file_system, point):
    """The same where done is another file system, and the audio is copied before it is let go."""
    emulator, till = vendor
    done, failed = str(other_file_system / "done"), str(other_file_system / "failed")
    kill_and_go_on(Installation(tmp_path, emulator.url, rule={"done": done, "failed": failed}), point, till)


@pytest.mark.parametrize(
    "point", ["sidecar_written", "sidecar_linked", "sidecars_synced", "audio_moved", "published"]
)
def test_a_kill_on_a_file_system_without_links_loses_nothing(tmp_path, vendor, point):
    """The same where a hidden mark, and no second link, says which files are ours."""
    emulator, till = vendor
    kill_and_go_on(Installation(tmp_path, emulator.url), point, till, WITHOUT_LINKS)


@pytest.mark.parametrize("point", ["kept", "sidecar_linked", "sidecars_synced", "audio_moved", "published"])
def test_an_answer_that_was_kept_is_not_paid_again(tmp_path, vendor, point):
    """With one upload at a time, a kill after the answer was kept repeats no upload at all."""
    emulator, till = vendor
    site = Installation(tmp_path, emulator.url)
    site.drop("one.wav", b"one")
    assert site.run_once(point) == -signal.SIGKILL
    assert site.run_once() == 0
    assert till.paid == {digest(b"one"): 1}
    assert site.status()["maybe_paid_twice"] == 0


def test_an_answer_that_was_lost_is_counted_and_named(tmp_path, vendor):
    """A kill between the answer and the line on disk pays twice; status counts it and why names the file."""
    emulator, till = vendor
    site = Installation(tmp_path, emulator.url)
    path = site.drop("one.wav", b"one")
    assert site.run_once("answered") == -signal.SIGKILL
    assert site.run_once() == 0
    assert till.paid == {digest(b"one"): 2}
    assert site.status()["maybe_paid_twice"] == 1
    attempts = site.ask("why", str(path))["attempts"]
    assert [(attempt["code"], attempt["counted"]) for attempt in attempts] == [
        ("interrupted", False),
        ("", True),
    ]


def test_a_start_that_dies_while_it_recovers_is_no_worse(tmp_path, vendor):
    """Killed in flight, and killed again right after its rows were put in order: the third start ends it."""
    emulator, till = vendor
    site = Installation(tmp_path, emulator.url)
    drop_all(site)
    assert site.run_once("answered:2") == -signal.SIGKILL
    assert site.run_once("recovered") == -signal.SIGKILL
    assert site.run_once() == 3
    every_file_ended_once(site, till)


def test_a_hold_survives_the_kill_that_follows_it(tmp_path, vendor):
    """A provider held for its key is still held after a kill, files in the inbox, and goes on by itself."""
    emulator, _till = vendor
    hold = {"hold": {"first": "300ms", "max": "300ms"}}
    site = Installation(tmp_path, emulator.url, provider={"concurrency": 1}, extra=hold)
    emulator.fail(Fault(status=401, body={"error": "unauthorized"}))
    path = site.drop("one.wav", b"one")
    assert site.run_once("held") == -signal.SIGKILL
    assert site.ask("status")["providers"]["pulse"]["state"] == "held"
    assert path.exists()
    with site.start() as process:
        process.until_logged("file.done")
        assert process.logged("provider.released")
        assert process.stop() == 0


@pytest.mark.parametrize("point", ["submitted", "error_removed"])
def test_a_kill_while_a_failed_file_is_taken_back_leaves_no_error_file(tmp_path, vendor, point):
    """Put back by hand: whenever it dies, at the end the audio is done and its error file gone."""
    emulator, till = vendor
    site = Installation(tmp_path, emulator.url)
    site.drop("one.wav", b"one")
    till.refused = {digest(b"one")}
    assert site.run_once() == 3
    till.refused = set()
    (site.failed / "one.wav").rename(site.inbox / "one.wav")
    assert site.run_once(point) == -signal.SIGKILL
    assert site.run_once() == 0
    assert tree(site.failed) == set()
    assert tree(site.done) == {"one.wav", "one.json", "one.txt"}
    assert site.status()["failed"] == 0


NAME_TAKEN_LATE = """
import os, sys
from dropscribe.publish import moving
move = moving.move_new
def move_too_late(source, target, *rest):
    moving.move_new = move
    descriptor = os.open(target.name, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600, dir_fd=target.folder)
    os.write(descriptor, b"somebody else's")
    os.close(descriptor)
    move(source, target, *rest)
moving.move_new = move_too_late
from dropscribe.cli.main import main
sys.exit(main())
"""
"""The command, and somebody who takes the audio's name in the last instant."""


def test_a_kill_while_a_taken_name_is_left_to_its_owner_loses_nothing(tmp_path, vendor):
    """Its own sidecars were withdrawn and nothing was written since: the next start takes the next number."""
    emulator, till = vendor
    site = Installation(tmp_path, emulator.url)
    site.drop("one.wav", b"one")
    assert site.run_once("taken_back", NAME_TAKEN_LATE) == -signal.SIGKILL
    assert site.run_once() == 0
    assert (site.done / "one.wav").read_bytes() == b"somebody else's"
    assert (site.done / "one-2.wav").read_bytes() == b"one"
    assert tree(site.done) == {"one.wav", "one-2.wav", "one-2.json", "one-2.txt"}
    assert sum(till.paid.values()) == 1


KILLER = """
import os, signal, sys
from dropscribe.files.audio import AudioFile
real_open = AudioFile.open.__func__
def open_or_die(cls, root, path, *rest):
    if path == b"killer.wav":
        os.kill(os.getpid(), signal.SIGKILL)
    return real_open(cls, root, path, *rest)
AudioFile.open = classmethod(open_or_die)
from dropscribe.cli.main import main
sys.exit(main())
"""
"""The command, and a file that kills it each time that it is opened for an upload."""


def test_a_file_that_kills_the_daemon_ends_in_failed_and_its_neighbours_in_done(tmp_path, vendor):
    """It fails after max_crashes; files that were in flight with it each time never fail for it."""
    emulator, _till = vendor
    site = Installation(tmp_path, emulator.url, extra={"retry": {"first": "50ms", "max_crashes": 5}})
    emulator.script = Weather(random.Random(0), share_503=0.0, delay_seconds=(0.1, 0.1))
    neighbours = {f"{number}.wav": b"good %d" % number for number in range(3)}
    for name, content in (neighbours | {"killer.wav": b"killer"}).items():
        site.drop(name, content)
    codes = [site.run_once(program=KILLER)]
    while codes[-1] == -signal.SIGKILL:
        assert len(codes) < 20
        codes.append(site.run_once(program=KILLER))
    assert codes[-1] == 3
    assert tree(site.failed) == {"killer.wav", "killer.error.json"}
    assert read_json(site.failed / "killer.error.json")["code"] == "crashed_daemon"
    assert {path.name: path.read_bytes() for path in site.done.glob("*.wav")} == neighbours


def test_every_point_is_killed_at():
    """Each point that the code reaches is one of those that the tests above die at, and the reverse."""
    sources = Path(dropscribe.__file__).parent.rglob("*.py")
    reached = {
        name for path in sources for name in re.findall(r'reached\("(\w+)"\)', path.read_text("utf-8"))
    }
    assert reached == {*POINTS, *SIDE_POINTS, *REMOTE_POINTS, *COMPANION_POINTS}
    assert set(SIDE_POINTS) == {"recovered", "held", "taken_back", "error_removed"}
