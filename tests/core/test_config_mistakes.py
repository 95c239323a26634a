"""Mistakes that a config shows by itself: each is named at its place before any file is lost to it."""

from __future__ import annotations

import os
import sys
import threading
from collections import Counter

import pytest

from dropscribe.config import disk_reads as disk_reads_module
from dropscribe.config.extras import LIBRARIES
from dropscribe.config.load import load_config, parse_config
from dropscribe.core.errors import ConfigError

BASE = "providers: {l: {type: local}}\nfolders: {f: {inbox: in, provider: l%s}}\n"


@pytest.fixture(autouse=True)
def _with_local_engine(monkeypatch):
    """The extra counts as installed, so that the answers do not depend on the machine."""
    monkeypatch.setitem(LIBRARIES, "local", ())


def said_of(text, folder, *, warnings=False, environ=None):
    """(path, message) of the errors, or of the warnings."""
    try:
        problems = parse_config(text, folder=folder, environ=environ or {})[1]
    except ConfigError as error:
        problems = error.problems
    return [(problem.path, problem.message) for problem in problems if problem.warning == warnings]


MISTAKES = [
    ("include: wav", "folders.f.include", "'wav' matches only a file with that name"),
    ("include: .mp3", "folders.f.include", "'.mp3' matches only a file with that name"),
    ("include: ['*.ogg', 'WAV']", "folders.f.include[1]", "'WAV' matches only a file with that name"),
    ("include: '*.wav,*.mp3'", "folders.f.include", "'*.wav,*.mp3' is one pattern, not several"),
    ("include: '*.wav;*.mp3'", "folders.f.include", "'*.wav;*.mp3' is one pattern, not several"),
    (
        "include: '*.{wav,mp3}'",
        "folders.f.include",
        "'*.{wav,mp3}' has braces in it, which are not expanded",
    ),
    (
        "exclude: ['[z-a]*.wav']",
        "folders.f.exclude[0]",
        "'[z-a]*.wav' has a range of characters that runs backwards",
    ),
    ("include: '*.wav/'", "folders.f.include", "'*.wav/' names a folder, and patterns match files"),
    ("exclude: ['tmp/']", "folders.f.exclude[0]", "'tmp/' names a folder, and patterns match files"),
    (
        "include: 'sub/*.wav', recursive: false",
        "folders.f.include",
        "'sub/*.wav' matches only names that are never taken",
    ),
    ("include: '*.part'", "folders.f.include", "'*.part' matches only names that are never taken"),
    ("include: ['*.wav', '.*']", "folders.f.include[1]", "'.*' matches only names that are never taken"),
    ("exclude: '*'", "folders.f.exclude", "everything is excluded: no file would ever be taken"),
    ("exclude: ['*.*']", "folders.f.exclude", "everything is excluded: no file would ever be taken"),
    (
        "include: '*.wav', exclude: '*.WAV'",
        "folders.f.exclude",
        "everything is excluded: no file would ever be taken",
    ),
    (
        "include: '*.wav', companions: '{stem}.wav'",
        "folders.f.companions",
        "all recordings match it: no file would ever be taken",
    ),
    ("template: txt.j2", "folders.f.template", "txt.j2 would give the name of another output"),
    ("template: t/JSON.j2", "folders.f.template", "JSON.j2 would give the name of another output"),
    ("template: md", "folders.f.template", "md would give the name of another output"),
    ("template: error.json.j2", "folders.f.template", "error.json.j2 would give the name of another output"),
    ("done: out, failed: out", "folders.f.failed", "done and failed are one folder"),
    ("done: failed", "folders.f.done", "done and failed are one folder"),
    ("done: 'C:\\Audio\\done'", "folders.f.done", "'C:\\Audio\\done' is a Windows path"),
    ("done: '\\\\nas\\done'", "folders.f.done", "'\\\\nas\\done' is a Windows path"),
    ("done: smb://nas/done", "folders.f.done", "'smb://nas/done' is a url, not a path"),
    (
        "params: {beamsize: 5}",
        "folders.f.params.beamsize",
        "the embedded engine has no parameter 'beamsize'",
    ),
]


@pytest.mark.parametrize(("more", "path", "message"), MISTAKES)
def test_a_certain_mistake_of_a_rule_is_refused(tmp_path, more, path, message):
    """A pattern that matches nothing, one folder for two purposes, a path of another system."""
    assert said_of(BASE % f", {more}", tmp_path) == [(path, message)]


