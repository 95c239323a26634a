"""Polls a folder and keeps the names it has seen, until there are N. ``names_loop.py FOLDER N``."""

from __future__ import annotations

import os
import sys
import time


def main(folder: str, count: int) -> None:
    known: set[str] = set()
    print("watching", flush=True)
    while len(known) < count:
        with os.scandir(folder) as names:
            known.update(item.name for item in names)
        time.sleep(0.1)
    print("all", flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
