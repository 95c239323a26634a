"""How well and when the embedded engine hears: word error rate, word-time error, CPU time over real clips.

    python bench/speech.py FOLDER [--model tiny.en]

FOLDER holds recordings, beside each NAME.ext a NAME.txt with what is said; or MANIFEST.md, a table whose first
column is a path and whose last is the text (rows without one are left out). Where a NAME.words exists ("seconds word" a line), it tells when
each word begins; else the times of the same engine over the clip after three seconds of silence are compared,
shifted back, which shows whether times drift, not whether they are right.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import resource
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

from dropscribe.config.model import ProviderConfig
from dropscribe.files.audio import AudioFile
from dropscribe.providers.local import LocalProvider

DELAY_SECONDS = 3.0


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


async def heard_in(engine, path):
    with AudioFile.open(os.fsencode(path.parent), os.fsencode(path.name)) as audio:
        return await engine.transcribe(audio, {"language": "en"})


async def measure(folder, model):
    engine = LocalProvider(ProviderConfig(name="bench", type="local", model=model))
    wrong = said = 0
    seconds, differences = 0.0, []
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as room:
        for path, text in clips(folder):
            transcript = await heard_in(engine, path)
            spoken = words_of(text)
            count = edits(spoken, words_of(transcript.text))
            wrong, said, seconds = wrong + count, said + len(spoken), seconds + transcript.duration
            starts, shift = starts_of(path), 0.0
            if starts is None:
                starts, shift = (
                    [w.start for w in (await heard_in(engine, delayed(path, Path(room)))).words],
                    DELAY_SECONDS,
                )
            if len(starts) == len(transcript.words):
                differences += [
                    abs(w.start + shift - at) for w, at in zip(transcript.words, starts, strict=True)
                ]
            print(f"{count:4} of {len(spoken):4} words wrong  {path.name}")
    wall = time.perf_counter() - began
    await engine.close()
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    cpu = sum(each.ru_utime + each.ru_stime for each in used)
    print(f"word error rate      {100 * wrong / said:.1f} % ({wrong} of {said} words)")
    if differences:
        print(f"word-time error      {statistics.median(differences):.3f} s median, {len(differences)} words")
    print(
        f"audio {seconds:.0f} s, wall {wall:.0f} s, CPU {cpu:.0f} s, daemon {used[0].ru_maxrss // 1024} MB,",
        end=" ",
    )
    print(f"worker {used[1].ru_maxrss // 1024} MB")


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", default="tiny.en")
    options = parser.parse_args()
    asyncio.run(measure(options.folder, options.model))


if __name__ == "__main__":
    main()
