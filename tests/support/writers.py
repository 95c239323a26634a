"""Real programs that drop recordings into an inbox, each in its own manner."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import random
import shutil
import struct
import subprocess
import threading
import time
import wave
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from support.recording_library import STATED, Library, run
from support.speech import SAMPLE_RATE_HZ
from support.writer_servers import (
    SMBD,
    SSHD,
    breaking_line,
    samba_server,
    ssh_options,
    ssh_server,
    web_server,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

_MOST_UNDER_WAY = 16
_UNDER_WAY = threading.BoundedSemaphore(_MOST_UNDER_WAY)
"""Recordings that all writers together have under way, so that the daemon is not starved of the cores."""

_HANDSHAKE_BYTES = 12_000
_HEADER_BYTES = 6_000
"""No format's header is longer, so that a larger file has begun with the sound."""

_LINE = "127.0.0.1"


@dataclass(frozen=True)
class Pace:
    """The pauses and lengths of the writers' recordings.

    Attributes:
        pause_seconds: Between a transfer that broke off and its second half.
        live_seconds: Of a recording that is written as fast as it is spoken.
    """

    pause_seconds: tuple[float, float] = (3.0, 12.0)
    live_seconds: float = 4.0


@dataclass
class Bench:
    """The folders and servers of one writer.

    Attributes:
        inbox: The folder that its recordings must reach.
        spool: A folder of its own on the same file system.
        share: The folder that smbd serves; *inbox* is below it.
        keys: The folder of sshd's keys.
        ports: Of the servers, by name.
        expected: SHA-256 of the recordings by name; None: what is in done at the end.
    """

    inbox: Path
    spool: Path
    share: Path
    keys: Path
    ports: Mapping[str, int]
    library: Library
    pace: Pace
    expected: dict[str, str | None] = field(default_factory=dict)

    def expect(self, name: str, source: Path | None = None) -> Path:
        """Note that *name* is dropped, with the bytes of *source*; its path."""
        self.expected[name] = None if source is None else hashlib.sha256(source.read_bytes()).hexdigest()
        return self.inbox / name

    def pause(self) -> None:
        """Wait, as a sender does whose line is down."""
        time.sleep(random.uniform(*self.pace.pause_seconds))

    def each(self, drop: Callable[[Bench, int], None]) -> None:
        """Drop every recording, several at a time."""

        def drop_one(number: int) -> None:
            with _UNDER_WAY:
                drop(self, number)

        with ThreadPoolExecutor(_MOST_UNDER_WAY) as pool:
            list(pool.map(drop_one, self.library.numbers))


@dataclass(frozen=True)
class Writer:
    """One manner of dropping recordings.

    Attributes:
        drop: Drops them all.
        programs: The programs that it needs besides ffmpeg.
        rule: Keys of its folder rule.
        warned: Whether its recordings must have the warning ``incomplete_audio``; None: some may.
        is_hole: Whether torn recordings are documented: neither format nor name tells that more is to come.
    """

    name: str
    drop: Callable[[Bench], None]
    programs: tuple[str, ...] = ()
    rule: Mapping[str, Any] = field(default_factory=dict)
    warned: bool | None = False
    is_hole: bool = False

    @property
    def is_available(self) -> bool:
        """Whether this machine has what it needs."""
        needs = ("ffmpeg", *self.programs)
        return all(map(shutil.which, needs)) and (SMBD not in needs or os.geteuid() == 0)


def one_by_one(drop: Callable[[Bench, int], None]) -> Callable[[Bench], None]:
    """A writer's ``drop`` of one that drops a single recording."""
    return lambda bench: bench.each(drop)


# Recorders on this machine


def _ffmpeg_segments(bench: Bench, suffix: str, options: list[str]) -> None:
    seconds = 2 * len(bench.library.numbers) - 1
    names = bench.spool / "names"
    run(
        *("ffmpeg", "-v", "error", "-re", "-i", bench.library.wav(0, seconds), *options),
        *("-f", "segment", "-segment_time", "2", "-segment_list", names, "-segment_list_type", "flat"),
        bench.inbox / f"%02d.{suffix}",
    )
    for name in names.read_text().split():
        bench.expect(name)


