"""YAML → Config: defaults, places, keys and what holds between the sections."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from dropscribe.config.extras import LIBRARIES, install_hint
from dropscribe.config.load import load_config, parse_config
from dropscribe.core.errors import ConfigError
from dropscribe.providers.build import build_provider

SRV = Path("/srv")
FOLDERS = "folders: {f: {inbox: in, provider: p}}\n"


@pytest.fixture(autouse=True)
def _with_local_engine(monkeypatch):
    """The extra counts as installed, with the English model alone."""
    monkeypatch.setitem(LIBRARIES, "local", ())
    monkeypatch.setitem(LIBRARIES, "local-multilingual", ("no_such_library",))


def config_of(text, environ=None, folder=SRV):
    """The config in *text*."""
    return parse_config(text, folder=folder, environ=environ or {})[0]


def provider_of(body, environ=None):
    """The one provider with *body*."""
    return config_of(f"providers: {{p: {{{body}}}}}\n{FOLDERS}", environ).providers["p"]


def said_of(text, environ=None, *, warnings=False):
    """Place and message of the errors (or the warnings) in *text*."""
    try:
        problems = parse_config(text, folder=SRV, environ=environ or {})[1]
    except ConfigError as error:
        problems = error.problems
    return [(problem.path, problem.message) for problem in problems if problem.warning == warnings]


RESON8_PARAMS = {"include_timestamps": True, "include_words": True, "include_confidence": True}
DEFAULTS = [
    ("pulse", "https://x/", (2, 20, 300, 250_000_000), {"model": "pulse", "word_timestamps": True}),
    ("reson8", "https://x/", (1, None, 300, None), RESON8_PARAMS),
    ("openai", None, (2, None, 600, 25 * 2**20 - 4096), {}),
    (
        "openai",
        "https://api.openai.com/v1",
        (2, None, 600, 25 * 2**20 - 4096),
        {},
    ),
    ("openai", "http://127.0.0.1/v1", (2, None, 600, None), {}),
]


@pytest.mark.parametrize(("kind", "url", "limits", "params"), DEFAULTS)
def test_each_type_has_its_defaults(kind, url, limits, params):
    """Concurrency, rate, timeout, size and parameters are those of the documented ones."""
    provider = provider_of(f"type: {kind}, api_key: k" + (f", url: '{url}'" if url else ""))
    found = (
        provider.concurrency,
        provider.requests_per_minute,
        provider.timeout_seconds,
        provider.max_upload_bytes,
    )
    assert (found, provider.params) == (limits, params)


def test_the_local_engine_has_its_defaults():
    """One file at a time, no limits, and English for the English model."""
    local = provider_of("type: local")
    assert (local.concurrency, local.timeout_seconds, local.max_upload_bytes) == (1, None, None)
    assert (local.model, local.cpu_threads, local.idle_unload_seconds) == ("auto", 0, 600)
    assert local.params == {"language": "en"}
    assert provider_of("type: local, model: small").params == {}
    assert provider_of("type: local, model: ./models/x.en").model == "/srv/models/x.en"


def test_none_takes_a_limit_away():
    """`none` and null are no limit, also where the type has one."""
    for word in ("none", "null"):
        found = provider_of(
            f"type: pulse, api_key: k, requests_per_minute: {word}, timeout: {word}, max_upload: {word}"
        )
        assert (found.requests_per_minute, found.timeout_seconds, found.max_upload_bytes) == (
            None,
            None,
            None,
        )


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        ("500ms", 0.5),
        ("30s", 30),
        ("5m", 300),
        ("2h", 7200),
        ("3d", 259_200),
        ("1h30m", 5400),
        ("90", 90),
        ("1.5", 1.5),
        ("'7'", 7),
    ],
)
def test_durations(written, seconds):
    """A duration is seconds, or numbers with units."""
    assert provider_of(f"type: local, timeout: {written}").timeout_seconds == pytest.approx(seconds)


@pytest.mark.parametrize(
    "written", ["5 m", "m", "-1", "1e9", "0", "true", "[1]", "1h x", "5M", ".inf", "''", "400000d"]
)
def test_what_is_no_duration(written):
    """Anything else is refused at its place."""
    text = f"providers: {{p: {{type: local, timeout: {written}}}}}\n{FOLDERS}"
    assert [path for path, _ in said_of(text)] == ["providers.p.timeout"]


@pytest.mark.parametrize(
    ("written", "size"),
    [
        ("25MB", 25_000_000),
        ("25MiB", 26_214_400),
        ("25 mib", 26_214_400),
        ("1KB", 1000),
        ("1KiB", 1024),
        ("1.5GB", 1_500_000_000),
        ("2GiB", 2**31),
        ("4096", 4096),
        ("10B", 10),
    ],
)
def test_sizes(written, size):
    """A size is bytes, or a number with a decimal or binary unit."""
    assert provider_of(f"type: local, max_upload: {written}").max_upload_bytes == size


@pytest.mark.parametrize(
    "written", ["25 apples", "-1", "0", "[1]", "''", "'" + "9" * 400 + "'", "9" * 309 + "MB"]
)
def test_what_is_no_size(written):
    """Anything else is refused at its place, a number beyond all bounds too."""
    text = f"providers: {{p: {{type: local, max_upload: {written}}}}}\n{FOLDERS}"
    assert [path for path, _ in said_of(text)] == ["providers.p.max_upload"]


def test_a_list_of_parameters_keeps_its_numbers_and_booleans():
    """They are sent unchanged: in JSON, `channels: [0, 1]` is no list of strings."""
    assert provider_of(
        "type: http, url: http://x, answer: {text: t}, params: {a: [0, 1.5, true, x]}"
    ).params == {"a": [0, 1.5, True, "x"]}


def test_a_rules_params_lie_over_the_providers():
    """The type's, the provider's, the rule's: the later wins; null takes one away."""
    text = """
providers:
  p: {type: pulse, api_key: k, params: {language: en, diarize: true}}
  r: {type: reson8, api_key: k}
folders:
  one: {inbox: a/in, provider: p, params: {language: de, model: null}}
  two: {inbox: b/in, provider: [p, r], params: {r: {include_words: false}}}
"""
    config = config_of(text)
    assert config.folders["one"].params_for("p") == {
        "model": [],
        "word_timestamps": True,
        "language": "de",
        "diarize": True,
    }
    assert config.folders["two"].params_for("p") == config.providers["p"].params
    assert config.folders["two"].params_for("r")["include_words"] is False
    assert config.folders["two"].providers == ("p", "r")


