"""The embedded engine on real speech, and on what is none."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys

import pytest

from dropscribe.config.extras import install_hint
from dropscribe.config.model import ProviderConfig
from dropscribe.core.errors import AudioRejected, ProviderUnusable, RuleRejected, TemporaryFailure
from dropscribe.files.audio import AudioFile
from dropscribe.providers.local import LocalProvider
from support.speech import (
    SAMPLE_RATE_HZ,
    SENSE_AND_SENSIBILITY,
    SPEECH,
    likeness,
    missing_words,
    needs_engine,
    needs_speech,
    references,
    silence,
    words_of,
    write_wav,
)
from support.waiting import until

pytestmark = [*needs_engine, needs_speech]

FORMATS = sorted(path.name for path in (SPEECH / "formats").glob("clip*"))


def provider(**settings):
    """An embedded engine with the English model."""
    defaults = {"name": "here", "type": "local", "model": "tiny.en", "concurrency": 1}
    return LocalProvider(ProviderConfig(**{**defaults, "idle_unload_seconds": 600.0, **settings}))


@pytest.fixture(scope="session")
def shared():
    """One engine for all tests that do not look at its life."""
    engine = provider()
    yield engine
    asyncio.run(engine.close())


@pytest.fixture(scope="session")
def jfk(shared):
    """The transcript of jfk.wav."""
    return asyncio.run(heard(shared, SPEECH / "clips" / "jfk.wav", language="en"))


async def heard(engine, path, **params):
    """The transcript of *path*."""
    with AudioFile.open(os.fsencode(path.parent), os.fsencode(path.name)) as audio:
        transcript = await engine.transcribe(audio, params)
        assert audio.sha256, "the caller needs the digest of what was transcribed"
        return transcript


def frames_of(name):
    """A clip as 16 kHz mono 16-bit frames."""
    from dropscribe.native.worker.samples import Track, mono

    with (SPEECH / "clips" / name).open("rb") as file:
        heard = list(mono(Track(file.fileno()), None))
    return b"".join((part.samples * 32767).astype("<i2").tobytes() for part in heard)


def workers():
    """Process ids of this process's workers."""
    listed = subprocess.run(
        ["pgrep", "-P", str(os.getpid()), "-f", "dropscribe.native"], capture_output=True, check=False
    )
    return set(map(int, listed.stdout.split()))


def test_words_and_their_times(jfk):
    """jfk.wav: the words that were said, timed within the recording, each with a probability."""
    assert words_of(jfk.text) == words_of(references()["jfk.wav"])
    assert (jfk.language, jfk.duration, jfk.warnings) == ("en", 11.0, ())
    assert words_of(" ".join(word.word for word in jfk.words)) == words_of(jfk.text)
    edges = [edge for word in jfk.words for edge in (word.start, word.end)]
    assert edges == sorted(edges)
    assert edges[0] >= 0
    assert edges[-1] <= 11.0
    assert all(0 < word.confidence <= 1 for word in jfk.words)
    assert all(0 < segment.confidence <= 1 for segment in jfk.segments)
    country = [word for word in jfk.words if words_of(word.word) == ["country"]]
    assert [word.start for word in country] == pytest.approx([6.4, 10.0], abs=0.5)


def test_answer_is_plain_json(jfk):
    """Nothing of numpy reaches the store: every number is Python's own, exactly."""
    assert json.loads(json.dumps(jfk.raw)) == jfk.raw
    assert jfk.raw["model"] == jfk.model == "tiny.en"
    numbers = [value for word in jfk.words for value in (word.start, word.end, word.confidence)]
    assert {type(number) for number in numbers} == {float}


@pytest.mark.slow
@pytest.mark.parametrize("name", FORMATS)
async def test_every_format_is_decoded(shared, name):
    """One clip in nineteen containers and codecs, one of them without any header."""
    transcript = await heard(shared, SPEECH / "formats" / name, beam_size=1)
    assert likeness(SENSE_AND_SENSIBILITY, transcript.text) > 0.9
    assert transcript.duration == pytest.approx(7.1, abs=0.1)


