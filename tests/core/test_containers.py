"""What a container says about its length, on files made here byte by byte."""

from __future__ import annotations

import os
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dropscribe.core.settling import Completeness
from dropscribe.files.containers import examine
from dropscribe.files.containers.frames import _CRC16, _crc8
from support.inboxes import wav

COMPLETE, INCOMPLETE = Completeness.COMPLETE, Completeness.INCOMPLETE
NEARLY, UNKNOWN = Completeness.NEARLY, Completeness.UNKNOWN


def look(content, suffix=""):
    """What is said of *content*."""
    return examine(lambda at, count: content[at : at + count], len(content), suffix)


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


def crc16(block):
    """The checksum of a FLAC frame."""
    crc = 0
    for byte in block:
        crc = (crc << 8 & 0xFFFF) ^ _CRC16[crc >> 8 ^ byte]
    return crc


def flac(total_samples, frames, *, block=4096):
    """A FLAC file as far as its frames' headers and checksums go."""
    info = struct.pack(">HH6x", block, block) + struct.pack(">Q", 16000 << 44 | 15 << 36 | total_samples)
    content = b"fLaC" + b"\x80\0\0\x22" + info + b"\1" * 16
    for number in range(frames):
        head = bytes([0xFF, 0xF8, 0xC9, 0x08, number])
        frame = head + bytes([_crc8(head)]) + bytes(50)
        content += frame + struct.pack(">H", crc16(frame))
    return content


def rf64(data_bytes, present):
    """A WAV file with its length in a ds64 chunk."""
    ds64 = struct.pack("<QQQI", 0, data_bytes, 0, 0)
    head = b"RF64\xff\xff\xff\xffWAVE" + chunk(b"ds64", ds64) + chunk(b"fmt ", bytes(16))
    return head + b"data\xff\xff\xff\xff" + bytes(present)


