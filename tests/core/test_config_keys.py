"""Keys with a notation or a place of their own: vocabulary, listen, settle, names and patterns."""

from __future__ import annotations

import os
from types import NoneType
from typing import get_args, get_type_hints

import pytest

from dropscribe.config.extras import LIBRARIES
from dropscribe.config.keys import keys_of
from dropscribe.config.load import parse_config
from dropscribe.config.model import Config, SubtitleLayout
from dropscribe.core.errors import ConfigError

BASE = "providers: {l: {type: local}}\nfolders: {f: {inbox: in, provider: l%s}}\n"


@pytest.fixture(autouse=True)
def _with_all_engines(monkeypatch):
    """The extras count as installed, so that the answers do not depend on the machine."""
    monkeypatch.setitem(LIBRARIES, "local", ())
    monkeypatch.setitem(LIBRARIES, "media", ())


def rule_of(folder, more):
    """The folder rule with the keys *more*."""
    return parse_config(BASE % f", {more}", folder=folder, environ={})[0].folders["f"]


def refusals_of(folder, text):
    """(path, message) of each error in *text*."""
    with pytest.raises(ConfigError) as caught:
        parse_config(text, folder=folder, environ={})
    return [(problem.path, problem.message) for problem in caught.value.problems]


def test_a_vocabulary_is_the_written_words_and_those_of_the_file(tmp_path):
    """Each word counts once; blank lines and comments of the file do not count."""
    (tmp_path / "words.txt").write_text("# names\n\nDropscribe\r\nSmallest AI\nPulse\n", "utf-8")
    rule = rule_of(tmp_path, "vocabulary: [Pulse, Reson8], vocabulary_file: words.txt")
    assert rule.vocabulary == ("Pulse", "Reson8", "Dropscribe", "Smallest AI")


@pytest.mark.parametrize("kind", ["missing", "fifo", "folder", "latin1", "long"])
def test_a_vocabulary_file_that_cannot_be_used_is_refused(tmp_path, kind):
    """A FIFO is refused at once and not waited for."""
    where = tmp_path / "words"
    {
        "missing": lambda: None,
        "fifo": lambda: os.mkfifo(where),
        "folder": where.mkdir,
        "latin1": lambda: where.write_bytes("Müller".encode("latin-1")),
        "long": lambda: where.write_bytes(b"a\n" * 60_000),
    }[kind]()
    ((path, message),) = refusals_of(tmp_path, BASE % ", vocabulary_file: words")
    assert path == "folders.f.vocabulary_file"
    assert message.startswith(f"{where} cannot be read: ")


def test_allowed_hosts_are_hosts_with_or_without_a_port(tmp_path):
    """Addresses and names as browsers send them, and patterns as in link_hosts."""
    hosts = '[Nas.LAN, "*.lan", nas, "nas.lan:8443", 10.0.0.1, "[fd00::1]", "fd00::1", "[fd00::1]:80"]'
    config, _ = parse_config(BASE % "" + f"http: {{allowed_hosts: {hosts}}}\n", folder=tmp_path, environ={})
    expected = ("nas.lan", "*.lan", "nas", "nas.lan:8443", "10.0.0.1", "fd00::1", "[fd00::1]:80")
    assert config.http.allowed_hosts == expected


@pytest.mark.parametrize(
    "host", ["http://nas.lan", "a b", "*", "nas.*", "*.*.lan", "nas.lan/x", "a:99999", "a:"]
)
def test_an_allowed_host_that_can_match_nothing_is_refused(tmp_path, host):
    """It would otherwise be found out at the first visit."""
    text = BASE % "" + f"http: {{allowed_hosts: ['{host}']}}\n"
    assert [path for path, _ in refusals_of(tmp_path, text)] == ["http.allowed_hosts[0]"]


def test_listen_takes_a_unix_socket(tmp_path):
    """`unix:PATH` begins at the config's folder, needs no token and leaves host and port empty."""
    text = BASE % "" + "http: {listen: 'unix:run/http.sock'}\n"
    http = parse_config(text, folder=tmp_path, environ={})[0].http
    assert (http.socket, http.host, http.port) == (tmp_path / "run" / "http.sock", "", 0)


@pytest.mark.parametrize(
    ("written", "expected"),
    [("auto", (None, False)), ("90s", (90.0, False)), ("ignore_writers", (None, True))],
)
def test_settle_is_a_time_or_a_way(tmp_path, written, expected):
    """`ignore_writers` keeps the automatic quiet time."""
    rule = rule_of(tmp_path, f"settle: {written}")
    assert (rule.settle_seconds, rule.settle_ignores_writers) == expected


def test_the_new_keys_of_a_folder_have_their_defaults(tmp_path):
    """Without a key nothing is waited for, added or renamed."""
    rule = rule_of(tmp_path, "recursive: true")
    assert (rule.min_age_seconds, rule.language, rule.vocabulary, rule.speakers) == (0.0, None, (), None)
    assert (rule.template, rule.paragraphs, rule.subtitles) == (None, False, SubtitleLayout())
    assert (rule.speaker_names, rule.recorded_at, rule.companions, rule.tracks) == ({}, None, (), "default")


@pytest.mark.parametrize(
    ("more", "path"),
    [
        ("companions: other.json", "folders.f.companions"),
        ("companions: '../{stem}.json'", "folders.f.companions"),
        ("companions: '{name}'", "folders.f.companions"),
        ("companions: '{stem}*.json'", "folders.f.companions"),
        ("companions: '{stem}{name}.json'", "folders.f.companions"),
        ("companions: '{stem}.error.json'", "folders.f.companions"),
        ("include: '*.wav', companions: '{stem}.wav'", "folders.f.companions"),
        ("recorded_at: 2026-01-01", "folders.f.recorded_at"),
        ("recorded_at: '%Q'", "folders.f.recorded_at"),
        ("recorded_at: '%Y%Y'", "folders.f.recorded_at"),
        *((f"recorded_at: '{part}'", "folders.f.recorded_at") for part in ("%H-%M", "%Y%m", "%m%d", "%%")),
        ("language: '7'", "folders.f.language"),
        ("language: 'en; rm'", "folders.f.language"),
        ("speaker_names: [Agent]", "folders.f.speaker_names"),
        ("min_age: -1", "folders.f.min_age"),
    ],
)
def test_what_the_new_keys_cannot_mean_is_refused(tmp_path, more, path):
    """The problem is at the key."""
    assert [where for where, _ in refusals_of(tmp_path, BASE % f", {more}")] == [path]


def test_norwegian_is_a_language(tmp_path):
    """`no` is the language's tag, not a boolean."""
    assert rule_of(tmp_path, "language: no").language == "no"


def sections(section=Config):
    """*section* and all sections in it."""
    yield section
    for about in keys_of(section).values():
        inner = about.type.section or (about.type.item and about.type.item.section)
        if inner:
            yield from sections(inner)


def test_a_key_can_be_none_only_where_its_annotation_says_so():
    """Two keys are None only until their section is built, which reports their absence."""
    wrong = [
        (section.__name__, about.name)
        for section in sections()
        for about in keys_of(section).values()
        if (about.default is None or about.type.none_word)
        and NoneType not in get_args(get_type_hints(section)[about.attribute])
    ]
    assert wrong == [("QueueConfig", "dsn"), ("WebhookConfig", "secret")]
