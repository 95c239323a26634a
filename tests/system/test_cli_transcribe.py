"""``transcribe`` and ``check --online``: one provider, asked for real on a socket."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import time

import pytest

from dropscribe.cli.commands import check, transcribe
from dropscribe.providers.build import build_provider
from support.daemon_process import wait_until
from support.emulator import Emulator, Fault
from support.house import digest, tree
from support.scene import CONFIG, Scene, wav_bytes
from support.vendors import KEY


@pytest.fixture
def emulator():
    """A provider that takes KEY."""
    with Emulator() as emulator:
        yield emulator


@pytest.fixture
def scene(tmp_path, emulator):
    """Two providers: the first with the right key, `keyless` with a wrong one."""
    providers = "".join(
        f"  {name}:\n    type: openai\n    url: {emulator.url}/v1\n    api_key: {key}\n"
        "    max_upload: 1MB\n    params: {model: whisper-1}\n"
        for name, key in (("good", KEY), ("keyless", "wrong"))
    )
    folders = "folders:\n  calls: {inbox: inbox, provider: good}\n"
    return Scene(tmp_path, f"state_dir: state\nproviders:\n{providers}{folders}")


def test_the_text_goes_to_standard_output(scene, emulator, capfdbinary):
    """Nothing but the transcript, and no folder is involved."""
    emulator.vendors.text = "Hello, this is a test."
    assert scene.run("transcribe", scene.drop("call.wav", part="done")) == 0
    assert capfdbinary.readouterr().out == b"Hello, this is a test.\n"
    assert not (scene.root / "state").exists()


def test_json_is_the_whole_document(scene, emulator, capfdbinary):
    """``--format json`` prints the whole document; its folder is null."""
    assert scene.run("transcribe", scene.drop("call.wav", part="done"), "--format", "json") == 0
    document = json.loads(capfdbinary.readouterr().out)
    assert document["schema"] == "dropscribe.transcript/1"
    assert document["source"]["sha256"] == emulator.requests[-1].audio_sha256
    assert document["job"]["folder"] is None


def test_a_link_on_the_command_line_is_followed(scene, tmp_path, capfdbinary):
    """It is what the user means."""
    link = tmp_path / "link.wav"
    link.symlink_to(scene.drop("call.wav", part="done"))
    assert scene.run("transcribe", link) == 0
    assert capfdbinary.readouterr().out


@pytest.mark.parametrize("name", ["{}", "/dev/fd/{}"])
def test_a_pipe_is_named_with_the_remedy(scene, emulator, tmp_path, capfdbinary, name):
    """A FIFO, or what `/dev/stdin` and a shell's `<(…)` lead to."""
    reader, writer = os.pipe()
    os.mkfifo(tmp_path / "fifo")
    given = name.format(reader) if "fd" in name else str(tmp_path / "fifo")
    assert scene.run("transcribe", given) == 74
    os.close(reader)
    os.close(writer)
    said = capfdbinary.readouterr().err.decode()
    assert said == f"dropscribe: {given}: a pipe is not a regular file; `-` reads standard input\n"
    assert emulator.requests == []


def test_subtitles_of_silence_are_3(scene, emulator, capfdbinary):
    """There are none, and the times are not to blame."""
    emulator.vendors.text = ""
    file = scene.drop("call.wav", part="done")
    assert scene.run("transcribe", "--format", "srt", file) == 3
    assert capfdbinary.readouterr().err.decode() == f"dropscribe: {file}: the provider heard no words\n"


def test_a_refusal_of_the_file_is_3(scene, emulator, capfdbinary):
    """The provider's words, in one line."""
    emulator.fail(Fault(status=400, body={"error": {"message": "Invalid file format.", "code": "bad_file"}}))
    assert scene.run("transcribe", scene.drop("call.wav", part="done")) == 3
    said = capfdbinary.readouterr()
    assert said.out == b""
    assert b"Invalid file format." in said.err
    assert b"Traceback" not in said.err