def _ffmpeg_killed(bench: Bench, number: int, suffix: str, options: list[str]) -> None:
    path = bench.expect(f"{number:02}.{suffix}")
    live = ("ffmpeg", "-v", "error", "-re", "-i", bench.library.wav(number))
    command = [*map(str, (*live, *options, "-flush_packets", "1", path))]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL) as process:
        time.sleep(random.uniform(1, bench.pace.live_seconds))
        while not (path.exists() and path.stat().st_size > _HEADER_BYTES) and process.poll() is None:
            time.sleep(0.05)
        process.kill()


def _ffmpeg(bench: Bench, number: int, suffix: str, *options: str) -> None:
    path = bench.expect(f"{number:02}.{suffix}")
    wav = bench.library.wav(number, bench.pace.live_seconds)
    run("ffmpeg", "-v", "error", "-re", "-i", wav, *options, path)


def _obs_remux(bench: Bench, number: int) -> None:
    """OBS's "Automatically remux to mp4": a Matroska, and an MP4 of it when it is complete."""
    _ffmpeg(bench, number, "mkv", "-c:a", "aac")
    path = bench.expect(f"{number:02}.mp4")
    run("ffmpeg", "-v", "error", "-i", bench.inbox / f"{number:02}.mkv", "-c", "copy", path)


def _sox(bench: Bench, number: int) -> None:
    """As ``rec``: sound comes in as fast as it is spoken."""
    suffix = ("wav", "flac", "ogg", "aiff")[number % 4]
    path = bench.expect(f"{number:02}.{suffix}")
    raw = ("sox", "-t", "raw", "-r", "16k", "-e", "signed", "-b", "16", "-c", "1", "-", str(path))
    with wave.open(str(bench.library.wav(number, bench.pace.live_seconds))) as file:
        frames = file.readframes(file.getnframes())
    step = SAMPLE_RATE_HZ // 5 * 2
    with subprocess.Popen(raw, stdin=subprocess.PIPE) as process:
        assert process.stdin is not None
        for start in range(0, len(frames), step):
            process.stdin.write(frames[start : start + step])
            process.stdin.flush()
            time.sleep(0.2)
    assert process.returncode == 0


def _mixmonitor(bench: Bench, number: int) -> None:
    """A PBX: packets of 20 ms through a buffer of 32 KiB, the line on hold now and then, the lengths last."""
    path = bench.expect(f"{number:02}.wav")
    content = bench.library.wav(number, bench.pace.live_seconds).read_bytes()
    packet = SAMPLE_RATE_HZ // 50 * 2
    with path.open("wb", buffering=32 * 1024) as file:
        file.write(content[:4] + bytes(4) + content[8:40] + bytes(4))
        for start in range(44, len(content), packet):
            file.write(content[start : start + packet])
            time.sleep(0.02 if random.random() < 0.995 else random.uniform(0, 6))
        for position, count in ((4, len(content) - 8), (40, len(content) - 44)):
            file.seek(position)
            file.write(struct.pack("<I", count))


# Copies and moves


def _spooled(bench: Bench, number: int) -> Path:
    source = bench.library.encoded(number)
    return Path(shutil.copy(source, bench.spool / source.name))


def _mv(bench: Bench, number: int) -> None:
    source = _spooled(bench, number)
    run("mv", source, bench.expect(source.name, source))


def _mv_from_other_file_system(bench: Bench, number: int) -> None:
    source = bench.library.encoded(number)
    spooled = Path("/dev/shm") / f"dropscribe-{os.getpid()}-{source.name}"
    shutil.copy(source, spooled)
    run("mv", spooled, bench.expect(source.name, source))


def _cp(bench: Bench, number: int) -> None:
    source = bench.library.encoded(number)
    run("cp", *(["-p"] if number % 2 else []), source, bench.expect(source.name, source))


