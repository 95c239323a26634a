"""What every test gets: a clean environment, and asyncio's loop without surprises."""

from __future__ import annotations

import os

import pytest
from dropscribe.disk.lease import ignore_sigio

ignore_sigio()

_OURS = ("DROPSCRIBE_", "SMALLEST_", "RESON8_", "OPENAI_", "NOTIFY_SOCKET", "WATCHDOG_", "STATE_DIRECTORY")


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch):
    """No key, proxy or service manager of the machine reaches a test."""
    for name in list(os.environ):
        if name.startswith(_OURS) or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
