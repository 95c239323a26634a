"""What the tests of the running command share."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import pytest


@pytest.fixture
def other_file_system(tmp_path):
    """A folder on another file system than tmp_path's."""
    memory = Path("/dev/shm")
    if not os.access(memory, os.W_OK) or memory.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("/dev/shm is no other file system that may be written: there is no move between two")
    folder = Path(tempfile.mkdtemp(prefix="dropscribe-test-", dir=memory))
    yield folder
    shutil.rmtree(folder)
