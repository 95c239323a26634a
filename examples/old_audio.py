#!/usr/bin/env python3
"""Removes or compresses recordings whose transcripts are old; made for a timer.

    old_audio.py --days 90 --remove /srv/recordings/done               # says what it would do
    old_audio.py --days 90 --remove --do-it /srv/recordings/done
    old_audio.py --days 30 --compress --do-it /srv/recordings/done     # WAV, FLAC, AIFF → Opus, by ffmpeg

Only a recording in a done folder whose transcript (NAME.json) stands beside it, is whole, has text, no gap
and no warning about it, and names exactly these bytes. Everything else stays: transcripts, failed recordings,
links and what they lead to, files of others. Standard library only; ends with 1 where something went wrong.
"""

import argparse
import contextlib
import hashlib
import json
import os
import stat
import subprocess
import sys
from datetime import UTC, datetime, timedelta

READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
COMPRESSIBLE = (".wav", ".flac", ".aif", ".aiff", ".w64", ".caf")
HARMLESS = {"no_timestamps", "companion_missing"}
LONGEST_DIFFERENCE_SECONDS = 1.0
LARGEST_TRANSCRIPT_BYTES = 64 * 1024 * 1024


def main() -> int:
    """Go through every folder below the named ones."""
    options = parse_arguments()
    before = datetime.now(UTC) - timedelta(days=options.days)
    well = True
    for path, name, folder in files_below(options.done):
        try:
            work_on(path, folder, name, before, options)
        except (
            OSError,
            subprocess.SubprocessError,
            ValueError,
            LookupError,
            TypeError,
            AttributeError,
        ) as error:
            sys.stderr.write(f"{os.path.join(path, name)!r}: {type(error).__name__}: {error}\n")
            well = False
    return 0 if well else 1


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Remove or compress recordings with old transcripts.")
    parser.add_argument("--days", type=float, required=True, help="age of the transcript")
    way = parser.add_mutually_exclusive_group(required=True)
    way.add_argument("--remove", action="store_true")
    way.add_argument("--compress", action="store_true")
    parser.add_argument("--do-it", action="store_true", help="without it, only say what would be done")
    parser.add_argument("done", nargs="+", help="done folders")
    options = parser.parse_args()
    if options.days < 0:
        parser.error("--days is less than 0")
    return options


def files_below(roots: list[str]):  # noqa: ANN201
    """(path of its folder, name, the open folder) of each file; no link is followed."""
    for root in roots:
        if os.path.islink(root) or not os.path.isdir(root):
            sys.exit(f"{root!r} is no folder")
        for path, _, names, folder in os.fwalk(root):
            for name in sorted(names):
                yield path, name, folder


def work_on(path: str, folder: int, name: str, before: datetime, options: argparse.Namespace) -> None:
    """Look whether the file *name* is a transcript; remove or compress the recording that it names."""
    transcript = read_transcript(folder, name)
    if transcript is None or not is_settled(transcript, before):
        return
    source = transcript["source"]
    audio = find_audio(folder, name, source)
    if audio is None or (options.compress and not audio.lower().endswith(COMPRESSIBLE)):
        return
    with opened(folder, audio) as descriptor:
        if sha256_of(descriptor) != source["sha256"]:
            return
        verb = "remove" if options.remove else "compress"
        sys.stdout.write(f"{verb if options.do_it else 'would ' + verb} {os.path.join(path, audio)!r}\n")
        if not options.do_it:
            return
        if options.compress:
            compress(folder, audio, descriptor)
        if not os.path.samestat(os.fstat(descriptor), os.lstat(audio, dir_fd=folder)):
            raise ValueError(f"another file stands at {audio!r} by now")
        os.unlink(audio, dir_fd=folder)
        os.fsync(folder)


