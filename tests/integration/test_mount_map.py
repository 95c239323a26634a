"""Names for mounts in a cluster's rows."""

from __future__ import annotations

from pathlib import Path

import pytest

from dropscribe.core.errors import StoreError
from dropscribe.queue.cluster.postgres import MountMap


@pytest.mark.parametrize(
    "stored",
    [
        b"//share/../etc/passwd",
        b"//share/done/../../etc",
        b"//share/..",
        b"/etc/passwd",
        b"//",
        b"//share/a\0b",
    ],
)
def test_a_row_cannot_name_a_place_outside_its_root(stored: bytes) -> None:
    """Who can write the rows of a cluster cannot make a node write elsewhere."""
    with pytest.raises(StoreError, match="leads out of its root"):
        MountMap({"share": Path("/mnt/share")}).local(stored)


def test_a_path_below_its_root_is_translated() -> None:
    """Each node finds the share where it has it."""
    assert MountMap({"share": Path("/mnt/s")}).local(b"//share/done/a..b.wav") == b"/mnt/s/done/a..b.wav"