def test_a_null_parameter_is_not_sent():
    """Null is an empty list on the wire, which drops a default; for the engine it is absent."""
    assert provider_of("type: openai, api_key: k, params: {model: x, response_format: null}").params == {
        "model": "x",
        "response_format": [],
    }
    assert provider_of("type: local, params: {language: null}").params == {}


@pytest.mark.parametrize(
    ("body", "query"),
    [
        ("type: pulse", "model=pulse-pro&language=en&word_timestamps=true"),
        ("type: azure", "api-version=2025-10-15"),
        ("type: pulse, params: {model: x}", "model=pulse-pro&language=en&model=x&word_timestamps=true"),
    ],
)
def test_what_a_url_asks_for_is_not_asked_for_again_by_default(body, query):
    """A url is pasted with its parameters: a vendor would take the second model, or refuse both."""
    asked = "api-version=2025-10-15" if "azure" in body else "model=pulse-pro&language=en"
    config = provider_of(f'{body}, api_key: k, url: "https://h.example/stt/?{asked}"')
    vendor = build_provider(config).vendor
    assert vendor.endpoint(vendor.params(config.params)) == f"https://h.example/stt/?{query}"


def test_a_folder_has_its_defaults():
    """Done and failed stand beside the inbox; auto is None; the include is the known suffixes."""
    rule = config_of("providers: {p: {type: local}}\nfolders: {f: {inbox: a/in, provider: p}}\n").folders["f"]
    assert (rule.inbox, rule.done, rule.failed) == (SRV / "a/in", SRV / "a/done", SRV / "a/failed")
    assert (rule.settle_seconds, rule.settle_incomplete_seconds, rule.rescan_seconds) == (None, None, None)
    assert (rule.recursive, rule.outputs, rule.sidecar_name, rule.watch) == (
        True,
        ("json", "txt"),
        "stem",
        "auto",
    )
    assert {"*.wav", "*.mp3", "*.m4a", "*.mp4", "*.opus"} <= set(rule.include)
    assert rule.exclude == ()


