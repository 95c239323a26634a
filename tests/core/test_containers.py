"""What a container says about its length, on files made here byte by byte."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dropscribe.core.settling import Completeness
from dropscribe.files import containers
from support.inboxes import wav

COMPLETE, INCOMPLETE, UNKNOWN = Completeness.COMPLETE, Completeness.INCOMPLETE, Completeness.UNKNOWN


def look(content, suffix=""):
    """What is said of *content*."""
    return containers.look(lambda at, count: content[at : at + count], len(content), suffix)


def chunk(name, content):
    """A RIFF chunk."""
    return struct.pack("<4sI", name, len(content)) + content + b"\0" * (len(content) & 1)


def box(name, content=b""):
    """An MP4 box."""
    return struct.pack(">I4s", 8 + len(content), name) + content


def page(serial, flags, content=b"x" * 40):
    """An Ogg page; flags 2: the first, 4: the last of its stream."""
    lengths = bytes([255] * (len(content) // 255) + [len(content) % 255])
    head = struct.pack("<4sBBqIIIB", b"OggS", 0, flags, 0, serial, 0, 0, len(lengths))
    return head + lengths + content


def flac(total_samples, frames, *, block=4096):
    """A FLAC file as far as its frames' headers and checksums go."""
    info = struct.pack(">HH6x", block, block) + struct.pack(">Q", 16000 << 44 | 15 << 36 | total_samples)
    content = b"fLaC" + b"\x80\0\0\x22" + info + b"\1" * 16
    for number in range(frames):
        head = bytes([0xFF, 0xF8, 0xC9, 0x08, number])
        frame = head + bytes([containers._crc8(head)]) + bytes(50)
        content += frame + struct.pack(">H", containers._crc16(frame))
    return content


def rf64(data_bytes, present):
    """A WAV file with its length in a ds64 chunk."""
    ds64 = struct.pack("<QQQI", 0, data_bytes, 0, 0)
    head = b"RF64\xff\xff\xff\xffWAVE" + chunk(b"ds64", ds64) + chunk(b"fmt ", bytes(16))
    return head + b"data\xff\xff\xff\xff" + bytes(present)


FMT = chunk(b"fmt ", bytes(16))
CASES = {
    "wav": (wav(100), COMPLETE),
    "wav with more behind": (wav(100) + chunk(b"LIST", b"abc"), COMPLETE),
    "wav with an odd chunk before": (
        b"RIFF\0\0\0\0WAVE" + chunk(b"JUNK", b"odd") + FMT + chunk(b"data", b"12"),
        COMPLETE,
    ),
    "wav cut off": (wav(100)[:-1], INCOMPLETE),
    "wav with length 0": (wav(100, declared_bytes=0), INCOMPLETE),
    "wav from a pipe": (wav(100, declared_bytes=0xFFFFFFFF), INCOMPLETE),
    "wav from sox to a pipe": (wav(100, declared_bytes=0x7FFFF000), INCOMPLETE),
    "wav whose data has not come": (wav(0)[:36], INCOMPLETE),
    "rf64": (rf64(100, 100), COMPLETE),
    "rf64 cut off": (rf64(100, 99), INCOMPLETE),
    "flac": (flac(8192, 2), COMPLETE),
    "flac not finished": (flac(0, 2), INCOMPLETE),
    "flac with frames to come": (flac(12288, 2), INCOMPLETE),
    "flac cut within the last frame": (flac(8192, 2)[:-3], INCOMPLETE),
    "flac metadata alone": (flac(8192, 0), INCOMPLETE),
    "ogg": (page(7, 2) + page(7, 0) + page(7, 4), COMPLETE),
    "ogg of one page": (page(7, 6), COMPLETE),
    "ogg without an end": (page(7, 2) + page(7, 0), INCOMPLETE),
    "ogg cut within a page": (page(7, 2) + page(7, 4)[:-1], INCOMPLETE),
    "ogg with two streams": (page(7, 2) + page(8, 2) + page(7, 4) + page(8, 4), COMPLETE),
    "ogg with one of two ended": (page(7, 2) + page(8, 2) + page(7, 4) + page(8, 0), INCOMPLETE),
    "mp4": (box(b"ftyp") + box(b"mdat", b"x" * 9) + box(b"moov"), COMPLETE),
    "mp4 with its index first": (box(b"ftyp") + box(b"moov") + box(b"mdat", b"x"), COMPLETE),
    "mp4 with a long box": (
        box(b"ftyp") + struct.pack(">I4sQ", 1, b"mdat", 20) + b"four" + box(b"moov"),
        COMPLETE,
    ),
    "mp4 without an index": (box(b"ftyp") + box(b"mdat", b"x" * 9), INCOMPLETE),
    "mp4 cut off": ((box(b"ftyp") + box(b"moov") + box(b"mdat", b"xx"))[:-1], INCOMPLETE),
    "mp4 being recorded": (box(b"ftyp") + struct.pack(">I4s", 0, b"mdat") + b"x" * 30, INCOMPLETE),
    "mp4 of unsaid length": (box(b"ftyp") + box(b"moov") + struct.pack(">I4s", 0, b"mdat"), UNKNOWN),
    "mp4 in fragments": (box(b"ftyp") + box(b"moov") + box(b"moof") + box(b"mdat", b"x"), UNKNOWN),
    "mp3": (b"\xff\xfb\x90\0" * 50, UNKNOWN),
    "empty": (b"", UNKNOWN),
}


@pytest.mark.parametrize("name", CASES)
def test_each_container_tells_its_length(name):
    """Whole, more to come, or not to be told."""
    content, expected = CASES[name]
    assert look(content) is expected


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".ogg", ".mp3", ""])
def test_text_is_unknown_whatever_its_name(suffix):
    """Text named .wav must not wait for a rest that never comes."""
    assert look(b"Dear Sir or Madam, this is not audio.", suffix) is UNKNOWN
    assert look(b"Hi", suffix) is UNKNOWN


@pytest.mark.parametrize(
    ("content", "suffix"),
    [(b"RIF", ".wav"), (b"RIFF\0\0\0\0WA", ".wav"), (b"fL", ".flac"), (b"Og", ".opus"), (b"\0\0\0", ".m4a")],
)
def test_the_first_bytes_of_a_header_promise_more(content, suffix):
    """A file that ends within its magic number has only begun."""
    assert look(content, suffix) is INCOMPLETE


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".m4a"])
def test_room_kept_for_a_header_promises_more(suffix):
    """A preallocated file of zeros has no header yet."""
    assert look(bytes(4096), suffix) is INCOMPLETE


@pytest.mark.parametrize("name", [name for name, (_, expected) in CASES.items() if expected is COMPLETE])
def test_no_cut_of_a_whole_file_passes_for_whole(name):
    """Wherever an upload breaks off, its audio is not called complete."""
    content, _ = CASES[name]
    ends = range(1, len(content) - 12 if "behind" in name else len(content))
    assert [end for end in ends if look(content[:end]) is COMPLETE] == []


@given(
    st.sampled_from([content for content, _ in CASES.values()]),
    st.binary(max_size=30),
    st.integers(0, 60),
    st.sampled_from(["", ".wav", ".flac", ".ogg", ".m4a"]),
)
def test_no_content_breaks_it(content, noise, at, suffix):
    """Damaged and hostile headers get an answer, not an exception."""
    assert look(content[:at] + noise + content[at + len(noise) :], suffix) in Completeness