async def test_raw_samples_are_read_as_the_rule_says(shared, tmp_path):
    """The same bytes called 8 kHz last twice as long."""
    shutil.copy(SPEECH / "formats" / "clip.pcm", tmp_path / "CLIP.RAW")
    assert (await heard(shared, tmp_path / "CLIP.RAW", sample_rate=8000)).duration == pytest.approx(
        14.2, abs=0.01
    )


@pytest.mark.slow
async def test_a_recording_that_is_named_as_samples_is_heard_by_its_header(shared, tmp_path):
    """A header is no sound: the name does not decide where the content does."""
    shutil.copy(SPEECH / "formats" / "clip_24bit_stereo22k.wav", tmp_path / "call.raw")
    transcript = await heard(shared, tmp_path / "call.raw")
    assert transcript.duration == pytest.approx(7.1, abs=0.1)
    assert likeness(SENSE_AND_SENSIBILITY, transcript.text) > 0.9


async def test_silence_is_an_empty_text(shared, tmp_path):
    """Nothing said is a result, and nothing is made up."""
    transcript = await heard(shared, write_wav(tmp_path / "a.wav", silence(30)))
    assert (transcript.text, transcript.segments, transcript.duration) == ("", (), 30.0)


@pytest.mark.slow
async def test_speech_after_a_long_silence_is_heard_at_its_time(shared, tmp_path):
    """A block with nothing in it neither stops nor shifts what follows."""
    path = write_wav(tmp_path / "a.wav", silence(130) + frames_of("jfk.wav"))
    transcript = await heard(shared, path)
    assert likeness(references()["jfk.wav"], transcript.text) > 0.9
    assert 129.9 < transcript.words[0].start < 132
    assert transcript.words[-1].end <= 141.1


@pytest.mark.slow
async def test_no_word_is_lost_between_blocks(shared, tmp_path):
    """Speech longer than a block comes back whole, in order, and on time behind the border."""
    said = references()
    once = [name for name in sorted(said) if name.startswith(("LJ", "sas"))]
    names = [*once, *once, "jfk.wav"]
    clips = [frames_of(name) for name in names]
    path = write_wav(tmp_path / "a.wav", b"".join(clips))
    transcript = await heard(shared, path)
    assert transcript.duration > 140
    spoken = " ".join(said[name] for name in names)
    assert likeness(spoken, transcript.text) > 0.93
    assert [run for run in missing_words(spoken, transcript.text) if len(run) > 2] == []
    assert all(one.start <= next_.start for one, next_ in itertools.pairwise(transcript.words))
    jfk_at = sum(map(len, clips[:-1])) / 2 / SAMPLE_RATE_HZ
    (americans,) = (word for word in transcript.words if words_of(word.word) == ["americans"])
    assert americans.start == pytest.approx(jfk_at + 1.6, abs=0.6)


async def test_text_named_wav_is_rejected(shared, tmp_path):
    """What is no audio is told from audio by decoding it."""
    (tmp_path / "a.wav").write_text("Dear diary, this is not a recording.\n" * 40)
    with pytest.raises(AudioRejected) as refused:
        await heard(shared, tmp_path / "a.wav")
    assert refused.value.code == "undecodable"
    assert refused.value.reason.startswith("FFmpeg says: ")  # it has system errors for broken files too


async def test_a_playlist_opens_no_other_file(shared, tmp_path):
    """A file that names another one is no way to have that one transcribed."""
    shutil.copy(SPEECH / "clips" / "jfk.mp3", tmp_path / "secret.mp3")
    for text in (
        f"#EXTM3U\n#EXT-X-TARGETDURATION:12\n#EXTINF:11,\nfile://{tmp_path}/secret.mp3\n#EXT-X-ENDLIST\n",
        f"ffconcat version 1.0\nfile {tmp_path}/secret.mp3\n",
    ):
        (tmp_path / "a.wav").write_text(text)
        with pytest.raises(AudioRejected):
            await heard(shared, tmp_path / "a.wav")


