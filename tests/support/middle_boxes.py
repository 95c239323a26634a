"""nginx, haproxy and squid as real processes between the client and a server."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import time
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NGINX = """
daemon off; master_process off; pid {folder}/nginx.pid; error_log {folder}/error.log;
events {{ worker_connections 512; }}
http {{
  access_log off; client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  server {{
    listen 127.0.0.1:{port} {tls}; {certificate}
    {server}
    location / {{ proxy_pass {upstream}; proxy_http_version 1.1; {location} }}
  }}
}}
"""
HAPROXY = """
defaults
  mode http
  timeout client {client_seconds}s
  timeout server 10s
  timeout connect 2s
  {keepalive}
frontend in
  bind 127.0.0.1:{port} {tls}
  http-request deny deny_status 413 if {{ req.hdr_val(content-length) gt 1000000 }}
  default_backend out
backend out
  server one {upstream}
"""
SQUID = """
http_port 127.0.0.1:{port}
pid_filename {folder}/squid.pid
cache_log {folder}/cache.log
access_log none
cache deny all
shutdown_lifetime 0 seconds
pinger_enable off
request_body_max_size {body_kilobytes} KB
{access}
"""


@contextlib.contextmanager
def nginx(
    folder: Path, upstream: str, *, server: str = "", location: str = "", tls: bool = False
) -> Iterator[int]:
    """The port of an nginx before *upstream*; with *tls*, the certificate of support.certificates."""
    port, folder = _free_port(), _own(folder, "nginx")
    text = NGINX.format(
        folder=folder, port=port, upstream=upstream, server=server, location=location,
        tls="ssl" if tls else "",
        certificate=f"ssl_certificate {folder.parent}/certificate.pem; "
        f"ssl_certificate_key {folder.parent}/key.pem;" if tls else "",
    )  # fmt: skip
    (folder / "nginx.conf").write_text(text)
    command = ["nginx", "-p", str(folder), "-e", str(folder / "early.log"), "-c", str(folder / "nginx.conf")]
    with _running(command, folder, port):
        yield port


@contextlib.contextmanager
def haproxy(
    folder: Path, upstream: str, *, client_seconds: int = 10, keepalive: str = "", tls: bool = False
) -> Iterator[int]:
    """The port of a haproxy that answers 413 to more than a megabyte."""
    port, folder = _free_port(), _own(folder, "haproxy")
    both = folder / "both.pem"
    if tls:
        both.write_text(
            (folder.parent / "certificate.pem").read_text() + (folder.parent / "key.pem").read_text()
        )
    text = HAPROXY.format(
        port=port, upstream=upstream.removeprefix("http://"), client_seconds=client_seconds,
        keepalive=keepalive, tls=f"ssl crt {both}" if tls else "",
    )  # fmt: skip
    (folder / "haproxy.cfg").write_text(text)
    with _running(["haproxy", "-db", "-f", str(folder / "haproxy.cfg")], folder, port):
        yield port


@contextlib.contextmanager
def squid(folder: Path, *, body_kilobytes: int = 0, access: str = "http_access allow all") -> Iterator[int]:
    """The port of a squid, a forward proxy."""
    port, folder = _free_port(), _own(folder, "squid")
    folder.chmod(0o777)
    text = SQUID.format(folder=folder, port=port, body_kilobytes=body_kilobytes, access=access)
    (folder / "squid.conf").write_text(text)
    with _running(["squid", "-N", "-f", str(folder / "squid.conf")], folder, port):
        yield port


def _own(folder: Path, name: str) -> Path:
    if shutil.which(name) is None:
        pytest.skip(f"needs {name}")
    if name == "squid":  # it drops its rights, and pytest's folders are private
        for parent in (folder, *list(folder.parents)[:2]):
            parent.chmod(parent.stat().st_mode | 0o111)
    own = folder / f"{name}-{os.urandom(4).hex()}"
    own.mkdir()
    return own


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


@contextlib.contextmanager
def _running(command: list[str], folder: Path, port: int) -> Iterator[None]:
    with (folder / "output.log").open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, cwd=folder)
    try:
        give_up_at = time.monotonic() + 20
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            logs = "\n".join(log.read_text("utf-8", "replace") for log in folder.glob("*.log"))
            assert process.poll() is None, logs
            assert time.monotonic() < give_up_at, logs
            time.sleep(0.05)
        yield
    finally:
        process.terminate()
        process.wait(20)
