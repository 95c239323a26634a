"""One source: the schema, the reference, the example and the checks say the same."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from jsonschema import Draft202012Validator

from dropscribe.config.describe import example_text, json_schema, written_value
from dropscribe.config.document import Document
from dropscribe.config.extras import LIBRARIES
from dropscribe.config.load import parse_config
from dropscribe.config.model import diff_configs
from dropscribe.config.notation.quantities import parse_size
from dropscribe.config.sections.provider_types import PROVIDER_TYPES
from dropscribe.core.errors import ConfigError

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _with_local_engine(monkeypatch):
    """The extra counts as installed, so that the answers do not depend on the machine."""
    monkeypatch.setitem(LIBRARIES, "local", ())


def errors_of(text):
    """What an editor would mark in *text*."""
    data = Document(text, "c.yaml", {"X": "5"}).data
    return list(Draft202012Validator(json_schema()).iter_errors(data))


def uncommented(text):
    """The example with all of it switched on, less the second and third way to give a key."""
    for _ in range(2):
        text = re.sub(r"(?m)^( *)#( +)(?=#? *[\w-]+: ?)", lambda m: m[1] + m[2][1:], text)
    alternatives = r"\w+_(file|credential): |url: https://…"
    return re.sub(rf"(?m)^ *({alternatives}).*\n", "", text)


def keys_of(schema):
    """Every key that may be written, by the schema."""
    definitions = schema["$defs"].values()
    return {key for part in (schema, *definitions) for key in part["properties"]}


@pytest.mark.parametrize("size_bytes", [0, 1, 25_000_000, 2**30, 123_456_789, 5 * 10**12])
def test_a_size_is_written_as_it_is_read(size_bytes):
    """Soniox's limit of 1 GiB stood as 1.07374e+09 in the reference."""
    assert parse_size(written_value(size_bytes, "size")) == size_bytes
    assert "e+" not in written_value(size_bytes, "size")


def test_the_example_is_valid_as_it_stands():
    """The example passes the checks with no warning and the schema; its engine needs no key."""
    config, warnings = parse_config(example_text(), folder=Path("/srv"), environ={})
    assert warnings == ()
    assert errors_of(example_text()) == []
    assert [provider.type for provider in config.providers.values()] == ["local"]
    rule = config.folders["recordings"]
    assert (rule.inbox, rule.done, rule.failed) == (
        Path("/srv/inbox"),
        Path("/srv/done"),
        Path("/srv/failed"),
    )


def test_a_variable_may_stand_for_each_choice():
    """An editor marks no value that the daemon takes from the environment; a misspelt choice it marks."""
    text = """
log: {level: "${X:-info}", format: "${Y:-json}"}
providers: {l: {type: local}}
folders: {f: {inbox: in, provider: l, watch: "${W:-poll}", outputs: ["${O:-txt}", srt]}}
"""
    validator = Draft202012Validator(json_schema())
    assert list(validator.iter_errors(yaml.safe_load(text))) == []
    assert parse_config(text, folder=Path("/srv"), environ={})[0].folders["f"].watch == "poll"
    wrong = text.replace("${W:-poll}", "pol")
    assert not validator.is_valid(yaml.safe_load(wrong))


def test_every_key_is_in_the_example():
    """No key of the schema is missing from the example, active or commented out."""
    words = set(re.findall(r"([\w-]+):", example_text()))
    assert keys_of(json_schema()) - words == set()


