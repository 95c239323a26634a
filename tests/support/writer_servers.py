"""Servers that files arrive through, on the loopback: sshd, smbd and a web server; and a line that breaks.

All of them run as the caller, with a folder and keys of their own; smbd wants to be root.
"""

from __future__ import annotations

import contextlib
import functools
import getpass
import os
import re
import socket
import subprocess
import threading
import time
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING

from support.waiting import until_true

if TYPE_CHECKING:
    from collections.abc import Iterator

SSHD, SMBD = "/usr/sbin/sshd", "/usr/sbin/smbd"
_SILENCE_SECONDS = 0.5
"""Between a line's last byte and its end: the server has taken what came by then."""

_SSHD = """
ListenAddress 127.0.0.1
Port {port}
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/key.pub
PidFile none
StrictModes no
UsePAM no
MaxStartups 200
Subsystem sftp internal-sftp
"""
_SMBD = """
[global]
    server role = standalone server
    smb ports = {port}
    interfaces = lo
    bind interfaces only = yes
    load printers = no
    disable spoolss = yes
    log file = {folder}/log
    private dir = {folder}/private
    lock directory = {folder}/lock
    state directory = {folder}/state
    cache directory = {folder}/cache
    pid directory = {folder}/pid
    ncalrpc dir = {folder}/ncalrpc
    map to guest = Bad User
    guest account = {user}
    # The default of 8 MiB makes one write of a whole recording, which cannot break off in the middle.
    smb2 max write = 65536
[share]
    path = {share}
    read only = no
    guest ok = yes
    force user = {user}
"""


@contextlib.contextmanager
def ssh_server(folder: Path) -> Iterator[int]:
    """An sshd that takes the key ``folder/key``; its port. See :func:`ssh_options`."""
    folder.mkdir(parents=True)
    for name in ("host_key", "key"):
        subprocess.run(["ssh-keygen", "-q", "-N", "", "-t", "ed25519", "-f", folder / name], check=True)
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # sshd's own, where privileges are separated
    port = _free_port()
    (folder / "sshd_config").write_text(_SSHD.format(folder=folder, port=port))
    with _running(port, folder, SSHD, "-D", "-e", "-f", folder / "sshd_config"):
        yield port


def ssh_options(folder: Path) -> list[str]:
    """The options of ``ssh``, ``scp`` and ``sftp`` for the server of that folder, besides the port."""
    options = ("BatchMode=yes", "StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "LogLevel=ERROR")
    return [
        "-F",
        "/dev/null",
        "-i",
        str(folder / "key"),
        *(part for each in options for part in ("-o", each)),
    ]


@contextlib.contextmanager
def samba_server(folder: Path, share: Path) -> Iterator[int]:
    """An smbd with *share* under the name ``share``, open to guests; its port."""
    for name in ("private", "lock", "state", "cache", "pid", "ncalrpc"):
        (folder / name).mkdir(parents=True)
    port = _free_port()
    config = _SMBD.format(folder=folder, share=share, port=port, user=getpass.getuser())
    (folder / "smb.conf").write_text(config)
    with _running(port, folder, SMBD, "-F", "--no-process-group", f"--configfile={folder}/smb.conf"):
        yield port


@contextlib.contextmanager
def web_server(folder: Path) -> Iterator[int]:
    """A web server of the files in *folder* that can send the rest of a file; its port."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Resuming, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Resuming(SimpleHTTPRequestHandler):
    """Adds ``Range: bytes=N-`` to the library's handler."""

    def do_GET(self) -> None:  # the library's name
        given = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        content = Path(self.translate_path(self.path)).read_bytes()
        start = int(given[1]) if given else 0
        self.send_response(206 if given else 200)
        if given:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        with contextlib.suppress(OSError):  # the line broke
            self.wfile.write(content[start:])

    def log_message(self, *_: object) -> None:
        """Nothing is printed."""


@contextlib.contextmanager
def breaking_line(port: int, after_bytes: int) -> Iterator[int]:
    """A port that leads to *port*; a connection is cut after so many bytes of either direction."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=_relay_all, args=(listener, port, after_bytes))
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


def _relay_all(listener: socket.socket, port: int, after_bytes: int) -> None:
    with contextlib.suppress(OSError):  # the end of the listener
        while True:
            client, _ = listener.accept()
            with client, socket.create_connection(("127.0.0.1", port)) as server:
                back = threading.Thread(target=_relay, args=(server, client, after_bytes))
                back.start()
                _relay(client, server, after_bytes)
                back.join()


def _relay(source: socket.socket, target: socket.socket, left_bytes: int) -> None:
    with contextlib.suppress(OSError):
        while left_bytes > 0 and (block := source.recv(min(left_bytes, 4096))):
            target.sendall(block)
            left_bytes -= len(block)
        if left_bytes <= 0:
            time.sleep(_SILENCE_SECONDS)
    for end in (source, target):
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@contextlib.contextmanager
def _running(port: int, folder: Path, *command: object) -> Iterator[None]:
    def answers() -> bool:
        if process.poll() is not None:
            raise RuntimeError((folder / "stderr").read_text())
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
            return True
        return False

    with (folder / "stderr").open("wb") as log:
        process = subprocess.Popen(
            [*map(str, command)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,  # an smbd that ends sends SIGTERM to its whole process group
        )
    try:
        until_true(answers)
        yield
    finally:
        process.terminate()
        process.wait()