def test_the_rest_has_its_defaults():
    """retry, hold, shutdown_grace and log have the documented defaults; the optional parts are off."""
    config = config_of(f"providers: {{p: {{type: local}}}}\n{FOLDERS}retry:\nhttp:\n")
    retry = config.retry
    assert (retry.first_seconds, retry.max_seconds, retry.give_up_after_seconds) == (5, 3600, 432_000)
    assert (retry.max_ambiguous, retry.max_crashes) == (3, 10)
    assert (config.hold.first_seconds, config.hold.max_seconds, config.shutdown_grace_seconds) == (
        30,
        900,
        30,
    )
    assert (config.log.level, config.log.format) == ("info", "auto")
    assert (config.http, config.metrics, config.heartbeat, config.hooks) == (None, None, None, None)


def test_the_optional_parts():
    """http, metrics, heartbeat and hooks are read, with paths from the config's folder."""
    text = (
        FOLDERS
        + """
providers: {p: {type: local}}
http: {listen: "[::1]:9000", token: 0123456789abcdef}
metrics: {file: m.prom}
heartbeat: {url: https://hc/x}
hooks: {on_done: [./notify, "x y"], on_held: [mail], timeout: 5}
"""
    )
    config = config_of(text)
    assert (config.http.host, config.http.port, config.http.token.reveal()) == (
        "::1",
        9000,
        "0123456789abcdef",
    )
    assert config.metrics.file == SRV / "m.prom"
    assert (config.heartbeat.url, config.heartbeat.every_seconds) == ("https://hc/x", 300)
    assert (config.hooks.on_done, config.hooks.on_failed) == (("/srv/notify", "x y"), ())
    assert (config.hooks.on_held, config.hooks.timeout_seconds) == (("mail",), 5)


def test_urls_that_act_as_keys_are_secrets():
    """Those of a heartbeat and of a webhook: hooks get no variable that holds one."""
    text = f"""{FOLDERS}
providers: {{p: {{type: local}}}}
heartbeat: {{url: "${{PING}}"}}
notify: {{webhook: {{url: "${{HOOK}}", secret: 0123456789abcdef}}}}
"""
    environ = {"PING": "https://hc.example/1a2b", "HOOK": "https://chat.example/3c4d"}
    config = config_of(text, environ)
    assert {*environ.values(), "0123456789abcdef"} == set(config.secrets)


LOCAL = "providers: {p: {type: local}}\nfolders:\n"
OVERLAPS = [
    ("a: {inbox: in, provider: p}\n  b: {inbox: x/../in/, provider: p}", ["folders.b.inbox"]),
    ("a: {inbox: in, provider: p}\n  b: {inbox: in/b, done: d, failed: f, provider: p}", ["folders.b.inbox"]),
    ("a: {inbox: in/a, done: d, failed: f, provider: p}\n  b: {inbox: in, provider: p}", ["folders.b.inbox"]),
    (
        "a: {inbox: in, recursive: false, provider: p}\n  b: {inbox: in/b, done: d, failed: f, provider: p}",
        [],
    ),
    ("a: {inbox: in, done: in, provider: p}", ["folders.a.done"]),
    ("a: {inbox: in, failed: in/failed, recursive: false, provider: p}", ["folders.a.failed"]),
    ("a: {inbox: one, provider: p}\n  b: {inbox: two, done: one/done, provider: p}", ["folders.b.done"]),
    ("a: {inbox: one, provider: p}\nstate_dir: one/state", ["state_dir"]),
    ("a: {inbox: in1, provider: p}\n  b: {inbox: in2, provider: p}", []),
]


@pytest.mark.parametrize(("folders", "paths"), OVERLAPS)
def test_folders_that_overlap_are_refused(folders, paths):
    """No inbox in two rules, none inside a recursive one, nothing of ours inside an inbox."""
    assert [path for path, _ in said_of(f"{LOCAL}  {folders}\n")] == paths


def test_inboxes_are_compared_where_they_lead(tmp_path):
    """Two names of one folder are one inbox."""
    (tmp_path / "in").mkdir()
    (tmp_path / "link").symlink_to("in")
    text = LOCAL + "  a: {inbox: in, provider: p}\n  b: {inbox: link, provider: p}\n"
    with pytest.raises(ConfigError) as refused:
        config_of(text, folder=tmp_path)
    assert any("is the inbox of 'a' too" in problem.message for problem in refused.value.problems)


def test_shared_defaults_are_a_warning_that_names_both():
    """Two rules that would file into one default folder are told so; a shared folder on purpose is not."""
    text = LOCAL + "  a: {inbox: in1, provider: p}\n  b: {inbox: in2, provider: p, failed: failed}\n"
    assert said_of(text, warnings=True) == [
        ("folders.b.inbox", "'a' and 'b' both file into /srv/done, the default of each")
    ]


