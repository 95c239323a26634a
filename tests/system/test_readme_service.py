"""The README's service section, followed word by word in a freshly booted machine."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from support import nspawn
from support.documents import blocks, commands
from support.scene import wav_bytes

README = nspawn.ROOT / "README.md"
WANTED = os.environ.get("DROPSCRIBE_TEST_REGISTRY")  # read here: tests get a clean environment
BOOT_SECONDS = 300

UNIT = """[Unit]
After=systemd-user-sessions.service
[Service]
Type=oneshot
ExecStart=/bin/sh /results/follow.sh
StandardOutput=file:/results/said
StandardError=inherit
ExecStopPost=/usr/bin/systemctl poweroff --no-block
"""

SCRIPT = """set -eux
export HOME=/root
useradd alice
cd /clone
{before}
cp /results/config.yaml /etc/dropscribe/config.yaml
{after}
setpriv --reuid=alice --regid=recordings --init-groups cp /results/call.wav /srv/recordings/inbox/
for second in $(seq 120); do
    [ ! -e /srv/recordings/done/call.wav ] || break
    sleep 1
done
journalctl -u dropscribe --no-pager
/opt/dropscribe/bin/dropscribe status >/results/status
ls /srv/recordings/done >/results/done
"""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.local,
    pytest.mark.timeout(BOOT_SECONDS + 60),
    pytest.mark.skipif(not WANTED, reason="installs from a registry: set DROPSCRIBE_TEST_REGISTRY=1"),
    pytest.mark.skipif(bool(nspawn.find_obstacle()), reason=nspawn.find_obstacle()),
]


def service_section() -> str:
    """From the heading to the next way of running it."""
    text = README.read_text("utf-8")
    return text.partition("\n**systemd**")[2].partition("\n- **Your own folders")[0]


def boot(folder: Path) -> str:
    """Boot this machine's own /usr with an empty /etc, run the unit, power off; what was said."""
    unit = folder / "follow.service"
    unit.write_text(UNIT)
    read_only = {nspawn.ROOT: "/clone", unit: "/etc/systemd/system/follow.service"}
    read_only |= {
        Path(path): path for path in ("/etc/ssl", "/etc/hosts", "/etc/nsswitch.conf", "/etc/pip.conf")
    }
    cache = Path.home() / ".cache/pip"
    cache.mkdir(parents=True, exist_ok=True)
    command = [
        *("timeout", "--kill-after=10", str(BOOT_SECONDS)),
        *("systemd-nspawn", "-q", "-D", "/", "--volatile=yes", f"--machine=readme-{os.getpid()}"),
        *("--register=no", "--keep-unit", "--resolv-conf=copy-host"),
        *(f"--bind={folder}:/results", f"--bind={cache}:/root/.cache/pip"),
        *(f"--bind-ro={source}:{target}" for source, target in read_only.items() if source.exists()),
        *("-b", "systemd.firstboot=off", "systemd.wants=follow.service"),
    ]
    result = subprocess.run(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
    )
    said = folder / "said"
    return said.read_text() if said.exists() else result.stdout.decode("utf-8", "replace")


def test_the_service_section_leads_to_a_transcript(tmp_path):
    """Its commands and its config, in their order: a dropped file is transcribed, status says so."""
    section = service_section()
    before, after = blocks(section, "console")
    [config] = blocks(section, "yaml")
    (tmp_path / "config.yaml").write_text(config)
    (tmp_path / "call.wav").write_bytes(wav_bytes(2.0))
    tmp_path.chmod(0o755)
    for file in tmp_path.iterdir():
        file.chmod(0o644)
    (tmp_path / "follow.sh").write_text(SCRIPT.format(before=commands(before), after=commands(after)))

    said = boot(tmp_path)

    assert (tmp_path / "status").is_file(), said[-8000:]
    assert "dropscribe is running, and nothing is wrong." in (tmp_path / "status").read_text()
    assert set((tmp_path / "done").read_text().split()) == {"call.wav", "call.json", "call.txt"}, said[-8000:]
