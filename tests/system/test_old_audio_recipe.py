"""The script that removes or compresses old recordings, on folders that dropscribe has filled."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from dropscribe.core.errors import AudioRejected
from support.house import House, digest, make_config, tree
from support.inboxes import wav
from support.scripted import ScriptedProvider, transcript_of

EXAMPLES = Path(__file__).parents[2] / "examples"
needs_ffmpeg = pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="ffmpeg is not installed")


def run(*arguments) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(EXAMPLES / "old_audio.py"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture
async def filled(tmp_path):
    """`done` and `failed` of one rule after a few recordings."""
    script = [None] * 4 + [transcript_of(""), AudioRejected("bad_format", "no", status=415)]
    config = make_config(tmp_path, companions=("{stem}.xml",), companions_wait_seconds=0.0)
    async with House(config, {"main": ScriptedProvider(script)}) as house:
        for name in ("2026/a.wav", "b.wav", "changed.wav", "half.wav", "silent.wav", "refused.wav"):
            (tmp_path / "inbox/b.xml").write_bytes(b"<call/>")
            await house.drop(name, wav(16_000))
            await house.rest()
    return tmp_path


GOOD = {"2026/a.wav", "b.wav"}


def spoil(root: Path) -> None:
    """What nobody may touch."""
    done = root / "done"
    with (done / "changed.wav").open("r+b") as file:
        file.seek(100)
        file.write(b"x")
    whole = (done / "half.json").read_bytes()
    (done / "half.json").write_bytes(whole[: len(whole) // 2])
    shutil.copy(done / "b.wav", done / "alone.wav")
    shutil.copy(done / "b.wav", root / "elsewhere.wav")
    (done / "linked.wav").symlink_to(root / "elsewhere.wav")
    shutil.copy(done / "b.json", done / "linked.json")
    (root / "outside").mkdir()
    for suffix in ("wav", "json"):
        shutil.copy(done / f"b.{suffix}", root / f"outside/b.{suffix}")
    (done / "folder").symlink_to(root / "outside")
    (done / "odd.json").write_text(
        json.dumps({"schema": "dropscribe.transcript/1", "warnings": [], "text": 1})
    )


def everything(root: Path) -> set[str]:
    return {
        path
        for part in ("done", "failed", "outside")
        for path in (f"{part}/{name}" for name in tree(root / part))
    }


async def test_only_recordings_with_a_whole_transcript_go(filled):
    """A dry run touches nothing; then exactly what it said goes, and nothing that is doubtful."""
    spoil(filled)
    before = everything(filled)
    dry = run("--days", 0, "--remove", filled / "done", filled / "failed")
    assert {line.split("'")[1] for line in dry.stdout.splitlines()} == {
        f"{filled}/done/{name}" for name in GOOD
    }
    assert everything(filled) == before

    done = run("--days", 0, "--remove", "--do-it", filled / "done", filled / "failed")
    assert before - everything(filled) == {f"done/{name}" for name in GOOD}
    assert everything(filled) <= before
    assert (filled / "elsewhere.wav").exists()
    assert "odd.json" in done.stderr
    assert (done.returncode, "Traceback" in done.stderr) == (1, False)


async def test_young_transcripts_keep_their_recordings(filled):
    """Age is that of the transcript, whatever the recording's own date is."""
    os.utime(filled / "done/b.wav", (0, 0))
    ran = run("--days", 1, "--remove", "--do-it", filled / "done")
    assert (ran.stdout, ran.returncode) == ("", 0)
    assert tree(filled / "done") >= GOOD


def test_a_folder_that_is_not_there_or_a_link_is_refused(tmp_path):
    """A misspelt or swapped folder is no success."""
    (tmp_path / "link").symlink_to(tmp_path)
    for folder in ("link", "missing"):
        ran = run("--days", 0, "--remove", tmp_path / folder)
        assert ran.returncode == 1
        assert "is no folder" in ran.stderr


@pytest.mark.slow
@needs_ffmpeg
async def test_a_recording_is_compressed_in_place(filled):
    """The new file plays as long, keeps time and mode, and overwrites nothing."""
    done = filled / "done"
    os.utime(done / "b.wav", ns=(10**18, 10**18))
    (done / "2026/a.opus").write_bytes(b"somebody's")
    ran = run("--days", 0, "--compress", "--do-it", done)
    assert ran.returncode == 1
    assert "a.json" in ran.stderr
    assert (done / "2026/a.wav").exists()
    assert (done / "2026/a.opus").read_bytes() == b"somebody's"
    assert not (done / "b.wav").exists()
    assert (done / "b.opus").stat().st_mtime_ns == 10**18
    assert (done / "b.opus").read_bytes()[:4] == b"OggS"
    assert [name for name in tree(done) if ".old-audio" in name] == []
    assert run("--days", 0, "--remove", "--do-it", done / "2026").returncode == 0
    assert (done / "b.opus").exists()


@pytest.mark.slow
@needs_ffmpeg
async def test_a_recording_that_cannot_be_decoded_whole_stays(filled):
    """Its bytes are all that there is."""
    done = filled / "done"
    audio, transcript = done / "b.flac", done / "b.json"
    content = b"fLaC" + os.urandom(4000)
    audio.write_bytes(content)
    (done / "b.wav").unlink()
    document = json.loads(transcript.read_bytes())
    document["source"] |= {"file": "b.flac", "bytes": len(content), "sha256": digest(content)}
    transcript.write_text(json.dumps(document))
    assert run("--days", 0, "--compress", "--do-it", done).returncode == 1
    assert audio.exists()
    assert not (done / "b.opus").exists()


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
def test_the_units_are_clean(tmp_path):
    """Systemd reads both without a word of complaint."""
    service = (EXAMPLES / "old-audio.service").read_text().replace("/usr/local/bin/old_audio.py", "/bin/true")
    (tmp_path / "old-audio.service").write_text(service)
    shutil.copy(EXAMPLES / "old-audio.timer", tmp_path)
    command = ["systemd-analyze", "verify", "--man=no", str(tmp_path / "old-audio.timer")]
    environment = {**os.environ, "SYSTEMD_UNIT_PATH": f"{tmp_path}:"}
    ran = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert (ran.stdout + ran.stderr, ran.returncode) == ("", 0)