def test_the_engine_that_is_not_installed_is_named(monkeypatch):
    """Type local without the extra is an error with the command that installs it."""
    monkeypatch.undo()
    monkeypatch.setitem(sys.modules, "faster_whisper", None)
    with pytest.raises(ConfigError) as refused:
        config_of(LOCAL + "  a: {inbox: in, provider: p}\n")
    (problem,) = refused.value.problems
    assert (problem.path, problem.hint) == ("providers.p.type", install_hint("local"))


def test_nobody_to_transcribe_is_an_error_and_no_folder_a_warning():
    """`transcribe` works without folders; nothing works without providers."""
    assert said_of("log: {level: info}\n") == [("providers", "there is no provider")]
    assert said_of("providers: {p: {type: local}}\n", warnings=True) == [("folders", "no folder is watched")]


def key_of(body, environ=None):
    """(key, origin) of a pulse provider called p with *body*."""
    key = provider_of(f"type: pulse{body}", environ).api_key
    return key.reveal(), key.origin


def test_where_keys_come_from(tmp_path):
    """Config, environment, file, credential by name, credential by the provider's name, vendor's variable."""
    (tmp_path / "plain").write_text("from-file\n")
    (tmp_path / "key_p").write_text("from-credential\r\n")
    credentials = {"CREDENTIALS_DIRECTORY": str(tmp_path)}
    assert key_of(", api_key: x") == ("x", "config")
    assert key_of(', api_key: "${K}"', {"K": "y"}) == ("y", "environment K")
    assert key_of(f", api_key_file: {tmp_path}/plain") == ("from-file", f"file {tmp_path}/plain")
    assert key_of(", api_key_credential: plain", credentials) == ("from-file", "credential plain")
    assert key_of(", api_key_credential: p", credentials) == ("from-credential", "credential key_p")
    assert key_of("", credentials | {"SMALLEST_API_KEY": "z"}) == ("from-credential", "credential key_p")
    assert key_of("", {"SMALLEST_API_KEY": "z"}) == ("z", "environment SMALLEST_API_KEY")


def test_an_empty_variable_names_no_folder_of_credentials(tmp_path, monkeypatch):
    """A file of the current folder is none."""
    (tmp_path / "key_p").write_text("not-this")
    monkeypatch.chdir(tmp_path)
    environ = {"CREDENTIALS_DIRECTORY": "", "SMALLEST_API_KEY": "z"}
    assert key_of("", environ) == ("z", "environment SMALLEST_API_KEY")


def test_a_vendors_key_goes_to_no_other_server():
    """OPENAI_API_KEY is used at api.openai.com, and not at a server of one's own."""
    environ = {"OPENAI_API_KEY": "z"}
    assert provider_of("type: openai", environ).api_key.reveal() == "z"
    assert provider_of("type: openai, url: 'http://127.0.0.1:8000/v1'", environ).api_key is None
    assert provider_of("type: openai, url: 'https://evilopenai.com/v1'", environ).api_key is None


@pytest.mark.parametrize(
    ("body", "path", "message"),
    [
        ("type: pulse", "providers.p", "there is no api_key"),
        ("type: reson8", "providers.p", "there is no api_key"),
        ("type: openai", "providers.p", "there is no api_key"),
        ("type: openai, url: 'https://api.openai.com/v1'", "providers.p", "there is no api_key"),
        ("type: pulse, api_key: ''", "providers.p.api_key", "the value is empty"),
        ("type: pulse, api_key: 12", "providers.p.api_key", "the value is not a string"),
        ('type: pulse, api_key: "a\\nb"', "providers.p.api_key", "the value has a line break in it"),
        ("type: pulse, api_key: a, api_key_file: b", "providers.p.api_key_file", "api_key is given too"),
        (
            "type: pulse, api_key_file: nope",
            "providers.p.api_key_file",
            "/srv/nope cannot be read: No such file or directory",
        ),
        (
            "type: pulse, api_key_credential: x",
            "providers.p.api_key_credential",
            "$CREDENTIALS_DIRECTORY is not set",
        ),
        ("type: local, api_key: x", "providers.p.api_key", "unknown key 'api_key'"),
        (
            "type: openai, api_key: k, url: ftp://x",
            "providers.p.url",
            "'ftp://x' is not an http or https url",
        ),
        (
            "type: openai, api_key: k, url: 'http://h:99999/'",
            "providers.p.url",
            "'http://h:99999/' is not an http or https url",
        ),
        (
            "type: openai, api_key: k, url: 'http://me:pw@h/'",
            "providers.p.url",
            "the value has a user or password in it",
        ),
        (
            "type: openai, api_key: k, url: http://a..b/",
            "providers.p.url",
            "'http://a..b/' is not an http or https url",
        ),
        (
            "type: openai, url: 'http://192.168.1.300:9000/v1'",
            "providers.p.url",
            "'http://192.168.1.300:9000/v1' is not an http or https url",
        ),
        (
            "type: openai, url: 'http://stt.example[::1]:9000/v1'",
            "providers.p.url",
            "'http://stt.example[::1]:9000/v1' is not an http or https url",
        ),
        (
            "type: openai, url: 'http://[v1.a]/v1'",
            "providers.p.url",
            "'http://[v1.a]/v1' is not an http or https url",
        ),
        (
            "type: openai, api_key: k, params: {a: {b: 1}}",
            "providers.p.params.a",
            "this section cannot be sent",
        ),
        (
            "type: openai, api_key: k, params: 3",
            "providers.p.params",
            "'3' must be a mapping",
        ),
    ],
)
def test_a_wrong_provider_is_refused_once(body, path, message):
    """Each mistake is one problem at its own place."""
    assert said_of(f"providers: {{p: {{{body}}}}}\n{FOLDERS}") == [(path, message)]