@pytest.mark.parametrize(("content", "word"), [(b"", b"empty"), (bytes(1_000_001), b"max_upload")])
def test_what_could_only_fail_is_not_sent(scene, emulator, capfdbinary, content, word):
    """An empty or too large file costs nothing."""
    assert scene.run("transcribe", scene.drop("call.wav", content, part="done")) == 3
    assert word in capfdbinary.readouterr().err
    assert emulator.requests == []


def test_each_of_several_files_is_named(scene, monkeypatch, capfdbinary):
    """Also where its name is a part of the reason by chance."""
    monkeypatch.chdir(scene.root)
    for name in ("a", "1"):
        (scene.root / name).write_bytes(b"" if name == "a" else bytes(1_000_001))
    assert scene.run("transcribe", "a", "1", "no.wav") == 74
    first, second, third = capfdbinary.readouterr().err.decode().splitlines()
    assert first.startswith("dropscribe: a: the file is empty")
    assert second.startswith("dropscribe: 1: 1000001 bytes")
    assert third.count("no.wav") == 1


def test_one_provider_serves_all_files(scene, emulator, monkeypatch, capfdbinary):
    """Its connections, or the loaded model of the embedded engine, are used for each of them."""
    built = []

    def recorded(config):
        built.append(build_provider(config))
        return built[-1]

    monkeypatch.setattr(transcribe, "build_provider", recorded)
    emulator.fail(None, Fault(status=415, body={"error": "no"}), None)
    files = [scene.drop(f"{name}.wav", part="done") for name in "abc"]
    assert scene.run("transcribe", *files) == 3
    captured = capfdbinary.readouterr()
    assert captured.out.count(b"\n") == 2
    assert "b.wav" in captured.err.decode()
    assert len(built) == 1


def test_the_rate_limit_counts_over_all_files(scene, emulator, monkeypatch, capfdbinary):
    """Two requests a minute: the third file waits for the rest of the minute."""
    slept = []
    monkeypatch.setattr(transcribe.time, "sleep", slept.append)
    limited = scene.config.read_text().replace(
        "max_upload: 1MB", "max_upload: 1MB\n    requests_per_minute: 2"
    )
    scene.config.write_text(limited)
    files = [scene.drop(f"{name}.wav", part="done") for name in "abc"]
    assert scene.run("transcribe", *files) == 0
    assert capfdbinary.readouterr().out.count(b"\n") == 3
    (seconds,) = slept
    assert 0 < seconds <= 61


def test_a_missing_file_is_74(scene, capfdbinary):
    """Said with its name."""
    assert scene.run("transcribe", scene.root / "none.wav") == 74
    assert b"none.wav" in capfdbinary.readouterr().err


def test_the_output_folder_is_made_with_its_parents(scene, capfdbinary):
    """Users need not make it; standard output has the name of the transcript."""
    target = scene.root / "texts" / "2026"
    assert scene.run("transcribe", scene.drop("call.wav", part="done"), "--output", target) == 0
    assert (target / "call.txt").read_text()
    assert capfdbinary.readouterr().out == f"{target}/call.txt\n".encode()


@pytest.mark.parametrize(
    ("target", "reason"),
    [("file", "it is not a folder"), ("file/below", "Not a directory"), ("/proc/none", "No such file")],
)
def test_an_output_folder_that_cannot_be_written_costs_nothing(scene, emulator, capfdbinary, target, reason):
    """The folder and the reason are named, before anything is sent."""
    (scene.root / "file").write_text("")
    target = scene.root / target
    assert scene.run("transcribe", scene.drop("call.wav", part="done"), "--output", target) == 74
    assert f"{target}: no transcript can be written there: {reason}".encode() in capfdbinary.readouterr().err
    assert emulator.requests == []


def test_a_misspelt_provider_is_78(scene, capfdbinary):
    """Did you mean …"""
    assert scene.run("transcribe", "--provider", "goood", scene.drop("call.wav", part="done")) == 78
    assert b"did you mean 'good'?" in capfdbinary.readouterr().err