def test_one_folder_is_not_done_for_one_rule_and_failed_for_another(tmp_path):
    """`retry` would take the recordings of the first back as if they had failed."""
    other = "}, g: {inbox: in2, provider: l, done: b/../b, failed: c"
    text = BASE % f", done: a, failed: b{other}"
    assert said_of(text, tmp_path) == [("folders.g.done", "is the failed folder of 'f' too")]


@pytest.mark.parametrize(
    "more",
    [
        "include: ['*.wav', 'call-*']",
        "include: ['**/*.wav', 'a**'], recursive: false",
        "include: 'sub/*.wav'",
        "exclude: 'tmp/**'",
        "include: '*'",
        "include: ['rec[0-9]*.wav', 'a,b*']",
        "exclude: ['draft-*', '*.mp3', 'tmp/*']",
        "done: 'C', params: {beam_size: 5, language: en}",
    ],
)
def test_what_makes_sense_is_let_be(tmp_path, more):
    """No pattern that can match is refused."""
    assert said_of(BASE % f", {more}", tmp_path) == []


@pytest.mark.parametrize(
    ("more", "path", "message"),
    [
        (
            "companions: ['{stem}.json', '{stem}.wav']",
            "folders.f.companions[1]",
            "'{stem}.wav' makes each *.wav a companion: none of them is taken as a recording",
        ),
        (
            "companions: '{name}.MP3'",
            "folders.f.companions",
            "'{name}.MP3' makes each *.MP3 a companion: none of them is taken as a recording",
        ),
        (
            "include: ['*.wav', '[a']",
            "folders.f.include[1]",
            "'[a' has a [ without ], which matches only that character",
        ),
        (
            "exclude: 'draft[*'",
            "folders.f.exclude",
            "'draft[*' has a [ without ], which matches only that character",
        ),
        ("companions: ['{stem}.wav'], include: ['*.mp3']", None, None),
        ("companions: ['{stem}-left.wav', 'x{stem}.wav', '{stem}.xml']", None, None),
        ("include: ['[[]*.wav', '[]a]*.wav', '[!]]*.wav']", None, None),
    ],
)
def test_a_pattern_that_is_hardly_meant_is_a_warning(tmp_path, more, path, message):
    """Such a rule leaves recordings alone that its author wants to be taken."""
    found = said_of(BASE % f", {more}", tmp_path, warnings=True)
    assert found == ([] if path is None else [(path, message)])


def test_the_state_directory_takes_no_recordings(tmp_path):
    """The queue's files and finished recordings do not share a folder."""
    text = BASE % ", done: state" + "state_dir: state\n"
    assert said_of(text, tmp_path) == [("folders.f.done", f"{tmp_path}/state is the state directory too")]


@pytest.mark.parametrize(
    ("paths", "inside"),
    [
        ("inbox: state/in", "inbox, done, failed"),
        ("inbox: in, done: state/done", "done"),
        ("inbox: in, done: done, failed: state/failed", "failed"),
    ],
)
def test_a_folder_in_the_state_directory_is_a_warning(tmp_path, paths, inside):
    """The daemon closes its state directory to other users, who then can neither drop files nor read any."""
    text = BASE.replace("inbox: in", paths) % "" + "state_dir: state\n"
    said = [(f"folders.f.{inside.split(',')[0]}", f"{inside}: inside the state directory {tmp_path}/state")]
    assert said_of(text, tmp_path, warnings=True) == said


def test_a_provider_that_is_listed_twice_is_refused(tmp_path):
    """Falling back to the same provider is no fallback."""
    text = "providers: {l: {type: local}}\nfolders: {f: {inbox: in, provider: [l, l]}}\n"
    assert said_of(text, tmp_path) == [("folders.f.provider[1]", "'l' is in the list already")]


