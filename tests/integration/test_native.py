"""Worker processes: what they may do, how they end, and what their end means for a recording."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict

import pytest

from dropscribe.config.model import ProviderConfig
from dropscribe.core.errors import AudioRejected, ProviderUnusable, TemporaryFailure
from dropscribe.files.audio import AudioFile
from dropscribe.media.fitting import FLAC
from dropscribe.native import process
from dropscribe.native.decoder import Decoder, Source, probe_seconds
from dropscribe.native.messages import ConnectionLost, Message, receive, receive_descriptor, send
from dropscribe.native.process import Cancellation, Worker, WorkerPool, error_of_death
from dropscribe.native.recording import plausible_seconds
from dropscribe.providers import local
from dropscribe.transcripts.model import Transcript, Word
from support.recordings import needs_media, noise, write_wav
from support.waiting import until_true

pytestmark = needs_media


@pytest.fixture
def worker():
    """A worker process."""
    made = Worker((), has_gpu=False)
    yield made
    made.close()


def flac_head(rate_hz, samples, channels=1):
    """The first 42 bytes of a FLAC file that claims so many samples."""
    fields = rate_hz << 44 | (channels - 1) << 41 | 15 << 36 | samples
    return (
        b"fLaC\x80\0\0\x22"
        + struct.pack(">HH", 4096, 65535)
        + bytes(6)
        + fields.to_bytes(8, "big")
        + bytes(16)
    )


def plain_wav(rate_hz, channels, frames):
    """A WAV with a plain header and 16 bits."""
    layout = struct.pack("<HHIIHH", 1, channels, rate_hz, rate_hz * channels * 2, channels * 2, 16)
    chunks = b"WAVEfmt " + struct.pack("<I", 16) + layout + b"data" + struct.pack("<I", len(frames)) + frames
    return b"RIFF" + struct.pack("<I", len(chunks)) + chunks


@contextlib.contextmanager
def opened(tmp_path, content):
    """A file of *content*, open."""
    (tmp_path / "recording").write_bytes(content)
    with (tmp_path / "recording").open("rb") as file:
        yield file


FORBIDDEN = """
import ctypes, fcntl, os, platform, resource, signal, socket, sys
sys.path[:0] = {path!r}
from dropscribe.native.worker import sandbox
socket_of_ours, _ = socket.socketpair()
sandbox.enter([], has_gpu=False)
def refused(call):
    try:
        call()
    except OSError:
        return True
    return False
def call_system(number, *arguments):
    if ctypes.CDLL(None).syscall(number, *arguments) < 0:
        raise OSError
home, daemon = {home!r}, os.getppid()
tkill, tgkill, ioctl = (130, 131, 29) if platform.machine() == "aarch64" else (200, 234, 16)
print([refused(call) for call in (
    lambda: socket.socket(),
    lambda: socket.socket(socket.AF_UNIX),
    lambda: os.open(home + "/new", os.O_CREAT | os.O_WRONLY),
    lambda: os.open(home + "/secret", os.O_RDONLY),
    lambda: os.unlink(home + "/secret"),
    lambda: os.rename(home + "/secret", home + "/other"),
    lambda: os.chmod(home + "/secret", 0o666),
    lambda: os.kill(daemon, 0),
    lambda: call_system(tkill, daemon, 0),
    lambda: call_system(tgkill, daemon, daemon, 0),
    lambda: fcntl.fcntl(0, fcntl.F_SETOWN, daemon),
    lambda: call_system(ioctl, socket_of_ours.fileno(), 0x8901, ctypes.byref(ctypes.c_int(daemon))),
    lambda: resource.prlimit(daemon, resource.RLIMIT_CORE),
    lambda: os.execv(sys.executable, [sys.executable, "-c", ""]),
)])
resource.prlimit(0, resource.RLIMIT_CORE)
resource.prlimit(os.getpid(), resource.RLIMIT_CORE)
signal.raise_signal(signal.SIGCHLD)
import av, numpy
"""


def test_a_worker_can_reach_nothing_but_its_recording(tmp_path):
    """No network, no other file, no write, no other process; the libraries load nevertheless."""
    (tmp_path / "secret").write_text("sk_1")
    program = FORBIDDEN.format(path=sys.path, home=str(tmp_path))
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    refusals = done.stdout.strip()
    if not has_landlock():
        pytest.skip("this kernel has no Landlock")
    assert refusals == str([True] * 14)


def has_landlock():
    """Whether the kernel has it."""
    import ctypes

    return ctypes.CDLL(None).syscall(444, None, ctypes.c_size_t(0), 1) > 0


def test_without_python_the_provider_is_held(tmp_path, monkeypatch):
    """It was replaced while the daemon runs; nothing is wrong with the recording or its disk."""
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python3"))
    with pytest.raises(ProviderUnusable) as held:
        Worker([], has_gpu=False)
    assert held.value.code == "engine_missing"
    assert "must be restarted" in held.value.reason


def test_after_an_upgrade_under_the_daemon_the_provider_is_held(monkeypatch):
    """The two may understand each other no more, which would fail the recording."""
    monkeypatch.setattr(process, "__version__", "0.0.9")
    with pytest.raises(ProviderUnusable, match="must be restarted"):
        Worker([], has_gpu=False)


def test_a_worker_that_cannot_start_now_is_started_later(monkeypatch):
    """The system has no process left."""

    def refuse(*_, **__):
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    monkeypatch.setattr(subprocess, "Popen", refuse)
    with pytest.raises(TemporaryFailure, match="did not start: Resource temporarily unavailable"):
        Worker([], has_gpu=False)


def test_a_worker_is_told_no_secret(worker, monkeypatch):
    """Keys and tokens in the daemon's environment stay there."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk_secret")
    other = Worker((), has_gpu=False)
    try:
        with open(f"/proc/{other.pid}/environ", "rb") as environment:
            assert b"sk_secret" not in environment.read()
    except PermissionError:
        pass  # it may not even be looked at, which is as good
    finally:
        other.close()


