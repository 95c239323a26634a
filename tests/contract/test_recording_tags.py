"""Recordings are opened the same way by whichever PyAV is installed."""

from __future__ import annotations

import struct

import pytest

from dropscribe.native.decoder import Decoder, probe_seconds
from support.recordings import needs_media, noise, write_wav

pytestmark = needs_media


@pytest.fixture
def latin(tmp_path):
    """An open file: one second of sound whose title is Latin-1, as old recorders write it."""
    recording = write_wav(tmp_path / "x.wav", noise(1))
    title = "Müller\0\0".encode("latin-1")
    tags = b"INFO" + b"INAM" + struct.pack("<I", len(title)) + title
    body = recording[8:] + b"LIST" + struct.pack("<I", len(tags)) + tags
    path = tmp_path / "latin.wav"
    path.write_bytes(b"RIFF" + struct.pack("<I", len(body)) + body)
    with path.open("rb") as file:
        yield file.fileno()


def test_a_title_in_latin_1_does_not_hide_the_length(latin):
    """The length is known before anything is sent, whatever the tags' encoding."""
    assert probe_seconds(latin) == pytest.approx(1.0)


def test_a_title_in_latin_1_does_not_hide_the_format(latin):
    """The header is read for making a recording fit."""
    found = Decoder(latin).describe()

    assert (found.container, found.codec, found.channels) == ("wav", "pcm_s16le", 1)


def test_a_title_in_latin_1_does_not_stop_decoding(latin):
    """The whole second is decoded."""
    found = Decoder(latin).survey(0)

    assert (found.sound_seconds, len(found.loudness)) == (1.0, 10)