def test_the_engines_parameters_are_checked_at_the_provider_too(tmp_path):
    """A misspelt one would fail every file."""
    text = BASE.replace("type: local", "type: local, params: {langauge: en}") % ""
    said = [("providers.l.params.langauge", "the embedded engine has no parameter 'langauge'")]
    assert said_of(text, tmp_path) == said


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("patience", "0", "must be 0.01 to 1000, not '0'"),
        ("max_new_tokens", "1000", "must be 1 to 447, not the value"),
        ("beam_size", "five", "must be a whole number, not 'five'"),
        ("task", "summarise", "must be one of transcribe, translate, not 'summarise'"),
        ("temperature", ".nan", "must be a finite number, not 'nan'"),
    ],
)
def test_the_engines_values_are_checked_at_provider_and_rule(tmp_path, name, value, problem):
    """A value that the engine does not take would hold the rule with the first file."""
    params = f"params: {{{name}: {value}}}"
    assert said_of(BASE.replace("type: local", f"type: local, {params}") % "", tmp_path) == [
        (f"providers.l.params.{name}", f"{name} {problem}")
    ]
    assert said_of(BASE % f", {params}", tmp_path) == [(f"folders.f.params.{name}", f"{name} {problem}")]


def test_an_infinite_threshold_switches_a_check_of_the_engine_off(tmp_path):
    """YAML's `.inf` is a number for the thresholds that have no bounds."""
    params = "params: {compression_ratio_threshold: .inf, log_prob_threshold: -.inf}"
    assert said_of(BASE % f", {params}", tmp_path) == []


@pytest.mark.parametrize("value", [".nan", ".inf", "-.inf", "1e999", "9" * 5000, "[1, .inf]"])
def test_a_parameter_without_a_finite_value_is_refused(tmp_path, value):
    """No JSON holds it: the answer was paid for, and its transcript could not be written."""
    base = "providers: {l: {type: %s, api_key: k%s}}\nfolders: {f: {inbox: in, provider: l%s}}\n"
    params = f", params: {{temperature: {value}}}"
    for text, section in (
        (base % ("openai", params, ""), "providers.l"),
        (base % ("pulse", "", params), "folders.f"),
    ):
        ((path, message),) = said_of(text, tmp_path)
        assert (path, message.endswith(" cannot be sent")) == (f"{section}.params.temperature", True)


@pytest.mark.parametrize(
    ("kind", "name", "value"),
    [
        ("openai", "response_format", "srt"),
        ("openai", "response_format", "vtt"),
        ("whisper-asr", "output", "srt"),
    ],
)
def test_a_format_of_subtitles_is_warned_of(tmp_path, kind, name, value):
    """Its numbers and times would be in the text; `outputs` writes subtitles."""
    base = (
        "providers: {l: {type: %s, url: 'http://127.0.0.1:1'%s}}\nfolders: {f: {inbox: in, provider: l%s}}\n"
    )
    params = f", params: {{{name}: {value}}}"
    message = f"{name}: {value} gives transcripts with the numbers and times of subtitles in their text"
    for text, section in (
        (base % (kind, params, ""), "providers.l"),
        (base % (kind, "", params), "folders.f"),
    ):
        assert (f"{section}.params.{name}", message) in said_of(text, tmp_path, warnings=True)
    assert said_of(base % (kind, "", f", params: {{{name}: json}}"), tmp_path, warnings=True) == []


@pytest.mark.parametrize(
    ("kind", "name", "value"),
    [
        ("deepgram", "callback", "https://example.com/"),
        ("elevenlabs", "webhook", "true"),
        ("pulse", "webhook_url", "https://example.com/"),
        ("openai", "stream", "true"),
    ],
)
def test_a_parameter_that_sends_the_transcript_elsewhere_is_refused(tmp_path, kind, name, value):
    """The answer would have no transcript, and each file would be paid for in vain."""
    base = "providers: {l: {type: %s, api_key: k%s}}\nfolders: {f: {inbox: in, provider: l%s}}\n"
    params = f", params: {{{name}: '{value}'}}"
    message = f"{name}: the answer would not be the transcript, which goes elsewhere or comes in parts"
    assert said_of(base % (kind, params, ""), tmp_path) == [(f"providers.l.params.{name}", message)]
    assert said_of(base % (kind, "", params), tmp_path) == [(f"folders.f.params.{name}", message)]
    assert said_of(base % (kind, "", f", params: {{{name}: false}}"), tmp_path) == []


