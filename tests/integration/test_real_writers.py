"""What real programs write: whole files are taken at once, halves wait, and nothing is taken torn."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time

import pytest

from dropscribe.core.settling import Completeness
from dropscribe.files.containers import examine
from support.inboxes import Station

COMPLETE, INCOMPLETE, UNKNOWN = Completeness.COMPLETE, Completeness.INCOMPLETE, Completeness.UNKNOWN

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="needs ffmpeg"),
]
SPEECH = ["-f", "lavfi", "-i", "sine=frequency=440:sample_rate=16000:duration=20"]
STATED = {
    "wav": [],
    "aiff": [],
    "caf": [],
    "au": [],
    "w64": [],
    "rf64.wav": ["-rf64", "always"],
    "flac": [],
    "ogg": ["-c:a", "libvorbis"],
    "opus": ["-c:a", "libopus", "-b:a", "16k"],
    "m4a": [],
    "faststart.m4a": ["-movflags", "+faststart"],
    "mka": ["-c:a", "libopus"],
    "webm": ["-c:a", "libopus"],
    "wma": [],
    "mp3": ["-c:a", "libmp3lame"],
    "tagged.mp3": ["-c:a", "libmp3lame", "-write_id3v1", "1", "-metadata", "title=t"],
}


def ffmpeg(*arguments, folder):
    """Run ffmpeg in *folder*; skipped if this build lacks an encoder."""
    command = ["ffmpeg", "-v", "error", "-y", *SPEECH, *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False)
    if "Unknown encoder" in done.stderr:
        pytest.skip(done.stderr.strip())
    assert done.returncode == 0, done.stderr


def judge(content, name):
    """What is said of *content* under *name*."""
    suffix = os.path.splitext(name)[1]
    return examine(lambda at, count: content[at : at + count], len(content), suffix)


@pytest.mark.parametrize("name", STATED)
def test_what_ffmpeg_has_finished_is_whole_and_a_half_is_not(tmp_path, name):
    """Every format that states its length; a broken-off upload of it, and the same with a tag behind."""
    ffmpeg(*STATED[name], f"a.{name}", folder=tmp_path)
    content = (tmp_path / f"a.{name}").read_bytes()
    assert judge(content, name) is COMPLETE
    assert judge(content + b"TAG" + b"x" * 125, name) is COMPLETE
    for part in (0.1, 0.5, 0.9):
        assert judge(content[: int(len(content) * part)], name) is INCOMPLETE


@pytest.mark.parametrize("suffix", ["wav", "aiff", "au", "w64", "flac", "ogg", "mp3"])
def test_what_sox_has_finished_is_whole(tmp_path, suffix):
    """The other writer of many recorders."""
    if shutil.which("sox") is None:
        pytest.skip("needs sox")
    command = ["sox", "-n", "-r", "16000", "-c", "1", f"a.{suffix}", "synth", "20", "sine", "440"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, timeout=60, check=False)
    if done.returncode:
        pytest.skip(done.stderr.decode())
    content = (tmp_path / f"a.{suffix}").read_bytes()
    whole = judge(content, suffix)
    assert whole is COMPLETE or (suffix == "mp3" and whole is UNKNOWN)  # not every build writes a Xing frame
    if whole is COMPLETE:
        assert judge(content[: len(content) // 2], suffix) is INCOMPLETE


@pytest.mark.parametrize("suffix", ["ogg", "flac", "wav", "mka", "mp3"])
def test_segments_are_not_called_incomplete(tmp_path, suffix):
    """ffmpeg's segment muxer ends Ogg without a last page and FLAC without a total."""
    codec = {"ogg": ["-c:a", "libopus"], "mka": ["-c:a", "libopus"], "mp3": ["-c:a", "libmp3lame"]}
    ffmpeg(*codec.get(suffix, []), "-f", "segment", "-segment_time", "6", f"%d.{suffix}", folder=tmp_path)
    segments = sorted(tmp_path.glob(f"*.{suffix}"))
    assert len(segments) >= 3
    assert [path.name for path in segments if judge(path.read_bytes(), suffix) is INCOMPLETE] == []


@pytest.mark.parametrize("suffix", ["wav", "aiff", "m4a", "mka", "flac"])
def test_a_recording_in_progress_is_never_taken(tmp_path, suffix):
    """While ffmpeg writes it waits; killed in the middle it is flagged, and never called whole."""
    inbox = tmp_path / "inbox"
    inbox.mkdir()
    station = Station(inbox, watch="native").run()
    codec = ["-c:a", "libopus"] if suffix == "mka" else []
    source = ["-re", *SPEECH[:-1], "sine=frequency=440:sample_rate=16000:duration=600"]
    command = ["ffmpeg", "-v", "error", *source, *codec, "-flush_packets", "1", f"a.{suffix}"]
    writer = subprocess.Popen(command, cwd=inbox, stdin=subprocess.DEVNULL)
    path = inbox / f"a.{suffix}"
    until = time.monotonic() + 30
    while not path.exists() or (path.stat().st_size < 5000 and suffix != "m4a"):
        assert time.monotonic() < until
        time.sleep(0.05)
    station.run(600)
    assert station.paths == []
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    assert judge(path.read_bytes(), suffix) is not COMPLETE
    station.run(100)
    assert station.paths == ([f"a.{suffix}".encode()] if path.stat().st_size else [])
    station.close()


@pytest.mark.parametrize("name", ["aiff", "caf", "au", "w64", "wma", "mka", "mp3", "flac", "m4a"])
def test_an_upload_that_is_resumed_by_append_is_taken_once(tmp_path, name):
    """Half, a pause of half a minute, the rest: one file, whole, taken when it is."""
    inbox = tmp_path / "inbox"
    inbox.mkdir()
    ffmpeg(*STATED[name], f"a.{name}", folder=tmp_path)
    content = (tmp_path / f"a.{name}").read_bytes()
    station = Station(inbox, watch="native").run()
    path = station.write(f"a.{name}", content[: len(content) // 2])
    station.run(30)
    assert station.paths == []
    with open(path, "ab") as file:
        file.write(content[len(content) // 2 :])
    station.run(1)
    (job,) = station.queue.taken
    assert (job.snapshot.size_bytes, job.incomplete) == (len(content), False)
    station.close()
