"""Which files a rule takes, and what it says of the others."""

from __future__ import annotations

import stat

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dropscribe.core.rules import DEFAULT_INCLUDE, FilePatterns, reason_not_a_file


def patterns(include=DEFAULT_INCLUDE, companions=()):
    """A rule's patterns."""
    return FilePatterns(include, (), recursive=True, companions=companions)


TAKEN = [
    b"a.wav",
    b"A.WAV",
    b"2026/11/call.Mp3",
    b"x.pcm",
    b"x.raw",
    b"clip.webm",
    b"name\xff\xfe\n.ogg",
    b"-rf.flac",
    b"$(reboot).m4a",
    b"x" * 251 + b".wav",
    b"call.part1.wav",
    b"part.wav",
    b"a#b~c.opus",
]
NOT_TAKEN = [
    b".a.wav",
    b"~a.wav",
    b"#a.wav",
    b"a.wav~",
    b"a.wav.part",
    b"a.wav.PART",
    b"a.wav.partial",
    b"a.wav.filepart",
    b"a.wav.crdownload",
    b"a.wav.download",
    b"a.wav.opdownload",
    b"a.wav.aria2",
    b"a.wav.!ut",
    b"a.wav.!qB",
    b"a.wav.tmp",
    b"a.wav.temp",
    b"a.wav.swp",
    b"a.wav.lock",
    b"a.wav.uploading",
    b"@eaDir/a.wav",
    b"x/.stfolder/a.wav",
    b".stversions/a.wav",
    b"#recycle/a.wav",
    b"lost+found/a.wav",
    b"a.temp.m4a",
    b"a.part.mp3",
    b"a.TMP.wav",
    b"a.wav.fdmdownload",
    b"~syncthing~a.wav.tmp",
    b"._a.wav",
    b"@tmp/a.wav",
    b"@Recently-Snapshot/x/a.wav",
    b"@Recycle/a.wav",
    b"System Volume Information/a.wav",
    b"RECYCLER/a.wav",
    b"$RECYCLE.BIN/a.wav",
    b"_gsdata_/a.wav",
    b"__MACOSX/a.wav",
    b"call.json",
    b"call.txt",
    b"wav",
    b"call.error.json",
]


@pytest.mark.parametrize("path", TAKEN)
def test_audio_and_video_are_taken_whatever_their_names_hold(path):
    """The default takes the known suffixes in any case, with any bytes before them."""
    assert patterns().reason_not_taken(path) is None


@pytest.mark.parametrize("path", NOT_TAKEN)
def test_what_is_not_taken_has_a_reason(path):
    """Temporary names, system folders and other suffixes are left alone, and it is said why."""
    assert patterns().reason_not_taken(path)


@pytest.mark.parametrize(
    ("path", "program"),
    [
        (b"a.wav.part", "Firefox"),
        (b"a.wav.filepart", "WinSCP"),
        (b"a.wav.!qB", "qBittorrent"),
        (b"a.temp.m4a", "yt-dlp"),
        (b".syncthing.a.wav", "Syncthing"),
        (b"@eaDir/a.wav", "Synology"),
        (b"@Recycle/a.wav", "QNAP"),
        (b"System Volume Information/a.wav", "Windows"),
    ],
)
def test_the_reason_names_the_program(path, program):
    """Whoever asks why a file is left alone learns which program made its name."""
    assert program in patterns().reason_not_taken(path)


def test_asterisks_recordings_of_every_rate_are_taken():
    """Its suffix names the rate; without a number it is 8 kHz."""
    patterns = FilePatterns(DEFAULT_INCLUDE, (), recursive=True)
    rates = ("", 12, 16, 24, 32, 44, 48, 96, 192)
    assert all(patterns.takes(f"call.sln{rate}".encode()) for rate in rates)


@pytest.mark.parametrize("suffix", [b".part", b".tmp", b"~"])
def test_temporary_names_are_not_taken_even_if_included(suffix):
    """An include of everything does not include what somebody is still writing."""
    assert patterns(include=("*",)).reason_not_taken(b"a.wav" + suffix) is not None


