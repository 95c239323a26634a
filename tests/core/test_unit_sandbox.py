"""What ``check`` reads from the settings that ``systemctl show`` prints."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from dropscribe.cli import unit_sandbox
from dropscribe.cli.checking import Findings, check_document
from dropscribe.cli.unit_sandbox import parse_sandbox, unit_refusals
from dropscribe.config.load import load_config

USER_UNIT = Path(__file__).parents[2] / "systemd/user/dropscribe.service"
SHOWN = """\
ReadWritePaths=-/srv/recordings +/mnt/nas
Environment=DROPSCRIBE_CONFIG=/etc/dropscribe/config.yaml PYTHONUNBUFFERED=1
ProtectSystem=strict
ProtectHome=yes
BindPaths=/home/alice/Recordings:/home/alice/Recordings:rbind
MemoryDenyWriteExecute=yes
PrivateTmp=yes
StateDirectory=dropscribe
RuntimeDirectory=dropscribe:scribe
BindReadOnlyPaths=/home/alice/keys
LoadState=loaded
"""


@pytest.mark.parametrize(
    ("path", "remedy"),
    [
        ("/srv/recordings/inbox", ""),
        ("/mnt/nas", ""),
        ("/srv/recordings-2/inbox", "ReadWritePaths=/srv/recordings-2"),
        ("/data/inbox", "ReadWritePaths=/data"),
        ("/home/alice/Recordings/inbox", ""),
        ("/home/bob/inbox", "BindPaths=/home/bob"),
        ("/root/inbox", "BindPaths=/root"),
        ("/tmp/inbox", "another folder"),
        ("/var/lib/dropscribe", ""),
        ("/etc/dropscribe/state", "ReadWritePaths=/etc/dropscribe"),
        ("/run/dropscribe/page.sock", ""),
        ("/run/page.sock", "ReadWritePaths=/run"),
        ("/home/alice/keys/x", "BindPaths=/home/alice/keys"),
    ],
)
def test_a_folder_that_the_sandbox_closes_has_a_remedy(path, remedy):
    """A folder must lie below a path that the unit may write to; homes must be bound."""
    sandbox = parse_sandbox(SHOWN)
    assert sandbox is not None
    refusal = sandbox.refusal(Path(path))

    assert bool(refusal) == bool(remedy)
    assert remedy in refusal


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("/etc/dropscribe/pulse.key", ""),
        ("/home/alice/keys/pulse", ""),
        ("/home/alice/Recordings/pulse", ""),
        ("/home/alice/pulse.key", "ProtectHome="),
        ("/tmp/pulse.key", "PrivateTmp="),
    ],
)
def test_a_file_that_the_sandbox_hides_has_a_remedy(path, reason):
    """Keys are read from everywhere but homes and /tmp; where homes are read-only from there too."""
    hiding = parse_sandbox(SHOWN).hiding(Path(path))
    assert bool(hiding) == bool(reason)
    assert reason in hiding
    shown = parse_sandbox(SHOWN.replace("ProtectHome=yes", "ProtectHome=read-only"))
    assert bool(shown.hiding(Path(path))) == (reason == "PrivateTmp=")


def test_the_unit_names_its_config():
    """Only the unit's own config is judged by its sandbox."""
    sandbox = parse_sandbox(SHOWN)
    assert sandbox is not None
    assert sandbox.config == "/etc/dropscribe/config.yaml"
    assert sandbox.forbids_machine_code


def test_folders_state_directory_and_engine_are_judged(tmp_path, monkeypatch):
    """By the settings that systemctl shows, if the unit runs this config."""
    config = tmp_path / "config.yaml"
    config.write_text(
        "state_dir: state\nproviders: {here: {type: local}}\n"
        "folders:\n  calls: {inbox: /srv/recordings/inbox, provider: here}\n"
        "  far: {inbox: /far/inbox, provider: here}\n"
    )
    shown = SHOWN.replace("/etc/dropscribe/config.yaml", str(config)).replace("Tmp=yes", "Tmp=no")
    (tmp_path / "systemctl").write_text(f"#!/bin/sh\ncat <<END\n{shown}END\n")
    (tmp_path / "systemctl").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")

    loaded, _ = load_config(config)
    told = [line.partition(":")[0] for line in unit_refusals(loaded, loaded.folders.values())]
    assert told == ["folder far"] * 3 + ["state_dir", "provider here"]
    served_here = [loaded.folders["calls"]]
    assert not [line for line in unit_refusals(loaded, served_here) if "far" in line]


