"""Models of the hub, fetched from one on a real socket by the hub's own client."""

from __future__ import annotations

import os

import pytest

from dropscribe.core.errors import ProviderUnusable
from dropscribe.native import speech_model
from support.model_hub import ModelHub
from support.speech import needs_engine

pytestmark = [*needs_engine, pytest.mark.slow]

NAME = "Owner/faster-whisper-nl"
FILES = {
    "config.json": b"{}",
    "tokenizer.json": b"[]",
    "vocabulary.txt": b"a",
    "model.bin": os.urandom(1_000_000) * 30,
}


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A hub with one model, and an empty cache."""
    monkeypatch.setenv("CACHE_DIRECTORY", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_DISABLE_XET", "1")
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    with ModelHub(NAME, FILES) as running:
        monkeypatch.setenv("HF_ENDPOINT", running.url)
        yield running


def never(_: int) -> None:
    """No progress is looked at."""


def test_a_model_is_fetched_once(hub):
    """All its files, into the cache; afterwards no request is needed."""
    folder = speech_model.fetch(NAME, never)
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == FILES
    assert sorted(hub.downloads) == sorted(FILES)
    assert speech_model.fetch(NAME, never) == folder
    assert len(hub.downloads) == len(FILES)


def test_a_model_that_is_not_the_hubs_is_refused_and_fetched_again(hub):
    """The large file is compared with the hash that the hub names it by."""
    hub.lies = {"model.bin"}
    with pytest.raises(ProviderUnusable, match="model_altered"):
        speech_model.fetch(NAME, never)
    hub.lies = set()
    assert (speech_model.fetch(NAME, never) / "model.bin").read_bytes() == FILES["model.bin"]


def test_progress_is_told_and_can_end_the_download(hub):
    """A daemon that ends does not wait for a model of gigabytes."""
    hub.gate.clear()
    told = []

    def until_half(size_bytes):
        told.append(size_bytes)
        if size_bytes >= 5_000_000:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        speech_model.fetch(NAME, until_half)
    assert told == sorted(told)
    hub.gate.set()
    assert (speech_model.fetch(NAME, never) / "model.bin").read_bytes() == FILES["model.bin"]


def test_a_model_that_the_hub_does_not_have_is_said_so(hub):
    """In one line, with its name."""
    with pytest.raises(ProviderUnusable, match="model_missing") as refused:
        speech_model.fetch("Owner/none", never)
    assert refused.value.reason.startswith("Owner/none could not be fetched: ")
    assert "\n" not in refused.value.reason
