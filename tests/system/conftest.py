"""What the tests of the command as a process share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from support.billing import billing_emulator

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.billing import Till
    from support.emulator import Emulator


@pytest.fixture
def vendor() -> Iterator[tuple[Emulator, Till]]:
    """An emulator with a till."""
    emulator, till = billing_emulator()
    with emulator:
        yield emulator, till