def test_a_worker_has_only_its_own_descriptors(worker):
    """Inbox, queue and connections of the daemon are not inherited."""
    try:
        names = os.listdir(f"/proc/{worker.pid}/fd")
    except PermissionError:
        pytest.skip("only root may look at a worker's descriptors")
    targets = [os.readlink(f"/proc/{worker.pid}/fd/{name}") for name in names]
    libraries = [target for target in targets if "/libffi.so" in target]  # it maps code from its own file
    others = [target for target in targets if not target.startswith(("/dev/", "socket:", "pipe:"))]
    assert others == libraries
    assert len([target for target in targets if target.startswith("socket:")]) == 1


PARENT = """
import sys, time
sys.path[:0] = {path!r}
from dropscribe.native.process import Worker
worker = Worker((), has_gpu=False)
print(worker.pid, flush=True)
body = {{"form": None, "track": 0, "until_dbfs": None}}
if {is_busy}:
    with open({name!r}, "rb") as file:
        list(worker.request("survey", body, file.fileno(), silence_seconds=60))
time.sleep(60)
"""


@pytest.mark.parametrize("is_busy", [False, True])
def test_a_worker_ends_with_the_daemon(tmp_path, is_busy):
    """A daemon that is killed leaves no worker behind, idle or within native code."""
    write_wav(tmp_path / "long.wav", noise(3600))
    program = PARENT.format(path=sys.path, is_busy=is_busy, name=str(tmp_path / "long.wav"))
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as parent:
        pid = int(parent.stdout.readline())
        parent.kill()
    until_true(lambda: not is_running(pid))