def test_what_is_commented_out_is_valid_and_the_default():
    """Switched on, the example's other lines are accepted too, and those called defaults are the defaults."""
    text = uncommented(example_text())
    assert "\n  pulse:" in text
    assert "\n    rescan: auto" in text
    environ = {
        "SMALLEST_API_KEY": "a",
        "RESON8_API_KEY": "b",
        "OPENAI_API_KEY": "c",
        "DEEPGRAM_API_KEY": "d",
        "ASSEMBLYAI_API_KEY": "a",
        "SONIOX_API_KEY": "s",
        "SPEECHMATICS_API_KEY": "s",
        "GLADIA_API_KEY": "g",
        "ELEVENLABS_API_KEY": "e",
        "AZURE_SPEECH_KEY": "f",
        "DROPSCRIBE_DSN": "host=/run/x",
        "DROPSCRIBE_TOKEN": "0123456789abcdef",
        "DROPSCRIBE_WEBHOOK_SECRET": "0123456789abcdef",
    }
    full, _ = parse_config(text, folder=Path("/srv"), environ=environ)
    plain, _ = parse_config(example_text(), folder=Path("/srv"), environ={})
    changes = set(diff_configs(plain, full))
    assert changes == {
        *(f"providers.{name} added" for name in PROVIDER_TYPES if name != "local"),
        (
            "folders.recordings changed: language, vocabulary, speakers, params, include, template, "
            "speaker_names, recorded_at, companions, budget"
        ),
        "time_zone changed",
        *(f"{section} added" for section in ("queue", "http", "metrics", "heartbeat", "hooks", "notify")),
    }
    pulse = parse_config(
        "providers: {pulse: {type: pulse, api_key: a, price_per_minute: 0.005,"
        " budget: {per_day: 5, per_month: 100}, params: {temperature: 0},"
        " language: en, vocabulary: Dropscribe, speakers: true}}",
        folder=Path("/srv"),
        environ={},
    )[0].providers["pulse"]
    assert full.providers["pulse"] == pulse


def test_every_key_has_a_description():
    """Each key says in a line what it is."""
    schema = json_schema()
    for part in (schema, *schema["$defs"].values()):
        for key, said in part["properties"].items():
            assert said.get("description"), key


def test_the_reference_is_up_to_date():
    """docs/config.md is what the keys make of it; if not: python packaging/config_reference.py."""
    command = [sys.executable, ROOT / "packaging" / "config_reference.py"]
    made = subprocess.run(command, check=True, capture_output=True, encoding="utf-8").stdout
    assert made == (ROOT / "docs" / "config.md").read_text("utf-8")


def test_the_schema_is_one():
    """The JSON Schema is valid itself, and closed: no object of ours takes unknown keys."""
    schema = json_schema()
    Draft202012Validator.check_schema(schema)
    assert all(part["additionalProperties"] is False for part in (schema, *schema["$defs"].values()))


BASE = "providers: {l: {type: local}}\nfolders: {f: {inbox: in, provider: l%s}}\n"


@pytest.mark.parametrize(
    "text",
    [
        BASE % "" + "x-anything: {a: 1}\n",
        BASE % ", settle: 1h30m, rescan: auto, recursive: no, outputs: [srt]",
        BASE % ", settle: ignore_writers, min_age: 2m, outputs: [md], subtitles: {line: 37, seconds: 6}",
        BASE % ", language: pt-BR, vocabulary: [a, b c], speakers: yes, speaker_names: {speaker_0: Agent}",
        BASE % ", recorded_at: '%Y%m%d', companions: '{stem}.xml', companions_wait: 2m, template: a.j2",
        BASE % ", recorded_at: '%d.%m.%y %H:%M%z'",
        BASE % "" + "http: {listen: 'unix:run/x', root_path: /scribe, allowed_hosts: [a.lan], pages: no}\n",
        BASE % "" + "history_keep: 30d\nsearch: false\nhooks: {retry: true}\n",
        BASE % ", settle: 5, params: {beam_size: 5, language: null, vad_filter: true, temperature: 0.5}",
        BASE % "" + "retry: {first: 500ms, max: 2h}\nhttp: {}\nmetrics: {file: x}\n",
        "providers: {p: {type: pulse, api_key: k, requests_per_minute: none, max_upload: 25 MiB}}\n",
        "providers: {p: {type: openai, api_key: k, timeout: null, concurrency: 3}}\n",
        "providers: {p: {type: openai, url: 'http://a/', price_per_minute: ~, api_key_file: ~}}",
        "providers: {p: {type: openai, url: 'http://a/', max_upload: 1, timeout: 0.5s, concurrency: '2.0'}}",
        "providers: {p: {type: local, concurrency: '${X}', timeout: '${X}', requests_per_minute: '${X}'}}\n",
        "providers: {p: {type: local, timeout: 0x10, requests_per_minute: '010', cpu_threads: 0}}\n",
        BASE % ", recursive: oN, settle: 0, min_age: 0s" + "state_dir: ~\nhttp: ~\ntime_zone: ~\n",
        "providers: {p: {type: azure, api_key: k, region: westeurope}, q: {type: azure, api_key: k, url: 'https://a'}}",
        BASE % "" + "queue: {type: embedded}\n",
        BASE % "" + "queue: {type: postgres, dsn: dbname=x, roots: {share: /srv}, role: work, node: a.b}\n",
    ],
)
def test_schema_and_checks_accept_the_same(text):
    """What the checks accept an editor does not mark."""
    parse_config(text, folder=Path("/srv"), environ={"X": "5"})
    assert errors_of(text) == []