@pytest.mark.parametrize("written", ["Bearer sk-1", "token abc", "ApiKey abc"])
def test_a_key_with_its_headers_word_is_refused(tmp_path, written):
    """As it stands in a vendor's examples; the word would be there twice, and each request refused."""
    base = "providers: {l: {type: %s, api_key: %s%s}}\nfolders: {f: {inbox: in, provider: l}}\n"
    key = f"'{written}'"
    said = [("providers.l.api_key", "the key begins with a word that is sent before it")]
    assert said_of(base % ("deepgram", key, ""), tmp_path) == said
    described = ", url: 'https://h/', key_header: 'Authorization: {key}', answer: {text: text}"
    assert said_of(base % ("http", key, described), tmp_path) == []


def test_a_limit_that_no_recording_keeps_is_warned_of(tmp_path):
    """25 are bytes, and were to be megabytes."""
    text = BASE.replace("type: local", "type: local, max_upload: 25") % ""
    said = [("providers.l.max_upload", "no recording is so small: all would fail unsent")]
    assert said_of(text, tmp_path, warnings=True) == said


def test_a_number_format_that_the_engine_does_not_know_is_refused(tmp_path):
    """It would hold the provider with the first file."""
    text = BASE.replace("type: local", "type: local, compute_type: int9") % ""
    ((path, message),) = said_of(text, tmp_path)
    assert path == "providers.l.compute_type"
    assert message.startswith("'int9' is not one of auto, default, int8, ")


@pytest.mark.parametrize(
    ("model", "hint"),
    [
        ("smal", "did you mean 'small'?"),
        ("tiny.fr", "did you mean 'tiny'?"),
        ("xyz", "write ./xyz for a directory"),
    ],
)
def test_a_model_that_nobody_knows_is_refused(tmp_path, model, hint):
    """A bare name is one of Whisper's; a directory and a hub's model have a slash in their names."""
    with pytest.raises(ConfigError) as refused:
        parse_config(BASE.replace("local}", f"local, model: {model}}}", 1) % "", folder=tmp_path, environ={})
    (problem,) = refused.value.problems
    assert (problem.path, problem.message, problem.hint) == (
        "providers.l.model",
        f"'{model}' is not a Whisper model",
        hint,
    )


@pytest.mark.parametrize("model", ["auto", "large-v3-turbo", "./xyz", "/opt/model", "owner/model"])
def test_a_model_with_a_known_name_or_a_slash_is_let_be(tmp_path, model):
    """What lies at a path is looked at by `check` alone."""
    assert said_of(BASE.replace("local}", f"local, model: {model}}}", 1) % "", tmp_path) == []


@pytest.mark.parametrize(
    "section", ["http: {token: %s}", "notify: {webhook: {url: 'https://h/', secret: %s}}"]
)
def test_a_token_that_can_be_guessed_is_refused(tmp_path, section):
    """At least 16 characters, whether written or in a file; the refusal does not show it."""
    key = "token" if "token" in section else "secret"
    (tmp_path / "short").write_text("15characters_ok\n")
    (tmp_path / "short").chmod(0o600)
    for text in (section % "15characters_ok", (section % "short").replace(f"{key}:", f"{key}_file:")):
        ((path, message),) = said_of(BASE % "" + text, tmp_path)
        assert (path.split(".")[-1].removesuffix("_file"), message) == (
            key,
            f"the {key} is shorter than 16 characters",
        )
    assert said_of(BASE % "" + section % "16characters_ok!", tmp_path) == []


@pytest.mark.parametrize("written", ["typ: pulse", "type: pulze"])
def test_a_provider_without_a_known_type_has_its_other_mistakes_told(tmp_path, written):
    """All at once: nobody should mend the type first and then see what else is wrong."""
    text = f"providers: {{p: {{{written}, concurrency: 0, timout: 5m}}}}\nfolders: {{}}\n"
    with pytest.raises(ConfigError) as refused:
        parse_config(text, folder=tmp_path, environ={})
    told = [(problem.path.rpartition(".")[2], problem.hint) for problem in refused.value.problems]
    assert sum(key == "type" for key, _ in told) == 1
    assert {("concurrency", ""), ("timout", "did you mean 'timeout'?")} <= set(told)
    assert any(hint in {"did you mean 'type'?", "did you mean 'pulse'?"} for _, hint in told)