def is_running(pid):
    """Whether a process is there and no zombie."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii") as stat:
            return stat.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_an_idle_worker_is_ended(tmp_path):
    """What is not used for a while leaves memory."""
    pool = WorkerPool(idle_seconds=0.1)
    with pool.worker(Cancellation()) as worker:
        pid = worker.pid
    until_true(lambda: not is_running(pid))


def test_a_worker_that_died_idle_is_not_used(tmp_path):
    """The next recording gets a living one."""
    pool = WorkerPool(idle_seconds=60)
    with pool.worker(Cancellation()) as worker:
        pid = worker.pid
    os.kill(pid, signal.SIGKILL)
    until_true(lambda: not is_running(pid))
    with pool.worker(Cancellation()) as worker:
        assert worker.pid != pid
        assert worker.is_alive
    pool.close()


def test_a_hung_worker_is_given_up_in_bounded_time(tmp_path, worker):
    """It is ended, and the recording may be tried again."""
    os.kill(worker.pid, signal.SIGSTOP)
    with opened(tmp_path, plain_wav(8000, 1, bytes(16000))) as file, pytest.raises(TemporaryFailure) as death:
        list(worker.request("describe", {}, file.fileno(), silence_seconds=0.2))
    assert death.value.code == "worker_stalled"
    until_true(lambda: not is_running(worker.pid))


@pytest.mark.parametrize(
    ("phase", "cause", "name"),
    [
        ("decoding", "SIGSEGV", "AudioRejected"),
        ("recognising", "SIGABRT", "AudioRejected"),
        ("decoding", "SIGXCPU", "AudioRejected"),
        ("decoding", "SIGKILL", "TemporaryFailure"),
        ("loading", "SIGKILL", "TemporaryFailure"),
        ("loading", "SIGILL", "ProviderUnusable"),
        ("starting", "exit status 1", "TemporaryFailure"),
    ],
)
def test_what_a_workers_end_means(phase, cause, name):
    """A crash on a recording is that recording's; before it had read anything, the machine's."""
    assert type(error_of_death(phase, cause)).__name__ == name


def test_a_recording_cannot_take_more_than_its_cpu_time(tmp_path):
    """Beyond its share a recording is undecodable, and the next one is decoded."""
    write_wav(tmp_path / "long.wav", noise(3600))
    with (tmp_path / "long.wav").open("rb") as file:
        decoder = Decoder(file.fileno())
        threading.Thread(target=tighten, args=(decoder,), daemon=True).start()
        with pytest.raises(AudioRejected, match="processor time"):
            for _ in range(100):
                decoder.survey(0)
    assert_next_is_decoded(tmp_path)


def tighten(decoder):
    """Lower the limit of the decoder's worker to what it has used."""
    until_true(lambda: decoder._cancellation._workers)
    (worker,) = decoder._cancellation._workers
    _, hard = resource.prlimit(worker.pid, resource.RLIMIT_CPU)
    while is_running(worker.pid):
        with contextlib.suppress(ProcessLookupError):
            resource.prlimit(worker.pid, resource.RLIMIT_CPU, (1, hard))
        time.sleep(0.01)


def test_a_recording_cannot_take_more_than_its_memory(tmp_path, monkeypatch):
    """A second of it would take 200 MB more than there is: it is undecodable, and the next one is decoded."""
    pool = WorkerPool(idle_seconds=60)
    monkeypatch.setattr("dropscribe.native.decoder._POOL", pool)
    assert_next_is_decoded(tmp_path)
    with pool.worker(Cancellation()) as worker:
        used = os.sysconf("SC_PAGE_SIZE") * int(read(f"/proc/{worker.pid}/statm").split()[0])
        _, hard = resource.prlimit(worker.pid, resource.RLIMIT_AS)
        resource.prlimit(worker.pid, resource.RLIMIT_AS, (used + 20 * 2**20, hard))
    frames = 768_000 * 64 * 2
    with (tmp_path / "wide.wav").open("w+b") as file:
        file.write(
            plain_wav(768_000, 64, b"").replace(b"data" + bytes(4), b"data" + struct.pack("<I", frames))
        )
        file.truncate(44 + frames)
        with pytest.raises(AudioRejected) as refused:
            Decoder(file.fileno()).survey(0)
    assert refused.value.code == "undecodable"
    assert_next_is_decoded(tmp_path)
    pool.close()


def read(path):
    """A small file's text."""
    with open(path, encoding="ascii") as file:
        return file.read()


def assert_next_is_decoded(tmp_path):
    """The next recording is none the worse."""
    with opened(tmp_path, plain_wav(8000, 1, bytes(16000))) as file:
        assert Decoder(file.fileno()).describe().seconds == 1.0


@pytest.mark.parametrize("channels", [8, 9, 17, 25, 64])
def test_any_number_of_channels_is_decoded(tmp_path, channels):
    """As many as a mixing desk records: no crash in the look, the encoder or the description."""
    frames = b"".join(sample.to_bytes(2, "little", signed=True) * channels for sample in noise(2))
    with opened(tmp_path, plain_wav(8000, channels, frames)) as file:
        decoder = Decoder(file.fileno())
        assert decoder.describe().channels == channels
        assert decoder.survey(0).sound_seconds == 2.0
        make_file = (tmp_path / "piece").open
        ((piece, made),) = decoder.encode(Source(), FLAC, (), (), lambda: make_file("w+b"))
        made.close()
    assert piece.end == pytest.approx(2.0, abs=0.01)
    assert (tmp_path / "piece").read_bytes()[:4] == b"fLaC"


