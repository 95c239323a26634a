"""Uploads of 5 MB to servers that refuse them early: how many refusals are heard, and what the rest become.

    python bench/early_answers.py [--uploads 400] [--at-once 8]

Each row is a way in which a server refuses, over plain TCP and over TLS. "heard" must be at least 398 of 400;
the rest must be temporary failures, never ambiguous ones.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import contextlib
import socket
import ssl
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "daemon"))

from dropscribe.core.errors import ProviderError
from dropscribe.providers.redaction import Redactor
from dropscribe.providers.transport import connections
from dropscribe.providers.transport.http import HttpTransport
from dropscribe.providers.transport.requests import Upload

BODY = bytes(5 * 1024 * 1024)
HEADERS = {"Content-Type": "audio/wav"}
REFUSAL = b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 8\r\nConnection: close\r\n\r\ntoo much"


def at_once(peer: socket.socket) -> None:
    peer.sendall(REFUSAL)


def after_some(peer: socket.socket) -> None:
    left = 1_000_000
    while left > 0:
        left -= len(peer.recv(65536)) or left
    peer.sendall(REFUSAL)


def reset(peer: socket.socket) -> None:
    peer.sendall(REFUSAL)
    time.sleep(0.002)
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def half_closed(peer: socket.socket) -> None:
    peer.sendall(REFUSAL)
    with contextlib.suppress(OSError):
        peer.shutdown(socket.SHUT_WR)
        time.sleep(0.02)


def silent_for_long(peer: socket.socket) -> None:
    peer.sendall(REFUSAL)
    time.sleep(0.5)


def in_two_parts(peer: socket.socket) -> None:
    peer.sendall(REFUSAL[:20])
    time.sleep(0.02)
    peer.sendall(REFUSAL[20:])


def reading_on(peer: socket.socket) -> None:
    peer.sendall(REFUSAL)
    with contextlib.suppress(OSError):
        while peer.recv(1 << 20):
            pass


WAYS = [at_once, after_some, reset, half_closed, silent_for_long, in_two_parts, reading_on]


class Server:
    """Refuses each upload in one way; a thread a connection."""

    def __init__(self, way: Callable[[socket.socket], None], tls: ssl.SSLContext | None) -> None:
        self._way, self._tls = way, tls
        self._listening = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port = self._listening.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                peer, _ = self._listening.accept()
            except OSError:
                return
            threading.Thread(target=self._refuse, args=(peer,), daemon=True).start()

    def _refuse(self, peer: socket.socket) -> None:
        with contextlib.suppress(OSError):
            peer.settimeout(30)
            # As real servers do: with Nagle's algorithm a reset drops an answer that was never sent.
            peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._tls is not None:
                peer = self._tls.wrap_socket(peer, server_side=True)
            heard = b""
            while b"\r\n\r\n" not in heard:
                heard += peer.recv(4096)
            self._way(peer)
        peer.close()

    def close(self) -> None:
        self._listening.close()


async def trial(
    way: Callable[[socket.socket], None], tls: ssl.SSLContext | None, uploads: int, at_most: int
) -> collections.Counter[str]:
    server = Server(way, tls)
    url = f"http{'s' * (tls is not None)}://localhost:{server.port}/"
    transport = HttpTransport(redactor=Redactor(()))
    found: collections.Counter[str] = collections.Counter()
    turn = asyncio.Semaphore(at_most)

    async def one() -> None:
        async with turn:
            try:
                answer = await transport.send("POST", Upload(url, HEADERS, before=BODY), timeout_seconds=30)
            except ProviderError as error:
                found[f"{type(error).__name__} {error.code}"] += 1
            else:
                found["heard" if (answer.status, answer.body) == (413, b"too much") else "torn"] += 1

    await asyncio.gather(*(one() for _ in range(uploads)))
    await transport.close()
    server.close()
    return found


def certified(folder: str) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    key, certificate = f"{folder}/key.pem", f"{folder}/certificate.pem"
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-days",
        "2",
        "-subj",
        "/CN=localhost",
    ]
    command += ["-addext", "subjectAltName=DNS:localhost", "-keyout", key, "-out", certificate]
    subprocess.run(command, check=True, capture_output=True)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(certificate, key)
    return server, ssl.create_default_context(cafile=certificate)


def main() -> int:
    parser = argparse.ArgumentParser(description="early answers")
    parser.add_argument("--uploads", type=int, default=400)
    parser.add_argument("--at-once", type=int, default=8)
    options = parser.parse_args()
    is_good = True
    with tempfile.TemporaryDirectory() as folder:
        server, client = certified(folder)
        connections.trusted = lambda: client
        for way in WAYS:
            for tls in (None, server):
                began = time.monotonic()
                found = asyncio.run(trial(way, tls, options.uploads, options.at_once))
                seconds = time.monotonic() - began
                is_good &= found["heard"] >= options.uploads * 0.995
                is_good &= not any(name.startswith(("Ambiguous", "torn")) for name in found)
                kind = "TLS" if tls else "plain"
                print(f"| {way.__name__} | {kind} | {dict(found)} | {seconds:.1f} s |", flush=True)
    return 0 if is_good else 1


if __name__ == "__main__":
    raise SystemExit(main())