def test_a_missing_secret_is_told_beside_other_mistakes(tmp_path):
    """What else is wrong in a section does not hide that its secret is missing."""
    text = BASE % "" + "http: {listen: '0.0.0.0:80', root_path: x}\nnotify: {webhook: {url: 'http://a.b/'}}\n"
    assert said_of(text, tmp_path) == [
        ("http.listen", "a token is required to listen on 0.0.0.0"),
        ("http.root_path", "'x' is not the path of a url"),
        ("notify.webhook", "there is no secret"),
    ]


def test_a_heartbeat_without_encryption_is_warned_of(tmp_path):
    """Its url is a key; on this machine it may be http."""
    section = "heartbeat: {url: 'http://%s/ping'}\n"
    said = [("heartbeat.url", "the url, which is a key in itself, travels unencrypted")]
    assert said_of(BASE % "" + section % "hc.example", tmp_path, warnings=True) == said
    assert said_of(BASE % "" + section % "127.0.0.1:80", tmp_path, warnings=True) == []


def test_a_config_that_is_no_file_is_refused_at_once(tmp_path):
    """A FIFO that nobody writes to does not hang a command, nor does one in the place of a key."""
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(ConfigError) as refused:
        load_config(tmp_path / "fifo", environ={})
    assert refused.value.problems[0].message == "cannot be read: not a regular file"
    text = f"providers: {{p: {{type: pulse, api_key_file: {tmp_path}/fifo}}}}\n"
    ((path, message),) = said_of(text, tmp_path)
    assert (path, message) == (
        "providers.p.api_key_file",
        f"{tmp_path}/fifo cannot be read: not a regular file",
    )


def test_a_mount_that_does_not_answer_does_not_stop_the_reading(tmp_path, monkeypatch):
    """Where inboxes lead to is looked up for a bounded time; then their names alone are compared."""
    release = threading.Event()
    resolve = os.path.realpath

    def realpath(path, **keys):
        if "dead" in os.fspath(path):
            release.wait()
        return resolve(path, **keys)

    monkeypatch.setattr(disk_reads_module.os.path, "realpath", realpath)
    monkeypatch.setattr(disk_reads_module, "WAIT_SECONDS", 0.2)
    rules = ", ".join(f"r{n}: {{inbox: dead/{n}/in, provider: l}}" for n in range(6))
    text = (
        f"providers: {{l: {{type: local}}}}\nfolders: {{{rules}, twin: {{inbox: dead/1/in, provider: l}}}}\n"
    )
    try:
        said = said_of(text, tmp_path)
    finally:
        release.set()
    assert said == [("folders.twin.inbox", "is the inbox of 'r1' too")]


@pytest.mark.parametrize(
    ("rule", "more", "said"),
    [
        ("", "heartbeat: {url: 'https://x.example/${X}'}", [("heartbeat.url", "the value is not UTF-8")]),
        (
            ", vocabulary: ['${X}'], params: {foo: '${X}'}",
            "",
            [
                ("folders.f.vocabulary[0]", "the value of ${X} is not UTF-8"),
                ("folders.f.params.foo", "the value of ${X} cannot be sent"),
            ],
        ),
        (", done: '${X}/done'", "hooks: {on_done: ['${X}/hook', '${X}']}", []),
    ],
)
def test_bytes_that_are_not_utf8_are_for_this_system_alone(tmp_path, rule, more, said):
    """A path and a command's argument may hold them; what is sent or written may not."""
    text = (
        f"providers: {{p: {{type: pulse, api_key: k}}}}\nfolders: {{f: {{inbox: in, provider: p{rule}}}}}\n"
    )
    assert said_of(text + more, tmp_path, environ={"X": "a\udcff"}) == said


def test_a_rule_is_not_compared_with_all_others(tmp_path):
    """The calls that reading a config takes grow with its rules, and not with their square."""

    def calls(rules):
        line = "  r{0}: {{inbox: in/{0}/inbox, done: in/{0}/done, failed: in/{0}/failed, provider: l}}\n"
        text = "providers: {l: {type: local}}\nfolders:\n" + "".join(map(line.format, range(rules)))
        counts = Counter()
        sys.setprofile(lambda frame, event, argument: counts.update([event]))  # noqa: ARG005
        try:
            parse_config(text, folder=tmp_path, environ={})
        finally:
            sys.setprofile(None)
        return counts["call"]

    calls(1)  # what is imported or compiled at the first time
    assert calls(120) < 5 * calls(30)
