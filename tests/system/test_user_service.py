"""The steps for a user's own service, followed word by word on a freshly booted Debian 13."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from support import debian_root, nspawn
from support.documents import blocks, commands, section
from support.scene import wav_bytes

PAGE = (nspawn.ROOT / "docs/installation.md").read_text("utf-8")
WANTED = os.environ.get("DROPSCRIBE_TEST_REGISTRY")  # read here: tests get a clean environment
BOOT_SECONDS = 400
PACKAGES = "systemd-sysv libpam-systemd dbus-user-session polkitd login passwd python3-venv"

# A login, as on the console or by ssh; then the machine is left for a while, with nobody logged in.
LOGIN = """[Unit]
After=systemd-user-sessions.service systemd-logind.service dbus.service {after}
[Service]
Type=oneshot
User=alice
PAMName=login
ExecStart=/bin/bash -l /results/{name}.sh
StandardOutput=file:/results/{name}.said
StandardError=inherit
"""

NOBODY = """[Unit]
After=first.service
Before=second.service
[Service]
Type=oneshot
ExecStart=/bin/sh -c 'while loginctl list-sessions --no-legend | grep -v manager; do sleep 0.2; done'
ExecStart=/bin/sh -c 'cp /results/call.wav /home/alice/Recordings/inbox/later.wav'
ExecStart=/bin/sh -c 'until [ -e /home/alice/Recordings/done/later.wav ]; do sleep 0.2; done'
TimeoutStartSec=60
"""

END = """[Unit]
After=first.service nobody.service second.service
[Service]
Type=oneshot
ExecStart=/usr/bin/systemctl poweroff --no-block
"""

FIRST = """set -eux
cd /clone
{before}
cp /results/config.yaml ~/.config/dropscribe/config.yaml
{after}
cp /results/call.wav ~/Recordings/inbox/
for second in $(seq 120); do
    [ ! -e ~/Recordings/done/call.wav ] || break
    sleep 1
done
~/.local/bin/dropscribe status >/results/status
journalctl --user -u dropscribe >/results/journal
systemctl --user reload dropscribe
touch /results/reloaded
"""

SECOND = """set -eux
ls ~/Recordings/done >/results/done
systemctl --user stop dropscribe
{uninstall}
find ~ -iname '*dropscribe*' >/results/left
"""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.local,
    pytest.mark.timeout(BOOT_SECONDS + 200),
    pytest.mark.skipif(not WANTED, reason="installs from a registry: set DROPSCRIBE_TEST_REGISTRY=1"),
    pytest.mark.skipif(bool(nspawn.find_obstacle()), reason=nspawn.find_obstacle()),
    pytest.mark.skipif(bool(debian_root.find_obstacle()), reason=debian_root.find_obstacle()),
]


def uninstall_commands() -> str:
    """The commands in the user's row of the table below "Uninstall"."""
    row = next(line for line in section(PAGE, "## Uninstall").splitlines() if line.startswith("| user's"))
    return "\n".join(re.findall(r"`([^`]+)`", row))


def write_scripts(results: Path) -> None:
    """The scripts that the user runs, and the files that they need."""
    steps = section(PAGE, "## A user's own service")
    before, after = (commands(block, "$") for block in blocks(steps, "console"))
    [config] = blocks(steps, "yaml")
    after = after.removesuffix(" -f")  # which follows the journal until Ctrl-C
    (results / "config.yaml").write_text(config)
    (results / "call.wav").write_bytes(wav_bytes(2.0))
    (results / "first.sh").write_text(FIRST.format(before=before, after=after))
    (results / "second.sh").write_text(SECOND.format(uninstall=uninstall_commands()))
    results.chmod(0o777)
    for file in results.iterdir():
        file.chmod(0o644)


def boot(root: Path, results: Path) -> str:
    """Boot *root*, let the user follow the steps, power off; the output of all."""
    units = {
        "first.service": LOGIN.format(name="first", after=""),
        "nobody.service": NOBODY,
        "second.service": LOGIN.format(name="second", after="nobody.service"),
        "end.service": END,
    }
    for name, text in units.items():
        (root / "etc/systemd/system" / name).write_text(text)
    read_only = {nspawn.ROOT: "/clone"} | {Path(path): path for path in ("/etc/ssl", "/etc/pip.conf")}
    command = [
        *("timeout", "--kill-after=10", str(BOOT_SECONDS)),
        *("systemd-nspawn", "-q", "-D", str(root), f"--machine=user-{os.getpid()}"),
        *("--register=no", "--keep-unit", "--resolv-conf=off", f"--bind={results}:/results"),
        *(f"--bind-ro={source}:{target}" for source, target in read_only.items() if source.exists()),
        *("-b", "systemd.firstboot=off", *(f"systemd.wants={name}" for name in units)),
    ]
    ran = subprocess.run(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
    )
    said = [file.read_text("utf-8", "replace") for file in sorted(results.glob("*.said"))]
    return "\n".join([ran.stdout.decode("utf-8", "replace")[-3000:], *said])[-12000:]


def test_the_steps_for_a_users_own_service_lead_to_a_transcript(tmp_path):
    """Install, enable, drop, read the journal, reload, log out, drop again, uninstall: as printed."""
    debian = debian_root.DebianRoot(tmp_path / "debian")
    made = debian.run(
        f"apt-get update -q && apt-get install -q -y --no-install-recommends {PACKAGES} && useradd -m alice"
    )
    assert made.returncode == 0, made.stdout[-4000:]
    results = tmp_path / "results"
    results.mkdir()
    write_scripts(results)

    said = boot(debian.path, results)

    assert (results / "reloaded").is_file(), said
    assert "dropscribe is running, and nothing is wrong." in (results / "status").read_text()
    assert re.search(r"file\.done .*path=call\.wav", (results / "journal").read_text())
    assert (results / "left").is_file(), said
    assert {"call.wav", "call.json", "call.txt", "later.wav"} <= set((results / "done").read_text().split())
    assert (results / "left").read_text() == ""