def test_recordings_leave_nothing_behind_in_their_worker(tmp_path, monkeypatch):
    """From PyAV 19 on a resampler's threads waited for a collection: good recordings had no memory left."""
    pool = WorkerPool(idle_seconds=60)
    monkeypatch.setattr("dropscribe.native.decoder._POOL", pool)
    write_wav(tmp_path / "call.wav", noise(1))
    with (tmp_path / "call.wav").open("rb") as file:
        for _ in range(40):
            pieces = Decoder(file.fileno()).encode(Source(), FLAC, (), (), tempfile.TemporaryFile)
            assert len(list(pieces)) == 1
    with pool.worker(Cancellation()) as worker:
        threads = next(
            line for line in read(f"/proc/{worker.pid}/status").splitlines() if line.startswith("Threads")
        )
    pool.close()
    assert int(threads.split()[1]) <= 3 * (os.cpu_count() or 1) + 2


UNKNOWN_CODEC = (b"NSVsVIDXAUDX\x40\x01\xf0\0\x19\0\0\0\x01\0\x10\0" + b"v" * 16 + b"a" * 16) * 400
"""Nullsoft video with an audio stream that FFmpeg has no decoder for, as it may find in any noise."""


@pytest.mark.parametrize(
    "content",
    [
        flac_head(4, 2**36 - 1) + bytes(20),
        plain_wav(1, 1, bytes(40_000)),
        plain_wav(3999, 1, bytes(40_000)),
        plain_wav(800_000, 1, bytes(40_000)),
        plain_wav(8000, 65, bytes(650 * 130)),
        UNKNOWN_CODEC,
    ],
)
def test_an_implausible_shape_is_refused_before_it_is_unfolded(tmp_path, content):
    """Rates that no recorder has would make hours of samples out of bytes."""
    with opened(tmp_path, content) as file:
        for look in (lambda decoder: decoder.describe(), lambda decoder: decoder.survey(0)):
            with pytest.raises(AudioRejected) as refused:
                look(Decoder(file.fileno()))
            assert refused.value.code == "undecodable"


@pytest.mark.parametrize(
    "content",
    [
        flac_head(44_100, 2**36 - 1) + bytes(17),
        flac_head(1, 2**36 - 1) + bytes(17),
        UNKNOWN_CODEC,
        plain_wav(1, 1, bytes(40_000)),
        plain_wav(8000, 1, bytes(16_000)).replace(struct.pack("<I", 16_000), struct.pack("<I", 2**31)),
    ],
)
def test_a_header_cannot_claim_what_its_file_cannot_hold(tmp_path, content):
    """A length that a budget may be charged for is unknown rather than absurd."""
    with opened(tmp_path, content) as file:
        assert (probe_seconds(file.fileno()) or 0.0) <= 2.0


@pytest.mark.parametrize(
    "head", [b"fLaC\x80\0\0\x22" + bytes(34), b"\x1aE\xdf\xa3\x84B\x86\x81\1\x18S\x80g\1" + b"\xff" * 7]
)
def test_the_search_for_headers_in_terabytes_of_holes_ends(tmp_path, head):
    """FFmpeg looks for a frame, or for an element of Matroska, up to the end of the file."""
    with opened(tmp_path, head) as file:
        try:
            os.truncate(tmp_path / "recording", 8 * 10**12)
        except OSError:
            pytest.skip("no file of 8 TB here")
        with pytest.raises(AudioRejected):
            Decoder(file.fileno()).describe(listen=False)


@pytest.mark.parametrize("claimed", [float("nan"), float("inf"), -1.0, 1e9, "60", None])
def test_a_length_is_a_number_within_reason(claimed):
    """What a worker says is checked like a stranger's words."""
    assert plausible_seconds(claimed, 1000) is None


class TakenOver:
    """A worker that a recording has taken over: it says what it likes."""

    def __init__(self, *told):
        self.told = told

    def request(self, *_arguments, **_limits):
        yield from self.told


@pytest.mark.parametrize("body", [{}, {"at": "0"}, {"at": 2**40}, {"at": 2**70}])
def test_content_for_no_place_is_no_usable_answer(tmp_path, monkeypatch, body):
    """What a worker says is checked like a stranger's words."""
    worker = TakenOver(Message("write", body, b"x"))
    monkeypatch.setattr(WorkerPool, "worker", lambda *_: contextlib.nullcontext(worker))
    with opened(tmp_path, b"") as file, pytest.raises(AudioRejected, match="no usable answer"):
        list(Decoder(file.fileno()).encode(Source(), FLAC, (), (), lambda: (tmp_path / "piece").open("w+b")))


@pytest.mark.parametrize(("told", "heard"), [(1.5, 1.5), (float("nan"), None), (1e300, None), ("1", None)])
def test_a_place_that_the_engine_has_heard_up_to_is_within_reason(tmp_path, told, heard):
    """The page shows it."""
    write_wav(tmp_path / "call.wav", noise(2))
    worker = TakenOver(Message("heard", {"heard_seconds": told}), Message("result", asdict(Transcript("x"))))
    with AudioFile.open(os.fsencode(tmp_path), b"call.wav") as audio:
        local._answer(worker, {}, audio)
        assert audio.progress.heard_seconds == heard