@pytest.mark.parametrize(
    ("pattern", "path", "matches"),
    [
        ("*.wav", b"deep/er/a.wav", True),
        ("*.wav", b"A.WAV", True),
        ("*.WAV", b"a.wav", True),
        ("in/*.wav", b"in/a.wav", True),
        ("in/*.wav", b"in/x/a.wav", False),
        ("in/**", b"in/x/a.wav", True),
        ("**/raw/*.wav", b"raw/a.wav", True),
        ("**/raw/*.wav", b"x/y/raw/a.wav", True),
        ("in/**/a.wav", b"in/a.wav", True),
        ("in/**/a.wav", b"in/x/y/a.wav", True),
        ("call-[0-9].wav", b"call-7.wav", True),
        ("call-[!0-9].wav", b"call-7.wav", False),
        ("call-[]x].wav", b"call-].wav", True),
        ("a?c.wav", b"abc.wav", True),
        ("a?c.wav", b"a/c.wav", False),
        ("a+(b).wav", b"a+(b).wav", True),
        ("a[.wav", b"a[.wav", True),
        ("*", b"line\nbreak", True),
        ("a[].wav", b"a[].wav", True),
        ("a[!].wav", b"a[!].wav", True),
        ("[+--].wav", b",.wav", True),
        ("[a~~&&||].wav", b"&.wav", True),
        ("[z-a].wav", b"b.wav", False),
        ("?.wav", "é".encode(), False),
        ("?.wav", "é.wav".encode(), True),
        ("[äé].wav", "é.wav".encode(), True),
        ("[a-z].wav", "é.wav".encode(), False),
        ("É.wav", "é.wav".encode(), True),
        ("a?.wav", b"a\xff.wav", True),
    ],
)
def test_patterns(pattern, path, matches):
    """Without "/" a pattern is for the name, with one for the path; ** crosses folders, * does not.

    A ``?`` and a class match one character, of however many bytes.
    """
    assert FilePatterns((pattern,), (), recursive=True).takes(path) is matches
    assert FilePatterns(("*",), (pattern,), recursive=True).takes(path) is not matches


def test_a_flat_rule_takes_nothing_below():
    """Without recursion the sub-folders are not the rule's."""
    patterns = FilePatterns((), (), recursive=False)
    assert patterns.takes(b"a.wav")
    assert "not recursive" in patterns.reason_not_taken(b"x/a.wav")
    assert not patterns.enters(b"x")


@pytest.mark.parametrize("name", [b"@eaDir", b".stfolder", b"#recycle", b"lost+found", b"up.tmp"])
def test_system_folders_are_not_entered(name):
    """Their content is never listed."""
    assert not FilePatterns((), (), recursive=True).enters(name)


@given(st.text(max_size=12), st.binary(max_size=12))
def test_no_pattern_breaks(pattern, path):
    """Any text is a pattern, and any bytes are a path."""
    assert FilePatterns((pattern,), (), recursive=True).takes(path) in {True, False}


@pytest.mark.parametrize(
    ("kind", "word"),
    [
        (stat.S_IFLNK, "symlink"),
        (stat.S_IFDIR, "folder"),
        (stat.S_IFIFO, "pipe"),
        (stat.S_IFSOCK, "socket"),
        (stat.S_IFCHR, "device"),
        (stat.S_IFBLK, "device"),
    ],
)
def test_what_is_not_a_file_is_named(kind, word):
    """A folder called x.wav is called a folder."""
    assert word in reason_not_a_file(kind | 0o644)
    assert reason_not_a_file(stat.S_IFREG | 0o644) is None


@pytest.mark.parametrize("path", [b"a.json", b"2026/CALL.JSON", b"call.wav.json"])
def test_a_companion_is_never_taken_as_a_recording(path):
    """Also by a rule that takes everything else."""
    taken = patterns(include=("*",), companions=("{stem}.json",))
    assert "{stem}.json" in (taken.reason_not_taken(path) or "")
    assert patterns(include=("*",)).reason_not_taken(path) is None
    assert taken.reason_not_taken(b"a.wav") is None