def _copy2(bench: Bench, number: int) -> None:
    """As many programs do: the times of the original are set after the last byte and the close."""
    source = bench.library.encoded(number)
    shutil.copy2(source, bench.expect(source.name, source))


# Over a network


@contextlib.contextmanager
def _broken(bench: Bench, server: str, source: Path) -> Iterator[int]:
    """A port of *server* on which about half of *source* passes; the sender's pause follows."""
    with breaking_line(bench.ports[server], _HANDSHAKE_BYTES + source.stat().st_size // 2) as port:
        yield port
    bench.pause()


def _sftp(bench: Bench, port: int, batch: str, *, may_fail: bool = False) -> None:
    # Its usual write of 255 KiB is a whole recording here, which cannot break off in the middle.
    command = ("sftp", "-B", 8192, "-b", "-", "-P", port, *ssh_options(bench.keys), _LINE)
    run(*command, text=batch, may_fail=may_fail)


def _sftp_put(bench: Bench, number: int) -> None:
    source = bench.library.encoded(number)
    _sftp(bench, bench.ports["ssh"], f'put "{source}" "{bench.expect(source.name, source)}"\n')


def _sftp_reput(bench: Bench, number: int, kind: str = "stated") -> None:
    source = bench.library.encoded(number, kind)
    target = bench.expect(source.name, source)
    with _broken(bench, "ssh", source) as port:
        _sftp(bench, port, f'put "{source}" "{target}"\n', may_fail=True)
    try:
        _sftp(bench, bench.ports["ssh"], f'reput "{source}" "{target}"\n')
    except RuntimeError:  # there is nothing to resume: the half has been taken
        _sftp(bench, bench.ports["ssh"], f'put "{source}" "{target}"\n')


def _scp(bench: Bench, number: int) -> None:
    """Every second one breaks off and is done again from its beginning."""
    source = bench.library.encoded(number)
    target = bench.expect(source.name, source)
    options = ssh_options(bench.keys)
    if number % 2:
        with _broken(bench, "ssh", source) as port:
            run("scp", "-P", port, *options, source, f"{_LINE}:{target}", may_fail=True)
    run("scp", "-P", bench.ports["ssh"], *options, source, f"{_LINE}:{target}")


def _rsync(bench: Bench, number: int, *flags: str, breaks: bool = True) -> None:
    source = bench.library.encoded(number)
    target = bench.expect(source.name, source)

    def copy(port: int, *, may_fail: bool) -> None:
        shell = " ".join(("ssh", "-p", str(port), *ssh_options(bench.keys)))
        run("rsync", "-t", *flags, "-e", shell, source, f"{_LINE}:{target}", may_fail=may_fail)

    if breaks:
        with _broken(bench, "ssh", source) as port:
            copy(port, may_fail=True)
    copy(bench.ports["ssh"], may_fail=False)


def _smb_put(bench: Bench, number: int) -> None:
    """Every second one breaks off and is done again from its beginning."""
    source = bench.library.encoded(number)
    put = f'put "{source}" "{bench.expect(source.name, source).relative_to(bench.share)}"'
    command = ("smbclient", f"//{_LINE}/share", "-N", "-c", put, "-p")
    if number % 2:
        with _broken(bench, "smb", source) as port:
            run(*command, port, may_fail=True)
    run(*command, bench.ports["smb"])


def _curl(bench: Bench, number: int) -> None:
    source = bench.library.encoded(number)
    target = bench.expect(source.name, source)
    command = ("curl", "-sS", "-f", "-C", "-", "-o", target)
    path = source.relative_to(bench.library.folder)
    with _broken(bench, "web", source) as port:
        run(*command, f"http://{_LINE}:{port}/{path}", may_fail=True)
    run(*command, f"http://{_LINE}:{bench.ports['web']}/{path}")


_SEGMENTS = {form: STATED[form] for form in ("wav", "ogg", "opus", "flac", "mp3", "m4a")}
_KILLED = {**_SEGMENTS, "mka": STATED["mka"]}
_SSH = ("ssh", "ssh-keygen", SSHD)
_FRAGMENTS = ("-c:a", "aac", "-movflags", "+empty_moov+default_base_moof", "-frag_duration", "1000000")

WRITERS = [
    *(
        Writer(
            f"ffmpeg -f segment, {form}", functools.partial(_ffmpeg_segments, suffix=form, options=options)
        )
        for form, options in _SEGMENTS.items()
    ),
    *(
        Writer(
            f"ffmpeg killed, {form}",
            one_by_one(functools.partial(_ffmpeg_killed, suffix=form, options=options)),
            warned=True if form in {"wav", "m4a", "mp3"} else None,
        )
        for form, options in _KILLED.items()
    ),
    Writer(
        "ffmpeg +faststart, mp4",
        one_by_one(lambda bench, number: _ffmpeg(bench, number, "mp4", "-movflags", "+faststart")),
    ),
    Writer(
        "OBS, fragmented mp4", one_by_one(lambda bench, number: _ffmpeg(bench, number, "mp4", *_FRAGMENTS))
    ),
    Writer("OBS, mkv", one_by_one(lambda bench, number: _ffmpeg(bench, number, "mkv", "-c:a", "aac"))),
    Writer("OBS, webm", one_by_one(lambda bench, number: _ffmpeg(bench, number, "webm", "-c:a", "libopus"))),
    Writer("OBS, mkv remuxed to mp4", one_by_one(_obs_remux), rule={"min_age": "10s"}),
    Writer("sox, as rec", one_by_one(_sox), ("sox",)),
    Writer("PBX (MixMonitor), wav", one_by_one(_mixmonitor)),
    Writer("mv from a spool", one_by_one(_mv)),
    Writer("mv from another file system", one_by_one(_mv_from_other_file_system)),
    Writer("cp, cp -p", one_by_one(_cp)),
    Writer("Python's shutil.copy2", one_by_one(_copy2)),
    Writer("scp, half of them broken off and repeated", one_by_one(_scp), (*_SSH, "scp")),
    Writer("sftp put", one_by_one(_sftp_put), (*_SSH, "sftp")),
    Writer("sftp, broken off, reput", one_by_one(_sftp_reput), (*_SSH, "sftp")),
    Writer(
        "sftp, broken off, reput; AAC and MP3 without Xing",
        one_by_one(functools.partial(_sftp_reput, kind="unstated")),
        (*_SSH, "sftp"),
        is_hole=True,
    ),
    Writer(
        "sftp, the same with settle: 1m",
        one_by_one(functools.partial(_sftp_reput, kind="unstated")),
        (*_SSH, "sftp"),
        rule={"settle": "1m"},
    ),
    Writer("rsync", one_by_one(functools.partial(_rsync, breaks=False)), (*_SSH, "rsync")),
    *(
        Writer(
            f"rsync {flag}, broken off and resumed",
            one_by_one(lambda bench, number, flag=flag: _rsync(bench, number, flag)),
            (*_SSH, "rsync"),
        )
        for flag in ("--inplace", "--partial", "--append-verify")
    ),
    Writer("smbclient put, half of them broken off and repeated", one_by_one(_smb_put), (SMBD, "smbclient")),
    Writer("curl, broken off, -C -", one_by_one(_curl), ("curl",)),
]


@contextlib.contextmanager
def servers(root: Path, library: Library, share: Path, writers: list[Writer]) -> Iterator[dict[str, int]]:
    """The servers that the writers need, by name; their ports."""
    needed = {program for writer in writers for program in writer.programs}
    with contextlib.ExitStack() as stack:
        ports = {"web": stack.enter_context(web_server(library.folder))}
        if SSHD in needed:
            ports["ssh"] = stack.enter_context(ssh_server(root / "ssh"))
        if SMBD in needed:
            ports["smb"] = stack.enter_context(samba_server(root / "smb", share))
        yield ports
