"""Recordings are opened the same way by whichever PyAV is installed."""

from __future__ import annotations

import io
import struct
import threading

import pytest

from support.recordings import needs_media, noise, write_wav

pytestmark = needs_media


@pytest.fixture
def latin(tmp_path) -> bytes:
    """One second of sound whose title is Latin-1, as old recorders write it."""
    recording = write_wav(tmp_path / "x.wav", noise(1))
    title = "Müller\0\0".encode("latin-1")
    tags = b"INFO" + b"INAM" + struct.pack("<I", len(title)) + title
    body = recording[8:] + b"LIST" + struct.pack("<I", len(tags)) + tags
    return b"RIFF" + struct.pack("<I", len(body)) + body


def test_a_title_in_latin_1_does_not_hide_the_length(latin):
    """The length is known before anything is sent, whatever the tags' encoding."""
    from dropscribe.files.durations import probe_file

    assert probe_file(io.BytesIO(latin)) == pytest.approx(1.0)


def test_a_title_in_latin_1_does_not_hide_the_format(latin):
    """The header is read for making a recording fit."""
    from dropscribe.media.recording import read_recording

    found = read_recording(io.BytesIO(latin), latin[:64])

    assert found is not None
    assert (found.container, found.codec, found.channels) == ("wav", "pcm_s16le", 1)


def test_a_title_in_latin_1_does_not_stop_decoding(latin):
    """Both decoders hand out the whole second."""
    from dropscribe.media.decoding import Decoder
    from dropscribe.providers.local_audio import Decoder as EngineDecoder

    fitted = sum(block.shape[1] for block in Decoder(io.BytesIO(latin), threading.Event()).blocks())
    heard = sum(len(block) for block in EngineDecoder(io.BytesIO(latin)).blocks())

    assert (fitted, heard) == (16_000, 16_000)
