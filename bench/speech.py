"""Accuracy and speed of the embedded engine: word errors, word times, real-time factor, memory.

    python bench/speech.py FOLDER [--model tiny.en] [--minutes 10] [--vocabulary Dashwood]

FOLDER holds recordings, beside each NAME.ext a NAME.txt with what is said; or MANIFEST.md, a table whose first
column is a path and whose last is the text (rows without one are left out). Where a NAME.words exists ("seconds word" a line), it tells when
each word begins; else the times of the same engine over the clip after three seconds of silence are compared,
shifted back, which shows whether times drift, not whether they are right. --minutes adds one recording of that
length, made of the clips in a row. Needs ffmpeg.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import os
import re
import resource
import statistics
import subprocess
import tempfile
import time
import wave
from pathlib import Path

from dropscribe.config.model import ProviderConfig
from dropscribe.files.audio import AudioFile
from dropscribe.providers.local import LocalProvider

DELAY_SECONDS = 3.0
RATE_HZ = 16_000


def words_of(text):
    text = re.sub(r"\bmr\b\.?", "mister", text.lower().replace("-", " "))
    return re.findall(r"[a-z0-9']+", text)


def edits(spoken, heard):
    """Substitutions, deletions and insertions that make *heard* of *spoken*."""
    row = list(range(len(heard) + 1))
    for number, word in enumerate(spoken, 1):
        before, row[0] = row[0], number
        for place, other in enumerate(heard, 1):
            before, row[place] = row[place], min(row[place] + 1, row[place - 1] + 1, before + (word != other))
    return row[-1]


def clips(folder):
    manifest = folder / "MANIFEST.md"
    if manifest.exists():
        for line in manifest.read_text("utf-8").splitlines():
            row = [cell.strip(" `") for cell in line.strip("| \n").split("|")]
            if len(row) > 1 and " " in row[-1] and (folder / row[0]).is_file():
                yield folder / row[0], row[-1]
        return
    for text in sorted(folder.rglob("*.txt")):
        for path in text.parent.glob(f"{text.stem}.*"):
            if path.suffix not in {".txt", ".words"}:
                yield path, text.read_text("utf-8")


def starts_of(path):
    listed = path.with_suffix(".words")
    if not listed.exists():
        return None
    return [float(line.split()[0]) for line in listed.read_text("utf-8").splitlines() if line.strip()]


def delayed(path, folder):
    made = folder / f"{path.stem}.wav"
    delay = f"adelay={round(DELAY_SECONDS * 1000)}:all=1"
    subprocess.run(["ffmpeg", "-v", "error", "-y", "-i", str(path), "-af", delay, str(made)], check=True)
    return made


def in_a_row(paths, seconds, folder):
    """A recording of at least *seconds*, and how many of *paths*, taken round and round, it holds."""
    shape = ["-f", "s16le", "-ac", "1", "-ar", str(RATE_HZ), "-"]
    parts, again = [], itertools.cycle(paths)
    while sum(map(len, parts)) < 2 * seconds * RATE_HZ:
        command = ["ffmpeg", "-v", "error", "-i", str(next(again)), *shape]
        parts.append(subprocess.run(command, capture_output=True, check=True).stdout)
    with wave.open(str(folder / "long.wav"), "wb") as target:
        target.setparams((1, 2, RATE_HZ, 0, "NONE", ""))
        target.writeframes(b"".join(parts))
    return folder / "long.wav", len(parts)


async def heard_in(engine, path, **params):
    with AudioFile.open(os.fsencode(path.parent), os.fsencode(path.name)) as audio:
        return await engine.transcribe(audio, {"language": "en", **params})


def worker_mb():
    """The most that a worker process had; only what has ended counts."""
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024


def worker_cpu_seconds():
    """As worker_mb."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


async def measure(folder, model, params):
    """Each clip once, and once delayed; the worker, its model loaded, is not counted in the times."""
    engine = LocalProvider(ProviderConfig(name="bench", type="local", model=model))
    spoken, found = list(clips(folder)), []
    began = time.perf_counter()
    await heard_in(engine, spoken[0][0])
    print(f"start, load and first clip  {time.perf_counter() - began:.1f} s")
    wrong = said = wall = 0
    differences = []
    with tempfile.TemporaryDirectory() as room:
        for path, text in spoken:
            began = time.perf_counter()
            transcript = await heard_in(engine, path, **params)
            wall += time.perf_counter() - began
            found.append(transcript)
            count, words = edits(words_of(text), words_of(transcript.text)), len(words_of(text))
            wrong, said = wrong + count, said + words
            print(f"{count:4} of {words:4} words wrong  {path.name}")
            starts, shift = starts_of(path), 0.0
            if starts is None:
                late = await heard_in(engine, delayed(path, Path(room)), **params)
                starts, shift = [word.start for word in late.words], DELAY_SECONDS
            if len(starts) == len(transcript.words):
                pairs = zip(transcript.words, starts, strict=True)
                differences += [abs(word.start + shift - at) for word, at in pairs]
    await engine.close()
    seconds = sum(transcript.duration for transcript in found)
    print(f"word error rate      {100 * wrong / said:.1f} % ({wrong} of {said} words)")
    if differences:
        print(f"word-time error      {statistics.median(differences):.3f} s median, {len(differences)} words")
    print(f"real-time factor     {wall / seconds:.3f} ({seconds:.0f} s of audio in {wall:.0f} s)")
    print(f"peak memory          {worker_mb()} MB")


async def measure_long(folder, model, params, seconds):
    """One recording of *seconds*."""
    engine = LocalProvider(ProviderConfig(name="bench", type="local", model=model))
    spoken = list(clips(folder))
    with tempfile.TemporaryDirectory() as room:
        made, count = in_a_row([path for path, _ in spoken], seconds, Path(room))
        texts = itertools.islice(itertools.cycle(text for _, text in spoken), count)
        began, used = time.perf_counter(), worker_cpu_seconds()
        transcript = await heard_in(engine, made, **params)
        wall = time.perf_counter() - began
    await engine.close()
    cpu = worker_cpu_seconds() - used
    expected = words_of(" ".join(texts))
    wrong = edits(expected, words_of(transcript.text))
    print(f"{transcript.duration / 60:.1f} minutes in one recording:")
    print(f"word error rate      {100 * wrong / len(expected):.1f} % ({wrong} of {len(expected)} words)")
    print(f"real-time factor     {wall / transcript.duration:.3f}, start and load included")
    print(f"CPU                  {cpu / transcript.duration:.3f} s a second of audio")
    print(f"peak memory          {worker_mb()} MB")


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", default="tiny.en")
    parser.add_argument("--minutes", type=float, default=0.0, help="also one recording of that length")
    parser.add_argument("--vocabulary", default="", help="words that are likely to be said")
    options = parser.parse_args()
    if not any(clips(options.folder)):
        parser.error(f"{options.folder}: no recording has its text beside it")
    params = {"hotwords": options.vocabulary} if options.vocabulary else {}
    asyncio.run(measure(options.folder, options.model, params))
    if options.minutes:
        asyncio.run(measure_long(options.folder, options.model, params, options.minutes * 60))


if __name__ == "__main__":
    main()