def test_check_online_asks_every_provider(scene, capsys):
    """One takes the key, one does not: said of each, 74, and no key is printed."""
    assert scene.run("check", "--online") == 74
    said = capsys.readouterr()
    assert "yes: " in said.out
    assert "NO: " in said.out
    assert "error: provider keyless" in said.err
    assert "error: provider good" not in said.err
    assert KEY not in said.out + said.err
    assert "wrong" not in said.out


def test_check_online_pays_for_nothing(scene, emulator):
    """No audio is sent."""
    scene.run("check", "--online")
    assert all(request.audio_bytes == 0 for request in emulator.requests)
    assert emulator.requests


@pytest.fixture
def silent_server():
    """The URL of a server that takes connections, and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}/v1"


def test_check_online_does_not_wait_for_a_silent_server(tmp_path, silent_server, capsys, monkeypatch):
    """A short limit of its own, or a shorter `timeout`, is named in the result."""
    monkeypatch.setattr(check, "ANSWER_SECONDS", 2.0)
    providers = "".join(
        f"  {name}: {{type: openai, url: '{silent_server}', timeout: {timeout}}}\n"
        for name, timeout in (("a", "5m"), ("b", "1s"))
    )
    scene = Scene(tmp_path, f"providers:\n{providers}folders:\n  calls: {{inbox: inbox, provider: a}}\n")
    began = time.monotonic()
    assert scene.run("check", "--online", "--json") == 74
    assert time.monotonic() - began < 60
    answers = {
        name: each["answer"] for name, each in json.loads(capsys.readouterr().out)["providers"].items()
    }
    assert answers == {
        name: f"the server did not answer within {number} s" for name, number in (("a", 2), ("b", 1))
    }


def test_what_a_described_provider_found_is_shown(tmp_path, emulator, capfdbinary):
    """Each expression with what it found, on standard error; standard output is the transcript alone."""
    answer = "{text: text, words: 'words[].{word: word, start: start}', language: lang, duration: seconds}"
    provider = f"main: {{type: http, url: '{emulator.url}/v1/audio', api_key: {KEY}, answer: {answer}}}"
    scene = Scene(
        tmp_path, f"providers:\n  {provider}\nfolders:\n  calls: {{inbox: inbox, provider: main}}\n"
    )
    words = [{"word": "Hi.", "start": 0.5}, {"word": "You.", "start": 1.0}]
    emulator.fail(Fault(body={"text": "Hi. You.", "words": words, "seconds": 2.5}))
    assert scene.run("transcribe", "--provider", "main", scene.drop("call.wav", part="done")) == 0
    said = capfdbinary.readouterr()
    assert said.out == b"Hi. You.\n"
    rows = [re.split(r"  +", line.strip()) for line in said.err.decode().splitlines()]
    assert rows == [
        ["FIELD", "FOUND", "BY"],
        ["text", '8 characters: "Hi. You."', "text"],
        ["words", '2 items, the first: {"word": "Hi.", "start": 0.5}', "words[].{word: word, start: start}"],
        ["language", "nothing", "lang"],
        ["duration", "2.5", "seconds"],
    ]
    emulator.fail(Fault(body={"text": "", "seconds": 0}))
    assert scene.run("check", "--online") == 0
    told = capfdbinary.readouterr().out.decode()
    assert "its answer has text, duration" in told
    assert re.search(r"main +text +text\n +words +words\[\]", told)


def test_what_a_described_provider_found_and_cannot_be_read_is_named(tmp_path, emulator, capfdbinary):
    """Times on a clock, and words that are no objects: the transcript has none of them."""
    answer = "{text: text, words: words, segments: 'parts[].{text: text, start: at, end: to}'}"
    provider = f"main: {{type: http, url: '{emulator.url}/v1/audio', api_key: {KEY}, answer: {answer}}}"
    scene = Scene(
        tmp_path, f"providers:\n  {provider}\nfolders:\n  calls: {{inbox: inbox, provider: main}}\n"
    )
    parts = [{"text": "Hi.", "at": "00:00:00.5", "to": 2}]
    emulator.fail(Fault(body={"text": "Hi.", "words": ["Hi."], "parts": parts}))
    assert scene.run("transcribe", "--provider", "main", scene.drop("call.wav", part="done")) == 0
    _, text, words, segments = capfdbinary.readouterr().err.decode().splitlines()
    assert "not read" not in text
    assert "it is no object" in words
    assert "not read as a time: start  " in segments


def test_a_provider_that_is_not_there(tmp_path, capsys):
    """Nobody listens: in words, 74."""
    scene = Scene(tmp_path, CONFIG)
    assert scene.run("check", "--online", "--json") == 74
    provider = json.loads(capsys.readouterr().out)["providers"]["main"]
    assert provider["online"] is False
    assert provider["answer"]


def test_a_missing_file_is_named_as_it_was_given(tmp_path, capsys):
    """The whole path, also where it is the only file."""
    scene = Scene(tmp_path)
    missing = tmp_path / "deep" / "no.wav"
    assert scene.run("transcribe", missing) == 74
    assert str(missing) in capsys.readouterr().err


def _transcribe_six(scene, redirection: str, before: str = "") -> subprocess.CompletedProcess[bytes]:
    """``transcribe`` of six files in a process of its own, through a shell that redirects."""
    files = [str(scene.drop(f"{number}.wav", part="done")) for number in range(6)]
    command = f'{before} exec "$0" -m dropscribe transcribe "$@" {redirection}'
    return subprocess.run(
        ["sh", "-c", command, sys.executable, *files],
        cwd=scene.root,
        capture_output=True,
        check=False,
        timeout=60,
    )


def test_standard_input_leaves_no_copy_behind(scene, emulator, tmp_path):
    """Neither a transcript nor a sudden end of the command leaves the recording in the temporary folder."""
    (tmp_path / "t").mkdir()
    call = [sys.executable, "-m", "dropscribe", "transcribe", "-"]
    keys = {"cwd": scene.root, "env": {**os.environ, "TMPDIR": str(tmp_path / "t")}}
    audio = wav_bytes()
    done = subprocess.run(call, input=audio, capture_output=True, check=False, **keys)
    assert (done.returncode, done.stderr) == (0, b"")
    assert emulator.requests[-1].audio_sha256 == digest(audio)
    emulator.delay_seconds = 60.0
    with subprocess.Popen(call, stdin=subprocess.PIPE, **keys) as process:
        process.stdin.write(audio)
        process.stdin.close()
        wait_until(lambda: len(emulator.requests) == 2, "the upload")
        process.kill()
    assert os.listdir(tmp_path / "t") == []


@pytest.mark.parametrize("redirection", [">&-", ">/dev/full"])
def test_output_that_is_known_to_be_gone_costs_nothing(scene, emulator, redirection):
    """A closed or full standard output ends the command before the first request."""
    done = _transcribe_six(scene, redirection)
    assert done.returncode == 74
    assert done.stderr.startswith(b"dropscribe: standard output: ")
    assert emulator.requests == []


def test_a_reader_that_has_gone_costs_nothing(scene, emulator):
    """``transcribe FILE… | true``: the command ends as any other."""
    reader, writer = os.pipe()
    os.close(reader)
    call = [sys.executable, "-m", "dropscribe", "transcribe", scene.drop("call.wav", part="done")]
    done = subprocess.run(call, cwd=scene.root, stdout=writer, stderr=subprocess.PIPE, check=False)
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, b"")
    assert emulator.requests == []


@pytest.mark.parametrize(("redirection", "place"), [("> full", b"standard output"), ("--output t", b"0.txt")])
def test_output_that_fails_later_ends_the_command(scene, emulator, redirection, place):
    """After a transcript that cannot be written no further file is paid for; no part of it is left."""
    (scene.root / "t").mkdir()
    done = _transcribe_six(scene, redirection, before="ulimit -f 0;")
    assert done.returncode == 74
    assert place + b": File too large" in done.stderr
    assert len(emulator.requests) == 1
    assert tree(scene.root / "t") == set()
