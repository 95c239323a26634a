"""A new queue's file with its tables in it: to make them takes longer than most tests that need them."""

from __future__ import annotations

import contextlib
import os
import tempfile
from functools import cache
from pathlib import Path

from dropscribe.queue.embedded import store

make_private_file = store.make_private_file


def make_ready_file(path: Path) -> None:
    """In place of ``make_private_file``: what a first start would make in an empty file is there."""
    is_new = not os.path.lexists(path)
    make_private_file(path)
    if is_new:
        path.write_bytes(_content())


@cache
def _content() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / store.DATABASE_NAME
        with contextlib.closing(store._connect(path)) as connection:
            store._prepare(connection, path)
        return path.read_bytes()