def test_every_file_of_the_config_is_judged(tmp_path, monkeypatch):
    """The metrics file, the socket, keys, templates and hooks; not what a provider gets as a parameter."""
    config = tmp_path / "config.yaml"
    (tmp_path / "key").write_text("k" * 20)
    config.write_text(
        "state_dir: /var/lib/dropscribe\n"
        "providers:\n"
        "  p: {type: openai, url: http://localhost/v1, api_key_file: key, params: {a_file: /tmp/x}}\n"
        "folders: {f: {inbox: /srv/recordings/f, provider: p, template: minutes.j2}}\n"
        "http: {listen: 'unix:/run/page.sock', token_file: key}\n"
        "metrics: {file: /var/lib/node_exporter/dropscribe.prom}\n"
        "notify: {webhook: {url: http://localhost/, secret_file: key}}\n"
        "hooks: {on_done: [./done], on_failed: [sh, -c, exit]}\n"
    )
    shown = SHOWN.replace("/etc/dropscribe/config.yaml", str(config))
    (tmp_path / "systemctl").write_text(f"#!/bin/sh\ncat <<END\n{shown}END\n")
    (tmp_path / "systemctl").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setattr(unit_sandbox, "_TEMPORARY", (str(tmp_path),))

    loaded, _ = load_config(config)
    told = [line.partition(": ")[0] for line in unit_refusals(loaded, loaded.folders.values())]
    assert told == [
        "metrics.file",
        "http.listen",
        "providers.p.api_key_file",
        "http.token_file",
        "notify.webhook.secret_file",
        "folders.f.template",
        "hooks.on_done",
    ]


@pytest.mark.skipif(os.geteuid() != 0, reason="is said to root")
def test_root_is_told_of_the_units_user_before_the_first_start(tmp_path, monkeypatch):
    """Root can read every key; after the first start the owner of the state directory tells the user."""
    config = tmp_path / "config.yaml"
    config.write_text(
        "state_dir: state\nproviders: {p: {type: openai, url: http://localhost/v1}}\n"
        "folders: {f: {inbox: in, provider: p}}\n"
    )
    shown = f"LoadState=loaded\nUser=dropscribe\nEnvironment=DROPSCRIBE_CONFIG={config}\n"
    (tmp_path / "systemctl").write_text(f"#!/bin/sh\ncat <<END\n{shown}END\n")
    (tmp_path / "systemctl").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")

    loaded, _ = load_config(config)
    findings = Findings()
    check_document(loaded, findings)
    (warning,) = [words for words in findings.warnings if words.startswith("checked as root")]
    assert warning.endswith("as the daemon's user: sudo -u dropscribe dropscribe check")


@pytest.mark.parametrize("shown", ["", "LoadState=not-found\nProtectSystem=no\n"])
def test_without_a_unit_nothing_is_forbidden(shown):
    """A machine without the unit has no sandbox to look at."""
    assert parse_sandbox(shown) is None


def test_a_unit_without_protection_forbids_nothing():
    """A user's own unit without ProtectSystem= may write everywhere."""
    sandbox = parse_sandbox("LoadState=loaded\nProtectSystem=no\nProtectHome=no\nReadWritePaths=\n")
    assert sandbox is not None
    assert sandbox.refusal(Path("/anywhere/inbox")) == ""


def test_a_users_service_has_the_state_directory_of_his_commands():
    """systemd before 254 puts a user unit's StateDirectory= elsewhere than the default of the commands."""
    unit = USER_UNIT.read_text("utf-8")
    settings = [line for line in unit.splitlines() if not line.startswith("#")]
    assert not [
        line for line in settings if line.startswith(("StateDirectory", "Environment=STATE_DIRECTORY"))
    ]
    assert "ExecStart=%h/.local/bin/dropscribe run -c %E/dropscribe/config.yaml" in settings
