"""Groups, numbers and name limits."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dropscribe.core.model import FileSnapshot
from dropscribe.core.naming import (
    Companion,
    OutputPlan,
    companion_name,
    first_free,
    free_name,
    number_names,
    sidecar_names,
    split_name,
)

FORMATS = ("json", "txt", "srt", "vtt")
NAMES = st.binary(min_size=1, max_size=255).filter(lambda name: b"/" not in name and b"\0" not in name)
PATTERNS = st.sets(st.sampled_from(["{stem}.json", "{name}.json", "{stem}.TXT", "meta-{stem}.xml"]))


def companion(pattern: str) -> Companion:
    return Companion(pattern.encode(), b"", FileSnapshot(0, 0, 0, 0))


def test_the_group_shares_stem_and_folder():
    """Sidecars stand beside the audio, in the folder that it had in the inbox."""
    names = number_names(OutputPlan(b"/done", b"2026/call.wav", ("json", "txt")))

    assert names.folder == b"/done/2026"
    assert names.all_names == (b"call.wav", b"call.json", b"call.txt")


def test_a_number_is_part_of_every_name():
    """call-2.wav never stands beside call.json."""
    names = number_names(OutputPlan(b"/done", b"call.wav", ("json", "error")), number=2)

    assert names.all_names == (b"call-2.wav", b"call-2.json", b"call-2.error.json")


def test_full_names_keep_the_suffix():
    """sidecar_name: full puts the format behind the whole name."""
    names = number_names(OutputPlan(b"/done", b"call.wav", ("json", "error"), "full"), number=3)

    assert names.all_names == (b"call-3.wav", b"call-3.wav.json", b"call-3.wav.error.json")


def test_a_sidecar_never_has_the_audios_own_name():
    """A rule may take what ends in .txt: its transcript goes beside it, not into it."""
    names = number_names(OutputPlan(b"/done", b"call.txt", ("json", "txt")))

    assert names.all_names == (b"call.txt", b"call.txt.json", b"call.txt.txt")


@pytest.mark.parametrize(
    ("sidecar_name", "patterns", "expected"),
    [
        ("stem", ["{stem}.json"], (b"a.wav", b"a.wav.json", b"a.wav.txt", b"a.json")),
        ("stem", ["{stem}.JSON"], (b"a.wav", b"a.wav.json", b"a.wav.txt", b"a.JSON")),
        ("stem", ["{stem}.xml"], (b"a.wav", b"a.json", b"a.txt", b"a.xml")),
        ("full", ["{name}.txt"], (b"a.wav", b"a.json", b"a.txt", b"a.wav.txt")),
        (
            "stem",
            ["{stem}.json", "{name}.json"],
            (b"a.wav", b"a.transcript.json", b"a.transcript.txt", b"a.json", b"a.wav.json"),
        ),
    ],
)
def test_a_companion_keeps_its_name_beside_the_sidecars(sidecar_name, patterns, expected):
    """A radio's call.json beside call.wav is not our call.json: the sidecars get other names."""
    companions = tuple(map(companion, patterns))
    names = number_names(OutputPlan(b"/done", b"a.wav", ("json", "txt"), sidecar_name, companions))
    assert names.all_names == expected
    for form, sidecar in names.sidecars:
        candidates = sidecar_names(b"a.wav", b"." + form.encode(), patterns)
        assert sidecar == next(name for name in candidates if name in names.all_names)


@example(b"a.json", 1, "stem", 64, {"{stem}.json"})
@given(NAMES, st.integers(1, 10**6), st.sampled_from(["stem", "full"]), st.integers(64, 255), PATTERNS)
def test_no_name_is_longer_than_the_file_system_allows(name, number, sidecar_name, limit, patterns):
    """Whatever the name and number, every name of the group fits, and the audio keeps its suffix."""
    _, suffix = split_name(name)
    companions = {companion_name(pattern.encode(), name): companion(pattern) for pattern in patterns}
    companions.pop(name, None)  # the recording itself, where it is named as one
    plan = OutputPlan(b"/d", name, (*FORMATS, "error"), sidecar_name, tuple(companions.values()))
    names = number_names(plan, number, limit)

    assert max(map(len, names.all_names)) <= limit
    assert len(set(names.all_names)) == len(names.all_names)
    assert names.audio.endswith(suffix)


@given(st.text(st.characters(codec="utf-8", exclude_characters="/\0"), min_size=200, max_size=255))
def test_a_cut_stem_stays_utf8(stem):
    """A stem is not cut within a character."""
    names = number_names(OutputPlan(b"/d", stem.encode() + b".wav", ("json",)), name_max_bytes=100)

    assert names.audio.decode()


@given(st.sets(st.integers(1, 200)))
def test_the_number_found_is_free(taken):
    """first_free never returns a taken number, and returns the lowest free one below 17."""
    number = first_free(lambda each: each not in taken)

    assert number not in taken
    lowest = next(each for each in range(1, 300) if each not in taken)
    assert number == lowest or lowest > 16


def test_a_million_earlier_recordings_cost_few_looks():
    """A name that was used a million times costs tens of looks, not a million."""
    looks = []

    def is_free(number):
        looks.append(number)
        return number > 1_000_000

    assert first_free(is_free) == 1_000_001
    assert len(looks) < 80


def test_a_long_text_after_a_dot_is_no_suffix():
    """It can be cut, so that the numbered names fit too."""
    name = b"St. " + b"x" * 250
    assert split_name(name) == (name, b"")
    assert split_name(b"call.lftp-pget-status") == (b"call", b".lftp-pget-status")
    names = number_names(OutputPlan(b"/done", name, ("json",), "full"), number=2)
    assert max(map(len, names.all_names)) <= 255


def test_a_file_going_back_takes_the_next_free_name():
    """call.wav, then call-2.wav."""
    taken = {b"call.wav", b"call-2.wav"}

    assert free_name(b"call.wav", lambda name: name not in taken) == b"call-3.wav"