def test_a_key_file_with_two_lines_is_refused(tmp_path):
    """A key with a newline inside is an error that does not show it."""
    (tmp_path / "k").write_text("abc\ndef\n")
    said = said_of(f"providers: {{p: {{type: pulse, api_key_file: {tmp_path}/k}}}}\n{FOLDERS}")
    assert said == [("providers.p.api_key_file", "the key in the file has a line break in it")]


@pytest.mark.parametrize(("mode", "warned"), [(0o600, False), (0o604, True)])
def test_a_key_that_others_can_read_is_a_warning(tmp_path, mode, warned):
    """A literal key in an open file is a warning with the remedy; one from the environment is none."""
    path = tmp_path / "c.yaml"
    path.write_text(f"providers: {{p: {{type: pulse, api_key: x}}}}\n{FOLDERS}")
    path.chmod(mode)
    _, warnings = load_config(path, environ={})
    assert [warning.hint for warning in warnings] == [f"chmod 600 {path}"] * warned
    path.write_text(f"providers: {{p: {{type: pulse, api_key: '${{K}}'}}}}\n{FOLDERS}")
    assert load_config(path, environ={"K": "x"})[1] == ()


@pytest.mark.parametrize(
    ("folder", "environ", "expected"),
    [
        ("/srv", {"STATE_DIRECTORY": "/var/lib/a:/b"}, "/var/lib/a"),
        ("/etc/dropscribe", {"HOME": "/h"}, "/var/lib/dropscribe"),
        ("/srv", {"HOME": "/h", "XDG_STATE_HOME": "/x"}, "/x/dropscribe"),
        ("/srv", {"HOME": "/h"}, "/h/.local/state/dropscribe"),
    ],
)
def test_the_state_directorys_default(folder, environ, expected):
    """systemd's, the system's for a config in /etc/dropscribe, else the user's."""
    text = f"providers: {{p: {{type: local}}}}\n{FOLDERS}"
    assert config_of(text, environ, Path(folder)).state_dir == Path(expected)


@pytest.mark.parametrize(
    ("content", "place", "message"),
    [
        (b"a: 1\nb: caf\xe9\n", (2, 7), "not UTF-8 (byte 0xe9)"),
        ("a: 1\n".encode("utf-16"), (1, 1), "not UTF-8 (byte 0xff)"),
        (b"# " + b"x" * 1_000_001, (0, 0), "longer than 1000000 bytes: this is not a config"),
    ],
)
def test_what_is_no_text_is_refused(tmp_path, content, place, message):
    """A file that is no UTF-8, or no config by its length, is one problem."""
    path = tmp_path / "c.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError) as refused:
        load_config(path, environ={})
    (problem,) = refused.value.problems
    assert ((problem.line, problem.column), problem.message) == (place, message)


def test_what_cannot_be_opened_is_a_problem(tmp_path):
    """A missing file and a folder are config errors, not tracebacks."""
    for path in (tmp_path / "missing.yaml", tmp_path):
        with pytest.raises(ConfigError):
            load_config(path, environ={})


