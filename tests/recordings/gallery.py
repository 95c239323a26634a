"""Small recordings of the kinds that recorders, phones, browsers and telephone systems really write.

Each maker gets eleven seconds of speech as 16 kHz mono samples and writes one file. What the file stands for,
what must be heard in it, when and with which warnings, is its entry in GALLERY.

By hand: python tests/recordings/gallery.py SPEECH.wav FOLDER
"""

from __future__ import annotations

import array
import math
import struct
import subprocess
import sys
import wave
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

RATE_HZ = 16_000
FLOAT, PCM = 3, 1


@dataclass(frozen=True)
class Kind:
    """One kind of recording.

    Attributes:
        name: The file's.
        make: Writes it: (speech, path).
        shift_seconds: By how much later than in the plain recording its words are.
        seconds: Its length on its own clock.
        warnings: Of the transcript.
        is_heard: False where the text must be empty.
    """

    name: str
    make: Callable[[array.array, Path], None]
    shift_seconds: float = 0.0
    seconds: float = 11.0
    warnings: tuple[str, ...] = ()
    is_heard: bool = True


def wav(path: Path, channels: Sequence[array.array], form: int = PCM, rate_hz: int = RATE_HZ) -> None:
    """A WAV with a plain header, in which no layout is declared."""
    count, size = len(channels), channels[0].itemsize
    frames = array.array(channels[0].typecode, bytes(size * count * len(channels[0])))
    for number, channel in enumerate(channels):
        frames[number::count] = channel
    layout = struct.pack("<HHIIHH", form, count, rate_hz, rate_hz * size * count, size * count, size * 8)
    data = frames.tobytes()
    chunks = b"fmt " + struct.pack("<I", 16) + layout + b"data" + struct.pack("<I", len(data)) + data
    path.write_bytes(b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WAVE" + chunks)


def quiet(speech: array.array) -> array.array:
    """As long as *speech*, and silent."""
    return array.array(speech.typecode, bytes(speech.itemsize * len(speech)))


def on_channel(number: int, count: int) -> Callable[[array.array, Path], None]:
    """The voice on one channel of several."""

    def make(speech: array.array, path: Path) -> None:
        wav(path, [speech if each == number else quiet(speech) for each in range(count)])

    return make


def inverted(speech: array.array, path: Path) -> None:
    """A cable with its wires crossed: one side is the other's negative, and a little softer."""
    wav(path, [speech, array.array("h", (-int(0.9 * sample) for sample in speech))])


def floats(factor: float, every: int = 0, value: float = math.nan) -> Callable[[array.array, Path], None]:
    """Floats at another level, each *every*-th of them replaced by *value*."""

    def make(speech: array.array, path: Path) -> None:
        samples = array.array("f", (sample / 32768 * factor for sample in speech))
        if every:
            samples[::every] = array.array("f", [value] * len(samples[::every]))
        wav(path, [samples], FLOAT)

    return make


def header_of_3_seconds(speech: array.array, path: Path) -> None:
    """What a recording past 4 GiB has: a size that has wrapped around."""
    wav(path, [speech])
    content = bytearray(path.read_bytes())
    content[40:44] = struct.pack("<I", 3 * 2 * RATE_HZ)
    path.write_bytes(content)


def raw(speech: array.array, path: Path) -> None:
    """Signed linear samples without a header, at the rate that the suffix stands for."""
    step = 2 if path.suffix == ".sln" else 1
    path.write_bytes(array.array("h", speech[::step]).tobytes())


def oki(speech: array.array, path: Path) -> None:
    """Dialogic's ADPCM without a header (4 bits at 8 kHz)."""
    run(
        "sox",
        "-t",
        "raw",
        "-r",
        "16k",
        "-e",
        "signed",
        "-b",
        "16",
        "-c",
        "1",
        "-",
        "-r",
        "8k",
        str(path),
        speech=speech,
    )


def two_tracks(
    *arguments: str, first: str = "aevalsrc=0:d=11", inputs: str = ""
) -> Callable[[array.array, Path], None]:
    """A film with a silent first track and the voice in the second."""

    def make(speech: array.array, path: Path) -> None:
        source = ("-f", "lavfi", "-i", first, *PIPED)
        run(
            "ffmpeg",
            *QUIET,
            *source,
            "-map",
            "0:a",
            "-map",
            "1:a",
            "-c:a",
            "aac",
            *arguments,
            str(path),
            speech=speech,
        )

    return make


def ffmpeg(*arguments: str, video: bool = False) -> Callable[[array.array, Path], None]:
    """What ffmpeg makes of the speech with these arguments."""

    def make(speech: array.array, path: Path) -> None:
        picture = ("-f", "lavfi", "-i", "color=s=64x64:r=5:d=20") if video else ()
        run("ffmpeg", *QUIET, *PIPED, *picture, *arguments, str(path), speech=speech)

    return make


def with_a_gap(speech: array.array, path: Path) -> None:
    """A recorder that was paused: the time stamps jump from 5 s to 25 s."""
    late = "asetpts='if(gte(T,5),PTS+20/TB,PTS)'"
    run("ffmpeg", *QUIET, *PIPED, "-af", late, "-c:a", "libopus", "-f", "webm", str(path), speech=speech)


def noise(_speech: array.array, path: Path) -> None:
    """Loud noise, and nothing said."""
    run("sox", "-n", "-r", "16k", "-c", "1", "-b", "16", str(path), "synth", "11", "pinknoise", "vol", "0.3")


QUIET = ("-v", "error", "-y")
PIPED = ("-f", "s16le", "-ar", "16000", "-ac", "1", "-i", "pipe:0")


def run(*command: str, speech: array.array | None = None) -> None:
    """Run a program with the speech at its standard input."""
    subprocess.run(command, input=speech.tobytes() if speech else b"", check=True, timeout=60)


LATE = ("-output_ts_offset", "4")

GALLERY = (
    Kind("plain.wav", lambda speech, path: wav(path, [speech])),
    Kind("three-channels.wav", on_channel(2, 3)),
    Kind("voice-on-the-fourth-of-six.wav", on_channel(3, 6)),
    Kind("nine-channels.wav", on_channel(8, 9)),
    Kind("sixty-four-channels.wav", on_channel(40, 64)),
    Kind("declared-5.1.flac", ffmpeg("-af", "pan=5.1|FC=c0", "-c:a", "flac")),
    Kind("voice-declared-as-LFE.flac", ffmpeg("-af", "pan=5.1|LFE=c0", "-c:a", "flac")),
    Kind("eight-planes.ogg", ffmpeg("-af", "pan=7.1|c5=c0", "-c:a", "libvorbis")),
    Kind("crossed-wires.wav", inverted),
    Kind("not-a-number.wav", floats(1.0, 997)),
    Kind("infinite.wav", floats(1.0, 997, math.inf)),
    Kind("sixty-decibels-down.wav", floats(0.001)),
    Kind("sixty-decibels-up.wav", floats(1000.0)),
    Kind("a-spike-of-1e30.wav", floats(1.0, 50_000, 1e30)),
    Kind("header-of-3-seconds.wav", header_of_3_seconds),
    Kind("phone.sln", raw),
    Kind("phone.sln16", raw),
    Kind("dialogic.vox", oki),
    Kind("u-law.ulaw", ffmpeg("-ar", "8000", "-f", "mulaw")),
    Kind("gsm.gsm", ffmpeg("-ar", "8000", "-c:a", "gsm", "-f", "gsm")),
    Kind("silent-first-track.mkv", two_tracks("-disposition:a:0", "default", "-disposition:a:1", "0")),
    Kind(
        "default-second-track.mkv",
        two_tracks(
            "-disposition:a:0", "0", "-disposition:a:1", "default", first="anoisesrc=a=0.1:d=11:c=pink"
        ),
        warnings=("other_tracks",),
    ),
    Kind(
        "film-with-late-sound.mkv",
        ffmpeg(
            "-map",
            "1:v",
            "-map",
            "0:a",
            "-af",
            "adelay=0,asetpts=PTS+4/TB",
            "-c:v",
            "mpeg4",
            "-c:a",
            "aac",
            video=True,
        ),
        shift_seconds=4.0,
        seconds=15.0,
    ),
    Kind("late.mka", ffmpeg(*LATE, "-c:a", "libopus"), shift_seconds=4.0, seconds=15.0),
    Kind("edit-list.m4a", ffmpeg(*LATE, "-c:a", "aac"), shift_seconds=4.0, seconds=15.0),
    Kind("transport-stream.ts", ffmpeg("-c:a", "aac", "-f", "mpegts")),
    Kind("paused.webm", with_a_gap, shift_seconds=20.0, seconds=31.0),
    Kind("noise.wav", noise, is_heard=False),
)


def read_speech(path: Path) -> array.array:
    """The samples of a 16 kHz mono WAV."""
    with wave.open(str(path)) as file:
        return array.array("h", file.readframes(file.getnframes()))


def main(speech: str, folder: str) -> None:
    """Write the whole gallery into *folder*."""
    for kind in GALLERY:
        kind.make(read_speech(Path(speech)), Path(folder) / kind.name)


if __name__ == "__main__":
    main(*sys.argv[1:])
