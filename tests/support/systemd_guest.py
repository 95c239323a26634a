"""The program inside the booted machine of test_systemd_real.py.

It starts, reloads, breaks and stops the service with systemctl, as an admin would, and records the results,
which the test outside compares.

Run by the machine's own /usr/bin/python3; the standard library alone.
"""

from __future__ import annotations

import http.server
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import traceback
import wave
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

CONFIG = Path("/etc/dropscribe/config.yaml")
RECORDINGS = Path("/srv/recordings")
KEY = "sk-canary-0123456789"
PORT = 18080

facts: dict[str, object] = {}


class Provider(http.server.BaseHTTPRequestHandler):
    """A speech-to-text service of the OpenAI kind that heard the same words in everything."""

    protocol_version = "HTTP/1.1"
    seconds = 0.0
    authorizations: list[str] = []  # noqa: RUF012  # shared by all connections on purpose

    def do_POST(self) -> None:
        """Take the upload whole, wait, answer."""
        self._read_body()
        self.authorizations.append(self.headers["Authorization"])
        time.sleep(self.seconds)
        body = json.dumps(
            {"task": "transcribe", "language": "english", "duration": 1.0, "text": "hello"}
        ).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _read_body(self) -> None:
        if self.headers.get("Transfer-Encoding") == "chunked":
            while size := int(self.rfile.readline(), 16):
                self.rfile.read(size + 2)
            self.rfile.readline()
        else:
            self.rfile.read(int(self.headers["Content-Length"]))

    def log_message(self, *_arguments: object) -> None:
        """Say nothing."""


def systemctl(*arguments: str) -> int:
    """The exit code of systemctl on our unit."""
    return subprocess.run(
        ["systemctl", *arguments, "dropscribe.service"], timeout=100, check=False
    ).returncode


def show(name: str) -> str:
    """One property of our unit."""
    command = ["systemctl", "show", "--value", "-p", name, "dropscribe.service"]
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.strip()


def send(pid: str, number: int) -> None:
    """Signal the daemon; number 0 would be this script's own group."""
    if pid == "0":
        raise ProcessLookupError("the service is not running")
    os.kill(int(pid), number)


def journal(*match: str) -> str:
    """All that the unit, or *match*, has in the journal."""
    subprocess.run(["journalctl", "--sync"], check=False)
    command = ["journalctl", "--no-pager", "-o", "cat", *(match or ["-u", "dropscribe"])]
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False).stdout