def test_a_byte_order_mark_and_crlf_are_read(tmp_path):
    """What Windows editors write is read, with the right lines in problems."""
    path = tmp_path / "c.yaml"
    path.write_bytes(f"\ufeffproviders: {{p: {{type: local}}}}\r\n{FOLDERS.strip()}\r\n".encode())
    config, _ = load_config(path, environ={"HOME": "/h"})
    assert config.path == path
    assert config.folders["f"].inbox == tmp_path / "in"


KEYED = "providers: {pulse: {type: pulse, %s}}\nfolders: {calls: {inbox: in, provider: pulse}}\n"


@pytest.mark.parametrize(
    "key",
    [
        "api_key: '${NOT_SET_HERE}'",
        "api_key_credential: pulse",
        "api_key_file: /nowhere/key",
        "url: 'https://x.example'",
    ],
)
def test_a_command_that_sends_nothing_needs_no_key(tmp_path, key):
    """A service's key is out of reach of the admin's shell: status goes on with a warning, run does not."""
    path = tmp_path / "dropscribe.yaml"
    path.write_text(KEYED % key)

    config, warnings = load_config(path, environ={}, keys_needed=False)
    assert config.providers["pulse"].api_key is None
    assert warnings
    with pytest.raises(ConfigError):
        load_config(path, environ={})


@pytest.mark.parametrize(
    "section",
    [
        "http: {listen: '0.0.0.0:1', token: '${NOT_SET_HERE}'}",
        "heartbeat: {url: '${NOT_SET_HERE}'}",
        "notify: {webhook: {url: '${NOT_SET_HERE}', secret_file: /nowhere/secret}}",
        "notify: {webhook: {url: 'https://x.example', secret: '${NOT_SET_HERE}'}}",
        "notify: {urls: ['${NOT_SET_HERE}']}",
        "notify: {urls: '${NOT_SET_HERE}'}",
        "notify: {urls: ['tgram://${NOT_SET_HERE}/123']}",  # apprise is not asked about what is left of it
    ],
)
def test_a_command_that_sends_nothing_needs_no_secret_of_the_daemon(section):
    """Nor the urls that are secrets; but a url that is written wrong stays an error."""

    def problems_of(section, **needed):
        return parse_config(KEYED % "api_key: k" + section, folder=Path("/srv"), environ={}, **needed)[1]

    assert all(problem.warning for problem in problems_of(section, keys_needed=False))
    with pytest.raises(ConfigError):
        problems_of(section)
    with pytest.raises(ConfigError):
        problems_of("heartbeat: {url: 'htps://x.example'}", keys_needed=False)


@pytest.mark.parametrize("name", ["secret", "token", "api_key"])
def test_a_rule_with_the_name_of_a_secret_is_excused_nothing(name):
    """Its mistake was a warning, and the command went on without the rule."""
    text = (KEYED % "api_key: k").replace("calls: {inbox: in, provider: pulse}", f"{name}: {{inbox: in}}")
    with pytest.raises(ConfigError):
        parse_config(text, folder=Path("/srv"), environ={}, keys_needed=False)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become somebody else")
def test_credentials_that_may_not_be_read_are_a_problem_with_a_place(tmp_path):
    """systemd 252 hides them from ExecReload's check: a line and a remedy, no traceback."""
    path = tmp_path / "dropscribe.yaml"
    path.write_text(KEYED % "api_key_credential: pulse")
    hidden = tmp_path / "credentials"
    hidden.mkdir(mode=0o700)
    environ = {"CREDENTIALS_DIRECTORY": str(hidden)}
    for folder in (tmp_path, *tmp_path.parents[:-2]):
        folder.chmod(0o755)
    os.seteuid(65534)
    try:
        with pytest.raises(ConfigError) as caught:
            load_config(path, environ=environ)
        load_config(path, environ=environ, keys_needed=False)
    finally:
        os.seteuid(0)

    (problem,) = caught.value.problems
    assert problem.line == 1
    assert "cannot be read" in problem.message


def test_a_folder_in_the_configs_place_stays_open_nowhere(tmp_path):
    """It is refused by its name; each SIGHUP would cost the daemon a descriptor."""
    with pytest.raises(ConfigError) as refused:
        load_config(tmp_path)

    left = [
        path for path in Path("/proc/self/fd").iterdir() if path.is_symlink() and path.resolve() == tmp_path
    ]

    assert "cannot be read: Is a directory" in str(refused.value.problems[0])
    assert left == []