def read_transcript(folder: int, name: str) -> dict | None:
    """The whole transcript *name*; None for any other file."""
    if not name.endswith(".json") or not stat.S_ISREG(os.lstat(name, dir_fd=folder).st_mode):
        return None
    with opened(folder, name) as descriptor, open(descriptor, "rb", closefd=False) as file:
        try:
            found = json.loads(file.read(LARGEST_TRANSCRIPT_BYTES))
        except (ValueError, RecursionError):
            return None
    if not isinstance(found, dict) or found.get("schema") != "dropscribe.transcript/1":
        return None
    return found


def is_settled(transcript: dict, before: datetime) -> bool:
    """Whether the transcript is old, and nothing speaks for listening to the recording again."""
    doubts = set(transcript["warnings"]) - HARMLESS
    is_doubtful = doubts or transcript["missing"] or not transcript["text"].strip()
    return not is_doubtful and datetime.fromisoformat(transcript["job"]["transcribed_at"]) < before


def find_audio(folder: int, transcript: str, source: dict) -> str | None:
    """The name of the recording beside its transcript: a regular file of the right size."""
    stem, suffix = transcript.removesuffix(".json"), os.path.splitext(source["file"])[1]
    for name in (stem + suffix, stem, stem.removesuffix(".transcript") + suffix):
        with contextlib.suppress(FileNotFoundError):
            status = os.lstat(name, dir_fd=folder)
            if stat.S_ISREG(status.st_mode) and status.st_size == source["bytes"] and name != transcript:
                return name
    return None


@contextlib.contextmanager
def opened(folder: int, name: str):  # noqa: ANN201
    """The file, no link followed."""
    descriptor = os.open(name, READ, dir_fd=folder)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def sha256_of(descriptor: int) -> str:
    """Hex digest of the whole file."""
    with open(descriptor, "rb", closefd=False) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def compress(folder: int, audio: str, original: int) -> None:
    """Write the recording as Opus beside itself, durably; nothing is overwritten."""
    name, hidden = os.path.splitext(audio)[0] + ".opus", ".old-audio.tmp"
    with contextlib.suppress(FileNotFoundError):
        os.unlink(hidden, dir_fd=folder)  # of a run that was cut off
    new = os.open(hidden, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600, dir_fd=folder)
    try:
        ffmpeg("-y", "-i", fd(original), "-map", "0:a", "-c:a", "libopus", "-f", "ogg", fd(new))
        difference = abs(seconds_of(original) - seconds_of(new))
        if difference > LONGEST_DIFFERENCE_SECONDS:
            raise ValueError(f"the compressed recording differs by {difference:.1f} s")
        status = os.fstat(original)
        os.fchmod(new, stat.S_IMODE(status.st_mode))
        os.utime(new, ns=(status.st_atime_ns, status.st_mtime_ns))
        os.fsync(new)
        os.link(hidden, name, src_dir_fd=folder, dst_dir_fd=folder, follow_symlinks=False)
        os.fsync(folder)
    finally:
        os.close(new)
        os.unlink(hidden, dir_fd=folder)


def seconds_of(descriptor: int) -> float:
    """The length of what can be decoded, not of what a header says."""
    said = ffmpeg("-i", fd(descriptor), "-progress", "/dev/stdout", "-f", "null", "/dev/null")
    times = [line.partition("=")[2] for line in said.splitlines() if line.startswith("out_time_us=")]
    return int(times[-1]) / 1_000_000


def fd(descriptor: int) -> str:
    """A path to the open file, whatever its name is."""
    return f"/dev/fd/{descriptor}"


def ffmpeg(*arguments: str) -> str:
    """What it prints; SubprocessError where it fails, also for a part that cannot be decoded."""
    descriptors = [int(part.rpartition("/")[2]) for part in arguments if part.startswith("/dev/fd/")]
    command = ["ffmpeg", "-nostdin", "-v", "error", "-xerror", "-err_detect", "explode", *arguments]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, pass_fds=descriptors, text=True)  # noqa: S603
    return done.stdout


if __name__ == "__main__":
    sys.exit(main())