def until(condition: Callable[[], bool], seconds: float = 60.0) -> bool:
    """Whether *condition* came to hold within *seconds*."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.05)
    return condition()


def write_config(*folders: str) -> None:
    """A config with these rules, and their folders as an admin hands them over: setgid, group-writable."""
    rules = "".join(
        f"  {name}: {{inbox: {RECORDINGS}/{name}/inbox, done: {RECORDINGS}/{name}/done,"
        f" failed: {RECORDINGS}/{name}/failed, provider: mine, settle: 200ms, rescan: 1s}}\n"
        for name in folders
    )
    CONFIG.write_text(
        "providers:\n"
        f"  mine: {{type: openai, url: 'http://127.0.0.1:{PORT}/v1', api_key_credential: key_mine}}\n"
        f"folders:\n{rules}"
    )
    CONFIG.chmod(0o644)
    for name in folders:
        for folder in (RECORDINGS, RECORDINGS / name, RECORDINGS / name / "inbox"):
            folder.mkdir(exist_ok=True)
            shutil.chown(folder, group="dropscribe")
            folder.chmod(0o2770)


def drop(folder: str, name: str) -> None:
    """A second of near silence, no two alike, moved into the inbox whole."""
    new = RECORDINGS / folder / name
    with wave.open(str(new), "wb") as audio:
        audio.setparams((1, 2, 8000, 0, "NONE", ""))
        audio.writeframes(name.encode().ljust(16000, b"\0"))
    new.chmod(0o640)
    new.rename(RECORDINGS / folder / "inbox" / name)


def is_done(folder: str, name: str) -> bool:
    """Whether audio and transcript are in done."""
    done = RECORDINGS / folder / "done"
    return (done / name).exists() and (done / name).with_suffix(".json").exists()


def start() -> None:
    """Start returns when the daemon is ready, and not before."""
    write_config("calls")
    begun = time.monotonic()
    facts["start"] = systemctl("start")
    facts["start_seconds"] = time.monotonic() - begun
    facts["start_state"] = [show("ActiveState"), show("SubState"), show("StatusText") != ""]


def transcribe() -> None:
    """A file goes from inbox to done under the sandbox, with the key from a credential."""
    drop("calls", "first.wav")
    facts["transcribed"] = until(lambda: is_done("calls", "first.wav"))
    facts["authorizations"] = sorted(set(Provider.authorizations))


def reload_well() -> None:
    """A good config takes over: its new folder is served by the same process."""
    before = show("MainPID")
    write_config("calls", "memos")
    facts["good_reload"] = systemctl("reload")
    drop("memos", "second.wav")
    facts["good_reload_takes"] = until(lambda: is_done("memos", "second.wav"))
    facts["good_reload_same_process"] = show("MainPID") == before


def reload_badly() -> None:
    """A bad config fails the reload; even the bare signal leaves the daemon as it was."""
    before = show("MainPID")
    CONFIG.write_text("folders: {calls: {inbx: /x}}\n")
    facts["bad_reload"] = systemctl("reload")
    send(before, signal.SIGHUP)
    drop("calls", "third.wav")
    facts["bad_reload_untouched"] = until(lambda: is_done("calls", "third.wav"))
    # Until the daemon has looked at the config and refused it, systemd says "reloading".
    facts["bad_reload_ends"] = until(lambda: show("ActiveState") == "active")
    facts["bad_reload_same_process"] = show("MainPID") == before


def stop() -> None:
    """Stop lets what is in flight come to its end."""
    Provider.seconds = 2.0
    asked = len(Provider.authorizations)
    drop("calls", "fourth.wav")
    facts["stop_in_flight"] = until(lambda: len(Provider.authorizations) > asked)
    facts["stop"] = systemctl("stop")
    facts["stop_state"] = [show("ActiveState"), show("Result"), show("ExecMainStatus")]
    facts["stop_drained"] = is_done("calls", "fourth.wav")
    Provider.seconds = 0.0


def start_broken() -> None:
    """A config that cannot be used ends the start with 78, once, and is not tried again."""
    facts["broken_start"] = systemctl("start")
    until(lambda: show("ActiveState") == "failed")
    time.sleep(1.5)  # longer than RestartSec of the test's drop-in
    facts["broken_state"] = [show("ActiveState"), show("ExecMainStatus"), show("NRestarts")]
    systemctl("reset-failed")


def hang() -> None:
    """A daemon that hangs is killed by the watchdog, leaves tracebacks, and comes back."""
    write_config("calls")
    facts["start_again"] = systemctl("start")
    before = show("MainPID")
    send(before, signal.SIGSTOP)
    facts["hang_restarted"] = until(
        lambda: show("MainPID") not in {before, "0"} and show("ActiveState") == "active", 90
    )
    facts["hang_restarts"] = int(show("NRestarts"))
    text = journal()
    facts["hang_traceback"] = "Fatal Python error: Aborted" in text and "most recent call first" in text
    facts["hang_said_by_systemd"] = "Watchdog timeout" in text
    drop("calls", "fifth.wav")
    facts["hang_recovered"] = until(lambda: is_done("calls", "fifth.wav"))


def look_around() -> None:
    """The score of the running unit, and what the journal holds."""
    command = ["systemd-analyze", "security", "--no-pager", "dropscribe.service"]
    text = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False).stdout
    score = re.search(r"exposure level for \S+: ([\d.]+)", text)
    facts["exposure"] = float(score[1]) if score else None
    command = ["journalctl", "--no-pager", "-o", "json", "SYSLOG_IDENTIFIER=dropscribe"]
    lines = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False).stdout.splitlines()
    facts["journal_fields"] = sorted(
        {key for line in lines for key in json.loads(line) if "DROPSCRIBE_" in key}
    )
    facts["key_in_journal"] = KEY in "\n".join(lines) + journal()
    facts["state_dir"] = oct(os.stat("/var/lib/dropscribe").st_mode & 0o777)
    systemctl("stop")


def main() -> None:
    """Live through it all; what breaks is a fact too."""
    results = Path(sys.argv[1])
    server = http.server.ThreadingHTTPServer(("127.0.0.1", PORT), Provider)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        for step in (start, transcribe, reload_well, reload_badly, stop, start_broken, hang, look_around):
            step()
    except Exception:  # noqa: BLE001  # it must reach the test outside
        facts["broke"] = traceback.format_exc()
    (results / "journal.txt").write_text(journal("-b"))
    (results / "facts.json").write_text(json.dumps(facts))


if __name__ == "__main__":
    main()