def aiff(data_bytes, present):
    """An AIFF file with its sound last."""
    comm = struct.pack(">hIh10s", 1, data_bytes // 2, 16, bytes(10))
    head = b"FORM" + struct.pack(">I", 4 + 26 + 16 + data_bytes) + b"AIFF"
    sound = struct.pack(">4sIII", b"SSND", 8 + data_bytes, 0, 0)
    return head + struct.pack(">4sI", b"COMM", len(comm)) + comm + sound + bytes(present)


def caf(data_bytes, present):
    """A CAF file; -1 is a length that is not known."""
    head = b"caff\0\1\0\0" + struct.pack(">4sq", b"desc", 32) + bytes(32)
    return head + struct.pack(">4sq", b"data", data_bytes) + bytes(present)


def w64(data_bytes, present):
    """A Wave64 file."""
    rest = b"\xf3\xac\xd3\x11\x8c\xd1\x00\xc0\x4f\x8e\xdb\x8a"
    head = b"riff\x2e\x91\xcf\x11\xa5\xd6\x28\xdb\x04\xc1\x00\x00" + struct.pack("<Q", 128 + data_bytes)
    head += b"wave" + rest + b"fmt " + rest + struct.pack("<Q", 24 + 16) + bytes(16)
    return head + b"data" + rest + struct.pack("<Q", 24 + data_bytes) + bytes(present)


def sun(data_bytes, present):
    """An AU file."""
    return b".snd" + struct.pack(">IIIII", 24, data_bytes, 3, 8000, 1) + bytes(present)


def asf(file_bytes, present, flags=2):
    """An ASF file of *present* bytes whose header says *file_bytes*."""
    guid = b"\xa1\xdc\xab\x8c\x47\xa9\xcf\x11\x8e\xe4\x00\xc0\x0c\x20\x53\x65"
    about = guid + struct.pack("<Q16sQ", 104, bytes(16), file_bytes) + bytes(40) + struct.pack("<I", flags)
    about += bytes(104 - len(about))
    top = b"\x30\x26\xb2\x75\x8e\x66\xcf\x11\xa6\xd9\x00\xaa\x00\x62\xce\x6c"
    head = top + struct.pack("<QIBB", 30 + 104, 1, 1, 2) + about
    return head + bytes(present - len(head))


def matroska(segment_bytes, clusters, present=None):
    """A Matroska file; None is a segment whose length is not known."""
    body = b"".join(b"\x1f\x43\xb6\x75" + struct.pack(">B", 0x80 | len(one)) + one for one in clusters)
    length = 0x01FFFFFFFFFFFFFF if segment_bytes is None else 1 << 56 | segment_bytes
    return b"\x1a\x45\xdf\xa3\x84abcd\x18\x53\x80\x67" + struct.pack(">Q", length) + body[:present]


def mp3(stated_bytes, present, mark=b"Xing"):
    """An MPEG 1 Layer III file with a frame that states its length."""
    if mark == b"VBRI":
        head = b"\xff\xfb\x90\0" + bytes(32) + b"VBRI" + bytes(6) + struct.pack(">I", stated_bytes)
    else:
        head = b"\xff\xfb\x90\0" + bytes(32) + mark + struct.pack(">III", 3, 100, stated_bytes)
    return head + bytes(present - len(head))


def ape(count):
    """An APEv2 tag of *count* bytes with its footer."""
    return bytes(count - 32) + struct.pack("<8sIIII8x", b"APETAGEX", 2000, count, 1, 0)


ID3V1 = b"TAG" + b"x" * 125
FMT = chunk(b"fmt ", bytes(16))
CASES = {
    "wav": (wav(100), COMPLETE),
    "wav with more behind": (wav(100) + chunk(b"LIST", b"abc"), COMPLETE),
    "wav with an odd chunk before": (
        b"RIFF\0\0\0\0WAVE" + chunk(b"JUNK", b"odd") + FMT + chunk(b"data", b"12"),
        COMPLETE,
    ),
    "wav cut off": (wav(100)[:-45], INCOMPLETE),
    "wav whose length counts its header": (wav(100, declared_bytes=144), NEARLY),
    "wav with length 0": (wav(100, declared_bytes=0), INCOMPLETE),
    "wav from a pipe": (wav(100, declared_bytes=0xFFFFFFFF), INCOMPLETE),
    "wav from sox to a pipe": (wav(100, declared_bytes=0x7FFFF000), INCOMPLETE),
    "wav whose data has not come": (wav(0)[:36], INCOMPLETE),
    "rf64": (rf64(100, 100), COMPLETE),
    "rf64 cut off": (rf64(100, 50), INCOMPLETE),
    "aiff": (aiff(100, 100), COMPLETE),
    "aiff cut off": (aiff(100, 50), INCOMPLETE),
    "aiff not finished": (aiff(0, 50), INCOMPLETE),
    "caf": (caf(100, 100), COMPLETE),
    "caf cut off": (caf(100, 50), INCOMPLETE),
    "caf of unsaid length": (caf(-1, 50), UNKNOWN),
    "w64": (w64(100, 100), COMPLETE),
    "w64 cut off": (w64(100, 50), INCOMPLETE),
    "au": (sun(100, 100), COMPLETE),
    "au cut off": (sun(100, 50), INCOMPLETE),
    "au of unsaid length": (sun(0xFFFFFFFF, 50), UNKNOWN),
    "asf": (asf(500, 500), COMPLETE),
    "asf cut off": (asf(500, 400), INCOMPLETE),
    "asf not finished": (asf(0, 500), INCOMPLETE),
    "asf of a broadcast": (asf(500, 400, flags=3), UNKNOWN),
    "matroska": (matroska(200, [b"x" * 95] * 2), COMPLETE),
    "matroska with more behind": (matroska(200, [b"x" * 95] * 2) + b"tail", COMPLETE),
    "matroska cut off": (matroska(200, [b"x" * 95] * 2)[:-1], INCOMPLETE),
    "matroska that is live": (matroska(None, [b"x" * 95] * 2), UNKNOWN),
    "matroska that is live, cut off": (matroska(None, [b"x" * 95] * 2)[:-1], INCOMPLETE),
    "mp3 with Xing": (mp3(5000, 5000), COMPLETE),
    "mp3 with Info": (mp3(5000, 5000, b"Info"), COMPLETE),
    "mp3 with VBRI": (mp3(5000, 5000, b"VBRI"), COMPLETE),
    "mp3 with Xing and tags": (b"ID3\x04\0\0\0\0\0\x05" + b"abcde" + mp3(5000, 5000) + ID3V1, COMPLETE),
    "mp3 with Xing cut off": (mp3(5000, 2000), INCOMPLETE),
    "mp3 with VBRI cut off": (mp3(5000, 2000, b"VBRI"), INCOMPLETE),
    "mp3 with Xing that lacks less than a frame": (mp3(5000, 4600), NEARLY),
    "mp3 with Xing not finished": (mp3(0, 5000), INCOMPLETE),
    "flac": (flac(8192, 2), COMPLETE),
    "flac of unsaid length": (flac(0, 2), UNKNOWN),
    "flac of unsaid length cut within its last frame": (flac(0, 2)[:-3], INCOMPLETE),
    "flac with ID3v1": (flac(8192, 2) + ID3V1, COMPLETE),
    "flac with APE and ID3v1": (flac(8192, 2) + ape(300) + ID3V1, COMPLETE),
    "flac with one byte more": (flac(8192, 2) + b"\n", COMPLETE),
    "flac padded": (flac(8192, 2) + bytes(4096), COMPLETE),
    "flac after ID3v2": (b"ID3\x04\0\0\0\0\0\x05" + b"abcde" + flac(8192, 2), COMPLETE),
    "flac with a tail of its own": (flac(8192, 2) + b"SEFH" + b"z" * 300, NEARLY),
    "flac with frames to come": (flac(12288, 2), INCOMPLETE),
    "flac cut within the last frame": (flac(8192, 2)[:-3], INCOMPLETE),
    "flac metadata alone": (flac(8192, 0), INCOMPLETE),
    "ogg": (page(7, 2) + page(7, 0) + page(7, 4), COMPLETE),
    "ogg of one page": (page(7, 6), COMPLETE),
    "ogg without a last page": (page(7, 2) + page(7, 0), UNKNOWN),
    "ogg without a last page, cut off": (page(7, 2) + page(7, 0)[:-1], INCOMPLETE),
    "ogg with ID3v1": (page(7, 6) + ID3V1, COMPLETE),
    "ogg with one byte more": (page(7, 6) + b"\n", COMPLETE),
    "ogg with a tail of its own": (page(7, 6) + b"SEFH" + b"z" * 300, COMPLETE),
    "ogg whose next stream begins": (page(7, 6) + b"Og", INCOMPLETE),
    "ogg cut within a page": (page(7, 2) + page(7, 4)[:-1], INCOMPLETE),
    "ogg with two streams": (page(7, 2) + page(8, 2) + page(7, 4) + page(8, 4), COMPLETE),
    "ogg with one of two ended": (page(7, 2) + page(8, 2) + page(7, 4) + page(8, 0), UNKNOWN),
    "mp4": (box(b"ftyp") + box(b"mdat", b"x" * 9) + box(b"moov"), COMPLETE),
    "mp4 with its index first": (box(b"ftyp") + box(b"moov") + box(b"mdat", b"x"), COMPLETE),
    "mp4 with a long box": (
        box(b"ftyp") + struct.pack(">I4sQ", 1, b"mdat", 20) + b"four" + box(b"moov"),
        COMPLETE,
    ),
    "mp4 with ID3v1": (box(b"ftyp") + box(b"moov") + box(b"mdat", b"x") + ID3V1, COMPLETE),
    "mp4 with one byte more": (box(b"ftyp") + box(b"moov") + box(b"mdat", b"x") + b"\n", COMPLETE),
    "mp4 padded": (box(b"ftyp") + box(b"moov") + box(b"mdat", b"x") + bytes(512), COMPLETE),
    "mp4 with a phone's tail": (
        box(b"ftyp") + box(b"moov") + box(b"mdat", b"x") + b"\0\0\0\x20SEFH" + b"z" * 9,
        COMPLETE,
    ),
    "mp4 whose next fragment begins": (
        box(b"ftyp") + box(b"moov") + box(b"mdat", b"x") + box(b"moof", b"zz")[:9],
        INCOMPLETE,
    ),
    "mp4 without an index": (box(b"ftyp") + box(b"mdat", b"x" * 9), INCOMPLETE),
    "mp4 cut off": ((box(b"ftyp") + box(b"moov") + box(b"mdat", b"xx"))[:-1], INCOMPLETE),
    "mp4 being recorded": (box(b"ftyp") + struct.pack(">I4s", 0, b"mdat") + b"x" * 30, INCOMPLETE),
    "mp4 of unsaid length": (box(b"ftyp") + box(b"moov") + struct.pack(">I4s", 0, b"mdat"), UNKNOWN),
    "mp4 in fragments": (box(b"ftyp") + box(b"moov") + box(b"moof") + box(b"mdat", b"x"), UNKNOWN),
    "mp3 that states nothing": (b"\xff\xfb\x90\0" * 50, UNKNOWN),
    "empty": (b"", UNKNOWN),
}


@pytest.mark.parametrize("name", CASES)
def test_each_container_tells_its_length(name):
    """Whole, more to come, or not to be told."""
    content, expected = CASES[name]
    assert look(content) is expected


def test_a_length_beyond_every_offset_breaks_nothing(tmp_path):
    """A chunk of 2**64 - 1 bytes: no file system has such an offset, and the system's call refuses it."""
    path = tmp_path / "a.w64"
    path.write_bytes(w64(100, 100)[:40] + b"\xff" * 24 + bytes(100))
    with path.open("rb") as file:
        size_bytes = path.stat().st_size
        found = examine(lambda at, count: os.pread(file.fileno(), count, at), size_bytes, ".w64")
    assert found is INCOMPLETE


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


_TAILED = ("behind", "ID3v1", "tags", "byte more", "padded", "tail")
_CUT = [
    name
    for name, (_, expected) in CASES.items()
    if expected is COMPLETE and not any(word in name for word in _TAILED)  # their cuts lack no audio
]


@pytest.mark.parametrize("name", _CUT)
def test_no_cut_of_a_whole_file_passes_for_whole(name):
    """Wherever an upload breaks off, its audio is not called complete."""
    content, _ = CASES[name]
    assert [end for end in range(1, len(content)) if look(content[:end]) is COMPLETE] == []


@given(
    st.sampled_from([content for content, _ in CASES.values()]),
    st.binary(max_size=30),
    st.integers(0, 60),
    st.sampled_from(["", ".wav", ".flac", ".ogg", ".m4a"]),
)
def test_no_content_breaks_it(content, noise, at, suffix):
    """Damaged and hostile headers get an answer, not an exception."""
    assert look(content[:at] + noise + content[at + len(noise) :], suffix) in Completeness