@pytest.mark.parametrize(
    "text",
    [
        BASE % ", langauge: en",
        BASE % ", settle: 5 minutes",
        BASE % ", rescan: -1",
        BASE % ", outputs: [txtt]",
        BASE % ", outputs: []",
        BASE % ", recursive: maybe",
        BASE % ", sidecar_name: half",
        BASE % ", include: []",
        BASE % ", language: 'not a language'",
        BASE % ", subtitles: {lines: 0}",
        BASE % ", speaker_names: {speaker_0: 1}",
        BASE % ", tracks: some",
        BASE % ", recorded_at: today",
        "providers: {p: {type: local, device: gpu}}\n",
        "providers: {p: {type: local, preset: groq}}\n",
        "providers: {p: {type: nobody}}\n",
        "providers: {p: {type: local, concurrency: 0}}\n",
        "providers: {p: {type: local, api_key: x}}\n",
        "providers: {p: {type: pulse, api_key: k, max_upload: 25 apples}}\n",
        *(
            f"providers: {{p: {{type: pulse, api_key: k, {pair}}}}}\n"
            for pair in (
                "timeout: 0",
                "timeout: -0",
                "timeout: 0s",
                "timeout: .inf",
                "timeout: 1e18",
                "timeout: '\u0665s'",
                "max_upload: 0",
                "max_upload: 0MB",
                "max_upload: 1e18",
                "requests_per_minute: 0",
                "requests_per_minute: 1e21",
                "price_per_minute: 1e308",
                "concurrency: '0'",
                "concurrency: 1e21",
                "concurrency: '2.5'",
                "budget: {per_day: 0}",
                "budget: {per_day: 1e300}",
                "budget: {per_day: 0 min}",
            )
        ),
        BASE % ", rescan: 0",
        BASE % "" + "retry: {give_up_after: 0}\n",
        "providers: {p: {type: reson8, api_key: k, auth: basic}}\n",
        "folders: {f: {provider: l}}\n",
        "folders: {}\n",
        "surprise: 1\n",
        "providers: {p: {type: azure, api_key: k}}\n",
        "providers: {p: {type: whisper-asr}}\n",
        "providers: {p: {type: http, url: 'http://a/'}}\n",
        BASE % "" + "queue: {dsn: dbname=x}\n",
        BASE % "" + "queue: {type: redis}\n",
        BASE % "" + "queue: {type: postgres, dsn: dbname=x, roots: [/srv]}\n",
        BASE % "" + "queue: {type: postgres, dsn: dbname=x, roots: {share: /srv}, role: boss}\n",
    ],
)
def test_schema_and_checks_refuse_the_same(text):
    """What an editor marks the checks refuse too."""
    with pytest.raises(ConfigError):
        parse_config(text, folder=Path("/srv"), environ={})
    assert errors_of(text)


def test_the_example_file_is_up_to_date():
    """config.example.yaml is made from the keys: `python packaging/config_reference.py example`."""
    assert (ROOT / "config.example.yaml").read_text("utf-8") == example_text()
