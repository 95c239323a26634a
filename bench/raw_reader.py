"""The least that can watch a folder: raw inotify, and each file that closes or moves in is sent at once.

No settling, no queue, one file at a time. ``raw_reader.py FOLDER HOST PORT PATH``; prints a line when it watches.
"""

from __future__ import annotations

import ctypes
import http.client
import os
import struct
import sys

_CLOSE_WRITE, _MOVED_TO = 0x8, 0x80
_HEADER = struct.Struct("iIII")


def main(folder: str, host: str, port: int, path: str) -> None:
    libc = ctypes.CDLL(None)
    descriptor = libc.inotify_init()
    libc.inotify_add_watch(descriptor, os.fsencode(folder), _CLOSE_WRITE | _MOVED_TO)
    print("watching", flush=True)
    connection = http.client.HTTPConnection(host, port)
    while True:
        block = os.read(descriptor, 65536)
        position = 0
        while position < len(block):
            length = _HEADER.unpack_from(block, position)[3]
            position += _HEADER.size + length
            name = block[position - length : position].rstrip(b"\0")
            with open(os.path.join(os.fsencode(folder), name), "rb") as file:
                connection.request("POST", path, file.read())
            connection.getresponse().read()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4])