@pytest.mark.parametrize(
    ("told", "text"),
    [
        (Transcript("a\x1b[2Jb\x07", words=(Word("\u202ea", 1.0, 1e300, None, "x\n"),)), "ab "),
        (Transcript("a", words=(Word(7, "x"),)), None),
    ],
)
def test_a_transcript_of_a_worker_is_cleaned_as_any_other(tmp_path, told, text):
    """A recording that has taken it over writes no control characters into a terminal or a sidecar."""
    write_wav(tmp_path / "call.wav", noise(1))
    worker = TakenOver(Message("result", asdict(told)))
    with AudioFile.open(os.fsencode(tmp_path), b"call.wav") as audio:
        if text is None:
            with pytest.raises(TemporaryFailure, match="no usable answer"):
                local._answer(worker, {}, audio)
        else:
            transcript = local._answer(worker, {}, audio)
            assert (transcript.text, transcript.words) == (text, (Word("a", 1.0, None, None, "x"),))


@pytest.mark.parametrize(
    "sent", [b"", b"\xff" * 8, b"\x04\0\0\0\0\0\0\0[1]x", b"\x02\0\0\0\0\0\0\0{}", b"\x09\0\0\0\0\0\0\0[[[[["]
)
def test_nonsense_ends_the_conversation(sent):
    """A worker that is no longer itself cannot do more than be ended."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(sent)
        theirs.shutdown(socket.SHUT_WR)
        with pytest.raises(ConnectionLost):
            receive(ours)


def test_a_message_arrives_with_its_file(tmp_path):
    """The receiver gets a descriptor of its own, closed in child processes."""
    ours, theirs = socket.socketpair()
    with ours, theirs, opened(tmp_path, b"content") as file:
        send(theirs, Message("describe", {"a": [1]}, b"xyz"), file.fileno())
        message, descriptor = receive(ours), receive_descriptor(ours)
    assert message == ("describe", {"a": [1]}, b"xyz")
    assert os.pread(descriptor, 100, 0) == b"content"
    assert not os.get_inheritable(descriptor)
    os.close(descriptor)


def test_a_cancelled_recording_is_left_at_once(tmp_path):
    """Its worker is ended while it decodes."""
    write_wav(tmp_path / "long.wav", noise(7200))
    with (tmp_path / "long.wav").open("rb") as file:
        decoder = Decoder(file.fileno())
        threading.Thread(
            target=lambda: (until_true(lambda: decoder._cancellation._workers), decoder.cancel())
        ).start()
        with pytest.raises(TemporaryFailure):
            decoder.survey(0)
        with pytest.raises(TemporaryFailure):
            decoder.survey(0)


@pytest.mark.slow
def test_six_hours_take_no_more_memory_than_one(tmp_path):
    """A look through a recording takes what a stretch takes, and 40 bytes for each second."""
    peaks = []
    for hours in (1, 6):
        pool_worker = Worker((), has_gpu=False)
        with (tmp_path / "long.wav").open("w+b") as file:
            frames = hours * 3600 * 16_000
            file.write(
                plain_wav(8000, 1, b"").replace(b"data" + bytes(4), b"data" + struct.pack("<I", frames))
            )
            file.truncate(44 + frames)
            body = {"form": None, "track": 0, "until_dbfs": None}
            *_, result = pool_worker.request("survey", body, file.fileno(), silence_seconds=60)
        peak = next(line for line in read(f"/proc/{pool_worker.pid}/status").splitlines() if "VmHWM" in line)
        peaks.append(int(peak.split()[1]))
        pool_worker.close()
        assert result.body["end_seconds"] == hours * 3600
    assert peaks[1] - peaks[0] < 20 * 1024


def test_recordings_that_come_together_share_their_workers(monkeypatch):
    """Two pools would be two limits, and one of them would outlive the provider with a model in memory."""

    class SlowPool(WorkerPool):
        def __init__(self, *folders, **settings):
            time.sleep(0.1)
            super().__init__(*folders, **settings)

    monkeypatch.setattr(local, "WorkerPool", SlowPool)
    provider = local.LocalProvider(ProviderConfig(name="x", type="local", concurrency=2))
    with ThreadPoolExecutor(2) as threads:
        first, second = threads.map(provider._pool_for, ["/model"] * 2)
    assert first is second