async def test_a_cut_recording_says_so(shared, tmp_path):
    """Half a FLAC: what is there is transcribed, and the transcript carries the warning."""
    whole = (SPEECH / "formats" / "clip.flac").read_bytes()
    (tmp_path / "a.flac").write_bytes(whole[: len(whole) // 2])
    transcript = await heard(shared, tmp_path / "a.flac", language="en")
    assert transcript.warnings == ("truncated_audio",)
    assert words_of(transcript.text)[:4] == words_of(SENSE_AND_SENSIBILITY)[:4]


async def test_a_language_that_the_model_cannot_do_is_refused(shared):
    """German with the English model: the rule is told what to install; nothing is made up."""
    with pytest.raises(RuleRejected) as refused:
        await heard(shared, SPEECH / "clips" / "jfk.wav", language="de")
    assert refused.value.code == "language_not_supported"
    assert install_hint("local-multilingual") in refused.value.reason


async def test_values_that_only_together_are_refused_are_the_rules_fault(shared):
    """The engine's own error, not a bug with a traceback."""
    with pytest.raises(RuleRejected) as refused:
        await heard(shared, SPEECH / "clips" / "jfk.wav", patience=0.02, beam_size=2)
    assert refused.value.code == "bad_parameter"
    assert "beam_size" in refused.value.reason


async def test_no_language_with_the_english_model_is_warned_of(shared):
    """It cannot detect: it assumes English and says so."""
    transcript = await heard(shared, SPEECH / "clips" / "sas_0880.wav")
    assert transcript.language == "en"
    assert transcript.warnings == ("language_not_detected_english_only",)


@pytest.mark.slow
async def test_two_recordings_are_heard_at_a_time():
    """Each in a process of its own, and each gets its own words."""
    engine = provider(concurrency=2, cpu_threads=1)
    names = ["jfk.wav", "sas_0870.wav", "sas_0930.wav"]
    texts = await asyncio.gather(*(heard(engine, SPEECH / "clips" / name) for name in names))
    await engine.close()
    for name, transcript in zip(names, texts, strict=True):
        assert likeness(references()[name], transcript.text) > 0.9


@pytest.mark.slow
async def test_an_idle_model_leaves_memory():
    """After idle_unload the worker process is gone, and the next file starts another one."""
    engine, before = provider(idle_unload_seconds=0.2), workers()
    await heard(engine, SPEECH / "clips" / "sas_0880.wav")
    await until(lambda: workers() <= before)
    assert likeness("he was not an", (await heard(engine, SPEECH / "clips" / "sas_0880.wav")).text) > 0.5
    await engine.close()


@pytest.mark.slow
async def test_the_model_stays_between_recordings():
    """Within idle_unload the next recording finds the model loaded, in the same process."""
    engine, before = provider(), workers()
    await heard(engine, SPEECH / "clips" / "sas_0880.wav")
    first = workers() - before
    await heard(engine, SPEECH / "clips" / "sas_0930.wav")
    assert len(first) == 1
    assert workers() - before == first
    await engine.close()
    await until(lambda: workers() <= before)


@pytest.mark.slow
async def test_a_cancelled_recording_frees_the_engine(tmp_path):
    """Twenty minutes are not worked off once nobody wants them: the next file comes soon."""
    engine, before = provider(), workers()
    long = write_wav(tmp_path / "long.wav", frames_of("jfk.wav") * 110)
    task = asyncio.create_task(heard(engine, long))
    await until(lambda: workers() - before)
    (running,) = workers() - before
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await until(lambda: running not in workers())
    async with asyncio.timeout(60):
        assert (await heard(engine, SPEECH / "clips" / "sas_0930.wav")).text
    await engine.close()


async def test_close_ends_what_runs(tmp_path):
    """After close no process works on, and what ran may be tried again; a second close is harmless."""
    engine, before = provider(), workers()
    long = write_wav(tmp_path / "long.wav", frames_of("jfk.wav") * 110)
    running, waiting = (asyncio.create_task(heard(engine, long)) for _ in range(2))
    await until(lambda: workers() - before)
    await engine.close()
    await engine.close()
    for task in (running, waiting):
        with pytest.raises(TemporaryFailure, match="interrupted"):
            await task
    await until(lambda: workers() <= before)


@pytest.mark.slow
@pytest.mark.parametrize("sign", [signal.SIGSEGV, signal.SIGABRT])
async def test_a_crash_while_a_recording_is_heard_is_that_recordings(tmp_path, sign):
    """The daemon lives, the recording is undecodable, the next one is transcribed by a new process."""
    engine, before = provider(), workers()
    await heard(engine, SPEECH / "clips" / "sas_0880.wav")
    (worker,) = workers() - before
    long = write_wav(tmp_path / "long.wav", frames_of("jfk.wav") * 110)
    task = asyncio.create_task(heard(engine, long))
    busy = cpu_seconds(worker) + 0.5
    await until(lambda: cpu_seconds(worker) > busy)
    os.kill(worker, sign)
    with pytest.raises(AudioRejected) as refused:
        await task
    assert refused.value.code == "undecodable"
    assert sign.name in refused.value.reason
    assert (await heard(engine, SPEECH / "clips" / "sas_0930.wav")).text
    await engine.close()


FORBIDDING = """
import ctypes, os, sys
if ctypes.CDLL(None).prctl(65, 1, 0, 0, 0) != 0:  # PR_SET_MDWE with PR_MDWE_REFUSE_EXEC_GAIN, Linux 6.3
    sys.exit(77)
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""
HEARING = """
import asyncio, os, sys
sys.path[:0] = {path!r}
from dropscribe.config.model import ProviderConfig
from dropscribe.files.audio import AudioFile
from dropscribe.providers.local import LocalProvider

async def main():
    engine = LocalProvider(ProviderConfig(name="here", type="local", model="tiny.en"))
    with AudioFile.open({folder!r}, b"jfk.wav") as audio:
        try:
            await engine.transcribe(audio, {{}})
        except Exception as error:
            print(type(error).__name__, error)
    await engine.close()

asyncio.run(main())
"""


def test_a_service_that_forbids_machine_code_is_told_of_the_drop_in():
    """Under MemoryDenyWriteExecute the provider is held, with the remedy; no recording is blamed."""
    program = HEARING.format(path=sys.path, folder=os.fsencode(SPEECH / "clips"))
    command = [sys.executable, "-c", FORBIDDING, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode == 77:
        pytest.skip("this kernel cannot forbid memory that is written and run")
    assert "ProviderUnusable engine_forbidden" in done.stdout
    assert "local-engine.conf" in done.stdout


async def test_a_crash_while_the_model_loads_is_the_machines(tmp_path, monkeypatch):
    """What ends the engine before it has read anything holds the provider and fails no recording."""
    engine = provider()
    monkeypatch.setenv("CT2_FORCE_CPU_ISA", "NO_SUCH_ISA")
    with pytest.raises(ProviderUnusable):
        await heard(engine, SPEECH / "clips" / "sas_0880.wav")
    await engine.close()


def cpu_seconds(process):
    """CPU time that a process has used."""
    with open(f"/proc/{process}/stat", encoding="ascii") as stat:
        fields = stat.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def test_probe_names_the_model_without_loading_it():
    """`check --online` learns which model would be used and that it is the one we know."""
    engine = provider(model="auto")
    before = workers()
    assert "hashes verified" in await engine.probe()
    assert workers() == before
    await engine.close()


@pytest.mark.slow
def test_the_engine_reports_to_nobody(tmp_path):
    """Its voice detector's telemetry would leave an identifier in the cache folder: there is none."""
    program = (
        "from dropscribe.native import speech_model as m; from dropscribe.native.worker import recognition;"
        "recognition.load_model(str(m.choose_model('tiny.en').directory), 'cpu', 'auto', 1)"
    )
    quiet = ("CI", "ORT_DISABLE_TELEMETRY", "ORT_TELEMETRY_DISABLED")  # what would silence it without us
    environment = {name: value for name, value in os.environ.items() if name not in quiet}
    environment |= {
        "XDG_CACHE_HOME": str(tmp_path),
        "HOME": str(tmp_path),
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    subprocess.run([sys.executable, "-c", program], env=environment, check=True)
    assert [path for path in tmp_path.rglob("*") if "onnxruntime" in path.name] == []


async def test_a_model_that_does_not_load_holds_the_provider(tmp_path):
    """A directory with something else in it says nothing about the recording."""
    (tmp_path / "model.bin").write_bytes(b"no model")
    engine = provider(model=str(tmp_path))
    with pytest.raises(ProviderUnusable) as refused:
        await heard(engine, SPEECH / "clips" / "sas_0880.wav")
    assert refused.value.code == "model_unloadable"
    await engine.close()
